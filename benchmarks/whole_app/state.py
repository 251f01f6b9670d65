"""What the server's process says of itself."""

from __future__ import annotations

import asyncio
import statistics
import time
from typing import TYPE_CHECKING, Final

from benchmarks.resident import resident

if TYPE_CHECKING:
    from kwai_middleware import Delivery

__all__ = ["LoopLag", "state", "wait_until_shipped"]

_SLEEP: Final = 0.005
_SHIPPED: Final = 30.0
_GLANCE: Final = 0.1


def state() -> dict[str, float]:
    """Return the CPU that this process has used so far, and the memory that it has now."""
    return {"cpu": time.process_time(), "rss": resident()}


def wait_until_shipped(delivery: Delivery) -> None:
    """Wait until all is delivered in its own time: a `flush` would hurry, and send more and smaller requests.

    Raises:
        TimeoutError: It is not delivered.
    """
    deadline = time.monotonic() + _SHIPPED
    while (stats := delivery.stats()).in_memory or stats.pending:
        if time.monotonic() > deadline:
            raise TimeoutError(f"not delivered: {stats}")
        time.sleep(_GLANCE)


class LoopLag:
    """Sleeps on the loop again and again, and sees how late it is waked."""

    def __init__(self) -> None:
        self._late: list[float] = []
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Begin anew."""
        self._late = []
        self._task = asyncio.get_running_loop().create_task(self._watch())

    def end(self) -> float:
        """Stop, and return the 99th percentile in seconds."""
        if self._task is not None:
            self._task.cancel()
        return statistics.quantiles(self._late, n=100, method="inclusive")[98] if len(self._late) > 1 else 0.0

    async def _watch(self) -> None:
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(_SLEEP)
            self._late.append(time.perf_counter() - begun - _SLEEP)
