"""As little HTTP/1.1 as a server needs that is to cost next to nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import msgspec

__all__ = ["Answer", "Connection", "Kept", "answer"]

Answer = Callable[["Kept"], bytes | None]
"""What goes back for a request; None for nothing, ever."""


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


def answer(body: bytes, content_type: str = "application/json") -> bytes:
    """Return a whole answer with status 200."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Connection(asyncio.Protocol):
    """One client's connection: requests with a length, one after the other."""

    def __init__(self, to_answer: Answer) -> None:
        self._answer = to_answer
        self._received = bytearray()
        self._wanted = 0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer each request that has come whole."""
        self._received += data
        while len(self._received) >= self._wanted:
            end = self._received.find(b"\r\n\r\n")
            if end < 0:
                return
            first, *lines = self._received[:end].decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
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
            self._transport.write(reply)
