"""Runs such a server beside the process that measures."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection

import msgspec

from benchmarks.loopback.wire import Answer, Kept

__all__ = ["Loopback", "loopback"]


class Loopback:
    """A server on loopback, from the outside.

    Attributes:
        port: Of it.
        url: Of it, without a path.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def kept(self) -> list[Kept]:
        """Return the requests that came since the last time."""
        return msgspec.msgpack.decode(self._got("/kept"), type=list[Kept])

    def count(self) -> int:
        """Return how many requests came in all."""
        return int(self._got("/count"))

    def _got(self, path: str) -> bytes:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request("GET", path)
            return connection.getresponse().read()


@contextmanager
def loopback(to_answer: Answer, *, port: int = 0, keep: int = 0) -> Iterator[Loopback]:
    """Run one until the block ends.

    Args:
        to_answer: A function of a module, which says what goes back for each request, in the server's process.
        port: Where; by default one that is free.
        keep: How many bytes of requests it keeps for `Loopback.kept`.
    """
    name = f"{to_answer.__module__}:{to_answer.__name__}"
    command = [sys.executable, "-m", "benchmarks.loopback.serve", name, "--port", str(port), "--keep", str(keep)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Loopback(int(process.stdout.readline()))
        finally:
            process.stdin.close()
