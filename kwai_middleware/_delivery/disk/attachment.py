"""What one process has open of a spool's file, and how it goes on when that file is gone or damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from kwai_middleware import _native as native
from kwai_middleware._delivery.destination import Destination
from kwai_middleware._delivery.disk import files, owners, renewal
from kwai_middleware._delivery.disk.database import Database
from kwai_middleware._delivery.disk.errors import SpoolBusy, SpoolCorrupt, SpoolGone, SpoolUnavailable
from kwai_middleware._delivery.spool import Record

__all__ = ["Attachment"]

_T = TypeVar("_T")


class Attachment:
    """Three connections: to write, to look, and to tidy up, so that neither of the first two waits for the last.

    Args:
        path: Absolute.
        destination: Of the records.
        steps: The schema.
        connection_type: What runs the statements.
        save: Called with what this process had in a file that is gone, when the next one can be used.
    """

    def __init__(
        self,
        path: str,
        destination: Destination,
        steps: Sequence[str],
        connection_type: type[sqlite3.Connection],
        save: Callable[[Iterator[list[Record]]], None],
    ) -> None:
        self.path = path
        self.destination = destination
        self.key = (destination.base_url, destination.digest)
        self.owner = owners.new_owner()
        self.generation = 0
        """Counts the files at the path so far. It does not change while one of the connections is held."""
        self.writing, self.reading, self.tidying = (Database(path, steps, connection_type) for _ in range(3))
        """The threads of a process take turns at the one that writes: with one each, they could only try again and
        again, as processes have to, and each would read anew what the other has written."""
        self.renewing = native.lock()
        """Held until the records of a file that is gone are saved."""
        self.is_open = False
        self._file: files.Identity | None = None
        self._save = save

    def attempt(self, operation: Callable[[], _T]) -> _T:
        """Do something with the file; when it turns out to be gone or damaged, once more with a new one."""
        try:
            return self._attempted(operation)
        except (SpoolBusy, SpoolGone, SpoolCorrupt):
            raise
        except SpoolUnavailable:
            for database in self._databases():
                database.distrust()
            raise

    def glance(self, question: str, values: Sequence[Any], patience: float) -> list[tuple[Any, ...]]:
        """Look into the file. One that is gone or damaged is left for others to find out.

        Raises:
            SpoolUnavailable: It cannot be looked into within so many seconds.
        """
        found = files.identity(self.path)
        if found is None or (self.is_open and found != self._file):
            raise SpoolGone(f"{self.path} is not there")
        return self.reading.glance(question, values, patience)

    def end_by(self, until: float) -> None:
        """Wait for other processes until then, and for moments only after that."""
        for database in self._databases():
            database.end_by(until)

    def close(self) -> None:
        """Close the connections for good."""
        for database in self._databases():
            database.close()

    def _attempted(self, operation: Callable[[], _T]) -> _T:
        generation = self.generation
        try:
            self._open()
            return operation()
        except (SpoolGone, SpoolCorrupt) as error:
            with self.renewing:
                if generation == self.generation:
                    self._renew(error)
        self._open()
        return operation()

    def _open(self) -> None:
        """Open all three before the first of them is used: each is to notice when the file has been replaced."""
        if self.is_open:
            # One that is open looks for itself. One that is not at the moment, after a fork or an outage, would open
            # whatever is there by now.
            if not all(database.is_open for database in self._databases()) and files.identity(self.path) != self._file:
                raise SpoolGone(f"{self.path} was deleted or replaced while it was in use")
            return
        with self.renewing:
            try:
                for database in self._databases():
                    database.read("SELECT 1")
                if len({database.seen for database in self._databases()}) > 1:
                    raise SpoolUnavailable(f"{self.path} was replaced while it was opened")
            except BaseException:
                renewal.closed(self._databases())
                raise
            self._file = self.reading.seen
            self.is_open = True

    def _renew(self, error: SpoolUnavailable) -> None:
        renewal.given_up(self._databases(), error)
        # All at once: no other thread is to take the one file for the other.
        with self.writing.held(), self.reading.held(), self.tidying.held():
            old = renewal.detached(self._databases(), self._file)
            self.generation += 1
            self.is_open = False
        self._save(renewal.saved(old, self.destination, self.owner))

    def _databases(self) -> tuple[Database, Database, Database]:
        return self.writing, self.reading, self.tidying
