"""The sandbox behind uvicorn; the only module that needs it."""

from __future__ import annotations

import logging
import signal
import socket
import struct
import threading
from types import FrameType, TracebackType
from typing import Self

import uvicorn

from kwai_middleware.sandbox.app import create_app
from kwai_middleware.sandbox.state import SandboxState

__all__ = ["BackgroundServer", "listen", "serve"]

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_DEADLINE = 15.0
"""Seconds in which a server starts or ends, or something is wrong."""


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on `host` and `port`; 0 takes a free one.

    Raises:
        OSError: The port is taken, or the host is not an address of this machine.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


class SandboxServer(uvicorn.Server):
    """A sandbox on a socket that listens already."""

    def __init__(self, listener: socket.socket) -> None:
        app = create_app()
        # Without access log: it would cost more than the answers. Signals are ours to handle.
        super().__init__(
            uvicorn.Config(app, log_config=None, access_log=False, proxy_headers=False, timeout_graceful_shutdown=1)
        )
        self._listener = listener
        self._sandbox: SandboxState = app.state.sandbox
        self._sandbox.reset_connection = self._reset_connection

    def serve_until_told(self) -> None:
        """Serve on this thread until `should_exit` is set."""
        self.run(sockets=[self._listener])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let go of every request that is kept waiting, then end as usual."""
        self._sandbox.pauses.release()
        await super().shutdown(sockets)

    def _reset_connection(self, client: tuple[str, int]) -> None:
        for connection in list(self.server_state.connections):
            transport = connection.transport
            if tuple(transport.get_extra_info("peername")[:2]) == client:
                connected = transport.get_extra_info("socket")
                connected.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
                transport.abort()


def serve(listener: socket.socket) -> None:
    """Serve a sandbox on the main thread until SIGINT or SIGTERM, and return."""
    server = SandboxServer(listener)

    def stop(_: int, __: FrameType | None) -> None:
        server.should_exit = True

    # uvicorn handles both while it serves, and raises them again afterwards: this takes them then.
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.serve_until_told()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class BackgroundServer:
    """A sandbox on a thread of its own, on a free port of loopback.

    Attributes:
        url: Where it is, without a trailing slash.
    """

    def __init__(self) -> None:
        listener = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        access_log = logging.getLogger("uvicorn.access")
        self._access_log = (access_log.handlers, access_log.propagate)
        self._server = SandboxServer(listener)
        self._thread = threading.Thread(target=self._server.serve_until_told, name="kwai-sandbox", daemon=True)

    def __enter__(self) -> Self:
        # The socket listens already, so a request that comes before the loop runs only waits for it.
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.should_exit = True
        self._thread.join(_DEADLINE)
        # What uvicorn changed for the whole process belongs to the tests that use us.
        access_log = logging.getLogger("uvicorn.access")
        access_log.handlers, access_log.propagate = self._access_log
