"""Runs such a server beside the process that measures."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from typing import TypeVar

import msgspec

from benchmarks.loopback.wire import Answer, Kept, SumUp, as_they_are

__all__ = ["Loopback", "loopback"]

_T = TypeVar("_T")


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
        return self.summed_up(list[Kept])

    def summed_up(self, kind: type[_T]) -> _T:
        """Return what was made of them in the server's process."""
        return msgspec.msgpack.decode(self._got("/kept"), type=kind)

    def count(self) -> int:
        """Return how many requests came in all."""
        return int(self._got("/count"))

    def _got(self, path: str) -> bytes:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=30)) as connection:
            connection.request("GET", path)
            return connection.getresponse().read()


@contextmanager
def loopback(to_answer: Answer, *, sum_up: SumUp = as_they_are, port: int = 0, keep: int = 0) -> Iterator[Loopback]:
    """Run one until the block ends.

    Args:
        to_answer: A function of a module, called in the server's process: what goes back for each request.
        sum_up: Another one: what is handed out of those that were kept.
        port: Where; by default one that is free.
        keep: How many bytes of requests it keeps for `Loopback.kept`.
    """
    command = [sys.executable, "-m", "benchmarks.loopback.serve", _name(to_answer), "--sum-up", _name(sum_up)]
    command += ["--port", str(port), "--keep", str(keep)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Loopback(int(process.stdout.readline()))
        finally:
            process.stdin.close()


def _name(function: Callable[..., object]) -> str:
    return f"{function.__module__}:{function.__name__}"
