"""Whether a call costs more with what is there already: open streams, customers, records that wait."""

from __future__ import annotations

from typing import Final

from benchmarks.growth import customers, open_streams, spool_rows
from benchmarks.plan import Suite

__all__ = ["SUITE"]

SUITE: Final = Suite("growth", "Growth", (open_streams.CASE, customers.CASE, spool_rows.CASE))
