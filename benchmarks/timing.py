"""Rounds for work that is measured by the CPU it takes on the thread that does it; and latencies, summed up."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

from benchmarks.plan import Round, Scale

__all__ = ["async_loop", "percentiles", "sync_loop"]

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


def percentiles(seconds: Sequence[float], *which: float, of_a_second: float = 1e3) -> dict[str, float]:
    """Return some of them by their names, as `p99`.

    Args:
        seconds: How long each took.
        which: In percent, to a tenth.
        of_a_second: How many of the unit are one; by default they are milliseconds.
    """
    cuts = statistics.quantiles(seconds, n=1000, method="inclusive")
    return {f"p{each:g}": cuts[round(each * 10) - 1] * of_a_second for each in which}


def _enough(seconds: Callable[[int], float], scale: Scale) -> int:
    """Return how often the work has to be done for a round to last long enough."""
    times = 1
    while (took := seconds(times)) < scale.seconds / 4:
        times *= 2 if took < scale.seconds / 32 else 4
    return max(1, round(times * scale.seconds / took))
