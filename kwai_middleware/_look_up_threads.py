"""The threads of plain functions that look up keys, so many for each event loop."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

__all__ = ["run"]

_MOST: Final = 40
_MOST_RUNNING: Final = 2 * _MOST
"""With those that nobody waits for any more: a function that hangs keeps its thread."""

_running: Final[dict[object, int]] = {}
_limiter: Final[RunVar[anyio.CapacityLimiter]] = RunVar("kwai_middleware_key_lookups")


async def run(function: Callable[[], object]) -> object:
    """Run a function on one of them; when nobody waits for it any more, it is left to itself."""
    process = os.getpid()
    if sum(started == process for started in tuple(_running.values())) >= _MOST_RUNNING:
        raise RuntimeError(f"{_MOST_RUNNING} look-ups of keys are still running; does the vault hang?")
    limiter = _limiter.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(_MOST)
        _limiter.set(limiter)
    mark = object()

    def run_marked() -> object:
        _running[mark] = process
        try:
            return function()
        finally:
            del _running[mark]

    return await anyio.to_thread.run_sync(run_marked, abandon_on_cancel=True, limiter=limiter)
