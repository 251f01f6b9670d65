"""The statements that move records through the tables, each inside a transaction of the caller's.

Whatever changes the number of records in a state changes the counters with it: that is the ledger.
Each statement finds its rows by an index: none becomes slower with the number of those that wait.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import groupby, islice
from typing import Final, cast

import msgspec

from kwai_middleware._delivery.destination import Destination
from kwai_middleware._delivery.disk.large_entries import WINDOW, LargeEntries
from kwai_middleware._delivery.spool import MOST_TOGETHER, Outcome, Record, Row, most_at_once

__all__ = ["Lease", "append", "destination_id", "forget_ended", "hasten", "lease", "settle"]


class Lease(msgspec.Struct, frozen=True):
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
    """Return the number of a destination in this file; a new one is entered.

    Asked for in every transaction: whatever is put into the file meanwhile, nobody gets the records of others.
    """
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
    position = 0
    large = LargeEntries(connection)
    for is_large, alike in groupby(records, _is_large):
        # A statement for several rows at once: between two steps Python lets go of the interpreter, and has to wait
        # for it.
        row, most = (_APPENDED_LARGE, 1) if is_large else (_APPENDED_ROW, _APPENDED_AT_ONCE)
        while some := list(islice(alike, most)):
            values: list[object] = []
            for each in some:
                size, customer = len(each.entry), _storable(each.customer)
                entry = size if is_large else each.entry
                values += destination, each.record_id, customer, writer, now, size, MOST_TOGETHER, entry
            position = connection.execute(_APPENDED + ", ".join([row] * len(some)), values).lastrowid or 0
            if is_large:
                large.write(position, some[0].entry)
    connection.execute(
        "UPDATE destinations SET appended = appended + ?, pending = pending + ?, pending_bytes = pending_bytes + ?"
        " WHERE id = ?",
        (len(records), len(records), sum(len(record.entry) for record in records), destination),
    )
    return position


_APPENDED_AT_ONCE: Final = 10
_APPENDED: Final = (
    "INSERT INTO records (destination, record_id, customer, writer, appended_at, size, together, entry) VALUES "
)
_APPENDED_ROW: Final = "(?, ?, ?, ?, ?, ?, ?, ?)"
_APPENDED_LARGE: Final = "(?, ?, ?, ?, ?, ?, ?, zeroblob(?))"

_ARE_WAITING: Final = (
    " FROM records WHERE destination = ? AND is_rejected = 0"
    " AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.position = records.position)"
    " AND NOT EXISTS (SELECT 1 FROM rests WHERE rests.position = records.position)"
)
_WAITING: Final = (
    f"SELECT position, size, attempts, together, record_id, CASE WHEN size <= {WINDOW} THEN entry END"
    f"{_ARE_WAITING} ORDER BY records.position LIMIT ?"
)
_LEASED: Final = (
    "INSERT INTO leases (position, destination, owner, epoch, until)"
    f" SELECT position, destination, ?, ?, ? {_ARE_WAITING} AND position BETWEEN ? AND ?"
)
_NEXT_DUE: Final = (
    "SELECT min(until) FROM (SELECT min(until) AS until FROM leases WHERE destination = ?"
    " UNION ALL SELECT min(until) FROM rests WHERE destination = ?)"
)


def forget_ended(connection: sqlite3.Connection, destination: int, now: float) -> None:
    """Have the rows wait again whose lease or rest is over."""
    for table in ("leases", "rests"):
        connection.execute(f"DELETE FROM {table} WHERE destination = ? AND until <= ?", (destination, now))  # noqa: S608 - one of these two names


def lease(
    connection: sqlite3.Connection, destination: int, mark: Lease, rows: int, size: int, *, bulk: bool
) -> tuple[list[Row], float | None]:
    """Put the first rows that neither are on lease nor rest on lease.

    Returns:
        The rows; and when there are none, the time at which one will be due, None when none is waiting.
    """
    chosen: list[Row] = []
    large = LargeEntries(connection)
    # Read as far as needed, however many wait.
    waiting = connection.execute(_WAITING, (destination, rows))
    for position, length, attempts, together, record_id, entry in waiting:
        if chosen and (together != chosen[0].together or size < length):
            break
        if entry is None:
            # Not before it is known that it fits in.
            entry = large.read(position)
        chosen.append(Row(position, record_id, entry, attempts, together, mark))
        size -= length
        if bulk and len(chosen) >= most_at_once(together):
            break
    # What it has not read yet would be moved under its feet.
    waiting.close()
    if not chosen:
        ((due,),) = connection.execute(_NEXT_DUE, (destination, destination))
        return [], due
    # All that wait from the first to the last: none in between was passed over.
    borders = (chosen[0].position, chosen[-1].position)
    connection.execute(_LEASED, (mark.owner, mark.epoch, mark.until, destination, *borders))
    return chosen, None


_FREED: Final = "DELETE FROM leases WHERE position = ? AND owner = ? AND epoch = ? AND until = ?"
_GONE: Final = "DELETE FROM records WHERE position = ?"
_REJECTED: Final = "UPDATE records SET is_rejected = 1, rejected_at = ?, reason = ? WHERE position = ?"
_RETRIED: Final = "UPDATE records SET attempts = ?, together = ? WHERE position = ?"
_RESTING: Final = "INSERT INTO rests (position, destination, until) VALUES (?, ?, ?)"


def settle(
    connection: sqlite3.Connection,
    destination: Destination,
    outcomes: Sequence[Outcome],
    error: str | None,
    *,
    now: float,
    tick: float,
) -> None:
    """Say what became of rows on lease, and count it. A lease that is not valid any more changes nothing."""
    delivered, size = _delivered(connection, [each.row for each in outcomes if each.end == "delivered"])
    rejected = 0
    for outcome in outcomes:
        row = outcome.row
        if outcome.end == "delivered" or not connection.execute(_FREED, (row.position, *_mark_of(row))).rowcount:
            continue
        if outcome.end == "rejected":
            connection.execute(_REJECTED, (now, _storable(outcome.reason), row.position))
            rejected += 1
            size += len(row.entry)
        else:
            _give_back(connection, destination, outcome, tick)
    connection.execute(
        "UPDATE destinations SET delivered = delivered + ?, rejected = rejected + ?, pending = pending - ?,"
        " pending_bytes = pending_bytes - ?, last_success = coalesce(?, last_success), last_error = ?"
        " WHERE base_url = ? AND digest = ?",
        (
            *(delivered, rejected, delivered + rejected, size, now if delivered else None, _storable(error)),
            *(destination.base_url, destination.digest),
        ),
    )


_WIDTHS: Final = (8, 128)
"""Positions that one statement takes. Of few lengths, so that Python keeps the statements."""


def _delivered(connection: sqlite3.Connection, rows: Sequence[Row]) -> tuple[int, int]:
    """Delete rows that are still on lease; returns how many, and how many bytes."""
    if len(rows) == 1:
        # What was sent alone: no other statement is needed to know what was there.
        [row] = rows
        is_on_lease = connection.execute(_FREED, (row.position, *_mark_of(row))).rowcount
        count = connection.execute(_GONE, (row.position,)).rowcount if is_on_lease else 0
        return count, count * len(row.entry)
    count = size = 0
    by_mark: dict[tuple[object, ...], list[int]] = {}
    for row in rows:
        by_mark.setdefault(_mark_of(row), []).append(row.position)
    for mark, positions in by_mark.items():
        width = _WIDTHS[len(positions) > _WIDTHS[0]]
        # NULL stands for none.
        on_lease = f"owner = ? AND epoch = ? AND until = ? AND position IN ({', '.join('?' * width)})"
        records = f"FROM records WHERE position IN (SELECT position FROM leases WHERE {on_lease})"  # noqa: S608 - ours
        for start in range(0, len(positions), width):
            some = positions[start : start + width]
            values = (*mark, *some, *[None] * (width - len(some)))
            ((found, its_size),) = connection.execute(f"SELECT count(*), coalesce(sum(size), 0) {records}", values)
            connection.execute(f"DELETE {records}", values)
            connection.execute(f"DELETE FROM leases WHERE {on_lease}", values)  # noqa: S608 - ours
            count += found
            size += its_size
    return count, size


def _mark_of(row: Row) -> tuple[str, int, float]:
    mark = cast("Lease", row.lease)
    return mark.owner, mark.epoch, mark.until


def _give_back(connection: sqlite3.Connection, destination: Destination, outcome: Outcome, tick: float) -> None:
    row = outcome.row
    if (outcome.attempts, outcome.together) != (row.attempts, row.together):
        connection.execute(_RETRIED, (outcome.attempts, outcome.together, row.position))
    if outcome.rest:
        number = destination_id(connection, destination)
        connection.execute(_RESTING, (row.position, number, tick + outcome.rest))


def hasten(connection: sqlite3.Connection, destination: int) -> None:
    """Let no record of a destination rest any longer, and tell whoever ships."""
    connection.execute("DELETE FROM rests WHERE destination = ?", (destination,))
    connection.execute("UPDATE destinations SET hurries = hurries + 1 WHERE id = ?", (destination,))


def _is_large(record: Record) -> bool:
    return len(record.entry) > WINDOW


def _last_number(connection: sqlite3.Connection) -> int:
    ((number,),) = connection.execute("SELECT last_insert_rowid()")
    return int(number)


def _storable(text: str | None) -> str | None:
    """Replace what is no character, as half of a pair out of somebody's JSON: SQLite takes none of these."""
    return None if text is None else text.encode("utf-8", "replace").decode()
