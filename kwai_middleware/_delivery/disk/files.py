"""The spool's files: who may have them, where they may lie, and who may open one.

Nothing here opens a database file that exists. To close it again would take SQLite's locks away
from the process's other connections: the system forgets all of them at the first close.
"""

from __future__ import annotations

import contextlib
import fcntl
import math
import os
import stat
import time
from collections.abc import Generator
from typing import Final

from kwai_middleware import _native as native
from kwai_middleware._delivery.disk.errors import SpoolBusy, SpoolUnavailable

__all__ = [
    "BESIDE",
    "Beside",
    "Identity",
    "beside",
    "checked",
    "exclusively",
    "folder_for",
    "free_at",
    "identity",
    "is_ours",
    "made",
    "make_ours",
    "remove_leftovers",
    "size_of",
]

_IN_USE: Final = ("-wal", "-shm")
BESIDE: Final = (*_IN_USE, "-journal")
_OWNER_ONLY: Final = 0o600
_OURS: Final = b"kwai-middleware\n"
_LONGEST_PATH: Final = 500
"""Bytes; SQLite takes 512, with what it adds to the name."""
_PATIENCE: Final = 5.0
_GLANCE: Final = 0.005
_OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
Identity = tuple[int, int]
"""Device and number of a file: the same as long as it is the same file."""


Beside = tuple[Identity | None, ...]
"""The same of SQLite's log and of its shared memory: both are there as long as a connection is."""


def identity(path: str) -> Identity | None:
    """Return what tells one file at this path from another; None when there is none.

    Raises:
        SpoolUnavailable: Nobody can tell.
    """
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SpoolUnavailable(f"{path}: {error.strerror}") from None
    return found.st_dev, found.st_ino


def beside(path: str) -> Beside:
    """Return the identities of what SQLite has put beside a file that is in use.

    Raises:
        SpoolUnavailable: Nobody can tell.
    """
    log, index = _IN_USE
    return identity(path + log), identity(path + index)


def size_of(path: str) -> int:
    """Bytes of a file; 0 when there is none."""
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def free_at(path: str) -> float:
    """Bytes that this user may still write to the disk of a file; infinite when nobody can tell."""
    try:
        found = os.statvfs(os.path.dirname(path))
    except OSError:
        return math.inf
    # There are file systems that do not count.
    return found.f_bavail * found.f_frsize if found.f_blocks else math.inf


def folder_for(path: str) -> None:
    """Make the folder of a file, for this user alone, unless it is there; then look whose it is.

    Raises:
        SpoolUnavailable: Others could put files there in place of ours, or it cannot be made.
    """
    if not os.path.isabs(path):
        raise SpoolUnavailable(f"{path} depends on the directory in which the process runs; this user has no home?")
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise SpoolUnavailable(f"{path} is longer than SQLite can take")
    folder = os.path.dirname(path)
    try:
        _make_folders(folder)
        found = os.lstat(folder)
    except OSError as error:
        raise SpoolUnavailable(f"{folder}: {error.strerror}") from None
    if stat.S_ISLNK(found.st_mode):
        raise SpoolUnavailable(f"{folder} is a link; name the folder itself: {os.path.realpath(folder)}")
    if not stat.S_ISDIR(found.st_mode):
        raise SpoolUnavailable(f"{folder} is no folder")
    if found.st_uid not in (os.geteuid(), 0):
        raise SpoolUnavailable(f"{folder} belongs to another user")
    # In a sticky folder, as /tmp is one, others can add files but not replace ours.
    if found.st_mode & _OTHERS_MAY_WRITE and not found.st_mode & stat.S_ISVTX:
        raise SpoolUnavailable(f"{folder} can be written by other users; chmod it to 700")


def _make_folders(folder: str) -> None:
    if os.path.lexists(folder):
        return
    _make_folders(os.path.dirname(folder))
    # Unless another process was quicker.
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
        # The process's umask may have taken more than others' rights.
        os.chmod(folder, 0o700)


