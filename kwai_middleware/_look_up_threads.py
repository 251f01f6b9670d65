"""The threads of plain functions that look up keys, so many for each event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

__all__ = ["run"]

_MOST: Final = 40
_limiter: Final[RunVar[anyio.CapacityLimiter]] = RunVar("kwai_middleware_key_lookups")


async def run(function: Callable[[], object]) -> object:
    """Run a function on one of them; when nobody waits for it any more, it is left to itself."""
    limiter = _limiter.get(None)
    if limiter is None:
        limiter = anyio.CapacityLimiter(_MOST)
        _limiter.set(limiter)
    return await anyio.to_thread.run_sync(function, abandon_on_cancel=True, limiter=limiter)
