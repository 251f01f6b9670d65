"""What can be wrong with a spool's file, in words for an operator."""

from __future__ import annotations

import sqlite3
from typing import Final

__all__ = ["SpoolCorrupt", "SpoolGone", "SpoolUnavailable", "translated"]


class SpoolUnavailable(Exception):
    """The file cannot be written or read now; it may be later."""


class SpoolCorrupt(SpoolUnavailable):
    """The file is damaged, and will not be right again by itself."""


class SpoolGone(SpoolUnavailable):
    """The file that was open is not the one at its path any more."""


_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_PRIMARY: Final = 0xFF


def translated(error: sqlite3.Error) -> SpoolUnavailable:
    """Return what an error of SQLite's means for the spool."""
    code: int = getattr(error, "sqlite_errorcode", 0) & _PRIMARY
    words = f"{getattr(error, 'sqlite_errorname', type(error).__name__)}: {error}"
    return SpoolCorrupt(words) if code in _DAMAGED else SpoolUnavailable(words)
