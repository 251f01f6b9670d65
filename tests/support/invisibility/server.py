"""A server that does what its URL says, on a real socket, and remembers what arrived."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from tests.support.invisibility.answers import ANSWERS, BROKEN, chunked
from tests.support.proxy import forward_proxy
from tests.support.raw_server import Connection

__all__ = ["Arrived", "ScriptServer", "listening", "script_server"]

_CHUNKED_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass
class Arrived:
    """One request as it was on the wire; `whole` when its body came to its end."""

    connection: int
    head: bytes
    body: bytes = b""
    whole: bool = False

    @property
    def target(self) -> str:
        _, target, _ = self.head.split(b" ", 2)
        return target.decode("latin-1")

    @property
    def query(self) -> dict[str, str]:
        if self.head.startswith(b"CONNECT "):
            return {"do": "proxy-refuses"}
        return {name: values[0] for name, values in parse_qs(self.target.partition("?")[2]).items()}


_TLS = b"\x16\x03"


class _Wire(Connection):
    """A connection whose chunked requests can be read, and that says so when TLS arrives."""

    def head(self) -> bytes:
        """Read the head of a request and leave its body where it is."""
        while b"\r\n\r\n" not in self._buffer:
            self._fill()
            if self._buffer.startswith(_TLS):
                self.send(ANSWERS["status-400B"])
                raise ConnectionError("no HTTP")
        return self._buffer

    def body(self, head: bytes) -> bytes:
        """Read a request's body as it is on the wire, chunks with their sizes."""
        if b"\r\ntransfer-encoding: chunked" not in head.lower():
            return self.request()[1]
        self._buffer = self._buffer.partition(b"\r\n\r\n")[2]
        body = b""
        while True:
            size = self._through(b"\r\n")
            data = self._exactly(int(size, 16) + 2)
            body += size + data
            if 0 == int(size, 16):
                return body

    def _through(self, end: bytes) -> bytes:
        while end not in self._buffer:
            self._fill()
        line, _, self._buffer = self._buffer.partition(end)
        return line + end

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._fill()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data


