"""Spools on disk over forks: nobody hangs, nothing is lost, and no process pulls the log from under another."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.spool_files import records_in, run, spool_at

CHILDREN = """
def in_child(function, fork=os.fork):
    pid = fork()
    if pid == 0:
        code = 1
        try:
            function()
            code = 0
        except BaseException as error:
            print(repr(error), file=sys.stderr)
        finally:
            os._exit(code)
    return pid

def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def sound():
    connection = sqlite3.connect(path)
    try:
        return connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    finally:
        connection.close()
"""


def test_a_hundred_forks_in_the_middle_of_commits(tmp_path: Path) -> None:
    """A thread commits all the time while its process forks: each child can write, and all is there."""
    program = """
spool, over, mine = spool_at(path), threading.Event(), []
def write():
    while not over.is_set():
        name = f"parent {len(mine)}"
        spool.append([record(name, 20_000)])
        mine.append(name)
def idle():
    while not over.wait(0.001):
        pass
threads = [threading.Thread(target=write)] + [threading.Thread(target=idle) for _ in range(20)]
for thread in threads: thread.start()
children = []
for number in range(100):
    while len(mine) <= number: time.sleep(0.0005)  # each fork has a commit before it, and one after it
    children.append(in_child(lambda: spool_at(path).append([record(f"child {number}")])))
    if number % 10 == 9:
        while children: assert 0 == ended(children.pop())
over.set()
for thread in threads: thread.join()
expected = sorted([*mine, *(f"child {number}" for number in range(100))])
print(len(mine) >= 100, sound(), expected == sorted(records_in(spool)))
spool.close()
"""
    assert "True True True\n" == run(CHILDREN + program, tmp_path / "x.db")


def test_a_child_outlives_its_parent_s_connections(tmp_path: Path) -> None:
    """What a child has committed stays when its parent closes, and when others come and go meanwhile."""
    program = """
spool = spool_at(path)
spool.append([record("parent")])
to_child, from_child = os.pipe(), os.pipe()
def go_on():
    own = spool_at(path)
    own.append([record("child before")])
    os.write(from_child[1], b"x")
    os.read(to_child[0], 1)
    own.append([record("child after")])
child = in_child(go_on)
os.read(from_child[0], 1)
spool.close()
passing = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('SELECT count(*) FROM records').fetchall()"
os.spawnv(os.P_WAIT, sys.executable, [sys.executable, "-W", "ignore", "-c", passing, path])
os.write(to_child[1], b"x")
print(ended(child), sound(), records_in(spool_at(path)))
"""
    out = run(CHILDREN + program, tmp_path / "x.db")
    assert "0 True ['parent', 'child before', 'child after']\n" == out


@pytest.mark.parametrize("use", ["pass", "spool_at(path).append([record('child')])", "spool.append([record('child')])"])
def test_a_child_that_ends_normally_leaves_the_parent_s_log_alone(tmp_path: Path, use: str) -> None:
    """Also through all of the interpreter's own ending, whether the child used the spool or not, and in any form."""
    program = f"""
spool = spool_at(path)
to_child = os.pipe()
pid = os.fork()
if pid == 0:
    os.read(to_child[0], 1)
    {use}
    import gc; gc.collect()
    sys.exit(0)
spool.append([record("before")])
log = os.lstat(path + "-wal").st_ino
os.write(to_child[1], b"x")
assert 0 == ended(pid)
assert log == os.lstat(path + "-wal").st_ino
spool.append([record("after")])
names = records_in(spool)
print(sound(), [name for name in names if name != "child"], names.count("child"))
spool.close()
"""
    out = run(CHILDREN + program, tmp_path / "x.db")
    assert f"True ['before', 'after'] {int(use != 'pass')}\n" == out


def test_an_open_database_is_nothing_to_complain_of(tmp_path: Path) -> None:
    """Neither the end of a process that did not close its spool nor that of its child warns of an unclosed database."""
    program = """
spool = spool_at(path)
spool.append([record("a")])
pid = os.fork()
if pid == 0:
    del spool
    sys.exit(0)
print(ended(pid))
"""
    assert "0\n" == run(CHILDREN + program, tmp_path / "x.db")


