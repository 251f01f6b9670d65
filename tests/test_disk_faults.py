"""Damaged, deleted and replaced files, disks that are full or cannot be written: work goes on."""

from __future__ import annotations

import logging
import math
import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kwai_middleware._delivery.disk import files
from kwai_middleware._delivery.disk.errors import SpoolShort, SpoolUnavailable
from kwai_middleware._delivery.disk.spool import DiskSpool
from kwai_middleware._delivery.disk.upkeep import Upkeep
from kwai_middleware._delivery.spool import Outcome
from tests.support.logs_api import logs_api
from tests.support.spool_files import (
    BOUNDS,
    DESTINATION,
    folder_of_somebody,
    record,
    records_in,
    run,
    running,
    spool_at,
)


def damaged(path: Path) -> list[str]:
    """Names of what has been put aside."""
    return sorted(each.name for each in path.parent.glob("*corrupt-*") if not each.name.endswith(("-wal", "-shm")))


def complaints(caplog: pytest.LogCaptureFixture, words: str) -> int:
    """How often the operator was told."""
    return sum(words in each.getMessage() for each in caplog.records if each.levelno == logging.ERROR)


def filled(path: Path, count: int = 300) -> None:
    """A spool of a process that has ended, all of it in the file itself."""
    spool = spool_at(path)
    spool.append([record(f"old {number}", 2000) for number in range(count)])
    spool.close()
    assert not os.path.exists(f"{path}-wal")


def with_garbage(path: Path, at: int, length: int) -> None:
    """Overwrite bytes of a file in place, as a bad disk does."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(b"\xa5" * length)


# Damage

DAMAGES: dict[str, Callable[[Path], None]] = {
    "header": lambda path: with_garbage(path, 0, 100),
    "first page": lambda path: with_garbage(path, 100, 3900),
    "pages in the middle": lambda path: with_garbage(path, 4096, path.stat().st_size - 4096),
    "truncated": lambda path: os.truncate(path, 4096 * 3),
    "truncated within a page": lambda path: os.truncate(path, 4096 * 4 + 1000),
    "all text": lambda path: path.write_text("no database\n" * 1000) and None,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_put_aside_once_and_work_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    """Whatever is damaged, the next process that needs it says so, keeps the old file, and has a new one."""
    path = tmp_path / "x.db"
    filled(path)
    damage(path)
    first, second = spool_at(path), spool_at(path)
    for number in range(3):
        assert 1 == first.append([record(f"first {number}")])
        assert 1 == second.append([record(f"second {number}")])
        # Reading through all of it finds the damage that writing has not met.
        second.settle([Outcome(row, "returned") for row in second.lease(500, 1 << 30, bulk=False).rows])
    assert (1, 1) == (len(damaged(path)), complaints(caplog, "was damaged"))
    names = records_in(second)
    assert not [name for name in names if name.startswith("old")]
    assert {"first 2", "second 2"} <= set(names)
    first.close()
    second.close()


def test_a_damaged_file_in_use_by_two_processes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Both find out, one of them puts the file aside, and each saves what it had in it and can still be read."""
    path = tmp_path / "x.db"
    program = """
spool = spool_at(path)
spool.append([record("theirs")])
print("ready")
sys.stdin.readline()
spool.append([record("theirs after")])
print("done")
sys.stdin.readline()
spool.close()
"""
    with running(program, path) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        mine = spool_at(path)
        mine.append([record(f"mine {number}", 3000) for number in range(50)])
        # From the log into the file, where the damage is.
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        with path.open("r+b") as file:
            file.seek(0)
            file.write(b"garbage" * 20)
        mine.append([record("mine after")])
        other.stdin.write("\n")
        other.stdin.flush()
        assert "done\n" == other.stdout.readline()
        mine.append([record("mine at last")])
        names = records_in(mine)
        assert {"mine after", "mine at last", "theirs after"} <= set(names)
        assert len(names) == len(set(names))
        assert (1, 1) == (len(damaged(path)), complaints(caplog, "was damaged") + complaints(caplog, "was deleted"))


