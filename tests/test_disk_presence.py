"""Whether a spool's files are still where they were: asked before every transaction, mostly with one look."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from kwai_middleware._delivery.disk.presence import Presence

LONG_AGO = time.time() - 3600


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    """A file with a log and shared memory beside it, in a folder in which nothing has changed for long."""
    path = tmp_path / "folder" / "spool.db"
    path.parent.mkdir()
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).touch()
    age(path.parent)
    return path


def age(folder: Path) -> None:
    """Let what happened to a folder be long ago."""
    os.utime(folder, (LONG_AGO, LONG_AGO))


def seen(path: Path) -> Presence:
    """All of it, looked at twice: the second time the folder says enough."""
    presence = Presence(str(path))
    presence.expect()
    assert presence.complete()
    assert presence.is_unchanged()
    assert presence.is_unchanged()
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
    kept.rename(file)
    assert presence.is_unchanged()


def test_two_changes_in_a_row_are_both_noticed(spool: Path) -> None:
    """Of two within one step of the file system's clock only one shows in the folder: then each file is looked at."""
    presence = seen(spool)
    (spool.parent / "other").touch()
    now = os.stat(spool.parent).st_mtime_ns
    assert presence.is_unchanged()
    spool.unlink()
    os.utime(spool.parent, ns=(now, now))
    assert not presence.is_unchanged()


def test_a_folder_in_the_place_of_another_is_noticed(spool: Path) -> None:
    """With files of the same names, and of the same age."""
    presence = seen(spool)
    spool.parent.rename(spool.parent.with_name("away"))
    spool.parent.mkdir()
    for suffix in ("", "-wal", "-shm"):
        spool.with_name(spool.name + suffix).touch()
    age(spool.parent)
    assert not presence.is_unchanged()


def test_without_a_folder_nothing_is_in_its_place(spool: Path) -> None:
    """A folder that is gone has taken the file with it."""
    presence = seen(spool)
    spool.parent.rename(spool.parent.with_name("away"))
    assert not presence.is_unchanged()


def test_what_changed_a_while_ago_is_looked_at_once(spool: Path) -> None:
    """Another file in the folder is no reason to doubt the spool's own."""
    presence = seen(spool)
    (spool.parent / "other").touch()
    age(spool.parent)
    os.utime(spool.parent, (LONG_AGO + 1, LONG_AGO + 1))
    assert presence.is_unchanged()
    spool.unlink()
    os.utime(spool.parent, (LONG_AGO + 2, LONG_AGO + 2))
    assert not presence.is_unchanged()
