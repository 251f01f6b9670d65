"""The spool's files: whose they are, who may read them, where they may lie."""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kwai_middleware._delivery.disk import files, network
from kwai_middleware._delivery.disk.aside import forget_aside, put_aside
from kwai_middleware._delivery.disk.database import Database
from kwai_middleware._delivery.disk.errors import SpoolBusy, SpoolUnavailable
from kwai_middleware._delivery.disk.network import on_network
from tests.support.spool_files import ANOTHER_USER, folder_of_somebody, record, records_in, run, running, spool_at

BESIDE = ("-wal", "-shm", ".lock")


def mode(path: str | Path) -> int:
    """The rights of a file or folder."""
    return stat.S_IMODE(os.lstat(path).st_mode)


def used(path: str | Path) -> None:
    """Open a database once, and close it."""
    database = Database(str(path))
    try:
        with database.transaction():
            pass
    finally:
        database.close()


# Rights


@pytest.mark.parametrize("umask", ["0o000", "0o022", "0o277", "0o777"])
def test_files_are_for_their_user_alone_whatever_the_umask(tmp_path: Path, umask: str) -> None:
    """Folders are made with 700 and files with 600, where the process allows others more, or itself less."""
    program = f"""
os.umask({umask})
spool = spool_at(path)
spool.append([record("a")])
folder = os.path.dirname(path)
for each in (os.path.dirname(folder), folder, path, path + "-wal", path + "-shm", path + ".lock"):
    print(oct(os.lstat(each).st_mode & 0o7777))
"""
    out = run(program, tmp_path / "one" / "two" / "x.db")
    assert ["0o700", "0o700", "0o600", "0o600", "0o600", "0o600"] == out.split()


def test_rights_that_are_too_loose_are_tightened(tmp_path: Path) -> None:
    """A file that others could read, they cannot read once it has been opened; an open log included."""
    path = tmp_path / "x.db"
    holder = spool_at(path)
    holder.append([record("a")])
    for suffix in ("", *BESIDE):
        os.chmod(f"{path}{suffix}", 0o664)
    other = spool_at(path)
    assert 1 == other.counters().pending
    assert [0o600] * 4 == [mode(f"{path}{suffix}") for suffix in ("", *BESIDE)]
    other.close()
    holder.close()


# What is refused


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal", ".lock"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "second name", "folder", "pipe"])
def test_what_is_not_a_plain_file_of_its_own_is_refused(tmp_path: Path, suffix: str, kind: str) -> None:
    """A link, a second name, a folder or a pipe in place of any of the files is refused, and what it leads to kept."""
    target, path = tmp_path / "target", tmp_path / "x.db"
    target.write_bytes(b"precious")
    os.chmod(target, 0o644)
    place = Path(f"{path}{suffix}")
    if kind == "link":
        place.symlink_to(target)
    elif kind == "dangling link":
        place.symlink_to(tmp_path / "nothing")
    elif kind == "second name":
        os.link(target, place)
    elif kind == "folder":
        place.mkdir()
    else:
        os.mkfifo(place)
    with pytest.raises(SpoolUnavailable, match=r"link|second name|directory|no file|device"):
        used(path)
    assert (b"precious", 0o644) == (target.read_bytes(), mode(target))
    assert not (tmp_path / "nothing").exists()


def test_a_folder_that_is_a_link_is_refused_and_the_folder_itself_named(tmp_path: Path) -> None:
    """Who can change a link decides where prompts go; the message says what to write instead."""
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(SpoolUnavailable, match=f"name the folder itself: {os.path.realpath(tmp_path)}/real"):
        used(tmp_path / "link" / "x.db")
    assert [] == list((tmp_path / "real").iterdir())


def test_a_folder_that_others_can_write_is_refused_unless_it_is_sticky(tmp_path: Path) -> None:
    """In such a folder others could put their file in place of ours; not in one like /tmp."""
    folder = tmp_path / "shared"
    folder.mkdir()
    for rights in (0o777, 0o770, 0o707):
        os.chmod(folder, rights)
        with pytest.raises(SpoolUnavailable, match="chmod it to 700"):
            used(folder / "x.db")
    os.chmod(folder, 0o1777)
    used(folder / "x.db")


def test_a_folder_that_is_a_file_or_lies_below_one(tmp_path: Path) -> None:
    """A file where a folder should be is no bug of ours: it is said, and nothing else happens."""
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file" / "x.db", tmp_path / "file" / "below" / "x.db"):
        with pytest.raises(SpoolUnavailable, match=str(tmp_path / "file")):
            used(path)


