"""HTTP over real sockets, past everything that watches or replaces those of the standard library.

Error reporters and tracers patch `http.client.HTTPConnection`: each record would become a span and
a breadcrumb of theirs, and their headers would go to the vendor. One line of a debugging recipe
makes it print what it sends, keys and all. And gevent replaces the sockets: a patched one needs an
event loop on our thread, which in a forked worker may wait for ever. So requests are written here;
the answers, which are the hard part, are read by `http.client.HTTPResponse`.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from kwai_middleware import _native as native
from kwai_middleware._delivery.native_tls import TLSSocket
from kwai_middleware._pace import rest

__all__ = ["NativeConnection"]

_AT_ONCE: Final = 64 * 1024


class NativeConnection:
    """One connection to a server, with TLS where there is a `trust`.

    Args:
        host: Of the server, or of the proxy.
        port: Of the same.
        timeout: Seconds for each step: connecting, sending a request, receiving its answer.
        trust: Says which certificates are good; None for plain HTTP.

    Attributes:
        sock: None until it is connected.
        timeout: May be changed between the steps.
    """

    def __init__(self, host: str, port: int, timeout: float, trust: ssl.SSLContext | None = None) -> None:
        self.host = host
        self.port = port
        self.timeout = timeout
        self.sock: socket.socket | TLSSocket | None = None
        self._method = ""
        self._trust = trust
        self._server = host
        self._tunnel_head: bytes | None = None

    def set_tunnel(self, host: str, port: int, headers: Mapping[str, str]) -> None:
        """Reach that server through this proxy.

        Args:
            host: Of the server.
            port: Of the same.
            headers: For the proxy.
        """
        authority = f"{f'[{host}]' if ':' in host else host}:{port}"
        self._server = host
        self._tunnel_head = _head("CONNECT", authority, {"host": authority, **headers})

    def connect(self) -> None:
        """Open the socket, the tunnel through a proxy, and TLS, as far as they are wanted.

        Raises:
            OSError: It cannot be had; a certificate that is not good is one of the reasons.
        """
        until = time.monotonic() + self.timeout
        try:
            sock = native.connect(self.host, self.port, until)
        except UnicodeError:
            raise OSError(f"{self.host!r} is no name of a host") from None
        try:
            if self._tunnel_head is not None:
                self._open_tunnel(sock, self._tunnel_head, until)
            self.sock = sock if self._trust is None else self._secured(sock, self._trust, until)
        except BaseException:
            sock.close()
            raise

    def request(self, method: str, target: str, body: Iterable[bytes], headers: Mapping[str, str]) -> None:
        """Send a request.

        Args:
            method: Of the request.
            target: Path, or URL for a plain proxy.
            body: Its pieces, which are not joined to a second copy of it all.
            headers: All of them but the length of the body.

        Raises:
            OSError: It could not be sent in time.
        """
        pieces = tuple(body)
        length = str(sum(map(len, pieces)))
        head = _head(method, target, {**headers, "content-length": length})
        self._method = method
        until = time.monotonic() + self.timeout
        for block in _blocks((head, *pieces)):
            _send(self.sock, block, until)

    def getresponse(self) -> http.client.HTTPResponse:
        """Return the answer, of which status and headers are read. What of its body comes too late raises.

        Raises:
            OSError: It did not come in time.
            http.client.HTTPException: It is none.
        """
        return _response(self.sock, self._method, time.monotonic() + self.timeout)

    def close(self) -> None:
        """Close the socket."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def _open_tunnel(self, sock: socket.socket, head: bytes, until: float) -> None:
        _send(sock, head, until)
        with _response(sock, "CONNECT", until) as response:
            if not 200 <= response.status < 300:
                raise OSError(f"the proxy opens no tunnel: HTTP {response.status}")

    def _secured(self, sock: socket.socket, trust: ssl.SSLContext, until: float) -> socket.socket | TLSSocket:
        _wait_until(sock, until)
        if native.is_patched():
            return TLSSocket(sock, trust, self._server)
        return trust.wrap_socket(sock, server_hostname=self._server)


def _head(method: str, target: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "\r\n"]).encode("ascii")


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Join small pieces until they are worth a system call; large ones go as they are."""
    small: list[bytes] = []
    size = 0
    for piece in pieces:
        if size + len(piece) > _AT_ONCE:
            yield b"".join(small)
            small, size = [], 0
        small.append(piece)
        size += len(piece)
    yield b"".join(small)


def _send(sock: Any, block: bytes, until: float) -> None:
    left = memoryview(block)
    while left:
        _wait_until(sock, until)
        left = left[sock.send(left[:_AT_ONCE]) :]
        if left:
            # Megabytes that are ready at once keep the system, and a receiver on this machine, busy for longer than an
            # event loop is to wait for its turn on a processor: with two of them it was 2 ms for 2 MB.
            rest()


def _response(sock: Any, method: str, until: float) -> http.client.HTTPResponse:
    incoming: Any = _Incoming(sock, until)
    response = http.client.HTTPResponse(incoming, method=method)
    try:
        response.begin()
    except BaseException:
        response.close()
        raise
    return response


def _wait_until(sock: Any, until: float) -> None:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("timed out")
    sock.settimeout(left)


class _Incoming(io.RawIOBase):
    """What a socket receives until a moment. Closing it leaves the socket open.

    To `HTTPResponse` it is the socket.
    """

    def __init__(self, sock: Any, until: float) -> None:
        self._sock = sock
        self._until = until

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        _wait_until(self._sock, self._until)
        received: int = self._sock.recv_into(buffer)
        return received
