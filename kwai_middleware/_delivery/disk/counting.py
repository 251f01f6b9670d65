"""The ledger of a destination, as it stands in a spool's file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from kwai_middleware._delivery.spool import SpoolCounters

__all__ = ["COLUMNS", "counters_of"]

COLUMNS: Final = (
    "appended, delivered, pending, rejected, evicted, purged, pending_bytes, last_success, last_error,"
    " (SELECT appended_at FROM records WHERE destination = id AND is_rejected = 0 ORDER BY position LIMIT 1)"
)
"""What to ask a destination for."""


def counters_of(row: Sequence[Any], now: float, place: str) -> SpoolCounters:
    """Return what the answer to `COLUMNS` means.

    Args:
        row: The answer.
        now: Seconds since 1970.
        place: Path of the file.
    """
    appended, delivered, pending, rejected, evicted, purged, pending_bytes, success, error, oldest = row
    return SpoolCounters(
        appended=appended,
        delivered=delivered,
        pending=pending,
        rejected=rejected,
        evicted=evicted,
        purged=purged,
        pending_bytes=pending_bytes,
        oldest_pending=None if oldest is None else max(0.0, now - oldest),
        last_success=success,
        last_error=error,
        place=place,
    )