FOREIGN = f"""
# Root gives one of its files away; another user cannot, and finds a file that is root's.
def refused(place):
    try:
        Database(place).read("SELECT 1")
    except SpoolUnavailable as error:
        return str(error)

if os.geteuid() == 0:
    for suffix in ("", "-wal", "-shm", ".lock"):
        mine = f"{{path}}{{suffix or '.db'}}"
        base = mine.removesuffix(suffix) if suffix else mine
        open(mine, "w").close()
        os.chown(mine, {ANOTHER_USER}, {ANOTHER_USER})
        print(refused(base))
        os.unlink(mine)
    folder = path + "-folder"
    os.mkdir(folder, 0o700)
    os.chown(folder, {ANOTHER_USER}, {ANOTHER_USER})
    print(refused(folder + "/x.db"))
else:
    print(refused("/etc/passwd"))
"""


def test_what_belongs_to_another_user_is_refused(tmp_path: Path) -> None:
    """A file or folder that another user could change at any time is not used."""
    refusals = run(FOREIGN, tmp_path / "x").splitlines()
    assert refusals
    assert all("belongs to another user" in each or "denied" in each for each in refusals)
    assert [] == list(tmp_path.glob("*corrupt*"))


def test_a_log_that_somebody_put_there_meanwhile_is_noticed(tmp_path: Path) -> None:
    """After SQLite has opened its log, it is looked at once more, before any record is written."""
    path = tmp_path / "x.db"

    class Overtaken(Database):
        def _connected(self) -> sqlite3.Connection:
            (tmp_path / "elsewhere").write_bytes(b"")
            os.link(tmp_path / "elsewhere", f"{path}-wal")
            return super()._connected()

    database = Overtaken(str(path))
    with pytest.raises(SpoolUnavailable, match="second name"):
        database.read("SELECT 1")


# Names


@pytest.mark.parametrize(
    "name",
    [
        "with blank.db",
        "q?mode=ro.db",
        "f#ragment.db",
        "per%41cent.db",
        "füñ-日本.db",
        "new\nline.db",
        "a'b\"c&d=e;f.db",
    ],
)
def test_any_name_is_a_name(tmp_path: Path, name: str) -> None:
    """Whatever a path has in it, the file has this name and no other, and holds what was put in."""
    path = tmp_path / name / name
    spool = spool_at(path)
    spool.append([record("a")])
    assert path.is_file()
    assert {name, *(name + suffix for suffix in BESIDE)} == {each.name for each in path.parent.iterdir()}
    assert ["a"] == records_in(spool)
    spool.close()


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    """A path that is no UTF-8, as an old disk may have, is a path too."""
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.db")
    used(path)
    assert os.path.isfile(path)


@pytest.mark.parametrize("path", ["~/.local/x.db", "x.db"])
def test_a_path_that_depends_on_the_working_directory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """A user without a home has no state directory: no folder named `~` is made wherever the process runs."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpoolUnavailable, match="no home"):
        used(path)
    assert [] == list(tmp_path.iterdir())


def test_a_path_that_is_too_long(tmp_path: Path) -> None:
    """SQLite's limit is said in words, and nothing is made; up to there it works."""
    folder = tmp_path
    while len(str(folder)) < 400:
        folder /= "d" * 40
    used(folder / "x.db")
    for path in (folder / ("n" * 120), tmp_path / ("n" * 260)):
        with pytest.raises(SpoolUnavailable, match=r"longer than|too long"):
            used(path)


# Only looked at

HOLDER = """
database = Database(path)
with database.transaction() as connection:
    print("locked")
    {meanwhile}
    sys.stdin.readline()
"""


def test_looking_at_the_files_does_not_take_the_locks_away(tmp_path: Path) -> None:
    """All checks are done in the process that writes at this moment: another one still gets no turn."""
    path = tmp_path / "x.db"
    meanwhile = (
        "from kwai_middleware._delivery.disk import files; files.folder_for(path), files.made(path),"
        " files.checked(path), files.identity(path), files.beside(path), files.size_of(path + '-wal');"
        " files.remove_leftovers(path); print('checked')"
    )
    with running(HOLDER.format(meanwhile=meanwhile), path) as holder:
        assert holder.stdout is not None
        assert "checked\n" == holder.stdout.readline()
        with pytest.raises(SpoolBusy):
            used(path)


