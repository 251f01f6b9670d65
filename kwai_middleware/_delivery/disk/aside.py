"""Damaged files: kept under another name for an operator, and not for ever."""

from __future__ import annotations

import contextlib
import os
from typing import Final

from kwai_middleware._delivery.disk.errors import SpoolUnavailable
from kwai_middleware._delivery.disk.files import BESIDE

__all__ = ["forget_aside", "put_aside"]

_ASIDE: Final = ".corrupt-"


def put_aside(path: str, suffix: str) -> str:
    """Give a file, and those beside it, another name; returns that name.

    Raises:
        SpoolUnavailable: It cannot be renamed.
    """
    aside = f"{path}{_ASIDE}{suffix}"
    number = 1
    while os.path.lexists(aside):
        number += 1
        aside = f"{path}{_ASIDE}{suffix}-{number}"
    try:
        # Those beside it first: an end of the process in between must not leave them to a new file.
        for each in BESIDE:
            with contextlib.suppress(FileNotFoundError):
                os.rename(path + each, aside + each)
        os.rename(path, aside)
    except OSError as error:
        raise SpoolUnavailable(f"{path}: {error.strerror}") from None
    return aside


def forget_aside(path: str, older_than: float) -> int:
    """Remove what was put aside before a time, in seconds since 1970; returns how many files that were.

    There are records in them, and nobody may keep those for ever.
    """
    folder, name = os.path.split(path)
    removed = 0
    with contextlib.suppress(OSError):
        for each in os.listdir(folder):
            aside = os.path.join(folder, each)
            # The time of the last change to its name or rights: when it was put aside, at the earliest.
            if each.startswith(name + _ASIDE) and os.lstat(aside).st_ctime < older_than:
                os.unlink(aside)
                removed += 1
    return removed
