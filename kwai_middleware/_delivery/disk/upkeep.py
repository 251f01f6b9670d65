"""What keeps a spool's file small and young."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Final

from kwai_middleware._delivery.disk import files, schema, tables
from kwai_middleware._delivery.disk.database import Database

__all__ = ["ROW_OVERHEAD", "Upkeep"]

ROW_OVERHEAD: Final = 512
"""Bytes that a record occupies beside its text: its other columns, its places in the indexes, what a page wastes."""

_EVERY: Final = 5.0
_SOON: Final = 0.2
_MANY_TIMES: Final = 4
_PAGES_AT_ONCE: Final = 256


class Upkeep:
    """Looks at the file's log, at its empty pages and at what is too old.

    Args:
        max_bytes: Of the file and its log.
        ticks: Monotonic seconds.
    """

    def __init__(self, max_bytes: int, ticks: Callable[[], float]) -> None:
        self._max_bytes = max_bytes
        self._ticks = ticks
        self._next = 0.0
        self._next_log = 0.0
        self._is_tidy = False

    def before_append(self, database: Database) -> None:
        """Shorten the log when whoever ships does not: nobody may, or it is behind."""
        self._shorten(database, _MANY_TIMES * schema.LARGEST_LOG)
        self._is_tidy = False

    def before_lease(self, database: Database) -> None:
        """Shorten the log if it has grown: it counts, and whoever reads has to look through it."""
        self._shorten(database, schema.LARGEST_LOG)

    def _shorten(self, database: Database, most: int) -> None:
        if files.size_of(database.path + "-wal") > most and self._ticks() >= self._next_log:
            # Waits for nobody, and nobody has to wait for it. Then the next commit begins the log anew.
            database.tidy("PRAGMA wal_checkpoint(PASSIVE)")
            # While somebody reads all the time it cannot; to try for each record would only cost.
            self._next_log = self._ticks() + _SOON

    def room(self, connection: sqlite3.Connection, path: str) -> int:
        """Bytes that may still be added."""
        ((size,),) = connection.execute("PRAGMA page_size")
        ((pages,),) = connection.execute("PRAGMA page_count")
        ((free,),) = connection.execute("PRAGMA freelist_count")
        used: int = (pages - free) * size
        return self._max_bytes - used - files.size_of(path + "-wal")

    def now_and_then(self, database: Database, *, pending_before: float, rejected_before: float, is_idle: bool) -> None:
        """Every few seconds, give up what is too old; when nothing waits, leave no trace of what was."""
        now = self._ticks()
        if now < self._next:
            return
        self._next = now + _EVERY
        if database.read("SELECT 1 FROM records LIMIT 1"):
            with database.transaction() as connection:
                tables.evict(connection, pending_before=pending_before, rejected_before=rejected_before, tick=now)
        if is_idle and not self._is_tidy:
            self._is_tidy = True
            database.tidy(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})")
            database.tidy("PRAGMA wal_checkpoint(PASSIVE)")
            # What was overwritten in the file still stands in its log.
            database.tidy("PRAGMA wal_checkpoint(TRUNCATE)")
