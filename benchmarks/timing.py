"""Rounds for work that is measured by the CPU it takes on the thread that does it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from benchmarks.plan import Round, Scale

__all__ = ["async_loop", "sync_loop"]

_MICROSECONDS = 1e6


@contextmanager
def sync_loop(work: Callable[[int], object], scale: Scale, metric: str = "CPU") -> Iterator[Round]:
    """Rounds of a function that does its work as often as it is told, in µs of CPU of this thread each.

    Args:
        work: Takes how often.
        scale: How long a round lasts.
        metric: What the number is called.
    """

    def seconds(times: int) -> float:
        begun = time.thread_time()
        work(times)
        return time.thread_time() - begun

    times = _enough(seconds, scale)
    yield lambda: {metric: seconds(times) / times * _MICROSECONDS}


@contextmanager
def async_loop(work: Callable[[int], Awaitable[object]], scale: Scale, metric: str = "CPU") -> Iterator[Round]:
    """The same for a coroutine function, on one event loop."""
    with asyncio.Runner() as runner:

        async def timed(times: int) -> float:
            begun = time.thread_time()
            await work(times)
            return time.thread_time() - begun

        def seconds(times: int) -> float:
            return runner.run(timed(times))

        times = _enough(seconds, scale)
        yield lambda: {metric: seconds(times) / times * _MICROSECONDS}


def _enough(seconds: Callable[[int], float], scale: Scale) -> int:
    """Return how often the work has to be done for a round to last long enough."""
    times = 1
    while (took := seconds(times)) < scale.seconds / 4:
        times *= 2 if took < scale.seconds / 32 else 4
    return max(1, round(times * scale.seconds / took))
