"""The spool's files: who may have them, where they may lie, and how they are put aside.

Nothing here opens a database file that exists. To close it again would take SQLite's locks away
from the process's other connections: the system forgets all of them at the first close.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

from kwai_middleware import _native as native
from kwai_middleware._delivery.disk.errors import SpoolUnavailable

__all__ = ["Identity", "checked", "exclusively", "folder_for", "identity", "made", "on_network", "put_aside", "size_of"]

_BESIDE: Final = ("-wal", "-shm")
_PATIENCE: Final = 5.0
_GLANCE: Final = 0.005
_OTHERS_MAY_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
_NETWORK: Final = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "fuse.ceph", "fuse.gcsfuse", "fuse.glusterfs", "fuse.rclone",
    "fuse.s3fs", "fuse.sshfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "smb3", "smbfs",
    "vboxsf", "virtiofs",
})  # fmt: skip
"""File systems on which SQLite's shared memory between processes does not work, or not surely."""

Identity = tuple[int, int]
"""Device and number of a file: the same as long as it is the same file."""


def identity(path: str) -> Identity | None:
    """Return what tells one file at this path from another; None when there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def size_of(path: str) -> int:
    """Bytes of a file; 0 when there is none."""
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def folder_for(path: str) -> None:
    """Make the folder of a file, for this user alone, unless it is there; then look whose it is.

    Raises:
        SpoolUnavailable: Others could put files there in place of ours, or it cannot be made.
    """
    folder = os.path.dirname(path)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        found = os.lstat(folder)
    except OSError as error:
        raise SpoolUnavailable(f"{folder}: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode):
        raise SpoolUnavailable(f"{folder} is a link, not a folder")
    if found.st_uid not in (os.geteuid(), 0):
        raise SpoolUnavailable(f"{folder} belongs to another user")
    # In a sticky folder, as /tmp is one, others can add files but not replace ours.
    if found.st_mode & _OTHERS_MAY_WRITE and not found.st_mode & stat.S_ISVTX:
        raise SpoolUnavailable(f"{folder} can be written by other users; chmod it to 700")


def made(path: str) -> bool:
    """Make an empty file for this user alone; False when there is one.

    Raises:
        SpoolUnavailable: It cannot be made.
    """
    flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        os.close(os.open(path, flags, 0o600))
    except FileExistsError:
        return False
    except OSError as error:
        raise SpoolUnavailable(f"{path}: {error.strerror}") from None
    return True


def checked(path: str) -> None:
    """Look whether a file, and those that SQLite puts beside it, are this user's own and nobody else's.

    Raises:
        SpoolUnavailable: One of them is a link, has a second name, belongs to another user, or is no file.
    """
    for each in (path, *(path + suffix for suffix in _BESIDE)):
        try:
            found = os.lstat(each)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SpoolUnavailable(f"{each}: {error.strerror}") from None
        if not stat.S_ISREG(found.st_mode):
            raise SpoolUnavailable(f"{each} is a link or no file")
        if found.st_uid != os.geteuid():
            raise SpoolUnavailable(f"{each} belongs to another user")
        if found.st_nlink > 1:
            raise SpoolUnavailable(f"{each} has a second name")
        if stat.S_IMODE(found.st_mode) & 0o077:
            os.chmod(each, 0o600)


def on_network(path: str, mounts: str = "/proc/self/mountinfo") -> str | None:
    """Return the kind of network file system that holds `path`; None when it is a local one, or nobody can tell."""
    try:
        lines = Path(mounts).read_text(errors="replace").splitlines()
    except OSError:
        return None
    place = os.path.realpath(path)
    best = ("", "")
    for line in lines:
        before, separator, behind = line.partition(" - ")
        words = before.split()
        if not separator or len(words) < 5:
            continue
        # Blanks in names are written as octal numbers.
        point = words[4].encode().decode("unicode_escape")
        if (place == point or place.startswith(point.rstrip("/") + "/")) and len(point) >= len(best[0]):
            best = (point, behind.split(" ")[0])
    return best[1] if best[1] in _NETWORK else None


@contextlib.contextmanager
def exclusively(path: str) -> Generator[None]:
    """Let one thread of one process at a time make, open or put aside the file at `path`.

    Raises:
        SpoolUnavailable: Another holds it for too long, or there is nothing to hold.
    """
    lock = f"{path}.lock"
    try:
        handle = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SpoolUnavailable(f"{lock}: {error.strerror}") from None
    try:
        until = time.monotonic() + _PATIENCE
        # `flock`, which belongs to this one handle: other threads of this process have to wait too.
        while not _locked(handle):
            if time.monotonic() >= until:
                raise SpoolUnavailable(f"{lock} is held by another process")
            native.sleep(_GLANCE)
        try:
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)
    finally:
        os.close(handle)


def put_aside(path: str, suffix: str) -> str:
    """Give a file, and those beside it, another name; returns that name.

    Raises:
        SpoolUnavailable: It cannot be renamed.
    """
    aside = f"{path}.{suffix}"
    try:
        os.rename(path, aside)
        for each in _BESIDE:
            with contextlib.suppress(FileNotFoundError):
                os.rename(path + each, aside + each)
    except OSError as error:
        raise SpoolUnavailable(f"{path}: {error.strerror}") from None
    return aside


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
