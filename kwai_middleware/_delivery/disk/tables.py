"""The statements that move records through the tables, each inside a transaction of the caller's.

Whatever changes the number of records in a state changes the counters with it: that is the ledger.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, cast

from kwai_middleware._delivery.destination import Destination
from kwai_middleware._delivery.spool import MOST_TOGETHER, Outcome, Record, Row

__all__ = ["CLAIM", "Claim", "Lease", "append", "destination_id", "evict", "free", "hasten", "lease", "settle", "take"]

_EVICTED_AT_ONCE: Final = 500
_LOOKED_AT: Final = 2000
"""Rows in front that may be on lease or at rest; behind so many of them the rest has to wait."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Who may settle a row, and until when: all three must be as they were."""

    owner: str
    epoch: int
    until: float


@dataclass(frozen=True, slots=True)
class Claim:
    """Who ships the records of a destination.

    Attributes:
        owner: Of the claim; None when nobody ships.
        epoch: Counts the owners so far.
        until: Monotonic seconds; the owner renews it.
        bulk_at: Monotonic seconds before which no bulk request may be sent.
        hurries: Counts those who asked for haste.
        pending: Records that wait.
    """

    owner: str | None
    epoch: int
    until: float
    bulk_at: float
    hurries: int
    pending: int


def destination_id(connection: sqlite3.Connection, destination: Destination) -> int:
    """Return the number of a destination in this file; a new one is entered."""
    found = connection.execute(
        "SELECT id FROM destinations WHERE base_url = ? AND digest = ?", (destination.base_url, destination.digest)
    ).fetchone()
    if found is not None:
        number: int = found[0]
        return number
    connection.execute(
        "INSERT INTO destinations (base_url, digest) VALUES (?, ?)", (destination.base_url, destination.digest)
    )
    return _last_number(connection)


def append(connection: sqlite3.Connection, destination: int, records: Sequence[Record], writer: str, now: float) -> int:
    """Put records behind those that wait; returns the position of the last one."""
    size = sum(len(record.entry) for record in records)
    connection.executemany(
        "INSERT INTO records (destination, record_id, customer, writer, appended_at, size, together, entry)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (destination, each.record_id, each.customer, writer, now, len(each.entry), MOST_TOGETHER, each.entry)
            for each in records
        ],
    )
    position = _last_number(connection)
    connection.execute(
        "UPDATE destinations SET appended = appended + ?, pending = pending + ?, pending_bytes = pending_bytes + ?"
        " WHERE id = ?",
        (len(records), len(records), size, destination),
    )
    return position


def _last_number(connection: sqlite3.Connection) -> int:
    ((number,),) = connection.execute("SELECT last_insert_rowid()")
    return int(number)


CLAIM: Final = (
    "SELECT shipper, epoch, shipper_until, bulk_at, hurries, pending FROM destinations"
    " WHERE base_url = ? AND digest = ?"
)
"""Asks for the members of a `Claim`."""


def take(connection: sqlite3.Connection, destination: int, claim: Claim, owner: str, until: float) -> int:
    """Make `owner` the one who ships, or let it be so for longer; returns its epoch."""
    epoch = claim.epoch
    if claim.owner != owner:
        epoch += 1
        # Whoever shipped before has nothing on lease any more: it is dead, or too late.
        connection.execute(
            "UPDATE records SET owner = NULL WHERE destination = ? AND is_rejected = 0 AND owner IS NOT NULL",
            (destination,),
        )
    connection.execute(
        "UPDATE destinations SET shipper = ?, epoch = ?, shipper_until = ? WHERE id = ?",
        (owner, epoch, until, destination),
    )
    return epoch


def free(connection: sqlite3.Connection, destination: int, owner: str) -> None:
    """Let others ship."""
    connection.execute("UPDATE destinations SET shipper = NULL WHERE id = ? AND shipper = ?", (destination, owner))


