"""Forks and open databases: none happens inside of SQLite or with a file open, as far as a fork tells us of it."""

from __future__ import annotations

import _thread
import contextlib
import ctypes
import itertools
import os
import sqlite3
import time
from typing import Any, Final

from kwai_middleware import _native as native
from kwai_middleware._delivery.disk import files
from kwai_middleware._delivery.disk.errors import SpoolUnavailable

__all__ = ["Seat", "give_way", "let_go_of_inherited"]

_LONGEST_WAIT: Final = 1.0
"""Seconds that a fork waits, for all databases together."""

_GLANCE: Final = 0.0005


class Seat:
    """What one process has of one database: a connection, and the lock for whoever uses it.

    Attributes:
        pid: Of the process.
        lock: Held by whoever is inside of SQLite with the connection; a fork waits for it.
        connection: None as long as it is not open.
    """

    __slots__ = ("_file", "_path", "connection", "lock", "pid")

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = native.lock()
        self.connection: sqlite3.Connection | None = None
        self._path = ""
        self._file: files.Identity | None = None

    def take(self) -> None:
        """Have forks take it into account from now on."""
        if _seats.setdefault(id(self), self) is self and next(_hooks) == 0:
            os.register_at_fork(before=_hold_all, after_in_parent=_release, after_in_child=_release_in_child)

    def keep(self, connection: sqlite3.Connection, path: str, file: files.Identity | None) -> None:
        """Use this connection, to this file at this path, from now on, and let only `close` close it.

        A child that ends would close it as well, and maybe in the middle of what the parent does.
        """
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
        self.connection = connection
        self._path, self._file = path, file

    def can_be_closed(self) -> bool:
        """Whether what is open can be opened again: no transaction is, and not a file that is gone from its path.

        What is in such a file has yet to be saved. A child may close it: SQLite sees that it is gone, and leaves
        alone what is beside it.
        """
        if self.connection is None or self.connection.in_transaction:
            return False
        try:
            return files.identity(self._path) == self._file
        except SpoolUnavailable:
            return False

    def close(self) -> None:
        """Close the connection, if there is one."""
        with self.lock:
            connection, self.connection = self.connection, None
            if connection is not None:
                with contextlib.suppress(sqlite3.Error):
                    connection.close()
                ctypes.pythonapi.Py_DecRef(ctypes.py_object(connection))

    def leave(self) -> None:
        """Close the connection for good."""
        self.close()
        _seats.pop(id(self), None)


# Dictionaries of integers: adding, removing and copying are one step each, without a lock.
_seats: Final[dict[int, Seat]] = {}
_held: Final[dict[int, list[Any]]] = {}
_forking: Final[dict[int, None]] = {}
_letting_go: Final[dict[int, Any]] = {}
_hooks: Final = itertools.count()


def let_go_of_inherited() -> None:
    """Close, in a forked child, what the parent had open all the same: a fork in C tells nobody beforehand.

    To be called before the child opens a file itself.

    SQLite counts a process's locks on a file in its own memory. A child inherits the count, but not the
    locks: what it opened would count as locked and not be so, and lose its log when the parent leaves.

    Raises:
        SpoolUnavailable: The parent was inside of SQLite when this process was forked, so that the
            copy which this process has of it cannot be trusted.
    """
    pid = os.getpid()
    with _letting_go.setdefault(pid, native.lock()):
        for seat in list(_seats.copy().values()):
            if seat.pid == pid:
                continue
            # Whoever held it then is not in this process, and would hold it for ever.
            if not seat.lock.acquire(blocking=False):
                raise SpoolUnavailable("this process was forked while its parent wrote to the spool")
            try:
                if seat.connection is not None and seat.connection.in_transaction:
                    raise SpoolUnavailable("this process was forked in the middle of a transaction of its parent's")
                seat.leave()
            finally:
                seat.lock.release()


def give_way() -> None:
    """Let a fork go first: who asks for a lock again and again would always be quicker than who waits for it."""
    if _forking and _thread.get_ident() not in _forking:
        until = time.monotonic() + _LONGEST_WAIT
        while _forking and time.monotonic() < until:
            native.sleep(_GLANCE)


def _hold_all() -> None:
    ident = _thread.get_ident()
    _forking[ident] = None
    held = _held[ident] = []
    pid = os.getpid()
    until = time.monotonic() + _LONGEST_WAIT
    for seat in list(_seats.copy().values()):
        if seat.pid == pid and seat.lock.acquire(timeout=max(0.0, until - time.monotonic())):
            held.append(seat.lock)
            if seat.can_be_closed():
                # The next use opens it again. A child that inherits nothing has nothing to let go of.
                seat.close()
    del _forking[ident]


def _release() -> None:
    for lock in _held.pop(_thread.get_ident(), ()):
        lock.release()


def _release_in_child() -> None:
    # Other threads that were about to fork are not here.
    _forking.clear()
    _release()
