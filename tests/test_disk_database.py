"""One connection to a spool's file: turns, versions of the schema, and who is alive."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kwai_middleware._delivery.disk import owners, places, schema
from kwai_middleware._delivery.disk.database import Database
from kwai_middleware._delivery.disk.errors import SpoolBusy, SpoolUnavailable, translated
from tests.support.processes import DEADLINE
from tests.support.spool_files import DESTINATION, record, records_in, run, running, spool_at

SECOND = """
ALTER TABLE records ADD COLUMN colour TEXT NOT NULL DEFAULT 'it is; so';
CREATE TABLE colours (name TEXT);
CREATE TRIGGER painted AFTER INSERT ON colours BEGIN UPDATE records SET colour = new.name; SELECT 1; END;
CREATE INDEX by_colour ON records (colour);
"""
NEWER = (*schema.STEPS, SECOND)


class Tracked(sqlite3.Connection):
    """Fails at a statement, if it is told so."""

    left = -1

    def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
        if self.in_transaction and sql != "ROLLBACK":
            Tracked.left -= 1
            if Tracked.left == 0:
                raise sqlite3.OperationalError("broken off")
        return super().execute(sql, *values)


def version(path: Path) -> tuple[int, int]:
    """Version and number of tables, as any other program sees them."""
    connection = sqlite3.connect(path)
    try:
        ((number,),) = connection.execute("PRAGMA user_version")
        ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_master")
        assert [("ok",)] == connection.execute("PRAGMA integrity_check").fetchall()
        return number, tables
    finally:
        connection.close()


# Transactions


def test_what_fails_in_the_middle_has_not_happened(tmp_path: Path) -> None:
    """Whoever else looks sees all of a transaction or nothing, and the next one begins as if there had been none."""
    database, other = Database(str(tmp_path / "x.db")), Database(str(tmp_path / "x.db"))
    insert = "INSERT INTO destinations (base_url, digest) VALUES (?, 'd')"
    for error in (RuntimeError, KeyboardInterrupt):
        with pytest.raises(error), database.transaction() as connection:
            connection.execute(insert, ("lost",))
            assert [] == other.read("SELECT base_url FROM destinations")
            raise error
    with pytest.raises(SpoolUnavailable, match="syntax"), database.transaction() as connection:
        connection.execute(insert, ("lost",))
        connection.execute("nonsense")
    with database.transaction() as connection:
        connection.execute(insert, ("kept",))
    assert [("kept",)] == other.read("SELECT base_url FROM destinations")
    database.close()
    other.close()


def test_a_closed_database_stays_closed(tmp_path: Path) -> None:
    """It opens nothing any more, says so, and can be closed again; what is unimportant is not done in silence."""
    database = Database(str(tmp_path / "x.db"))
    for _ in range(2):
        database.close()
        with pytest.raises(SpoolUnavailable, match="has been closed"):
            database.read("SELECT 1")
        database.tidy("PRAGMA wal_checkpoint(PASSIVE)")
    assert [] == list(tmp_path.iterdir())


def test_a_database_that_is_detached_meanwhile_is_opened_anew(tmp_path: Path) -> None:
    """A thread that waits while another one gives the connection away uses the next one."""
    database = Database(str(tmp_path / "x.db"))
    with database.transaction():
        seat = database._seat()  # waits for its lock below
        answers: list[object] = []
        thread = threading.Thread(target=lambda: answers.append(database.read("SELECT 1")))
        thread.start()
        assert seat is database.detach()
    thread.join(DEADLINE)
    assert [[(1,)]] == answers
    assert database._seat() is not seat
    seat.leave()
    database.close()


def test_errors_of_python_s_own_layer_are_the_disk_s_too() -> None:
    """They carry no code of SQLite's, which must not be a bug of ours."""
    connection = sqlite3.connect(":memory:")
    connection.close()
    with pytest.raises(sqlite3.ProgrammingError) as caught:
        connection.execute("SELECT 1")
    assert SpoolUnavailable is type(translated(caught.value))


# Turns


def test_a_holder_that_stands_still_holds_up_nobody_for_long(tmp_path: Path) -> None:
    """A process stopped in its turn: others are told within seconds, and all is well when it goes on."""
    path = tmp_path / "x.db"
    program = """
database = Database(path)
with database.transaction() as connection:
    connection.execute("INSERT INTO destinations (base_url, digest) VALUES ('theirs', 'd')")
    print("holding")
    sys.stdin.readline()
print("done")
sys.stdin.readline()
"""
    with running(program, path) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.send_signal(signal.SIGSTOP)
        spool = spool_at(path)
        with pytest.raises(SpoolBusy):
            spool.append([record("a")])
        # Who only looks need not wait.
        assert [] == Database(str(path)).read("SELECT base_url FROM destinations")
        holder.send_signal(signal.SIGCONT)
        holder.stdin.write("\n")
        holder.stdin.flush()
        assert "done\n" == holder.stdout.readline()
        assert 1 == spool.append([record("a")])
        assert ["a"] == records_in(spool)
        spool.close()


