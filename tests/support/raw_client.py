"""A client that writes what it likes to a socket: several requests at once, doubled headers, from another address."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tests.support.processes import DEADLINE
from tests.support.raw_server import Connection

Lines = Sequence[tuple[str, str]]

UNTRUSTED = "127.0.0.2"
"""An address of this machine that no server of a test believes."""


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    document: Any


def request(lines: Lines = (), body: bytes = b"", path: str = "/who") -> bytes:
    """The bytes of one request; its headers are these lines, as they are."""
    method = "POST" if body else "GET"
    length = [("content-length", str(len(body)))] if body else []
    head = [f"{method} {path} HTTP/1.1", "host: x", *(f"{name}: {value}" for name, value in [*length, *lines])]
    return "\r\n".join([*head, "", ""]).encode() + body


@contextlib.contextmanager
def connected(address: int | str, source: str = "127.0.0.1") -> Iterator[Connection]:
    """A connection to a port of this machine, or to a unix socket."""
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(DEADLINE)
        sock.connect(address)
    else:
        sock = socket.create_connection(("127.0.0.1", address), DEADLINE, source_address=(source, 0))
    with sock:
        yield Connection(sock)


def answer(connection: Connection) -> Answer:
    """Read one answer, whose length the server tells."""
    head, body = connection.request()
    return Answer(int(head.split(b" ")[1]), json.loads(body) if body.lstrip().startswith(b"{") else body)


def ask(address: int | str, lines: Lines = (), source: str = "127.0.0.1", path: str = "/who") -> Answer:
    """Send one request on a connection of its own."""
    with connected(address, source) as connection:
        connection.send(request(lines, path=path))
        return answer(connection)
