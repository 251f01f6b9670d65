"""What can be wrong with a spool's file, in words for an operator."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Generator
from typing import Final

__all__ = [
    "SpoolBusy",
    "SpoolCorrupt",
    "SpoolGone",
    "SpoolShort",
    "SpoolUnavailable",
    "errors_translated",
    "translated",
]


class SpoolUnavailable(Exception):
    """The file cannot be written or read now; it may be later."""


class SpoolBusy(SpoolUnavailable):
    """Another process is at the file; it should be a matter of milliseconds."""


class SpoolCorrupt(SpoolUnavailable):
    """The file is damaged, and will not be right again by itself."""


class SpoolGone(SpoolUnavailable):
    """The file that was open is not the one at its path any more."""


class SpoolShort(SpoolUnavailable):
    """What is free on the disk is needed to send what is there: nothing is to be added, everything else works."""


_MEANINGS: Final = {
    sqlite3.SQLITE_CORRUPT: SpoolCorrupt,
    sqlite3.SQLITE_NOTADB: SpoolCorrupt,
    sqlite3.SQLITE_BUSY: SpoolBusy,
    sqlite3.SQLITE_LOCKED: SpoolBusy,
}
_PRIMARY: Final = 0xFF

_SHORT_LOG: Final = sqlite3.SQLITE_IOERR_SHORT_READ
"""The log has less in it than SQLite's shared memory says: somebody has deleted it, or cut it off."""


def translated(error: sqlite3.Error) -> SpoolUnavailable:
    """Return what an error of SQLite's means for the spool."""
    # Errors of Python's own layer, of a closed connection for one, carry neither.
    code: int = getattr(error, "sqlite_errorcode", 0)
    words = f"{getattr(error, 'sqlite_errorname', type(error).__name__)}: {error}"
    return SpoolCorrupt(words) if code == _SHORT_LOG else _MEANINGS.get(code & _PRIMARY, SpoolUnavailable)(words)


@contextlib.contextmanager
def errors_translated() -> Generator[None]:
    """Let an error of SQLite's leave the block as what it means."""
    try:
        yield
    except sqlite3.Error as error:
        raise translated(error) from None