def test_a_forgotten_database_is_closed(tmp_path: Path) -> None:
    """Its files do not stay open for ever when nobody has closed it."""
    program = """
before = len(os.listdir("/dev/fd"))
for _ in range(20):
    spool_at(path).append([record("a")])
import gc
gc.collect()
print(len(os.listdir("/dev/fd")) - before)
"""
    assert "0\n" == run(program, tmp_path / "x.db")


def test_grandchildren(tmp_path: Path) -> None:
    """Each generation opens its own, also the one whose parent never did."""
    program = """
spool = spool_at(path)
spool.append([record("1")])
def second():
    def third():
        def fourth():
            spool_at(path).append([record("4")])
        spool_at(path).append([record("3")])
        assert 0 == ended(in_child(fourth))
    assert 0 == ended(in_child(third))
    spool_at(path).append([record("2")])
assert 0 == ended(in_child(second))
spool.append([record("1 again")])
print(sound(), records_in(spool))
spool.close()
"""
    assert "True ['1', '3', '4', '2', '1 again']\n" == run(CHILDREN + program, tmp_path / "x.db")


def test_many_threads_of_a_child_open_at_once(tmp_path: Path) -> None:
    """Only the first one lets go of what was inherited; the others wait for it."""
    program = """
spool = spool_at(path)
spool.append([record("parent")]), spool.counters()
def all_at_once():
    barrier, failures = threading.Barrier(8), []
    def write(number):
        barrier.wait()
        try:
            (spool if number % 2 else spool_at(path)).append([record(str(number))])
        except BaseException as error:
            failures.append(error)
    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert [] == failures, failures
print(ended(in_child(all_at_once)), sorted(records_in(spool)))
spool.close()
"""
    assert f"0 {[*map(str, range(8)), 'parent']}\n" == run(CHILDREN + program, tmp_path / "x.db")


SILENT = """
# Releases the interpreter's lock, and tells Python nothing.
def silently(function):
    return in_child(function, ctypes.CDLL(None).fork)
"""


def test_a_fork_that_tells_nobody(tmp_path: Path) -> None:
    """By its number alone a process knows that it is another one: it opens its own, and nothing is lost."""
    program = """
spool = spool_at(path)
spool.append([record("parent")])
assert 0 == ended(silently(lambda: spool.append([record("child")])))
spool.append([record("parent again")])
print(sound(), records_in(spool))
spool.close()
"""
    out = run(CHILDREN + SILENT + program, tmp_path / "x.db")
    assert "True ['parent', 'child', 'parent again']\n" == out


def test_a_fork_that_tells_nobody_in_the_middle_of_a_transaction(tmp_path: Path) -> None:
    """Whatever SQLite was at, in such a child the disk is left alone; the parent's transaction is whole."""
    program = """
spool, other = spool_at(path), Database(path)
spool.append([record("before")])
begun, over = threading.Event(), threading.Event()
def change():
    with other.transaction() as connection:
        connection.execute("UPDATE records SET record_id = 'changed'")
        begun.set()
        over.wait()
thread = threading.Thread(target=change)
thread.start()
begun.wait()
def refused():
    for each in (spool, spool_at(path), spool):
        try:
            each.append([record("child")])
        except SpoolUnavailable as error:
            assert "was forked while" in str(error), error
        else:
            raise AssertionError
assert 0 == ended(silently(refused))
over.set()
thread.join()
print(sound(), records_in(spool))
spool.close(), other.close()
"""
    assert "True ['changed']\n" == run(CHILDREN + SILENT + program, tmp_path / "x.db")


def test_a_fork_inside_a_transaction_s_own_thread(tmp_path: Path) -> None:
    """As a signal handler may do: the child does not commit what its parent commits, and does not undo it either."""
    program = """
database = Database(path)
try:
    with database.transaction() as connection:
        connection.execute("INSERT INTO destinations (base_url, digest) VALUES ('u', 'd')")
        pid = os.fork()
except SpoolUnavailable as error:
    assert "forked" in str(error)
    try:
        database.read("SELECT 1")
    except SpoolUnavailable as error:
        os._exit(7)
print(ended(pid), sound(), database.read("SELECT base_url FROM destinations"))
database.close()
"""
    assert "7 True [('u',)]\n" == run(CHILDREN + program, tmp_path / "x.db")


