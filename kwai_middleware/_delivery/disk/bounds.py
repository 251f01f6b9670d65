"""How much a spool on disk may hold, for how long, and how often it may be asked."""

from __future__ import annotations

from typing import Final

import msgspec

__all__ = ["WEEK", "Bounds"]

WEEK: Final = 7 * 24 * 3600.0


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much, how long, how often.

    Attributes:
        max_bytes: Of the records in the file, and of its log.
        max_pending_age: Seconds for a record to wait.
        max_rejected_age: Seconds that a rejected record is kept for an operator to look at.
        lease_time: Seconds after which what is on lease counts as abandoned.
        bulk_spacing: Seconds between two bulk requests.
    """

    max_bytes: int
    max_pending_age: float = WEEK
    max_rejected_age: float = 24 * 3600.0
    lease_time: float = 60.0
    bulk_spacing: float = 0.0
