"""A server that does on a socket what no well-behaved server does: stalls, resets, closes early."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator


class Connection:
    """One accepted connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = b""

    def request(self) -> tuple[bytes, bytes]:
        """Read one request; returns its head and its body (by content-length)."""
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        while len(rest) < length:
            more = self.sock.recv(1 << 20)
            if not more:
                raise ConnectionError("the client left")
            rest += more
        self._buffer = rest[length:]
        return head, rest[:length]

    def chunks(self) -> bytes:
        """Read the body of a request that comes in chunks."""
        body = b""
        while True:
            while b"\r\n" not in self._buffer:
                self._fill()
            size, _, rest = self._buffer.partition(b"\r\n")
            self._buffer = rest
            while len(self._buffer) < int(size, 16) + 2:
                self._fill()
            body += self._buffer[: int(size, 16)]
            self._buffer = self._buffer[int(size, 16) + 2 :]
            if int(size, 16) == 0:
                return body

    def head(self) -> bytes:
        """Read the head of a request and leave its body where it is."""
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
        return self._buffer

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def reset(self) -> None:
        """Close so that the other side gets a reset."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def wait_until_closed(self) -> None:
        """Return when the other side has closed."""
        with contextlib.suppress(OSError):
            while self.sock.recv(1 << 16):
                pass

    def _fill(self) -> None:
        more = self.sock.recv(1 << 16)
        if not more:
            raise ConnectionError("the client left")
        self._buffer += more


class RawServer:
    """Where it listens."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def raw_server(
    handle: Callable[[Connection], None], *, port: int = 0, receive_buffer: int | None = None, backlog: int = 16
) -> Iterator[RawServer]:
    """Serve each connection with `handle` in a thread of its own until the block ends."""
    listener = socket.socket()
    if receive_buffer is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    listener.bind(("127.0.0.1", port))
    listener.listen(backlog)
    connections: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            handle(Connection(sock))

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                connections.append(sock)
                thread = threading.Thread(target=serve, args=(sock,))
                threads.append(thread)
                thread.start()

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    try:
        yield RawServer(listener.getsockname()[1])
    finally:
        # A plain close() does not wake an accept() that waits in another thread.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for sock in connections:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        acceptor.join(10)
        for thread in threads:
            thread.join(10)
