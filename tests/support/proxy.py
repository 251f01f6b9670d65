"""A forward proxy on loopback: absolute-form requests for http, CONNECT tunnels for https."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from urllib.parse import urlsplit

from tests.support.raw_server import Connection, RawServer, raw_server


@contextlib.contextmanager
def forward_proxy(seen: list[str]) -> Iterator[RawServer]:
    """Forward to loopback hosts; notes the first line of each request in `seen`."""

    def handle(connection: Connection) -> None:
        head = connection.head().partition(b"\r\n\r\n")[0]
        line = head.split(b"\r\n")[0].decode()
        seen.append(line)
        method, target, _ = line.split(" ")
        if method == "CONNECT":
            connection.request()
            host, _, port = target.rpartition(":")
            upstream = socket.create_connection((host, int(port)), 10)
            connection.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            _tunnel(connection.sock, upstream)
        else:
            head, body = connection.request()
            parts = urlsplit(target)
            upstream = socket.create_connection((parts.hostname or "", parts.port or 80), 10)
            upstream.sendall(head.replace(target.encode(), parts.path.encode(), 1) + b"\r\n\r\n" + body)
            _tunnel(connection.sock, upstream)

    with raw_server(handle) as server:
        yield server


def _tunnel(client: socket.socket, upstream: socket.socket) -> None:
    def back() -> None:
        with contextlib.suppress(OSError):
            while data := upstream.recv(1 << 16):
                client.sendall(data)
            client.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=back)
    thread.start()
    with contextlib.suppress(OSError), upstream:
        while data := client.recv(1 << 16):
            upstream.sendall(data)
        upstream.shutdown(socket.SHUT_RDWR)
    thread.join(10)
