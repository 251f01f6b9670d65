"""What an operator may change in a spool's file while apps write to it: try records again, or throw them away."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from kwai_middleware import _native as native
from kwai_middleware._delivery.disk import files, schema
from kwai_middleware._delivery.disk.inspection import Choice, Inspection
from kwai_middleware._delivery.spool import MOST_TOGETHER

__all__ = ["Purged", "leave_no_trace", "purge", "requeue"]

_AT_ONCE: Final = 200
_BYTES_AT_ONCE: Final = 4 * 1024 * 1024
"""In one transaction: the apps have to wait for it."""

_BREATH: Final = 0.002
_PATIENCE: Final = 10.0
_GLANCE: Final = 0.05


@dataclass(slots=True)
class Purged:
    """What a purge has done.

    Attributes:
        pending: Records gone that waited.
        rejected: Records gone that the vendor had refused.
        left: Records that are being sent at this moment, and are still there.
    """

    pending: int = 0
    rejected: int = 0
    left: int = 0


def requeue(inspection: Inspection, choice: Choice) -> int:
    """Let rejected records wait again, as if they had never been tried; returns how many."""
    rejected = Choice(customer=choice.customer, recorded_before=choice.recorded_before, rejected_only=True)
    changed = 0
    for positions in _parts(inspection.positions(rejected)):
        with inspection.database.transaction() as connection:
            changed += _requeued(connection, positions)
        _breathe(inspection)
    return changed


def _requeued(connection: sqlite3.Connection, positions: Sequence[int]) -> int:
    changed = 0
    for position in positions:
        found = connection.execute(
            "SELECT destination, size FROM records WHERE position = ? AND is_rejected = 1", (position,)
        ).fetchall()
        for destination, size in found:
            connection.execute(
                "UPDATE records SET is_rejected = 0, rejected_at = NULL, reason = NULL, attempts = 0, together = ?"
                " WHERE position = ?",
                (MOST_TOGETHER, position),
            )
            connection.execute(
                "UPDATE destinations SET rejected = rejected - 1, pending = pending + 1,"
                " pending_bytes = pending_bytes + ? WHERE id = ?",
                (size, destination),
            )
        changed += len(found)
    return changed


def purge(inspection: Inspection, choice: Choice, last: int) -> Purged:
    """Throw records away, but those that are being sent.

    Args:
        inspection: The file.
        choice: Which.
        last: Position behind which none is thrown away: nobody was asked about those.
    """
    purged = Purged()
    positions = [each for each in inspection.positions(choice) if each[0] <= last]
    for part in _parts(positions):
        done = _Part(inspection, choice.rejected_only)
        with inspection.database.transaction() as connection:
            done.purge(connection, part)
        # Only what was committed counts.
        purged.pending += done.counts.pending
        purged.rejected += done.counts.rejected
        purged.left += done.counts.left
        _breathe(inspection)
    return purged


@dataclass(slots=True)
class _Part:
    """One transaction of a purge."""

    inspection: Inspection
    rejected_only: bool
    counts: Purged = field(default_factory=Purged)

    def purge(self, connection: sqlite3.Connection, positions: Sequence[int]) -> None:
        for position in positions:
            for destination, size, is_rejected in connection.execute(
                "SELECT destination, size, is_rejected FROM records WHERE position = ?", (position,)
            ).fetchall():
                if is_rejected < self.rejected_only:
                    # It was requeued a moment ago.
                    continue
                if self._is_under_way(connection, position):
                    self.counts.left += 1
                else:
                    self._purge_one(connection, position, destination, size, is_rejected)

    def _is_under_way(self, connection: sqlite3.Connection, position: int) -> bool:
        leases = connection.execute(
            "SELECT owner, shipper_since, until FROM leases JOIN destinations ON destinations.id = destination"
            " WHERE position = ?",
            (position,),
        ).fetchall()
        return any(self.inspection.is_under_way(*lease) for lease in leases)

    def _purge_one(
        self, connection: sqlite3.Connection, position: int, destination: int, size: int, is_rejected: int
    ) -> None:
        for table in ("records", "leases", "rests"):
            connection.execute(f"DELETE FROM {table} WHERE position = ?", (position,))  # noqa: S608 - one of these three names
        waited = 1 - is_rejected
        # The answer that the last error quotes may have quoted the record.
        connection.execute(
            "UPDATE destinations SET purged = purged + ?, pending = pending - ?, pending_bytes = pending_bytes - ?,"
            " last_error = NULL WHERE id = ?",
            (waited, waited, waited * size, destination),
        )
        self.counts.pending += waited
        self.counts.rejected += is_rejected


def leave_no_trace(inspection: Inspection, max_bytes: int, patience: float = _PATIENCE) -> str | None:
    """See to it that no byte of deleted records is in the file or its log; returns what is in the way of that.

    SQLite overwrites what is deleted, but not the copies that it has made while it moved records from page to page
    of the file: so the file is written anew. The apps wait for that, or keep records in memory meanwhile.

    Args:
        inspection: The file.
        max_bytes: That file and log may have together, before apps throw records away.
        patience: Seconds to wait for those who read.
    """
    database = inspection.database
    ((size,),) = database.read("PRAGMA page_size")
    ((pages,),) = database.read("PRAGMA page_count")
    ((free,),) = database.read("PRAGMA freelist_count")
    # While it is written anew it stands there twice.
    if size * (pages - free) > max_bytes // 3:
        return "so much waits that the file cannot be written anew"
    database.read("VACUUM")
    until = time.monotonic() + patience
    while database.read("PRAGMA wal_checkpoint(TRUNCATE)")[0][0]:
        if time.monotonic() >= until:
            return "other processes read all the time, so the log cannot be emptied"
        native.sleep(_GLANCE)
    return None


def _parts(records: Sequence[tuple[int, int]]) -> Iterator[list[int]]:
    part: list[int] = []
    size = 0
    for position, length in records:
        if part and (len(part) >= _AT_ONCE or size + length > _BYTES_AT_ONCE):
            yield part
            part, size = [], 0
        part.append(position)
        size += length
    if part:
        yield part


def _breathe(inspection: Inspection) -> None:
    if files.size_of(f"{inspection.path}-wal") > schema.LARGEST_LOG:
        inspection.database.tidy("PRAGMA wal_checkpoint(PASSIVE)")
    # Who has had a turn stays away for longer than the others sleep.
    native.sleep(_BREATH)