def made(path: str) -> bool:
    """Make an empty file for this user alone; False when there is one.

    Raises:
        SpoolUnavailable: It cannot be made.
    """
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o600)
    except FileExistsError:
        return False
    except OSError as error:
        raise SpoolUnavailable(f"{path}: {error.strerror}") from None
    try:
        # Whatever the process's umask has taken.
        os.fchmod(handle, 0o600)
    finally:
        os.close(handle)
    return True


def checked(path: str) -> None:
    """Look whether a file, and those that SQLite puts beside it, are this user's own and nobody else's.

    Raises:
        SpoolUnavailable: One of them is a link, has a second name, belongs to another user, or is no file.
    """
    rights = _OWNER_ONLY
    for each in (path, *(path + suffix for suffix in BESIDE)):
        try:
            found = os.lstat(each)
            _check(each, found)
            if each == path:
                # Who has made the file read-only will have had a reason; those beside it follow it.
                rights &= found.st_mode
            if stat.S_IMODE(found.st_mode) != rights:
                os.chmod(each, rights)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SpoolUnavailable(f"{each}: {error.strerror}") from None


def _check(path: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise SpoolUnavailable(f"{path} is a link or no file")
    if found.st_uid != os.geteuid():
        raise SpoolUnavailable(f"{path} belongs to another user")
    if found.st_nlink > 1:
        raise SpoolUnavailable(f"{path} has a second name")


@contextlib.contextmanager
def exclusively(path: str, patience: float = _PATIENCE) -> Generator[int]:
    """Let one thread of one process at a time make, open or put aside the file at `path`.

    Args:
        path: Of the database. What is locked is another file beside it, which stays; the block gets its handle.
        patience: Seconds to wait for others.

    Raises:
        SpoolBusy: Another holds it for too long.
        SpoolUnavailable: There is nothing to hold.
    """
    until = time.monotonic() + patience
    lock = f"{path}.lock"
    while True:
        handle = _opened(lock)
        try:
            # `flock`, which belongs to this one handle: other threads of this process have to wait too.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(handle)
            if identity(lock) == (found.st_dev, found.st_ino):
                yield handle
                return
        except BlockingIOError:
            pass
        finally:
            _let_go(handle)
        if time.monotonic() >= until:
            raise SpoolBusy(f"{lock} is held by another process")
        native.sleep(_GLANCE)


def is_ours(lock: int) -> bool:
    """Whether the file of this lock was a spool before, so that a damaged one may be put aside."""
    return os.fstat(lock).st_size > 0


def make_ours(lock: int) -> None:
    """Remember that the file of this lock is a spool."""
    if not is_ours(lock):
        # On a full disk the next one remembers it.
        with contextlib.suppress(OSError):
            os.write(lock, _OURS)


def remove_leftovers(path: str, before: Beside = ()) -> None:
    """Remove what SQLite has put beside a file that is not there any more, and would take for that of the next one.

    Whoever still has the old file open keeps what belongs to it. To be called exclusively.

    Args:
        path: Of the file.
        before: What was beside the old one; to be removed although there is a new one with something in it.

    Raises:
        SpoolUnavailable: It cannot be removed.
    """
    is_empty = not size_of(path)
    for each in BESIDE:
        found = identity(path + each)
        if found is not None and (is_empty or found in before):
            try:
                os.unlink(path + each)
            except OSError as error:
                raise SpoolUnavailable(f"{path}{each}: {error.strerror}") from None


def _opened(lock: str) -> int:
    flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(lock, flags, 0o600)
    except OSError as error:
        raise SpoolUnavailable(f"{lock}: {error.strerror}") from None
    try:
        found = os.fstat(handle)
        _check(lock, found)
        if stat.S_IMODE(found.st_mode) != 0o600:
            os.fchmod(handle, 0o600)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _let_go(handle: int) -> None:
    # Said, not only done by closing it: a process that was forked meanwhile has it too.
    fcntl.flock(handle, fcntl.LOCK_UN)
    os.close(handle)