def lease(
    connection: sqlite3.Connection, destination: int, mark: Lease, now: float, rows: int, size: int, *, bulk: bool
) -> tuple[list[Row], float | None]:
    """Put the first rows that are due on lease.

    Returns:
        The rows; and when there are none, the time at which one will be due, None when none is waiting.
    """
    chosen: list[Row] = []
    due_next: float | None = None
    waiting = connection.execute(
        "SELECT position, size, attempts, together, due, owner, leased_until FROM records"
        " WHERE destination = ? AND is_rejected = 0 ORDER BY position LIMIT ?",
        (destination, _LOOKED_AT),
    )
    for position, length, attempts, together, due, owner, leased_until in waiting:
        ready = max(due, leased_until if owner is not None else 0.0)
        # A time too far ahead was measured before the machine was started anew.
        if now < ready <= now + _FARTHEST:
            due_next = ready if due_next is None else min(due_next, ready)
            continue
        if chosen and (together != chosen[0].together or size < length):
            break
        ((record_id, entry),) = connection.execute(
            "SELECT record_id, entry FROM records WHERE position = ?", (position,)
        )
        chosen.append(Row(position, record_id, entry, attempts, together, mark))
        size -= length
        if len(chosen) >= rows or (bulk and 1 < together <= len(chosen)):
            break
    # What it has not read yet would be moved under its feet.
    waiting.close()
    connection.executemany(
        "UPDATE records SET owner = ?, epoch = ?, leased_until = ? WHERE position = ?",
        [(mark.owner, mark.epoch, mark.until, row.position) for row in chosen],
    )
    return chosen, due_next


_FARTHEST: Final = 2 * 3600.0
"""Seconds: longer than any lease or rest."""


_DELIVERED: Final = "DELETE FROM records WHERE position = ? AND owner = ? AND epoch = ? AND leased_until = ?"
_REJECTED: Final = (
    "UPDATE records SET is_rejected = 1, rejected_at = ?, reason = ?, owner = NULL, due = 0"
    " WHERE position = ? AND owner = ? AND epoch = ? AND leased_until = ?"
)
_RETURNED: Final = (
    "UPDATE records SET owner = NULL, attempts = ?, together = ?, due = ?"
    " WHERE position = ? AND owner = ? AND epoch = ? AND leased_until = ?"
)


def settle(
    connection: sqlite3.Connection,
    destination: int,
    outcomes: Iterable[Outcome],
    error: str | None,
    *,
    now: float,
    tick: float,
) -> None:
    """Say what became of rows on lease, and count it. A lease that has ended changes nothing."""
    delivered = rejected = size = 0
    for outcome in outcomes:
        row = outcome.row
        mark = cast("Lease", row.lease)
        lease = (row.position, mark.owner, mark.epoch, mark.until)
        changed = 0
        if outcome.end == "delivered":
            changed = connection.execute(_DELIVERED, lease).rowcount
            delivered += changed
        elif outcome.end == "rejected":
            changed = connection.execute(_REJECTED, (now, outcome.reason, *lease)).rowcount
            rejected += changed
        else:
            due = tick + outcome.rest if outcome.rest else 0.0
            connection.execute(_RETURNED, (outcome.attempts, outcome.together, due, *lease))
        size += changed * len(row.entry)
    connection.execute(
        "UPDATE destinations SET delivered = delivered + ?, rejected = rejected + ?, pending = pending - ?,"
        " pending_bytes = pending_bytes - ?, last_success = coalesce(?, last_success), last_error = ? WHERE id = ?",
        (delivered, rejected, delivered + rejected, size, now if delivered else None, error, destination),
    )


def hasten(connection: sqlite3.Connection, destination: int) -> None:
    """Let no record of a destination rest any longer, and tell whoever ships."""
    connection.execute(
        "UPDATE records SET due = 0 WHERE destination = ? AND is_rejected = 0 AND due > 0", (destination,)
    )
    connection.execute("UPDATE destinations SET hurries = hurries + 1 WHERE id = ?", (destination,))


def evict(connection: sqlite3.Connection, *, pending_before: float, rejected_before: float, tick: float) -> int:
    """Give up what is too old, of all destinations; returns how many rows are gone."""
    gone = 0
    for (destination,) in connection.execute("SELECT id FROM destinations").fetchall():
        old = connection.execute(
            "SELECT position, size FROM (SELECT position, size, appended_at, owner, leased_until FROM records"
            " WHERE destination = ? AND is_rejected = 0 ORDER BY position LIMIT ?) WHERE appended_at < ?"
            " AND (owner IS NULL OR leased_until <= ? OR leased_until > ?)",
            (destination, _EVICTED_AT_ONCE, pending_before, tick, tick + _FARTHEST),
        ).fetchall()
        connection.executemany("DELETE FROM records WHERE position = ?", [(position,) for position, _ in old])
        connection.execute(
            "UPDATE destinations SET evicted = evicted + ?, pending = pending - ?, pending_bytes = pending_bytes - ?"
            " WHERE id = ?",
            (len(old), len(old), sum(size for _, size in old), destination),
        )
        gone += len(old)
    # These were counted when they were rejected; only their text goes.
    forgotten = connection.execute(
        "DELETE FROM records WHERE position IN (SELECT position FROM records WHERE is_rejected = 1"
        " AND rejected_at < ? LIMIT ?)",
        (rejected_before, _EVICTED_AT_ONCE),
    )
    return gone + forgotten.rowcount
