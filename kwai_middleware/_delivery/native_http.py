"""HTTP over real sockets where gevent has replaced those of the standard library.

A patched socket needs an event loop of gevent on our thread. In a forked worker that loop may wait
for ever, and two threads that make their first one at the same time wait for each other.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
from typing import Any, Final

from kwai_middleware import _native as native

__all__ = ["NativeConnection", "TLSSocket"]

_MOST_AT_ONCE: Final = 64 * 1024


class NativeConnection(http.client.HTTPConnection):
    """An `HTTPConnection`, or `HTTPSConnection` where there is a `trust`, on a real socket.

    Args:
        host: Of the server, or of the proxy.
        port: Of the same.
        timeout: Seconds for each operation of the socket.
        trust: Says which certificates are good; None for plain HTTP.
    """

    _tunnel_host: str | None

    def __init__(self, host: str, port: int, timeout: float, trust: ssl.SSLContext | None = None) -> None:
        super().__init__(host, port, timeout)
        self._trust = trust
        if trust is not None:
            self.default_port = 443

    def connect(self) -> None:
        """Open the socket, the tunnel through a proxy, and TLS, as far as they are wanted."""
        self.sock = native.connect(self.host, self.port, self.timeout)
        if self._tunnel_host:
            self._tunnel()  # type: ignore[attr-defined]  # as HTTPSConnection does; typeshed does not show it
        if self._trust is not None:
            self.sock = TLSSocket(self.sock, self._trust, self._tunnel_host or self.host)


class TLSSocket:
    """As much of a TLS client socket as `http.client` asks for.

    `ssl.SSLSocket` cannot be had: the patched one is gevent's, and the original one works no more
    in a patched process. The protocol itself, without a socket, is untouched.

    Args:
        sock: Connected.
        trust: Says which certificates are good.
        server: The name that the certificate must be for.

    Raises:
        ssl.SSLError: The other side has no good certificate, or does not speak TLS.
    """

    def __init__(self, sock: socket.socket, trust: ssl.SSLContext, server: str) -> None:
        self._sock = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._readers = 0
        self._is_closed = False
        self._tls = trust.wrap_bio(self._incoming, self._outgoing, server_hostname=server)
        try:
            self._step(self._tls.do_handshake)
        except BaseException:
            sock.close()
            raise

    def sendall(self, data: bytes) -> None:
        """Encrypt and send all of it."""
        left = memoryview(data)
        while left:
            left = left[self._step(self._tls.write, left[:_MOST_AT_ONCE]) :]

    def readinto(self, buffer: Any) -> int:
        """Decrypt what has come, at least a byte of it; 0 at the end."""
        try:
            received: int = self._step(self._tls.read, len(buffer), buffer)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return 0
        return received

    def makefile(self, mode: str) -> io.BufferedReader:
        """Return a buffered reader. The socket stays open until it is closed as well."""
        self._readers += 1
        return io.BufferedReader(_Reader(self))

    def settimeout(self, seconds: float) -> None:
        """Seconds for each operation."""
        self._sock.settimeout(seconds)

    def fileno(self) -> int:
        """Return the descriptor, to be polled."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the socket, now or when the last reader is closed."""
        self._is_closed = True
        if not self._readers:
            self._sock.close()

    def reader_closed(self) -> None:
        """Note that one reader fewer is open."""
        self._readers -= 1
        if self._is_closed:
            self.close()

    def _step(self, function: Any, *arguments: Any) -> Any:
        while True:
            try:
                result = function(*arguments)
            except ssl.SSLWantReadError:
                self._sock.sendall(self._outgoing.read())
                received = self._sock.recv(_MOST_AT_ONCE)
                self._incoming.write(received) if received else self._incoming.write_eof()
            else:
                self._sock.sendall(self._outgoing.read())
                return result


class _Reader(io.RawIOBase):
    def __init__(self, source: TLSSocket) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._source.readinto(buffer)

    def close(self) -> None:
        was_closed = self.closed
        super().close()
        if not was_closed:
            self._source.reader_closed()