def test_turns_go_round(tmp_path: Path) -> None:
    """Four processes that write all they can: each has its turns, and none is turned away."""
    program = """
database = Database(path)
end = time.monotonic() + 1.0
turns = 0
print("ready")
while time.monotonic() < end:
    with database.transaction() as connection:
        connection.execute("INSERT INTO destinations (base_url, digest) VALUES (?, ?)", (os.getpid(), turns))
    turns += 1
print(turns)
"""
    with (
        running(program, tmp_path / "x.db") as one,
        running(program, tmp_path / "x.db") as two,
        running(program, tmp_path / "x.db") as three,
    ):
        counts = [int(each.communicate(timeout=DEADLINE)[0]) for each in (one, two, three)]
    database = Database(str(tmp_path / "x.db"))
    assert [(sum(counts),)] == database.read("SELECT count(*) FROM destinations")
    assert all(counts)
    database.close()


# Versions


def test_a_newer_version_adds_to_a_file_and_older_ones_go_on(tmp_path: Path) -> None:
    """Both versions are in use at once, as during a deployment: neither loses a record of the other's."""
    path = tmp_path / "x.db"
    older = spool_at(path)
    older.append([record("before")])
    newer = Database(str(path), steps=NEWER)
    assert [("it is; so",)] == newer.read("SELECT colour FROM records")
    older.append([record("after")])
    late = spool_at(path)
    late.append([record("late")])
    assert 2 == version(path)[0]
    with newer.transaction() as connection:
        connection.execute("INSERT INTO colours VALUES ('red')")
    assert [("red",)] == newer.read("SELECT DISTINCT colour FROM records")
    assert ["before", "after", "late"] == records_in(older)
    for each in (older, newer, late):
        each.close()


def test_a_new_file_goes_through_all_versions(tmp_path: Path) -> None:
    """From nothing to the newest one at once; its pages can be given back."""
    database = Database(str(tmp_path / "x.db"), steps=NEWER)
    assert [] == database.read("SELECT colour FROM records")
    assert [(2,)] == database.read("PRAGMA auto_vacuum")
    assert [("wal",)] == database.read("PRAGMA journal_mode")
    assert [(schema.APPLICATION,)] == database.read("PRAGMA application_id")
    database.close()


@pytest.mark.parametrize("steps", [schema.STEPS, NEWER], ids=["first", "second"])
def test_a_step_that_breaks_off_anywhere_has_not_been_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: tuple[str, ...]
) -> None:
    """At whichever statement it ends, the file is the older version, whole; the next process takes the step."""
    path = tmp_path / "x.db"
    if steps is NEWER:
        older = spool_at(path)
        older.append([record("a")])
        older.close()
    before = version(path) if path.exists() else (0, 0)
    broken = 0
    while True:
        monkeypatch.setattr(Tracked, "left", broken + 1)
        database = Database(str(path), steps, Tracked)
        try:
            database.read("SELECT 1")
        except SpoolUnavailable as error:
            assert "broken off" in str(error)
            assert before == version(path)
            broken += 1
        else:
            break
        finally:
            database.close()
    assert broken > 6
    assert len(steps) == version(path)[0]


def test_a_process_that_dies_in_a_step_has_not_taken_it(tmp_path: Path) -> None:
    """Killed between two statements, it leaves the older version."""
    program = """
from kwai_middleware._delivery.disk import schema
class Dying(sqlite3.Connection):
    def execute(self, sql, *values):
        if "INDEX by_colour" in sql:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().execute(sql, *values)
spool_at(path).append([record("a")])
Database(path, (*schema.STEPS, sys.argv[2]), Dying).read("SELECT 1")
"""
    path = tmp_path / "x.db"
    with running("print('go')\n" + program, path, SECOND) as process:
        assert -signal.SIGKILL == process.wait(DEADLINE)
    assert 1 == version(path)[0]
    database = Database(str(path), NEWER)
    assert [("it is; so",)] == database.read("SELECT colour FROM records")
    database.close()


def test_processes_that_upgrade_at_once(tmp_path: Path) -> None:
    """One of them takes the step, the others find it taken."""
    path = tmp_path / "x.db"
    spool = spool_at(path)
    spool.append([record("a")])
    program = """
from kwai_middleware._delivery.disk import schema
print("ready")
sys.stdin.readline()
print(Database(path, (*schema.STEPS, sys.argv[2])).read("SELECT colour FROM records"))
"""
    with running(program, path, SECOND) as one, running(program, path, SECOND) as two:
        for each in (one, two):
            assert each.stdin is not None
            each.stdin.write("\n")
            each.stdin.flush()
        assert ["[('it is; so',)]\n"] * 2 == [each.communicate(timeout=DEADLINE)[0] for each in (one, two)]
    assert ["a"] == records_in(spool)
    spool.close()


