"""Whether a spool's files are still where they were: asked before every transaction, mostly with one look."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kwai_middleware._delivery.disk.presence import Presence
from tests.support.processes import DEADLINE


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """A file with a log and shared memory beside it, in a folder of their own."""
    path = tmp_path / "folder" / "spool.db"
    path.parent.mkdir()
    make_files(path)
    return path


def make_files(path: Path) -> None:
    """Make all three of them anew."""
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).touch()


def much_later() -> int:
    """A clock by which whatever happened to a folder was long ago."""
    return time.time_ns() + 3600 * 10**9


def let_time_pass(folder: Path) -> None:
    """Wait until another change would show in the folder, however coarse the clock of the file system."""
    last = os.stat(folder).st_ctime_ns
    deadline = time.monotonic() + DEADLINE
    while True:
        (folder.parent / "now").unlink(missing_ok=True)
        (folder.parent / "now").touch()
        if os.stat(folder.parent / "now").st_ctime_ns > last:
            return
        assert time.monotonic() < deadline


def seen(path: Path, clock: Callable[[], int] = much_later) -> Presence:
    """All of it, looked at twice: the second time the folder says enough."""
    presence = Presence(str(path), clock)
    presence.expect()
    assert presence.complete()
    assert presence.is_unchanged()
    assert presence.is_unchanged()
    let_time_pass(path.parent)
    return presence


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_a_file_that_was_deleted_or_replaced_is_missed(spool: Path, suffix: str) -> None:
    """Each of the three, also when another one stands in its place."""
    presence = seen(spool)
    file = spool.with_name(spool.name + suffix)
    kept = file.rename(file.with_name("kept"))
    assert not presence.is_unchanged()
    file.touch()
    assert not presence.is_unchanged()
    kept.replace(file)
    assert presence.is_unchanged()


def test_two_changes_in_a_row_are_both_noticed(spool: Path) -> None:
    """Of two within one step of the file system's clock only one shows in the folder: then each file is looked at."""
    presence = seen(spool, time.time_ns)
    (spool.parent / "other").touch()
    assert presence.is_unchanged()
    spool.unlink()
    assert not presence.is_unchanged()


def test_a_backup_that_is_put_back_is_noticed(spool: Path) -> None:
    """It brings the folder's old time of change along."""
    presence = seen(spool)
    before = os.stat(spool.parent)
    spool.with_name("backup").touch()
    spool.with_name("backup").replace(spool)
    os.utime(spool.parent, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not presence.is_unchanged()


def test_a_folder_in_the_place_of_another_is_noticed(spool: Path) -> None:
    """With files of the same names."""
    presence = seen(spool)
    spool.parent.rename(spool.parent.with_name("away"))
    spool.parent.mkdir()
    make_files(spool)
    assert not presence.is_unchanged()


def test_without_a_folder_nothing_is_in_its_place(spool: Path) -> None:
    """A folder that is gone has taken the file with it."""
    presence = seen(spool)
    spool.parent.rename(spool.parent.with_name("away"))
    assert not presence.is_unchanged()


def test_what_came_into_the_folder_is_looked_at_once(spool: Path) -> None:
    """Another file there is no reason to doubt the spool's own."""
    presence = seen(spool)
    (spool.parent / "other").touch()
    assert presence.is_unchanged()
    let_time_pass(spool.parent)
    spool.unlink()
    assert not presence.is_unchanged()
