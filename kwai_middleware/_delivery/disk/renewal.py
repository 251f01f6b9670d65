"""A new file in the place of one that is gone or damaged, with what can be saved of the old one."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from kwai_middleware import _notices
from kwai_middleware._delivery.destination import Destination
from kwai_middleware._delivery.disk import files
from kwai_middleware._delivery.disk.aside import put_aside
from kwai_middleware._delivery.disk.database import Database
from kwai_middleware._delivery.disk.errors import SpoolCorrupt, SpoolUnavailable
from kwai_middleware._delivery.disk.forks import Seat
from kwai_middleware._delivery.spool import Record

__all__ = ["closed", "detached", "given_up", "saved"]

_logger: Final = logging.getLogger("kwai_middleware")
_AT_ONCE: Final = 100


def given_up(databases: Sequence[Database], error: SpoolUnavailable) -> None:
    """Tell that a file is not used any more; a damaged one stays there under another name.

    Raises:
        SpoolUnavailable: The damaged file cannot be renamed.
    """
    if isinstance(error, SpoolCorrupt):
        _put_aside(databases, error)
        _notices.count("spool_corrupt")
    else:
        _notices.count("spool_gone")
        _logger.error("kwai_middleware: %s; going on in a new file, with the records of this process", error)


def detached(databases: Sequence[Database], file: files.Identity | None) -> Seat:
    """Let these open a new file with their next use; returns what one of them has open of the old one, `file`."""
    seats = [(database.seen == file, database.detach()) for database in databases]
    # Any of them may be closed at the moment, after a fork or an outage.
    chosen = next((seat for is_old, seat in seats if is_old and seat.connection is not None), seats[0][1])
    for _, seat in seats:
        if seat is not chosen:
            seat.leave()
    return chosen


def closed(databases: Sequence[Database]) -> None:
    """Close what these have open, until their next use."""
    for database in databases:
        database.detach().leave()


def _put_aside(databases: Sequence[Database], error: SpoolCorrupt) -> None:
    path = databases[0].path
    with files.exclusively(path):
        # Of several processes that find out, the first one renames; the others find a new file in its place.
        if files.identity(path) in {database.seen for database in databases}:
            moment = f"{datetime.now(UTC):%Y%m%dT%H%M%S}"
            aside = put_aside(path, moment)
            _logger.error(
                "kwai_middleware: the spool's file was damaged (%s); it is kept as %s, and work goes on in a new one",
                error,
                aside,
            )


def saved(seat: Seat, destination: Destination, writer: str) -> Iterator[list[Record]]:
    """Return what a process had pending in a file, a few at a time, and leave it.

    What others had in it they save themselves.

    Args:
        seat: Of the process, at the file.
        destination: Of the records.
        writer: Who appended them.
    """
    last = 0
    try:
        while True:
            # Not for longer: a fork waits for it.
            with seat.lock:
                if seat.connection is None:
                    return
                found = seat.connection.execute(
                    "SELECT position, record_id, customer, entry FROM records WHERE position > ? AND is_rejected = 0"
                    " AND writer = ? AND destination = (SELECT id FROM destinations WHERE base_url = ? AND digest = ?)"
                    " ORDER BY position LIMIT ?",
                    (last, writer, destination.base_url, destination.digest, _AT_ONCE),
                ).fetchall()
            if not found:
                return
            last = found[-1][0]
            yield [Record(record_id, entry, customer) for _, record_id, customer, entry in found]
    except sqlite3.Error:
        # Damaged: what could be read is saved.
        return
    finally:
        seat.leave()