def test_opening_a_file_does_take_them_away(tmp_path: Path) -> None:
    """The test above can fail: with the files opened and closed once, the other process gets in."""
    path = tmp_path / "x.db"
    meanwhile = "[open(path + each).close() for each in ('', '-wal', '-shm')]; print('opened')"
    with running(HOLDER.format(meanwhile=meanwhile), path) as holder:
        assert holder.stdout is not None
        assert "opened\n" == holder.stdout.readline()
        used(path)


# One at a time


def test_one_at_a_time_between_threads_and_processes(tmp_path: Path) -> None:
    """Whoever holds the file to itself keeps out others, in this process and in another one."""
    path = str(tmp_path / "x.db")
    with files.exclusively(path), pytest.raises(SpoolBusy), files.exclusively(path, patience=0.02):
        pass
    program = """
from kwai_middleware._delivery.disk import files
with files.exclusively(path):
    print("held")
    sys.stdin.readline()
"""
    with running(program, path) as holder:
        with pytest.raises(SpoolBusy), files.exclusively(path, patience=0.02):
            pass
        holder.kill()
        with files.exclusively(path):
            pass


def test_a_lock_that_was_deleted_locks_nobody_out_and_lets_nobody_in_twice(tmp_path: Path) -> None:
    """Of a deleted lock's holder and the next one, each has a lock of its own; the next one's is the valid one."""
    path = str(tmp_path / "x.db")
    with files.exclusively(path):
        os.unlink(f"{path}.lock")
        with files.exclusively(path), pytest.raises(SpoolBusy), files.exclusively(path, patience=0.0):
            pass


# Put aside


def test_two_files_put_aside_in_the_same_second_are_both_there(tmp_path: Path) -> None:
    """No file is renamed onto another, and none gets the log of another."""
    path = tmp_path / "x.db"
    for content in ("one", "two", "three"):
        path.write_text(content)
        if content != "two":
            Path(f"{path}-wal").write_text(f"log of {content}")
        put_aside(str(path), "now")
    found = {each.name: each.read_text() for each in tmp_path.iterdir()}
    assert {
        "x.db.corrupt-now": "one",
        "x.db.corrupt-now-wal": "log of one",
        "x.db.corrupt-now-2": "two",
        "x.db.corrupt-now-3": "three",
        "x.db.corrupt-now-3-wal": "log of three",
    } == found


def test_what_was_put_aside_is_removed_with_age_and_nothing_else(tmp_path: Path) -> None:
    """Prompts in a damaged file are kept no longer than others; files of other spools and people stay."""
    path = tmp_path / "x.db"
    ours = ["x.db.corrupt-20260101T000000", "x.db.corrupt-20260101T000000-wal"]
    others = ["x.db", "x.db-wal", "x.db.lock", "y.db.corrupt-20260101T000000", "xx.db.corrupt-1"]
    for name in (*ours, *others):
        (tmp_path / name).write_bytes(b"")
    assert 0 == forget_aside(str(path), time.time() - 60)
    assert 2 == forget_aside(str(path), time.time() + 60)
    assert sorted(others) == sorted(each.name for each in tmp_path.iterdir())
    assert 0 == forget_aside(str(tmp_path / "nowhere" / "x.db"), time.time())


def test_what_cannot_be_renamed_is_said(tmp_path: Path) -> None:
    """A name that gets too long with what is added to it stays where it is."""
    path = tmp_path / ("n" * 250)
    path.write_bytes(b"")
    with pytest.raises(SpoolUnavailable, match="too long"):
        put_aside(str(path), "now")
    assert path.exists()


# Networks

