"""A place on loopback that keeps whatever is sent to it: an error reporter's envelopes, a redirected request."""

from __future__ import annotations

import contextlib
import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import brotli

from tests.support.processes import DEADLINE


class Sink:
    """What arrived: each request's head and body, unpacked."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.dsn = f"http://public@127.0.0.1:{port}/1"
        self._arrived: list[str] = []
        self._changed = threading.Condition()

    @property
    def arrived(self) -> list[str]:
        """All requests so far."""
        with self._changed:
            return list(self._arrived)

    def take(self, head: str, body: bytes) -> None:
        """Keep a request."""
        if "content-encoding: br" in head.lower():
            body = brotli.decompress(body)
        elif body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        with self._changed:
            self._arrived.append(f"{head}\n{body.decode(errors='replace')}")
            self._changed.notify_all()

    def wait_for(self, text: str) -> str:
        """Return the first request with that text in it, when it is there."""
        with self._changed:
            found = self._changed.wait_for(lambda: [each for each in self._arrived if text in each], DEADLINE)
        assert found, f"{text!r} never arrived"
        return found[0]


@contextlib.contextmanager
def sink() -> Iterator[Sink]:
    """Run one until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", "0")))
            kept.take(f"{self.requestline}\n{self.headers}", body)
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it has there
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept = Sink(server.server_port)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