class ScriptServer:
    """Answers `?do=a,b` with the answer `a` to a step's first request, with `b` to the second and all later ones."""

    def __init__(self) -> None:
        self.port = 0
        self.secure_port = 0
        self.proxy_url = ""
        self.proxied: list[str] = []
        self._changed = threading.Condition()
        self._open = 0
        self._accepted: set[Any] = set()
        self.begin()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def probed_port(self) -> int:
        return self.port

    def begin(self) -> None:
        """Forget everything: another step begins."""
        self.arrived: list[Arrived] = []
        self.gate = threading.Event()
        self.over = threading.Event()
        self._connections = 0
        self._accepted.clear()
        self.proxied.clear()

    def wait_for(self, number: int, *, whole: bool = True) -> bool:
        """Wait until so many requests have arrived, with their bodies or at least their heads."""
        with self._changed:
            return self._changed.wait_for(
                lambda: number <= sum(each.whole or not whole for each in self.arrived), timeout=10
            )

    def wait_until_idle(self, seconds: float = 10) -> bool:
        """Wait until no connection is open, of all that were made until now."""
        # Connections are accepted in the order in which they were made: when these are, the others are.
        with socket.create_connection(("127.0.0.1", self.probed_port), 10) as probe:
            last = probe.getsockname()
        with self._changed:
            return self._changed.wait_for(lambda: last in self._accepted and 0 == self._open, seconds)

    def accept(self, listener: socket.socket, serving: ssl.SSLContext | None) -> None:
        """Serve each connection in a thread of its own until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                sock, peer = listener.accept()
                # Else an answer in several parts waits for the other side's acknowledgement, which takes its time.
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._changed:
                    self._accepted.add(peer)
                    self._open += 1
                    self._connections += 1
                    threading.Thread(target=self._serve, args=(sock, self._connections, serving)).start()

    def _serve(self, sock: socket.socket, number: int, serving: ssl.SSLContext | None) -> None:
        try:
            # A request may be framed wrongly; then the connection has no use any more.
            with contextlib.suppress(OSError, ValueError), sock:
                secured = sock if serving is None else _secured(sock, serving)
                with secured:
                    self._converse(secured, number)
        finally:
            with self._changed:
                self._open -= 1
                self._changed.notify_all()

    def _converse(self, sock: socket.socket, number: int) -> None:
        connection = _Wire(sock)
        while self._served(connection, number):
            pass

    def _served(self, connection: _Wire, number: int) -> bool:
        """Read a request and answer it; say whether the connection stays."""
        head = connection.head().partition(b"\r\n\r\n")[0]
        arrived = Arrived(number, head)
        with self._changed:
            self.arrived.append(arrived)
            self._changed.notify_all()
            turn = len(self.arrived)
        wanted = arrived.query.get("do", "ok").split(",")
        do = wanted[min(turn, len(wanted)) - 1]
        if do == "deaf":
            self.over.wait(30)
            return False
        if do == "early":
            connection.send(ANSWERS["status-413C"].replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
            connection.wait_until_closed()
            return False
        arrived.body = connection.body(head)
        with self._changed:
            arrived.whole = True
            self._changed.notify_all()
        return self._answered(connection, arrived, do)

    def _answered(self, connection: _Wire, arrived: Arrived, do: str) -> bool:
        if do in ANSWERS:
            answer = ANSWERS[do]
            if arrived.head.startswith(b"HEAD "):
                answer = answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
            connection.send(answer)
            return True
        if do in BROKEN:
            connection.send(BROKEN[do])
            return False
        if do.startswith("redirect-"):
            location = arrived.query.get("to", arrived.target)
            status = do.removeprefix("redirect-")
            head = f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nSet-Cookie: hop=1\r\nContent-Length: 5"
            connection.send(head.encode() + b"\r\n\r\nmoved")
            return True
        return self._acted(connection, do)

    def _acted(self, connection: _Wire, do: str) -> bool:
        if do == "silent":
            connection.wait_until_closed()
        elif do == "half-a-head-then-silent":
            connection.send(b"HTTP/1.1 200 OK\r\nContent-")
            connection.wait_until_closed()
        elif do == "stalled":
            connection.send(_CHUNKED_HEAD + b"5\r\nhello\r\n")
            connection.wait_until_closed()
        elif do == "reset":
            connection.reset()
        elif do == "reset-later":
            connection.send(_CHUNKED_HEAD + b"5\r\nhello\r\n")
            self.gate.wait(10)
            connection.reset()
        elif do == "together":
            self.wait_for(8)
            connection.send(ANSWERS["ok"])
            return True
        elif do == "gated":
            connection.send(_CHUNKED_HEAD + b"5\r\nhello\r\n")
            self.gate.wait(10)
            connection.send(chunked(b"there"))
            return True
        elif do == "upgrade":
            connection.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n")
            while data := connection.sock.recv(1 << 16):
                connection.send(data.upper())
        else:
            assert "closed-quietly" == do, do
            connection.send(ANSWERS["ok"])
        return False


def _secured(sock: socket.socket, serving: ssl.SSLContext) -> ssl.SSLSocket:
    secure = serving.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
    try:
        secure.do_handshake()
    except OSError:
        # What was sent in clear is read to its end: else it is a matter of time whether the client sees a reset.
        with secure, contextlib.suppress(OSError):
            secure.shutdown(socket.SHUT_WR)
            while secure.recv(1 << 16):
                pass
        raise
    return secure


@contextlib.contextmanager
def script_server(serving: ssl.SSLContext) -> Iterator[ScriptServer]:
    """Serve in clear and with TLS until the block ends; all clients are closed by then."""
    server = ScriptServer()
    with (
        listening(server, None) as server.port,
        listening(server, serving) as server.secure_port,
        forward_proxy(server.proxied) as proxy,
    ):
        server.proxy_url = proxy.url
        yield server


@contextlib.contextmanager
def listening(server: ScriptServer, serving: ssl.SSLContext | None) -> Iterator[int]:
    """Listen for a server; gives the port."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        acceptor = threading.Thread(target=server.accept, args=(listener, serving))
        acceptor.start()
        try:
            yield listener.getsockname()[1]
        finally:
            # A plain close() does not wake an accept() that waits in another thread.
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join(10)