MOUNTS = (
    r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:40 / /srv rw shared:2 - nfs4 server:/export rw
31 30 8:2 / /srv/local rw shared:3 - xfs /dev/sdb rw
32 22 0:41 / /mnt/with\040blank\011tab\134back rw - cifs //server/x rw
33 22 0:42 / /mnt/caf"""
    + "é"
    + r""" rw - fuse.sshfs host:/ rw
34 22 0:43 / /auto rw - autofs systemd-1 rw
35 34 0:44 / /auto rw - nfs server:/a rw
36 22 0:45 / /covered rw - nfs server:/b rw
37 22 8:3 / /covered rw - ext4 /dev/sdc rw
half a line
38 22
"""
)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/me", None),
        ("/srv", "nfs4"),
        ("/srv/deep/below", "nfs4"),
        ("/srvx", None),
        ("/srv/local/x", None),
        ("/mnt/with blank\ttab\\back/x", "cifs"),
        ("/mnt/café/x", "fuse.sshfs"),
        ("/auto/x", "nfs"),
        ("/covered/x", None),
    ],
)
def test_a_network_s_disk_is_known_by_its_mount(tmp_path: Path, path: str, kind: str | None) -> None:
    """The innermost and latest mount decides, with whatever its name has in it."""
    (tmp_path / "mountinfo").write_text(MOUNTS, encoding="utf-8")
    assert kind == on_network(path, str(tmp_path / "mountinfo"))


def test_a_link_onto_a_network_s_disk_leads_there(tmp_path: Path) -> None:
    """The place itself counts, not the way to it."""
    (tmp_path / "link").symlink_to("/srv")
    (tmp_path / "mountinfo").write_text(MOUNTS, encoding="utf-8")
    assert "nfs4" == on_network(str(tmp_path / "link" / "x"), str(tmp_path / "mountinfo"))


def test_where_the_system_does_not_tell_a_disk_counts_as_local(tmp_path: Path) -> None:
    """Not every system has such a list, macOS has none; then SQLite itself has to notice."""
    assert None is on_network("/", str(tmp_path / "nothing"))
    assert None is on_network(str(tmp_path))


def test_a_database_on_a_network_s_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kind of this very disk among those of networks, nothing is made on it."""
    lines = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    kinds = frozenset(words[words.index("-") + 1] for words in lines)
    monkeypatch.setattr(network, "_NETWORK", kinds)
    with pytest.raises(SpoolUnavailable, match="network's disk"):
        used(tmp_path / "x.db")
    assert [] == list(tmp_path.iterdir())


# Between two looks


def test_a_lock_that_is_deleted_while_it_is_taken_is_taken_again(tmp_path: Path) -> None:
    """Whoever gets the lock of a file that has lost its name would be alone with it; so it looks again."""
    path = str(tmp_path / "x.db")
    deletions = [1, 1]

    def delete(event: str, _: object) -> None:
        if event == "fcntl.flock" and deletions and os.path.exists(f"{path}.lock"):
            deletions.pop()
            os.unlink(f"{path}.lock")

    sys.addaudithook(delete)
    with files.exclusively(path):
        assert [] == deletions
        assert os.path.exists(f"{path}.lock")


def test_a_file_that_is_replaced_while_it_is_opened_is_not_used(tmp_path: Path) -> None:
    """What was opened has to be what is there."""
    path = tmp_path / "x.db"

    class Replacing(sqlite3.Connection):
        def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
            if "temp_store" in sql:
                path.rename(tmp_path / "elsewhere")
                path.write_bytes(b"")
            return super().execute(sql, *values)

    used(path)
    database = Database(str(path), connection_type=Replacing)
    with pytest.raises(SpoolUnavailable, match="replaced while it was opened"):
        database.read("SELECT 1")


def test_whatever_the_system_refuses_is_said_in_its_words(tmp_path: Path) -> None:
    """No error of the system's leaves as anything but what the spool in memory steps in for."""
    long = str(tmp_path / ("n" * 300))
    (tmp_path / "x.db-wal").mkdir()
    attempts: list[Callable[[], object]] = [
        lambda: files.identity(long),
        lambda: files.made(long),
        lambda: files.checked(long),
        lambda: files.remove_leftovers(str(tmp_path / "x.db")),
    ]
    for attempt in attempts:
        with pytest.raises(SpoolUnavailable, match=r"too long|directory|permitted"):
            attempt()


def test_a_folder_that_may_not_be_looked_into_is_not_taken_for_an_empty_one() -> None:
    """A right that was taken away for a moment is no deleted file: nothing is begun anew, all is there afterwards."""
    program = """
become_somebody()
spool, folder = spool_at(path), os.path.dirname(path)
spool.append([record("before")])
os.chmod(folder, 0)
try:
    spool.append([record("refused")])
except SpoolUnavailable as error:
    print("denied" in str(error))
os.chmod(folder, 0o700)
spool.append([record("after")])
print(records_in(spool))
spool.close()
"""
    with folder_of_somebody() as folder:
        assert "True\n['before', 'after']\n" == run(program, folder / "x.db")
