"""`python -m benchmarks.loopback.serve MODULE:FUNCTION`: what answers as the function says, until its input ends.

Prints its port. `GET /kept` hands out the requests that came since it was asked last, of which it keeps so many bytes,
or what another function makes of them; `GET /count` says how many there were in all.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
from typing import Any

import msgspec

from benchmarks.loopback.wire import Answer, Connection, Kept, Reply, SumUp, answer, as_they_are


class _Keeping:
    """Answers, and keeps what came."""

    def __init__(self, to_answer: Answer, sum_up: SumUp, most: int) -> None:
        self._answer = to_answer
        self._sum_up = sum_up
        self._most = most
        self._kept: list[Kept] = []
        self._bytes = 0
        self._count = 0

    def __call__(self, request: Kept) -> Reply | None:
        if request.path == "/kept":
            kept, self._kept, self._bytes = self._kept, [], 0
            return answer(msgspec.msgpack.encode(self._sum_up(kept)))
        if request.path == "/count":
            return answer(b"%d" % self._count)
        self._count += 1
        if self._bytes < self._most:
            self._kept.append(request)
            self._bytes += len(request.body)
        return self._answer(request)


async def _serve(to_answer: Answer, port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(to_answer), "127.0.0.1", port, backlog=200)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def _quick_loop() -> Any:
    try:
        return importlib.import_module("uvloop").new_event_loop
    except ModuleNotFoundError:
        return None


def _function(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loopback.serve", description=__doc__)
    parser.add_argument("answer", type=_function, metavar="MODULE:FUNCTION")
    parser.add_argument("--sum-up", type=_function, default=as_they_are, metavar="MODULE:FUNCTION")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--keep", type=int, default=0, metavar="BYTES")
    asked = parser.parse_args()
    with asyncio.Runner(loop_factory=_quick_loop()) as runner:
        runner.run(_serve(_Keeping(asked.answer, asked.sum_up, asked.keep), asked.port))


if __name__ == "__main__":
    main()
