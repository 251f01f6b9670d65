"""A vendor whose answer hangs on the key that it is asked with, and that keeps what it was asked."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import NamedTuple

from tests.support.raw_server import Connection

__all__ = ["Asked", "KeyedVendor", "answer"]


def answer(status: int, body: bytes = b"{}", **headers: str) -> bytes:
    """An answer as it goes over the wire."""
    lines = [f"HTTP/1.1 {status} Whatever", "content-type: application/json", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


_KEYS = (re.compile(rb"(?im)^x-openrouter-api-key: +(\S+)"), re.compile(rb"(?im)^authorization: *bearer +(\S+)"))


Said = bytes | Callable[[Connection], None]


class Asked(NamedTuple):
    """One request: the key that came in it, which connection it came by, and its body."""

    key: str
    connection: int
    body: bytes


class KeyedVendor:
    """Answers, to whom a request goes by its key.

    Attributes:
        answers: By key; a function does itself what there is to do on the connection.
        otherwise: For all other keys.
        asked: In order of arrival.
    """

    def __init__(self) -> None:
        self.url = ""
        self.answers: dict[str, Said] = {}
        self.otherwise: Said = answer(200, b'{"id":"1","choices":[]}')
        self.asked: list[Asked] = []
        self._lock = threading.Lock()
        self._connections = 0

    @property
    def keys(self) -> list[str]:
        """The keys that came, in order."""
        return [each.key for each in self.asked]

    def __call__(self, connection: Connection) -> None:
        with self._lock:
            self._connections += 1
            number = self._connections
        while True:
            head, body = connection.request()
            if b"transfer-encoding: chunked" in head.lower():
                body = connection.chunks()
            key = next((found[1].decode() for pattern in _KEYS if (found := pattern.search(head))), "")
            with self._lock:
                self.asked.append(Asked(key, number, body))
            said = self.answers.get(key, self.otherwise)
            if callable(said):
                said(connection)
            else:
                connection.send(said)
