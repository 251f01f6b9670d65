"""Large entries on their way into a spool's file and out of it, in windows: SQLite copies a whole one in one call."""

from __future__ import annotations

import io
import sqlite3
from typing import Final

from kwai_middleware._pace import breathe

__all__ = ["WINDOW", "read", "write"]

WINDOW: Final = 64 * 1024
"""Bytes in one go. What is longer is large."""


def write(connection: sqlite3.Connection, position: int, entry: bytes) -> None:
    """Fill in the entry of a record that was put there with as many zeros."""
    left = memoryview(entry)
    with connection.blobopen("records", "entry", position) as blob:
        while left:
            breathe()
            blob.write(left[:WINDOW])
            left = left[WINDOW:]


def read(connection: sqlite3.Connection, position: int) -> bytes:
    """Return the entry of a record."""
    with connection.blobopen("records", "entry", position, readonly=True) as blob:
        # Zeros are a promise of the system's at first; see `joined`.
        entry = io.BytesIO(bytes(len(blob)))
        while window := blob.read(WINDOW):
            entry.write(window)
            breathe()
    return entry.getvalue()