def test_what_can_be_read_of_a_damaged_file_is_saved(tmp_path: Path) -> None:
    """A page at the end is broken: the records before it are not lost."""
    path = tmp_path / "x.db"
    spool = spool_at(path)
    spool.append([record(f"mine {number}", 3000) for number in range(300)])
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with_garbage(path, path.stat().st_size - 100 * 4096, 100 * 4096)
    reader = spool_at(path)
    with pytest.raises(SpoolUnavailable):
        for _ in range(5):
            reader._attached.writing.read("SELECT length(entry) FROM records")
    names = records_in(reader)
    names += records_in(spool)
    assert set(names) <= {f"mine {number}" for number in range(300)}
    spool.close()
    reader.close()


def test_two_files_damaged_in_the_same_second(tmp_path: Path) -> None:
    """The second one is put aside beside the first."""
    path = tmp_path / "x.db"
    for _ in range(3):
        filled(path, 3)
        with_garbage(path, 0, 4096)
        spool = spool_at(path)
        assert 1 == spool.append([record("a")])
        spool.close()
    assert 3 == len(damaged(path))


@pytest.mark.parametrize("content", [b"", b"\xa5" * 50_000])
def test_a_log_of_garbage_beside_a_good_file(tmp_path: Path, content: bytes) -> None:
    """A log that is none is no log: what stands in the file is there."""
    path = tmp_path / "x.db"
    filled(path, 3)
    for suffix in ("-wal", "-shm"):
        Path(f"{path}{suffix}").write_bytes(content)
    spool = spool_at(path)
    spool.append([record("new")])
    assert ["old 0", "old 1", "old 2", "new"] == records_in(spool)
    spool.close()
    assert [] == damaged(path)


def test_an_empty_file_with_a_log_that_was_left(tmp_path: Path) -> None:
    """A log without its file says nothing: a new spool begins."""
    path = tmp_path / "x.db"
    run("spool = spool_at(path)\nspool.append([record('lost')])\nos._exit(0)", path)
    assert Path(f"{path}-wal").stat().st_size
    os.truncate(path, 0)
    spool = spool_at(path)
    spool.append([record("new")])
    assert ["new"] == records_in(spool)
    spool.close()


# Not ours


