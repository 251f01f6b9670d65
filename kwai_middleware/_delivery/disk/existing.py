"""Finding and opening the spool files that are there, for whoever looks in from outside of an app; makes none."""

from __future__ import annotations

import os
import pwd
import stat

from kwai_middleware._delivery.disk import places
from kwai_middleware._delivery.disk.database import Database
from kwai_middleware._delivery.disk.errors import SpoolUnavailable
from kwai_middleware._spool_place import AUTO, MEMORY, path_of

__all__ = ["found_in", "location_of", "opened", "put_aside_from"]


def location_of(place: str) -> str | None:
    """Return the absolute path, of a file or a folder, that a checked place means; None for memory."""
    if place == MEMORY:
        return None
    return places.default_folder() if place == AUTO else path_of(place)


def found_in(location: str) -> list[str]:
    """Return the spool files at a path: itself, or those in the folder that it is.

    A file without a byte has just been made, and nothing is in it yet.

    Raises:
        SpoolUnavailable: The folder cannot be read.
    """
    try:
        return [path for path in _named(location) if _is_something(path)]
    except OSError as error:
        raise SpoolUnavailable(f"{location}: {error.strerror}") from None


def put_aside_from(path: str) -> list[str]:
    """Return the damaged files that were put aside, and in whose place the file at `path` began."""
    folder, name = os.path.split(path)
    return [
        os.path.join(folder, each)
        for each in sorted(os.listdir(folder))
        if each.startswith(f"{name}.corrupt-") and not each.endswith(("-wal", "-shm", "-journal"))
    ]


def opened(path: str) -> Database:
    """Return a database of a spool's file that is there, as it is: of whatever version.

    Raises:
        SpoolUnavailable: It is not this user's. Everything else is found out by the first use.
    """
    try:
        _check_owner(path)
    except OSError as error:
        raise SpoolUnavailable(f"{path}: {error.strerror}") from None
    # With steps it would be brought to our version, and without a file there would be a new one.
    return Database(path, steps=())


def _named(location: str) -> list[str]:
    try:
        names = sorted(os.listdir(location))
    except (FileNotFoundError, NotADirectoryError):
        return [location]
    return [os.path.join(location, name) for name in names if name.startswith("spool-") and name.endswith(".db")]


def _is_something(path: str) -> bool:
    try:
        return os.lstat(path).st_size > 0
    except FileNotFoundError:
        return False


def _check_owner(path: str) -> None:
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode):
        raise SpoolUnavailable(f"{path} is a link or no file")
    if found.st_uid != os.geteuid():
        # Root could open it, but what SQLite puts beside it would be root's, and in the way of the app.
        raise SpoolUnavailable(f"{path} belongs to another user: run this command as {_name_of(found.st_uid)}")


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
