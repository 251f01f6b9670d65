"""The statements that give up what is too old, each inside a transaction of the caller's."""

from __future__ import annotations

import sqlite3
from typing import Final

import msgspec

__all__ = ["AT_ONCE", "Ages", "evict", "forget_rejected", "too_old"]

AT_ONCE: Final = 500
"""Rows in one transaction: others want their turn."""

_SKEW: Final = 3600.0
"""Seconds that the clock may be set back by, without the records being the younger for it."""

_FRONT: Final = (
    "SELECT position, size, appended_at FROM (SELECT position, size, appended_at FROM records"
    " WHERE destination = ? AND is_rejected = 0 ORDER BY position LIMIT ?) AS front WHERE (appended_at <= ?"
    " OR appended_at > ?) AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.position = front.position AND until > ?)"
)
_OLDEST_REJECTED: Final = (
    "SELECT position FROM records WHERE is_rejected = 1 AND rejected_at <= ? ORDER BY rejected_at LIMIT ?"
)


class Ages(msgspec.Struct, frozen=True):
    """From when on a record is too old.

    Attributes:
        now: Seconds since 1970.
        tick: Monotonic seconds.
        pending: Seconds that a record of this destination may wait.
        others_pending: The same for other destinations, whose apps may not run any more.
        rejected: Seconds that a rejected one is kept.
    """

    now: float
    tick: float
    pending: float
    others_pending: float
    rejected: float


def too_old(connection: sqlite3.Connection, destination: int, max_age: float, ages: Ages) -> list[tuple[int, int]]:
    """Return position and size of those in front of a destination that have waited too long.

    What is just being sent has its chance first. One that is not yet born is made to be born now:
    the clock was wrong then, and it would never grow old.
    """
    found = connection.execute(
        _FRONT, (destination, AT_ONCE, ages.now - max_age, ages.now + _SKEW, ages.tick)
    ).fetchall()
    unborn = [(ages.now, position) for position, _, since in found if since > ages.now]
    connection.executemany("UPDATE records SET appended_at = ? WHERE position = ?", unborn)
    return [(position, size) for position, size, since in found if since <= ages.now]


def evict(connection: sqlite3.Connection, own_destination: int, ages: Ages) -> bool:
    """Give up what is too old, of all destinations; whether there may be more of it."""
    most = 0
    for (destination,) in connection.execute("SELECT id FROM destinations").fetchall():
        max_age = ages.pending if destination == own_destination else ages.others_pending
        old = too_old(connection, destination, max_age, ages)
        if old:
            positions = [(position,) for position, _ in old]
            for table in ("records", "leases", "rests"):
                connection.executemany(f"DELETE FROM {table} WHERE position = ?", positions)  # noqa: S608 - one of these three names
            connection.execute(
                "UPDATE destinations SET evicted = evicted + ?, pending = pending - ?,"
                " pending_bytes = pending_bytes - ? WHERE id = ?",
                (len(old), len(old), sum(size for _, size in old), destination),
            )
        most = max(most, len(old))
    forgotten = forget_rejected(connection, ages.now - ages.rejected)
    return max(most, forgotten) >= AT_ONCE


def forget_rejected(connection: sqlite3.Connection, before: float) -> int:
    """Let go of the oldest rejected records; returns how many. They stay counted: only their text goes."""
    return connection.execute(
        f"DELETE FROM records WHERE position IN ({_OLDEST_REJECTED})",  # noqa: S608 - a constant
        (before, AT_ONCE),
    ).rowcount
