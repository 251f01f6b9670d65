"""TLS over a real socket where gevent has replaced those of the standard library."""

from __future__ import annotations

import socket
import ssl
from typing import Any, Final

__all__ = ["TLSSocket"]

_MOST_AT_ONCE: Final = 64 * 1024


class TLSSocket:
    """As much of a TLS client socket as an HTTP connection asks for.

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
        self._tls = trust.wrap_bio(self._incoming, self._outgoing, server_hostname=server)
        try:
            self._step(self._tls.do_handshake)
        except BaseException:
            sock.close()
            raise

    def send(self, data: memoryview) -> int:
        """Encrypt and send the beginning; returns how much of it."""
        sent: int = self._step(self._tls.write, data[:_MOST_AT_ONCE])
        return sent

    def recv_into(self, buffer: Any) -> int:
        """Decrypt what has come, at least a byte of it; 0 at the end."""
        try:
            received: int = self._step(self._tls.read, len(buffer), buffer)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return 0
        return received

    def settimeout(self, seconds: float) -> None:
        """Seconds for each operation."""
        self._sock.settimeout(seconds)

    def fileno(self) -> int:
        """Return the descriptor, to be polled."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

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
