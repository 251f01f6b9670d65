"""The tables of a spool's file, and the way from an older version of them to this one."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

from kwai_middleware._delivery.disk.errors import SpoolUnavailable

__all__ = ["APPLICATION", "LARGEST_LOG", "STEPS", "prepare", "upgrade", "version_of"]

APPLICATION: Final = 0x6B776169
"""Says whose file it is, in its header: "kwai"."""

LARGEST_LOG: Final = 4 * 1024 * 1024
"""Bytes of the log from which what stands in it is brought into the file."""

_CACHE: Final = 4 * 1024
"""Kilobytes."""

_FIRST: Final = """
CREATE TABLE destinations (
    id INTEGER PRIMARY KEY,
    base_url TEXT NOT NULL,
    digest TEXT NOT NULL,
    appended INTEGER NOT NULL DEFAULT 0,
    delivered INTEGER NOT NULL DEFAULT 0,
    pending INTEGER NOT NULL DEFAULT 0,
    rejected INTEGER NOT NULL DEFAULT 0,
    evicted INTEGER NOT NULL DEFAULT 0,
    purged INTEGER NOT NULL DEFAULT 0,
    pending_bytes INTEGER NOT NULL DEFAULT 0,
    shipper TEXT,
    epoch INTEGER NOT NULL DEFAULT 0,
    shipper_since REAL NOT NULL DEFAULT 0,
    shipper_until REAL NOT NULL DEFAULT 0,
    bulk_at REAL NOT NULL DEFAULT 0,
    hurries INTEGER NOT NULL DEFAULT 0,
    last_success REAL,
    last_error TEXT,
    UNIQUE (base_url, digest)
);
CREATE TABLE records (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    destination INTEGER NOT NULL,
    record_id TEXT NOT NULL,
    customer TEXT,
    writer TEXT NOT NULL,
    appended_at REAL NOT NULL,
    size INTEGER NOT NULL,
    is_rejected INTEGER NOT NULL DEFAULT 0,
    reason TEXT,
    rejected_at REAL,
    attempts INTEGER NOT NULL DEFAULT 0,
    together INTEGER NOT NULL,
    entry BLOB NOT NULL
);
CREATE TABLE leases (
    position INTEGER PRIMARY KEY,
    destination INTEGER NOT NULL,
    owner TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    until REAL NOT NULL
);
CREATE TABLE rests (
    position INTEGER PRIMARY KEY,
    destination INTEGER NOT NULL,
    until REAL NOT NULL
);
CREATE INDEX ends_of_leases ON leases (destination, until);
CREATE INDEX ends_of_rests ON rests (destination, until);
CREATE INDEX pending_records ON records (destination, position) WHERE is_rejected = 0;
CREATE INDEX records_of_writers ON records (destination, writer, position) WHERE is_rejected = 0;
CREATE INDEX rejected_records ON records (rejected_at) WHERE is_rejected = 1;
CREATE INDEX customers ON records (customer) WHERE customer IS NOT NULL;
"""
# `entry` stands last: whoever looks at the other columns does not have to read through it. Leases and rests have
# tables of their own: to change one column of a record is to write all of it anew.

STEPS: Final[tuple[str, ...]] = (_FIRST,)
"""What leads from each version to the next, from an empty file on.

Older versions of this library go on using a file that a newer one has upgraded: during a deployment
both run. So a step only adds, and what it adds has defaults. A step that cannot keep to that raises
the file's `application_id`, and the older ones leave it alone.
"""


def version_of(connection: sqlite3.Connection) -> int:
    """Return the version of a file, 0 of an empty one; changes nothing in it.

    Raises:
        SpoolUnavailable: The file belongs to another program, or to a version that cannot be shared.
    """
    ((application,),) = connection.execute("PRAGMA application_id")
    ((version,),) = connection.execute("PRAGMA user_version")
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_master")
    if application != APPLICATION and (application or version or tables):
        raise SpoolUnavailable("the file belongs to another program, or to a newer version of this library")
    return int(version)


def prepare(connection: sqlite3.Connection) -> None:
    """Set what is the connection's own affair.

    Raises:
        SpoolUnavailable: SQLite cannot keep its log here: a network's disk, most likely.
    """
    if version_of(connection) == 0:
        # Only before the first table does it count; later it would wait for a turn to write.
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    ((mode,),) = connection.execute("PRAGMA journal_mode = WAL")
    if mode != "wal":
        raise SpoolUnavailable("the file system has no shared memory for SQLite's log")
    # What was committed survives the death of a process, if not that of the machine within the next seconds.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    # A log that starts again at its beginning gives back what is above this.
    connection.execute(f"PRAGMA journal_size_limit = {LARGEST_LOG}")
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute("PRAGMA temp_store = MEMORY")
    # With room for a large record: one of 2 MB that does not fit is written in 3 ms of CPU, one that does in 1.7.
    connection.execute(f"PRAGMA cache_size = -{_CACHE}")


def upgrade(connection: sqlite3.Connection, steps: Sequence[str] = STEPS) -> None:
    """Bring a file to the version of these steps; one of a newer version is left as it is.

    Each step is one transaction: a crash in between leaves the older version, whole.

    Raises:
        SpoolUnavailable: The file belongs to another program, or to a version that cannot be shared.
    """
    while version_of(connection) < len(steps):
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Looked at again: another process may have taken the step meanwhile.
            version = version_of(connection)
            if version < len(steps):
                # Before the step, which may raise it.
                if version == 0:
                    connection.execute(f"PRAGMA application_id = {APPLICATION}")
                for statement in _statements(steps[version]):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise


def _statements(step: str) -> Iterator[str]:
    statement = ""
    for part in step.split(";")[:-1]:
        statement += f"{part};"
        # Not so inside of a text or of a trigger.
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
