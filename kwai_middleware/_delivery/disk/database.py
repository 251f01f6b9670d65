"""One connection to a spool's file: transactions that take turns, and survive forks."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sqlite3
import time
import weakref
from collections.abc import Callable, Generator, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import quote

from kwai_middleware import _native as native
from kwai_middleware._delivery.disk import files, schema
from kwai_middleware._delivery.disk.errors import SpoolGone, SpoolUnavailable, translated

__all__ = ["Database"]

_T = TypeVar("_T")

_PATIENCE: Final = 2.0
"""Seconds to wait for a turn. Commits take milliseconds: who has none by then will not get one soon."""

_GLANCE: Final = 0.0005
"""Seconds between two attempts to get a turn.

All who wait look equally often, and who has had a turn stays away for longer than that: so the turns
go round. SQLite's own waiting sleeps longer the longer it has waited, and newcomers overtake.
"""


class Database:
    """Opened by its first use, for one thread at a time.

    Args:
        path: Absolute.
        steps: The schema, see `schema.STEPS`.
        connection_type: What runs the statements.
    """

    def __init__(
        self,
        path: str,
        steps: Sequence[str] = schema.STEPS,
        connection_type: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        self.path = path
        self.seen: files.Identity | None = None
        """The file that was opened last, or that should have been."""
        self._steps = steps
        self._connection_type = connection_type
        self._connection: sqlite3.Connection | None = None
        self._is_closed = False
        self.lock = native.lock()
        _renew_after_fork(self)

    @contextlib.contextmanager
    def transaction(self) -> Generator[sqlite3.Connection]:
        """Run statements as one: all of them or none, and none of another process in between.

        Raises:
            SpoolUnavailable: It did not work out; nothing has changed.
        """
        until = time.monotonic() + _PATIENCE
        while True:
            with self.lock, self._errors_translated():
                connection = self._usable()
                if _begun(connection):
                    try:
                        yield connection
                        connection.execute("COMMIT")
                    except BaseException:
                        with contextlib.suppress(sqlite3.Error):
                            connection.execute("ROLLBACK")
                        raise
                    return
            # Not under the lock: a fork waits for it.
            if time.monotonic() >= until:
                raise SpoolUnavailable(f"{self.path} is locked by another process")
            native.sleep(_GLANCE)

    def read(self, question: str, values: Sequence[Any] = (), patience: float = _PATIENCE) -> list[tuple[Any, ...]]:
        """Return the rows that answer a question; when the file is held up, after `patience` seconds at most.

        Raises:
            SpoolUnavailable: Nobody can tell now.
        """
        with self.lock, self._errors_translated():
            return _patiently(lambda: self._usable().execute(question, values).fetchall(), patience)

    def tidy(self, statement: str) -> None:
        """Run a statement that stands for itself and is not important: when it does not work out, nothing is said."""
        with contextlib.suppress(SpoolUnavailable), self.lock, self._errors_translated():
            # To its end: `execute` takes only the first step of one that goes page by page.
            self._usable().executescript(statement)

    def close(self) -> None:
        """Close it for good."""
        with self.lock:
            self._is_closed = True
            connection = self.detach()
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()

    def detach(self) -> sqlite3.Connection | None:
        """Give away the connection, if there is one; the next use opens what is at the path by then."""
        with self.lock:
            connection, self._connection = self._connection, None
            return connection

    @contextlib.contextmanager
    def _errors_translated(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise translated(error) from None

    def _usable(self) -> sqlite3.Connection:
        if self._is_closed:
            raise SpoolUnavailable(f"{self.path} has been closed")
        if self._connection is None:
            self._connection = self._opened()
        elif files.identity(self.path) != self.seen:
            raise SpoolGone(f"{self.path} was deleted or replaced while it was in use")
        return self._connection

    def _opened(self) -> sqlite3.Connection:
        files.folder_for(self.path)
        network = files.on_network(os.path.dirname(self.path))
        if network is not None:
            raise SpoolUnavailable(f"{self.path} lies on a network's disk ({network})")
        with files.exclusively(self.path):
            files.made(self.path)
            files.checked(self.path)
            self.seen = files.identity(self.path)
            connection = sqlite3.connect(
                f"file:{quote(self.path)}?mode=rw",
                uri=True,
                timeout=0,
                isolation_level=None,
                check_same_thread=False,
                factory=self._connection_type,
            )
            try:
                _patiently(lambda: schema.prepare(connection))
                _patiently(lambda: schema.upgrade(connection, self._steps))
                if files.identity(self.path) != self.seen:
                    raise SpoolUnavailable(f"{self.path} was replaced while it was opened")
            except BaseException:
                connection.close()
                raise
        return connection

    def after_fork(self) -> None:
        """Forget the parent's connection in a forked child, and never close it."""
        self.lock = native.lock()
        if self._connection is not None:
            # To close it, now or when the interpreter ends, could delete the log under the parent's feet.
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._connection))
            self._connection = None


def _begun(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if _is_busy(error):
            return False
        raise
    return True


def _is_busy(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _patiently(function: Callable[[], _T], patience: float = _PATIENCE) -> _T:
    """Call it again as long as another process is at the file."""
    until = time.monotonic() + patience
    while True:
        try:
            return function()
        except sqlite3.OperationalError as error:
            if not _is_busy(error):
                raise
            if time.monotonic() >= until:
                raise SpoolUnavailable("another process holds the file") from None
        native.sleep(_GLANCE)


# Forks: none happens while a thread is inside of SQLite, or the child would inherit locks inside the library that
# nobody ever opens again.

_LONGEST_WAIT: Final = 1.0
_all: Final[dict[int, weakref.ref[Database]]] = {}
_held: Final[list[Any]] = []
_is_registered: Final[list[bool]] = []


def _renew_after_fork(database: Database) -> None:
    key = id(database)
    _all[key] = weakref.ref(database, lambda _: _all.pop(key, None))
    if not _is_registered:
        _is_registered.append(True)
        os.register_at_fork(before=_hold_all, after_in_parent=_release_all, after_in_child=_forget_all)


def _alive() -> list[Database]:
    return [database for reference in _all.copy().values() if (database := reference()) is not None]


def _hold_all() -> None:
    for database in _alive():
        if database.lock.acquire(timeout=_LONGEST_WAIT):
            _held.append(database.lock)


def _release_all() -> None:
    while _held:
        _held.pop().release()


def _forget_all() -> None:
    _held.clear()
    for database in _alive():
        database.after_fork()
