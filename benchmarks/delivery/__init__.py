"""Delivery: how fast, how heavy, and how good a neighbour it is. The spool lies in the temporary folder: TMPDIR=..."""

from __future__ import annotations

from typing import Final

from benchmarks.delivery import close, loop_lag, memory, shipping, steps, to_disk
from benchmarks.plan import Suite

__all__ = ["SUITE"]

SUITE: Final = Suite(
    "delivery", "Delivery", (to_disk.CASE, loop_lag.CASE, memory.CASE, shipping.CASE, steps.CASE, close.CASE)
)
