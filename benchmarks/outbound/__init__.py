"""What a call of a model costs on its way out and back, over the plain HTTP library."""

from __future__ import annotations

from typing import Final

from benchmarks.outbound import calls, calls_async, chunks, memory
from benchmarks.plan import Suite

__all__ = ["SUITE"]

SUITE: Final = Suite(
    "outbound",
    "Outbound",
    (*calls.BY_LIBRARY, *calls_async.CASES, calls.BY_SIZE, *memory.CASES, *chunks.CASES),
)
