"""Large entries on their way into a spool's file and out of it, in windows: SQLite copies a whole one in one call."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Callable
from time import monotonic
from typing import Final

from kwai_middleware._pace import breathe

__all__ = ["WINDOW", "LargeEntries"]

WINDOW: Final = 64 * 1024
"""Bytes in one go. What is longer is large."""

_LARGEST_WINDOW: Final = 4 * 1024 * 1024

_PATIENCE: Final = 0.1
"""Seconds in small windows, of which each lets go of the interpreter. Where threads of the app compute all the time, it
takes milliseconds to get it back: beside four of them a record of 18 MB took 8 seconds, and whoever else wants a turn
at the file waits for 2."""


class LargeEntries:
    """Written and read within one transaction, for which others wait.

    Args:
        connection: With the transaction.
        clock: Monotonic seconds.
    """

    def __init__(self, connection: sqlite3.Connection, clock: Callable[[], float] = monotonic) -> None:
        self._connection = connection
        self._clock = clock
        self._until = clock() + _PATIENCE

    def write(self, position: int, entry: bytes) -> None:
        """Fill in the entry of a record that was put there with as many zeros."""
        left = memoryview(entry)
        with self._connection.blobopen("records", "entry", position) as blob:
            while left:
                breathe()
                window = self._window()
                blob.write(left[:window])
                left = left[window:]

    def read(self, position: int) -> bytes:
        """Return the entry of a record."""
        with self._connection.blobopen("records", "entry", position, readonly=True) as blob:
            # Zeros are a promise of the system's at first; see `joined`.
            entry = io.BytesIO(bytes(len(blob)))
            while window := blob.read(self._window()):
                entry.write(window)
                breathe()
        return entry.getvalue()

    def _window(self) -> int:
        return WINDOW if self._clock() < self._until else _LARGEST_WINDOW
