"""One request being answered: what a plain response class cannot do, such as stalling or hanging up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from starlette.types import Receive, Scope, Send

__all__ = ["ClientLeft", "Connection", "Pauses"]

_TO_BE_READ: Final = 0.05
"""Seconds between the last bytes and a reset, so that the client has read them."""


class ClientLeft(Exception):
    """The client hung up, or the sandbox was told to let go of it."""


class Pauses:
    """Everyone who waits on purpose, so that a reset or the end of the sandbox frees them."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Future[None]] = set()

    async def wait(self, leaving: asyncio.Task[None], seconds: float | None) -> bool:
        """Wait `seconds`, or without end; returns whether the client left or was let go first."""
        released = asyncio.get_running_loop().create_future()
        self._waiting.add(released)
        try:
            done, _ = await asyncio.wait((released, leaving), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiting.discard(released)
        return bool(done)

    def release(self) -> None:
        """End every wait."""
        waiting, self._waiting = self._waiting, set()
        for released in waiting:
            released.set_result(None)


class Connection:
    """One request and its answer.

    Attributes:
        on_start: Told the status just before it is sent; set it before the answer starts.

    Args:
        scope: Of the request.
        receive: Of the request.
        send: Of the request.
        pauses: Where it waits.
        reset: Cuts the TCP connection of the client with that address; None when the server cannot.
    """

    on_start: Callable[[int], object]

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        pauses: Pauses,
        reset: Callable[[tuple[str, int]], object] | None,
    ) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self._pauses = pauses
        self._reset = reset
        self._leaving: asyncio.Task[None] | None = None

    @property
    def path(self) -> str:
        """Path and query as they were sent."""
        raw: bytes = self.scope.get("raw_path") or self.scope["path"].encode()
        query: bytes = self.scope["query_string"]
        return (raw + b"?" + query if query else raw).decode("latin-1")

    def header(self, name: bytes) -> str | None:
        """Value of the first header of that name (lower case)."""
        for each, value in self.scope["headers"]:
            if each == name:
                return bytes(value).decode("latin-1")
        return None

    async def body(self) -> bytes:
        """Read the request body.

        Raises:
            ClientLeft: It did not arrive whole.
        """
        chunks: list[bytes] = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientLeft
            chunks.append(message.get("body", b""))
            if not message.get("more_body", False):
                return b"".join(chunks)

    async def answer(self, status: int, body: bytes, headers: Iterable[tuple[str, str]] = ()) -> None:
        """Send a whole answer; JSON unless `headers` say otherwise."""
        await self.start(status, body_length=len(body), headers=headers)
        await self.write(body, more=False)

    async def start(
        self, status: int, *, headers: Iterable[tuple[str, str]] = (), body_length: int | None = None
    ) -> None:
        """Send status line and headers; without `body_length` the body is chunked."""
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        if not any(name == b"content-type" for name, _ in raw):
            raw.append((b"content-type", b"application/json"))
        if body_length is not None:
            raw.append((b"content-length", str(body_length).encode()))
        self.on_start(status)
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, data: bytes, *, more: bool = True) -> None:
        """Send a piece of the body, at once.

        Raises:
            ClientLeft: The client hung up while `watch` was on.
        """
        if self._leaving is not None and self._leaving.done():
            raise ClientLeft
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    def watch(self) -> asyncio.Task[None]:
        """From now on notice when the client hangs up; returns what ends then. Only after `body`."""
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._client_leaves())
        return self._leaving

    async def breathe(self) -> None:
        """Let other requests have their turn."""
        await asyncio.sleep(0)

    async def pause(self, seconds: float | None) -> None:
        """Wait on purpose; None means without end.

        Raises:
            ClientLeft: The client hung up, or the sandbox let go of everyone.
        """
        if await self._pauses.wait(self.watch(), seconds):
            raise ClientLeft

    async def cut(self) -> None:
        """Reset the TCP connection in the middle of whatever was sent.

        Raises:
            ConnectionResetError: The server offers no way to; it then closes the connection itself.
        """
        leaving = self.watch()
        await asyncio.wait((leaving,), timeout=_TO_BE_READ)
        if leaving.done():
            return
        if self._reset is None:
            raise ConnectionResetError("the sandbox hangs up here")
        self._reset(tuple(self.scope["client"]))
        await leaving

    def close(self) -> None:
        """Stop watching."""
        if self._leaving is not None:
            self._leaving.cancel()

    async def _client_leaves(self) -> None:
        # Once the body is read there is nothing else to receive.
        await self._receive()
