"""Whether the files that a process has open are still the ones at their path."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

from kwai_middleware._delivery.disk import files

__all__ = ["Presence"]

_COARSEST: Final = 3_000_000_000
"""Nanoseconds. There are file systems that keep the time of a change in steps of two seconds."""


class Presence:
    """What was seen of a spool's file and of what SQLite puts beside it.

    Args:
        path: Of the file.
        clock: Nanoseconds since 1970.

    Attributes:
        file: The one that was opened last, or that should have been.
        beside: What was beside it when it was open; nothing as long as it was not.
    """

    def __init__(self, path: str, clock: Callable[[], int] = time.time_ns) -> None:
        self._path = path
        self._clock = clock
        self._folder_path = os.path.dirname(path)
        self._folder: tuple[int, int, int] | None = None
        self.file: files.Identity | None = None
        self.beside: files.Beside = ()

    def expect(self) -> None:
        """Take what is at the path for the file to be opened."""
        self.file, self.beside = files.identity(self._path), ()

    def complete(self) -> bool:
        """Note what is beside the file, which is open; whether it is still there itself."""
        self.beside = files.beside(self._path)
        return files.identity(self._path) == self.file

    def is_unchanged(self) -> bool:
        """Whether all of it is where it was.

        Where nothing came into the folder or went out of it since the last look, it is: one question to the system
        instead of one for each file. Each lets go of the interpreter, and it is asked before every transaction.
        """
        folder = self._settled_folder()
        if folder is not None and folder == self._folder:
            return True
        if files.identity(self._path) != self.file or files.beside(self._path) != self.beside:
            return False
        self._folder = folder
        return True

    def _settled_folder(self) -> tuple[int, int, int] | None:
        """Return device, number and time of change of the folder; None when there is another change that may not show.

        Of two that follow closely upon each other the second one leaves the time as it is.
        """
        try:
            found = os.stat(self._folder_path)
        except OSError:
            return None
        # Not `st_mtime`: whoever restores a backup puts that back to what it was.
        if self._clock() - found.st_ctime_ns <= _COARSEST:
            return None
        return found.st_dev, found.st_ino, found.st_ctime_ns