@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("vacuum", [0, 1])
def test_a_database_of_somebody_else_is_left_as_it_is(tmp_path: Path, journal: str, vacuum: int) -> None:
    """Not a byte of it changes, and it is not put aside: the setting was wrong, not the file."""
    path = tmp_path / "django.db"
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA auto_vacuum = {vacuum}")
    connection.execute(f"PRAGMA journal_mode = {journal}")
    connection.execute("CREATE TABLE people (name)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    spool = spool_at(path)
    with pytest.raises(SpoolUnavailable, match="another program"):
        spool.append([record("a")])
    assert before == path.read_bytes()
    assert {"django.db", "django.db.lock"} == {each.name for each in tmp_path.iterdir()}
    spool.close()


def test_a_file_that_never_was_a_spool_is_left_where_it_is(tmp_path: Path) -> None:
    """Somebody's notes are no damaged spool, however wrong the setting: each process refuses them again."""
    path = tmp_path / "notes.txt"
    path.write_text("my notes\n" * 100)
    for _ in range(2):
        spool = spool_at(path)
        for _ in range(2):
            with pytest.raises(SpoolUnavailable, match="no spool"):
                spool.append([record("a")])
        spool.close()
    assert "my notes\n" * 100 == path.read_text()
    assert [] == damaged(path)


# Gone


def remove_file(path: Path) -> None:
    path.unlink()


def remove_all(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", ".lock"):
        Path(f"{path}{suffix}").unlink()


def remove_log(path: Path) -> None:
    Path(f"{path}-wal").unlink()


def remove_folder(path: Path) -> None:
    remove_all(path)
    path.parent.rmdir()


def replace_by_empty(path: Path) -> None:
    path.rename(path.with_name("old"))
    path.write_bytes(b"")


def replace_by_other(path: Path) -> None:
    filled(path.with_name("other.db"), 1)
    path.with_name("other.db").rename(path)


@pytest.mark.parametrize(
    "removal", [remove_file, remove_all, remove_log, remove_folder, replace_by_empty, replace_by_other]
)
def test_a_file_that_goes_away_in_use(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, removal: Callable[[Path], None]
) -> None:
    """Two users of a file that somebody deletes or replaces: both go on in the new one, with all they had."""
    path = tmp_path / "folder" / "x.db"
    first, second = spool_at(path), spool_at(path)
    first.append([record(f"first {number}") for number in range(250)])
    second.append([record("second")])
    removal(path)
    first.append([record("first after")])
    second.append([record("second after")])
    names = records_in(second)
    expected = {*(f"first {number}" for number in range(250)), "second", "first after", "second after"}
    assert expected <= set(names) <= expected | {"old 0"}
    assert len(names) == len(set(names))
    assert complaints(caplog, "deleted or replaced")
    third = spool_at(path)
    third.append([record("third")])
    first.append([record("first at last")])
    assert ["third", "first at last"] == records_in(third)
    connection = sqlite3.connect(path)
    assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
    connection.close()
    for each in (first, second, third):
        each.close()


# No room, no right to write


class Small(sqlite3.Connection):
    """A database that may have so many pages."""

    pages = 200

    def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
        if sql == "BEGIN IMMEDIATE":
            super().execute(f"PRAGMA max_page_count = {self.pages}").fetchall()
        return super().execute(sql, *values)


def test_a_full_disk_takes_nothing_of_a_batch_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that does not fit leaves no trace, in the counters neither; with room again, it goes on."""
    path = tmp_path / "x.db"
    spool = DiskSpool(str(path), DESTINATION, BOUNDS, connection_type=Small)
    assert 1 == spool.append([record("small")])
    with pytest.raises(SpoolUnavailable, match="FULL"):
        spool.append([record(f"large {number}", 100_000) for number in range(20)])
    assert (1, 1) == (spool.counters().appended, spool.counters().pending)
    assert 1 == spool.append([record("small too")])
    monkeypatch.setattr(Small, "pages", 2000)
    assert 20 == spool.append([record(f"large {number}", 100_000) for number in range(20)])
    assert 22 == len(records_in(spool))
    spool.close()


def test_the_disk_is_looked_at_now_and_then(tmp_path: Path) -> None:
    """Each second, and after each megabyte; not for each record."""
    now = 100.0
    path = tmp_path / "x.db"
    log = tmp_path / "x.db-wal"
    keeper = Upkeep(str(path), BOUNDS, time.time, lambda: now)

    def the_log_needs(size: int) -> None:
        with log.open("wb") as file:
            file.truncate(size)

    too_much = 8 << 40
    keeper.check_disk(10)
    the_log_needs(too_much)
    keeper.check_disk(10)
    for size in (1 << 20, 10):
        with pytest.raises(SpoolShort, match="is full but for what is needed"):
            keeper.check_disk(size)
    the_log_needs(0)
    keeper.check_disk(10)
    the_log_needs(too_much)
    keeper.check_disk(10)
    now += 2.0
    with pytest.raises(SpoolShort):
        keeper.check_disk(10)


def test_a_disk_that_cannot_be_asked_has_room(tmp_path: Path) -> None:
    """One that does not count its blocks, and one whose folder is yet to be made."""
    assert math.inf == files.free_at("/proc/x.db") == files.free_at(str(tmp_path / "new" / "x.db"))
    assert 0 < files.free_at(str(tmp_path / "x.db")) < math.inf


LIFE = """
import logging, resource, stat
logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message).60s", stream=sys.stdout)
from kwai_middleware._delivery.delivery import Delivery
from kwai_middleware._record import CompletedCall
from kwai_middleware._settings import Settings
from kwai_middleware._secret import Secret
url = sys.argv[2]
def delivery(spool):
    return Delivery(Settings(api_key=Secret("k"), base_url=url, spool=spool, exit_timeout=1.0))
def call(name):
    return CompletedCall(record_id=name, model="m", messages=b"[]")
news = []
class Ear(logging.Handler):
    def emit(self, entry):
        news.append(entry.getMessage())
logging.getLogger("kwai_middleware").addHandler(Ear())
def until_on_disk_again(delivery):
    end = time.monotonic() + 40
    while not any("on disk again" in each for each in news):
        assert time.monotonic() < end
        delivery.submit(call("again"))
        delivery.flush(20)
        time.sleep(0.1)
"""


def lived(program: str, *arguments: object) -> list[str]:
    """Run a program with a delivery to a logs API that takes everything; returns what it printed, the log included."""
    with logs_api() as api:
        return run(LIFE + program, *map(str, arguments[:1]), api.url, *map(str, arguments[1:])).splitlines()


def test_a_full_disk_and_room_again(tmp_path: Path) -> None:
    """A file that may not grow any more: records wait in memory and arrive, one error is logged; then disk again."""
    program = """
resource.setrlimit(resource.RLIMIT_FSIZE, (16384, resource.RLIM_INFINITY))
mine = delivery("sqlite://" + path)
for number in range(5):
    mine.submit(call(f"full {number}"))
    mine.flush(20)
print(mine.flush(20), mine.stats().delivered)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
until_on_disk_again(mine)
stats = mine.stats()
print(mine.flush(20), stats.dropped, stats.accepted == stats.delivered)
"""
    printed = lived(program, tmp_path / "x.db")
    assert ["True 5", "True 0 True"] == [line for line in printed if line.startswith("True")]
    assert (1, 1) == (
        sum("cannot be kept on disk" in line and line.startswith("ERROR") for line in printed),
        sum("kept on disk again" in line for line in printed),
    )


def test_a_folder_that_cannot_be_written_and_can_again() -> None:
    """Without the right to write, records wait in memory and arrive; with it, the file is made."""
    program = """
become_somebody()
folder = os.path.dirname(path)
os.chmod(folder, 0o500)
mine = delivery("sqlite://" + path)
mine.submit(call("first"))
print(mine.flush(20), os.listdir(folder))
os.chmod(folder, 0o700)
until_on_disk_again(mine)
print(os.path.exists(path))
print(mine.flush(20), mine.stats().dropped)
"""
    with folder_of_somebody() as folder:
        printed = lived(program, folder / "x.db")
    assert ["True []", "True", "True 0"] == [line for line in printed if line.startswith("True")]
    assert 1 == sum("cannot be kept on disk" in line for line in printed)


def test_a_file_that_cannot_be_written_and_can_again() -> None:
    """A file that was made read-only is used again once it is not: no connection stays read-only."""
    program = """
become_somebody()
spool = spool_at(path)
spool.append([record("before")])
spool.close()
os.chmod(path, 0o400)
again = spool_at(path)
for _ in range(2):
    try:
        again.append([record("refused")])
    except SpoolUnavailable as error:
        print("READONLY" in str(error) or "CANTOPEN" in str(error) or error)
os.chmod(path, 0o600)
again.append([record("after")])
print(records_in(again))
again.close()
"""
    with folder_of_somebody() as folder:
        assert ["True", "True", "['before', 'after']"] == run(program, folder / "x.db").splitlines()


# The default place


@pytest.mark.parametrize("state", ["", "state", "relative"])
def test_the_default_place_is_the_user_s_state_directory(tmp_path: Path, state: str) -> None:
    """It follows XDG_STATE_HOME, and says nothing when all is well; a relative one does not count."""
    program = """
os.environ.update(HOME=path, XDG_STATE_HOME=sys.argv[3])
os.chdir(path)
mine = delivery("auto")
for _ in range(3):
    mine.submit(call("x"))
    mine.flush(20)
print(mine.flush(20), mine.stats().delivered)
for folder, _, names in os.walk(path):
    for name in names:
        if name.endswith(".db"): print(os.path.join(folder, name))
"""
    place = str(tmp_path / "state") if state == "state" else state
    printed = lived(program, tmp_path, place)
    folder = tmp_path / ("state" if state == "state" else ".local/state") / "kwai-middleware"
    assert ["True 3"] == printed[:1]
    assert [str(each) for each in folder.glob("spool-*.db")] == printed[1:]


def test_a_state_directory_that_cannot_be_written_means_memory_and_one_warning() -> None:
    """Nobody has asked for a disk: it is a warning, once, and everything arrives."""
    program = """
become_somebody()
os.environ.update(HOME=path, XDG_STATE_HOME="")
os.chmod(path, 0o500)
mine = delivery("auto")
for _ in range(3):
    mine.submit(call("x"))
    mine.flush(20)
print(mine.flush(20), mine.stats().delivered)
os.chmod(path, 0o700)
"""
    with folder_of_somebody() as folder:
        printed = lived(program, folder)
    assert ["True 3"] == [line for line in printed if not line.startswith("WARNING")]
    assert 1 == len(printed) - 1


def test_our_threads_import_nothing_for_the_disk(tmp_path: Path) -> None:
    """A process that forks during an import gives its child half a module; so all is there before the first record."""
    program = """
mine = delivery("sqlite://" + path)
before = set(sys.modules)
mine.submit(call("x"))
print(mine.flush(20), mine.stats().appended, set(sys.modules) - before)
"""
    assert ["True 1 set()"] == lived(program, tmp_path / "é" / "x.db")