def test_a_step_that_another_has_taken_meanwhile_is_not_taken_again(tmp_path: Path) -> None:
    """Between looking and beginning, another process can have been there."""
    path = tmp_path / "x.db"

    class Overtaken(sqlite3.Connection):
        def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
            if sql == "BEGIN IMMEDIATE":
                other = sqlite3.connect(path, isolation_level=None)
                schema.upgrade(other, NEWER)
                other.close()
            return super().execute(sql, *values)

    connection = sqlite3.connect(path, isolation_level=None, factory=Overtaken)
    schema.upgrade(connection, NEWER)
    connection.close()
    assert 2 == version(path)[0]


def test_a_version_that_cannot_be_shared_is_left_alone(tmp_path: Path) -> None:
    """A newer version that changes what older ones rely on says so in the file, and they refuse it."""
    path = tmp_path / "x.db"
    connection = sqlite3.connect(path, isolation_level=None)
    schema.upgrade(connection, NEWER)
    connection.execute(f"PRAGMA application_id = {schema.APPLICATION + 1}")
    connection.close()
    before = path.read_bytes()
    spool = spool_at(path)
    with pytest.raises(SpoolUnavailable, match="newer version"):
        spool.append([record("a")])
    spool.close()
    assert before == path.read_bytes()
    assert ["x.db", "x.db.lock"] == sorted(each.name for each in tmp_path.iterdir())


def test_a_disk_without_shared_memory_is_refused() -> None:
    """Where SQLite keeps no log, processes would stand in each other's way."""
    connection = sqlite3.connect(":memory:")
    with pytest.raises(SpoolUnavailable, match="shared memory"):
        schema.prepare(connection)
    connection.close()


def test_each_place_means_a_file_of_its_own_or_none() -> None:
    """In a folder, each destination has its file; memory has none."""
    name = f"spool-{DESTINATION.digest[:12]}.db"
    assert None is places.file_for("memory:", DESTINATION)
    assert f"/srv/{name}" == places.file_for("sqlite:///srv/", DESTINATION)
    assert "/srv/x.db" == places.file_for("sqlite:///srv/x.db", DESTINATION)
    assert f"{places.default_folder()}/{name}" == places.file_for("auto", DESTINATION)


# Alive or dead


def test_a_process_is_alive_until_it_has_ended() -> None:
    """Also when it has ended and nobody has cleared it away, as in many a container."""
    assert not owners.is_dead(owners.new_owner())
    assert owners.new_owner() != owners.new_owner()
    program = "from kwai_middleware._delivery.disk.owners import new_owner; print(new_owner(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        owner = process.stdout.readline().strip()
        assert not owners.is_dead(owner)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert owners.is_dead(owner) is os.path.exists("/proc/self/stat")
        process.wait()
        assert owners.is_dead(owner)


@pytest.mark.parametrize(
    "owner",
    ["", "x", "{namespace}:", "{namespace}:x:1:0", "{namespace}:-1:1:0", "{namespace}:99999999999:1:0", "0:1:2"],
)
def test_who_cannot_be_known_is_not_called_dead(owner: str) -> None:
    """A name that another version has made up, or another container: then only time tells."""
    namespace = owners.new_owner().partition(":")[0]
    assert not owners.is_dead(owner.format(namespace=namespace) if namespace != "0" else "elsewhere:1:1:0")


def test_a_number_that_another_process_has_by_now(tmp_path: Path) -> None:
    """The number alone says nothing: the time of its start does, and only where it can be read."""
    proc = tmp_path / "proc"
    folder = proc / str(os.getpid())
    folder.mkdir(parents=True)
    behind = " ".join(["S", *("0" for _ in range(18)), "4711", "0"])
    (folder / "stat").write_bytes(b"1 (a) b) \xff) " + behind.encode())
    owner = owners.new_owner(str(proc))
    assert ["0", str(os.getpid()), "4711"] == owner.split(":")[:3]
    assert not owners.is_dead(owner, str(proc))
    assert owners.is_dead(owner.replace("4711", "4710"), str(proc))
    (folder / "stat").write_bytes(b"hidden")
    assert not owners.is_dead(owner, str(proc))
    assert not owners.is_dead(owner, str(tmp_path / "nothing"))
    assert owners.new_owner(str(tmp_path / "nothing")).startswith(f"0:{os.getpid()}::")


def test_a_process_of_another_user() -> None:
    """One that may not be asked is alive."""
    program = """
from kwai_middleware._delivery.disk import owners
namespace = owners.new_owner().partition(":")[0]
become_somebody()
_, started = owners._looked_up(1, "/proc")
print(owners.is_dead(f"{namespace}:1:{started}:0"))
"""
    assert "False\n" == run(program, "x")
