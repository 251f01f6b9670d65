"""What keeps a spool's file small and young."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from typing import Final

from kwai_middleware._delivery.disk import ageing, aside, files, schema, tables
from kwai_middleware._delivery.disk.attachment import Attachment
from kwai_middleware._delivery.disk.bounds import WEEK, Bounds
from kwai_middleware._delivery.disk.database import Database
from kwai_middleware._delivery.disk.errors import SpoolShort

__all__ = ["ROW_OVERHEAD", "Upkeep"]

ROW_OVERHEAD: Final = 512
"""Bytes that a record occupies beside its text: its other columns, its places in the indexes, what a page wastes."""

_EVERY: Final = 5.0
_ROUNDS_AN_HOUR: Final = 720
_SOON: Final = 0.2
_LONGEST: Final = 0.5
_MANY_TIMES: Final = 4
_PART_OF_ALL: Final = 8
_PAGES_AT_ONCE: Final = 4096
_LOOKED_EVERY: Final = 1.0
_LOOKED_AFTER: Final = 1024 * 1024
"""Seconds and bytes between two looks at the disk."""


_USED: Final = (
    "SELECT page_size * (page_count - freelist_count) FROM pragma_page_size, pragma_page_count, pragma_freelist_count"
)


class Upkeep:
    """Looks at the file's log, at its empty pages and at what is too old.

    Args:
        path: Of the file.
        bounds: How much, how long.
        clock: Seconds since 1970.
        ticks: Monotonic seconds.
    """

    def __init__(
        self,
        path: str,
        bounds: Bounds,
        clock: Callable[[], float],
        ticks: Callable[[], float],
    ) -> None:
        self._path = path
        self._log = path + "-wal"
        self._bounds = bounds
        self._clock = clock
        self._ticks = ticks
        self._largest_log = min(schema.LARGEST_LOG, bounds.max_bytes // _PART_OF_ALL)
        self._next = self._next_log = self._next_room = -_EVERY
        self._rounds = 0
        self._next_look = -_EVERY
        self._added = 0

    def check_disk(self, size: int) -> None:
        """See to it that the disk is not filled up: to take a record out of the file again takes room too.

        Args:
            size: Bytes about to be added.

        Raises:
            SpoolShort: They are not to be.
        """
        self._added += size
        if self._added < _LOOKED_AFTER and not self._is_time(self._next_look):
            return
        # What is in the log is going to be in the file as well.
        taken = 2 * size + files.size_of(self._log)
        if files.free_at(self._log) - taken < self._bounds.reserve:
            self._next_look = -_EVERY
            raise SpoolShort(f"the disk of {self._path} is full but for what is needed to empty the spool")
        self._added = 0
        self._next_look = self._ticks() + _LOOKED_EVERY

    def before_append(self, attached: Attachment) -> None:
        """Shorten the log when whoever ships does not: nobody may, or it is behind."""
        self._shorten(attached.tidying, _MANY_TIMES * self._largest_log)

    def before_lease(self, attached: Attachment) -> None:
        """Shorten the log if it has grown: it counts, and whoever reads has to look through it."""
        self._shorten(attached.tidying, self._largest_log)

    def room(self, connection: sqlite3.Connection, wanted: int) -> int:
        """Bytes that may still be added; no more than `wanted`, where the files are plainly small enough for that."""
        log = files.size_of(self._log)
        # What the log says of the file's pages may make the file as much larger.
        if self._bounds.max_bytes - files.size_of(self._path) - 2 * log >= wanted:
            return wanted
        ((used,),) = connection.execute(_USED)
        return self._bounds.max_bytes - int(used) - log

    def make_room(self, attached: Attachment) -> None:
        """Let go of what is no pending record: rejected ones, the log."""
        if self._is_time(self._next_room):
            with attached.writing.transaction() as connection:
                ageing.forget_rejected(connection, self._clock())
            self._empty_log(attached.tidying)

    def is_short_of_room(self) -> None:
        """Say that it did not help: to try again for each record that does not fit would only cost."""
        if self._is_time(self._next_room):
            self._next_room = self._ticks() + _SOON

    def now_and_then(self, attached: Attachment, *, is_idle: bool) -> None:
        """Every few seconds, give up what is too old; when nothing waits, leave no trace of what was."""
        if not self._is_time(self._next):
            return
        self._next = self._ticks() + _EVERY
        self._evict(attached)
        if not self._rounds % _ROUNDS_AN_HOUR:
            aside.forget_aside(attached.path, older_than=self._clock() - self._bounds.max_pending_age)
        self._rounds += 1
        if is_idle:
            if attached.tidying.read("PRAGMA freelist_count") != [(0,)]:
                attached.tidying.tidy(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})")
            if files.size_of(self._log):
                self._empty_log(attached.tidying)

    def _evict(self, attached: Attachment) -> None:
        until = time.monotonic() + _LONGEST
        is_more = True
        while is_more:
            with attached.writing.transaction() as connection:
                ages = ageing.Ages(
                    now=self._clock(),
                    tick=self._ticks(),
                    pending=self._bounds.max_pending_age,
                    others_pending=max(self._bounds.max_pending_age, WEEK),
                    rejected=self._bounds.max_rejected_age,
                )
                is_more = ageing.evict(connection, tables.destination_id(connection, attached.destination), ages)
            if is_more and time.monotonic() >= until:
                # The rest with the next lease: what is to be sent has to be sent meanwhile.
                self._next = self._ticks()
                return

    def _shorten(self, database: Database, most: int) -> None:
        if files.size_of(self._log) > most and self._is_time(self._next_log):
            # Waits for nobody, and nobody has to wait for it. Then the next commit begins the log anew.
            database.tidy("PRAGMA wal_checkpoint(PASSIVE)", patience=0.0)
            # While somebody reads all the time it cannot; to try for each record would only cost.
            self._next_log = self._ticks() + _SOON

    def _empty_log(self, database: Database) -> None:
        # What was overwritten in the file still stands in its log.
        database.tidy("PRAGMA wal_checkpoint(PASSIVE)")
        database.tidy("PRAGMA wal_checkpoint(TRUNCATE)")

    def _is_time(self, moment: float) -> bool:
        # A moment too far ahead was measured by another clock.
        return not 0.0 < moment - self._ticks() <= _EVERY