def test_a_thread_that_hangs_in_the_file_delays_a_fork_by_a_second_at_most(tmp_path: Path) -> None:
    """With three of them no longer than with one; the child knows, and keeps away from the file."""
    program = """
begun, over = threading.Barrier(4), threading.Event()
def hang(path):
    database = Database(path)
    with database.transaction():
        begun.wait()
        over.wait()
    database.close()
threads = [threading.Thread(target=hang, args=(f"{path}{number}",)) for number in range(3)]
for thread in threads: thread.start()
begun.wait()
def refused():
    try:
        spool_at(path + "3").append([record("child")])
    except SpoolUnavailable as error:
        assert "was forked while" in str(error)
    else:
        raise AssertionError
before = time.monotonic()
child = in_child(refused)
took = time.monotonic() - before
print(ended(child), 0.5 < took < 2.0)
over.set()
for thread in threads: thread.join()
"""
    assert "0 True\n" == run(CHILDREN + program, tmp_path / "x.db")


def test_threads_that_fork_at_the_same_time(tmp_path: Path) -> None:
    """Each lets go of what it holds and of nothing else: afterwards everybody can write."""
    program = """
spool = spool_at(path)
spool.append([record("parent")])
def fork_often():
    for _ in range(15):
        assert 0 == ended(in_child(lambda: None))
        spool.append([record("x")])
threads = [threading.Thread(target=fork_often) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(records_in(spool)))
spool.close()
"""
    assert "91\n" == run(CHILDREN + program, tmp_path / "x.db")


QUIETLY = "import logging; logging.disable()  # that a file is gone is told, which is no complaint here"


@pytest.mark.parametrize("gone", ["os.unlink(path)", "os.rename(path, path + '.aside')"])
def test_a_fork_before_anybody_notices_that_the_file_is_gone(tmp_path: Path, gone: str) -> None:
    """What was in it is saved all the same, and the child has nothing to do with it."""
    program = f"""{QUIETLY}
spool = spool_at(path)
spool.append([record("before")])
{gone}
assert 0 == ended(in_child(lambda: spool_at(path).append([record("child")])))
spool.append([record("after")])
print(sound(), sorted(records_in(spool)))
spool.close()
print(sound())
"""
    out = run(CHILDREN + program, tmp_path / "x.db")
    assert "True ['after', 'before', 'child']\nTrue\n" == out


def test_a_fork_while_the_folder_cannot_be_looked_into(tmp_path: Path) -> None:
    """Nobody can tell whether the file is there: it stays open, and is used on when it is."""
    folder = tmp_path / "x"
    folder.mkdir(mode=0o700)
    program = """
spool = spool_at(path)
spool.append([record("before")])
folder = os.path.dirname(path)
os.rename(folder, folder + "-away")
os.symlink(folder, folder)  # a loop, which is an error for root too
assert 0 == ended(in_child(lambda: None))
os.unlink(folder)
os.rename(folder + "-away", folder)
spool.append([record("after")])
print(sound(), records_in(spool))
spool.close()
"""
    assert "True ['before', 'after']\n" == run(CHILDREN + program, folder / "x.db")


def test_a_fork_while_the_records_of_a_file_that_is_gone_are_saved(tmp_path: Path) -> None:
    """They are read a few at a time, and a fork comes in between: none of the rest is lost."""
    program = f"""{QUIETLY}
kept = []
def keep(records):
    kept.extend(records)
    assert 0 == ended(in_child(lambda: None))
    return len(records)
spool = spool_at(path)
spool.rescue = keep
for number in range(250):
    spool.append([record(str(number))])
for suffix in ("", "-wal", "-shm"):
    os.unlink(path + suffix)
spool._upkeep.room = lambda connection, wanted: 0  # nothing fits into the new file
spool.append([record("after")])
print(len(kept), len(set(each.record_id for each in kept)))
spool.close()
"""
    assert "250 250\n" == run(CHILDREN + program, tmp_path / "x.db")


def test_what_was_written_before_and_after_many_generations_is_there(tmp_path: Path) -> None:
    """The file that all of these programs leave behind is one that another process can read."""
    run("spool = spool_at(path)\nspool.append([record('a')])\nos.fork() or os._exit(0)\nos.wait()", tmp_path / "x.db")
    spool = spool_at(tmp_path / "x.db")
    assert ["a"] == records_in(spool)
    spool.close()
