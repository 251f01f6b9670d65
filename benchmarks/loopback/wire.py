"""As little HTTP/1.1 as a server needs that is to cost next to nothing."""

from __future__ import annotations

import asyncio
import gzip
import importlib
from collections.abc import Callable, Iterable
from typing import cast

import msgspec

__all__ = ["Answer", "Connection", "Kept", "Reply", "SumUp", "answer", "as_they_are", "streamed"]


class Kept(msgspec.Struct, frozen=True):
    """A request that arrived.

    Attributes:
        path: With its query.
        headers: By their names in lower case.
        body: As it came.
    """

    path: str
    headers: dict[str, str]
    body: bytes

    def unpacked(self) -> bytes:
        """Return the body as it was before it was packed for the wire."""
        packing = self.headers.get("content-encoding")
        if packing == "gzip":
            return gzip.decompress(self.body)
        if packing == "br":
            unpacked: bytes = importlib.import_module("brotli").decompress(self.body)
            return unpacked
        return self.body


class Reply(msgspec.Struct, frozen=True):
    """What goes back for a request.

    Attributes:
        parts: Each is sent by itself.
        after: Seconds until the first is, as from a server that is far away: that costs nobody CPU.
    """

    parts: tuple[bytes, ...]
    after: float = 0.0


Answer = Callable[[Kept], Reply | None]
"""Says what goes back; None for nothing, ever."""

SumUp = Callable[[list[Kept]], object]
"""Makes of what came what is handed out to whoever asks for it."""


def as_they_are(kept: list[Kept]) -> list[Kept]:
    """Sum up nothing."""
    return kept


def answer(body: bytes, content_type: str = "application/json") -> Reply:
    """Return a whole answer with status 200."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    return Reply((head.encode() + body,))


def streamed(events: Iterable[bytes]) -> Reply:
    """Return an answer with status 200 whose events come one by one."""
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return Reply((head, *(b"%x\r\n%s\r\n" % (len(event), event) for event in events), b"0\r\n\r\n"))


class Connection(asyncio.Protocol):
    """One client's connection: requests with a length, each sent when the last one is answered."""

    def __init__(self, to_answer: Answer) -> None:
        self._answer = to_answer
        self._received = bytearray()
        self._wanted = 0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        # Nothing is buffered: uvloop would send together what is written in one of its turns.
        self._transport.set_write_buffer_limits(0)

    def data_received(self, data: bytes) -> None:
        """Answer each request that has come whole."""
        self._received += data
        while len(self._received) >= self._wanted:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            first, *lines = self._received[:end].decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            if "transfer-encoding" in headers:
                raise ValueError(f"a request without a length: {first}")
            self._wanted = end + 4 + int(headers.get("content-length", 0))
            if len(self._received) < self._wanted:
                if headers.get("expect"):
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return
            request = Kept(first.split(" ")[1], headers, bytes(self._received[end + 4 : self._wanted]))
            del self._received[: self._wanted]
            self._wanted = 0
            reply = self._answer(request)
            if reply is None:
                return
            if reply.after:
                self._loop.call_later(reply.after, self._send, reply.parts)
            else:
                self._send(reply.parts)

    def _send(self, parts: tuple[bytes, ...]) -> None:
        for part in parts:
            if self._transport.is_closing():
                return
            self._transport.write(part)
