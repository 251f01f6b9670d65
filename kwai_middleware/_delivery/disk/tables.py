"""The statements that move records through the tables, each inside a transaction of the caller's.

Whatever changes the number of records in a state changes the counters with it: that is the ledger.
Each statement finds its rows by an index: none becomes slower with the number of those that wait.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, cast

from kwai_middleware._delivery.destination import Destination
from kwai_middleware._delivery.spool import MOST_TOGETHER, Outcome, Record, Row, most_at_once

__all__ = ["Lease", "append", "destination_id", "hasten", "lease", "settle"]


@dataclass(frozen=True, slots=True)
class Lease:
    """Who may settle a row, and until when: all must be as it was.

    Attributes:
        owner: Who ships.
        epoch: Of the claim.
        until: Monotonic seconds.
        generation: Counts the files that this process has had at the path.
    """

    owner: str
    epoch: int
    until: float
    generation: int = 0


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
            (
                destination,
                each.record_id,
                _storable(each.customer),
                writer,
                now,
                len(each.entry),
                MOST_TOGETHER,
                each.entry,
            )
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


_WAITING: Final = (
    "SELECT position, size, attempts, together FROM records WHERE destination = ? AND is_rejected = 0"
    " AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.position = records.position)"
    " AND NOT EXISTS (SELECT 1 FROM rests WHERE rests.position = records.position) ORDER BY records.position"
)
_NEXT_DUE: Final = (
    "SELECT min(until) FROM (SELECT min(until) AS until FROM leases WHERE destination = ?"
    " UNION ALL SELECT min(until) FROM rests WHERE destination = ?)"
)


def lease(
    connection: sqlite3.Connection, destination: int, mark: Lease, now: float, rows: int, size: int, *, bulk: bool
) -> tuple[list[Row], float | None]:
    """Put the first rows that are due on lease.

    Returns:
        The rows; and when there are none, the time at which one will be due, None when none is waiting.
    """
    for table in ("leases", "rests"):
        connection.execute(f"DELETE FROM {table} WHERE destination = ? AND until <= ?", (destination, now))  # noqa: S608 - one of these two names
    chosen: list[Row] = []
    # Read as far as needed, however many wait.
    waiting = connection.execute(_WAITING, (destination,))
    for position, length, attempts, together in waiting:
        if chosen and (together != chosen[0].together or size < length):
            break
        ((record_id, entry),) = connection.execute(
            "SELECT record_id, entry FROM records WHERE position = ?", (position,)
        )
        chosen.append(Row(position, record_id, entry, attempts, together, mark))
        size -= length
        if len(chosen) >= rows or (bulk and len(chosen) >= most_at_once(together)):
            break
    # What it has not read yet would be moved under its feet.
    waiting.close()
    if not chosen:
        ((due,),) = connection.execute(_NEXT_DUE, (destination, destination))
        return [], due
    connection.executemany(
        "INSERT INTO leases (position, destination, owner, epoch, until) VALUES (?, ?, ?, ?, ?)",
        [(row.position, destination, mark.owner, mark.epoch, mark.until) for row in chosen],
    )
    return chosen, None


_FREED: Final = "DELETE FROM leases WHERE position = ? AND owner = ? AND epoch = ? AND until = ?"
_REJECTED: Final = "UPDATE records SET is_rejected = 1, rejected_at = ?, reason = ? WHERE position = ?"
_RETRIED: Final = "UPDATE records SET attempts = ?, together = ? WHERE position = ?"
_RESTING: Final = "INSERT INTO rests (position, destination, until) VALUES (?, ?, ?)"


def settle(
    connection: sqlite3.Connection,
    destination: int,
    outcomes: Iterable[Outcome],
    error: str | None,
    *,
    now: float,
    tick: float,
) -> None:
    """Say what became of rows on lease, and count it. A lease that is not valid any more changes nothing."""
    delivered = rejected = size = 0
    for outcome in outcomes:
        row = outcome.row
        mark = cast("Lease", row.lease)
        if not connection.execute(_FREED, (row.position, mark.owner, mark.epoch, mark.until)).rowcount:
            continue
        if outcome.end == "delivered":
            connection.execute("DELETE FROM records WHERE position = ?", (row.position,))
            delivered += 1
            size += len(row.entry)
        elif outcome.end == "rejected":
            connection.execute(_REJECTED, (now, _storable(outcome.reason), row.position))
            rejected += 1
            size += len(row.entry)
        else:
            _give_back(connection, destination, outcome, tick)
    connection.execute(
        "UPDATE destinations SET delivered = delivered + ?, rejected = rejected + ?, pending = pending - ?,"
        " pending_bytes = pending_bytes - ?, last_success = coalesce(?, last_success), last_error = ? WHERE id = ?",
        (delivered, rejected, delivered + rejected, size, now if delivered else None, _storable(error), destination),
    )


def _give_back(connection: sqlite3.Connection, destination: int, outcome: Outcome, tick: float) -> None:
    row = outcome.row
    if (outcome.attempts, outcome.together) != (row.attempts, row.together):
        connection.execute(_RETRIED, (outcome.attempts, outcome.together, row.position))
    if outcome.rest:
        connection.execute(_RESTING, (row.position, destination, tick + outcome.rest))


def hasten(connection: sqlite3.Connection, destination: int) -> None:
    """Let no record of a destination rest any longer, and tell whoever ships."""
    connection.execute("DELETE FROM rests WHERE destination = ?", (destination,))
    connection.execute("UPDATE destinations SET hurries = hurries + 1 WHERE id = ?", (destination,))


def _last_number(connection: sqlite3.Connection) -> int:
    ((number,),) = connection.execute("SELECT last_insert_rowid()")
    return int(number)


def _storable(text: str | None) -> str | None:
    """Replace what is no character, as half of a pair out of somebody's JSON: SQLite takes none of these."""
    return None if text is None else text.encode("utf-8", "replace").decode()
