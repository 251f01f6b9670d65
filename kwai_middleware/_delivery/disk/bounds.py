"""How much a spool on disk may hold, for how long, and how often it may be asked."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["RESERVE", "WEEK", "Bounds"]

WEEK: Final = 7 * 24 * 3600.0

RESERVE: Final = 24 * 1024 * 1024
"""To say that records were delivered is to write: as much as the largest one has, and a log before it is shortened."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much, how long, how often.

    Attributes:
        max_bytes: Of the records in the file, and of its log.
        max_pending_age: Seconds for a record to wait.
        max_rejected_age: Seconds that a rejected record is kept for an operator to look at.
        lease_time: Seconds after which what is on lease counts as abandoned.
        bulk_spacing: Seconds between two bulk requests.
        reserve: Bytes that stay free on the disk.
    """

    max_bytes: int
    max_pending_age: float = WEEK
    max_rejected_age: float = 24 * 3600.0
    lease_time: float = 60.0
    bulk_spacing: float = 0.0
    reserve: int = RESERVE
