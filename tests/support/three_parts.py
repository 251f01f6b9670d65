"""A server whose answers are three events, framed in one way or another, and end as the test wants."""

from __future__ import annotations

import threading

from tests.support.raw_server import Connection

__all__ = ["PARTS", "WHOLE", "ThreeParts"]

PARTS = [b"data: 1\n\n", b"data: 2\n\n", b"data: [DONE]\n\n"]
WHOLE = b"".join(PARTS)
_CHUNKED = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nX-Id: 1\r\nX-Id: 2\r\n\r\n"
)


def _chunked(parts: list[bytes]) -> bytes:
    return b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts)


class ThreeParts:
    """Answers with three parts, in one framing or another, and then does what the test wants."""

    def __init__(self) -> None:
        self.url = ""
        self.head = _CHUNKED
        self.parts = PARTS
        self.last_words = b"0\r\n\r\n"
        self.ending = "end"
        self.go_on = threading.Event()
        self.asked = threading.Event()

    def with_length(self, length: int | None = None, coding: str = "") -> None:
        coded = f"content-encoding: {coding}\r\n" if coding else ""
        length = sum(map(len, self.parts)) if length is None else length
        self.head = f"HTTP/1.1 200 OK\r\n{coded}content-length: {length}\r\n\r\n".encode()
        self.last_words = b""

    def __call__(self, connection: Connection) -> None:
        while True:
            connection.request()
            self.asked.set()
            connection.send(self.head + (_chunked(self.parts) if self.head is _CHUNKED else b"".join(self.parts)))
            if self.ending == "close":
                return
            self.go_on.wait(30)
            if self.ending == "reset":
                connection.reset()
                return
            if self.ending == "cut short":
                return
            if self.ending == "stall":
                connection.wait_until_closed()
                return
            connection.send(self.last_words)
