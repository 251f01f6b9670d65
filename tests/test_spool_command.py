"""`spool status`, `spool rejected` and `spool requeue`, run as an operator and cron run them."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import pytest

from kwai_middleware.__main__ import main
from kwai_middleware._cli.output import in_bytes, in_time
from kwai_middleware._delivery.disk import owners
from kwai_middleware._delivery.disk.errors import SpoolUnavailable
from kwai_middleware._delivery.disk.existing import found_in, opened
from tests.support.logs_api import KEY
from tests.support.processes import DEADLINE
from tests.support.spool_command import (
    ELSEWHERE,
    HERE,
    URL,
    app,
    append,
    arguments,
    counters,
    environment,
    record,
    reject,
    spool_command,
    spool_command_here,
)
from tests.support.spooling import asked, balanced

COMMANDS = ("status", "drain", "rejected", "requeue", "purge")
NEWER = 0x6B776170
"""How a version of this library that cannot share its files with ours would mark them."""


def long_ago(seconds: float) -> dict[str, object]:
    """For spools of some time ago."""
    return {"clock": lambda: time.time() - seconds}


def owned(path: Path, owner: str, since: float, until: float) -> None:
    """Say who ships, as a process that does has written it."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(
            "UPDATE destinations SET shipper = ?, shipper_since = ?, shipper_until = ?", (owner, since, until)
        )
    connection.close()


def marked(path: Path, application: int) -> None:
    """Let a file belong to another program."""
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA application_id = {application}")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def content(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {each.name: each.read_bytes() for each in folder.iterdir()}


@pytest.mark.parametrize("command", COMMANDS)
def test_where_no_file_is_nothing_waits_and_none_is_made(tmp_path: Path, command: str) -> None:
    """Each command says so, ends with 0 and makes neither file nor folder."""
    missing = tmp_path / "missing"
    more = ["--yes"] if command == "purge" else []
    named = spool_command_here(command, "--spool", missing / "spool.db", *more)
    folder = spool_command_here(command, *more, KWAI_SPOOL=f"sqlite://{missing}/")
    auto = spool_command_here(command, *more, XDG_STATE_HOME=str(missing))

    assert [0, 0, 0] == [each.code for each in (named, folder, auto)]
    assert "There is no spool file at" in named.output
    assert "nothing waits" in auto.output
    assert not missing.exists()


def test_records_in_memory_are_no_file() -> None:
    """With `memory:` the operator is told where records are."""
    done = spool_command("status", KWAI_SPOOL="memory:")
    as_json = spool_command("status", "--json", KWAI_SPOOL="memory:")

    assert 0 == done.code
    assert "in the memory of the app" in done.output
    assert (0, {"files": [], "errors": {}}) == (as_json.code, as_json.document)


def test_status_shows_every_destination(path: Path) -> None:
    """Numbers that balance, whose key it is, the age, the errors; no key and no digest as a whole."""
    append(path, *(record(f"r{number}") for number in range(3)), **long_ago(7300))
    append(path, record("other"), destination=ELSEWHERE)
    reject(path, 1)
    done = spool_command("status", "--spool", path)
    states = spool_command("status", "--json", "--spool", path).document["files"][0]["destinations"]

    assert 1 == done.code
    own = next(state for state in states if state["is_this_app"])
    other = next(state for state in states if not state["is_this_app"])
    assert (3, 0, 2, 1, 0, 0, 1) == tuple(
        own[name] for name in ("appended", "delivered", "pending", "rejected", "evicted", "purged", "rejected_kept")
    )
    assert (1, 1) == (other["appended"], other["pending"])
    assert 7300 <= own["oldest_pending"] < 7300 + DEADLINE
    assert (URL, HERE.digest[:8], "HTTP 422: no", None) == tuple(
        own[name] for name in ("base_url", "key", "last_error", "last_success")
    )
    assert f"{HERE.digest[:8]} (this app's)" in done.output
    assert "2 h 1 min" in done.output
    assert "last error: HTTP 422: no; 1 rejected record kept" in done.output
    assert KEY not in done.output
    assert HERE.digest not in done.output


def test_tables_are_aligned(path: Path) -> None:
    """Each column is as wide as its content, and numbers end under each other."""
    append(path, *(record(f"r{number}") for number in range(1200)))
    append(path, record("other"), destination=ELSEWHERE)
    output = spool_command("status", "--spool", path).output.splitlines()
    heads = next(line for line in output if "destination" in line)
    rows = [line for line in output if line.startswith(f"  {URL}")]
    end = heads.index("+ pending") + len("+ pending")

    assert ["1", "1,200"] == sorted(row[end - 7 : end].strip() for row in rows)
    assert {" "} == {row[end] for row in rows}


@pytest.mark.parametrize(
    ("age", "max_age", "code"),
    [(0, "1h", 0), (3700, None, 1), (3700, "2h", 0), (100, "90s", 1), (100, "1.5m", 1), (8 * 86400, "7d", 1)],
)
def test_the_exit_code_of_status_is_the_age(path: Path, age: float, max_age: str | None, code: int) -> None:
    """Cron hears of records that wait for longer than is allowed, an hour if nothing is said."""
    append(path, record("r"), **long_ago(age))

    more = [] if max_age is None else ["--max-age", max_age]
    assert code == main(["spool", "status", "--spool", str(path), *more])


def test_rejected_records_are_for_cron_as_long_as_they_are_there(path: Path) -> None:
    """A rejected record is exit code 1 until somebody requeues or purges it."""
    append(path, record("r"))
    reject(path, 1)
    before = spool_command("status", "--spool", path)
    spool_command("purge", "--rejected", "--yes", "--spool", path)
    after = spool_command("status", "--spool", path)

    assert (1, 0) == (before.code, after.code)
    assert 1 == counters(path).rejected


@pytest.mark.parametrize("place", ["auto", "folder", "file"])
def test_the_settings_name_the_files(tmp_path: Path, place: str) -> None:
    """Without `--spool` it is KWAI_SPOOL's file, or every spool in its folder, whatever the destination."""
    folder = tmp_path / "kwai-middleware"
    for name in ("spool-1.db", "spool-2.db", "other.db"):
        append(folder / name, record("r"), destination=ELSEWHERE)
    value = {"auto": "auto", "folder": f"sqlite://{folder}/", "file": f"sqlite://{folder}/other.db"}[place]
    done = spool_command("status", "--json", KWAI_SPOOL=value, XDG_STATE_HOME=str(tmp_path))
    expected = ["other.db"] if place == "file" else ["spool-1.db", "spool-2.db"]

    assert expected == [Path(each["path"]).name for each in done.document["files"]]


def test_spool_takes_what_the_setting_takes(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--spool` may be copied from KWAI_SPOOL, or be a path relative to here; what is neither is explained."""
    append(path, record("r"))
    relative = os.path.relpath(path)

    assert 0 == main(["spool", "status", "--spool", f"sqlite://{path}"])
    assert str(path) in capsys.readouterr().out
    assert 0 == main(["spool", "status", "--spool", relative])
    assert str(path) in capsys.readouterr().out
    assert 2 == main(["spool", "status", "--spool", "sqlite://no/path"])
    assert "--spool: " in capsys.readouterr().err


def test_wrong_settings_are_explained_and_those_of_others_do_not_matter(path: Path) -> None:
    """A wrong KWAI_SPOOL is exit code 2; a mask that cannot be imported is no affair of these commands."""
    append(path, record("r"))
    wrong = spool_command("status", KWAI_SPOOL="relative/path")
    other = spool_command("status", "--spool", path, KWAI_MASK="no.such:function", KWAI_ROUTES="nonsense")

    assert 2 == wrong.code
    assert wrong.errors.startswith("error: KWAI_SPOOL: ")
    assert 0 == other.code


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["status", "--max-age", "soon"],
        ["status", "--max-age", "-1h"],
        ["rejected", "--limit", "0"],
        ["rejected", "--limit", "many"],
        ["rejected", "--entries"],
        ["purge"],
        ["vacuum"],
    ],
)
def test_wrong_usage_is_exit_code_2(tmp_path: Path, words: list[str]) -> None:
    """Whatever is wrong with a command line is explained on standard error."""
    more = ["--spool", str(tmp_path)] if words else []
    done = spool_command_here(*words, *more)

    assert (2, "") == (done.code, done.output)
    assert "error: " in done.errors


@pytest.mark.parametrize("command", COMMANDS)
def test_help_tells_the_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command's help has a line for each exit code."""
    with pytest.raises(SystemExit):
        main(["spool", command, "--help"])
    output = capsys.readouterr().out

    assert ["0", "1", "2"] == [line.split()[0] for line in output.partition("exit codes:\n")[2].splitlines()]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("damage", ["garbage", "short", "damaged", "newer", "link", "not ours"])
def test_a_file_that_cannot_be_used_is_left_alone(path: Path, damage: str, command: str) -> None:
    """It is reported with its path and exit code 2, byte for byte as it was; the others are worked on."""
    bad = path.with_name("spool-0.db")
    append(path, record("r"), destination=ELSEWHERE)
    shutil.copy(path, bad)
    if damage == "newer":
        marked(bad, NEWER)
    elif damage == "link":
        bad.symlink_to(bad.rename(path.parent.parent / "elsewhere.db"))
    elif damage == "not ours":
        if os.geteuid() == 0:
            os.chown(bad, 65534, -1)
        else:
            bad.unlink()
            bad.symlink_to("/etc/passwd")
    else:
        whole = bad.read_bytes()
        broken = {
            "garbage": b"x" * len(whole),
            "short": whole[:50],
            "damaged": whole[:100] + b"\xff" * (len(whole) - 100),
        }
        bad.write_bytes(broken[damage])
    before = content(bad.parent)
    more = ["--yes"] if command == "purge" else []
    done = spool_command_here(command, "--spool", path.parent, *more)

    assert 2 == done.code
    assert f"error: {bad}" in done.errors
    kept = content(bad.parent)
    for name in set(before) - {path.name}:
        assert before[name] == kept[name]
    # Its lock stays, as beside each file that was opened.
    assert set() == set(kept) - set(before) - {f"{bad.name}.lock"}
    if command in ("status", "purge"):
        assert str(path) in done.output


def test_the_file_of_another_user_says_who_can_use_it(path: Path) -> None:
    """An operator who is root is told as whom to run the command; a uid without a name is shown as it is."""
    append(path, record("r"))
    if os.geteuid() == 0:
        os.chown(path, 54321, -1)
        done = spool_command("status", "--spool", path)
        expected = "run this command as user 54321"
    else:
        done = spool_command("status", "--spool", "/etc/passwd")
        expected = "run this command as root"

    assert 2 == done.code
    assert expected in done.errors


def test_a_file_that_goes_away_before_it_is_opened(path: Path) -> None:
    """Between the look into the folder and the look into the file an app may have put it aside."""
    with pytest.raises(SpoolUnavailable, match="No such file"):
        opened(str(path))


def test_a_folder_or_file_that_cannot_be_reached_is_explained(path: Path, tmp_path: Path) -> None:
    """A name that the system does not take is exit code 2, and no traceback."""
    too_long = spool_command("status", "--json", "--spool", tmp_path / ("x" * 300))
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    endless = spool_command("status", "--spool", loop)

    assert (2, 2) == (too_long.code, endless.code)
    assert [str(tmp_path / ("x" * 300))] == list(too_long.document["errors"])
    assert "error: " in endless.errors


def test_a_database_of_another_program_is_not_opened(path: Path) -> None:
    """A SQLite file without our mark is reported, whether it has a log or not, and stays as it is."""
    for mode in ("DELETE", "WAL"):
        connection = sqlite3.connect(path)
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("CREATE TABLE IF NOT EXISTS theirs (x)")
        connection.commit()
        connection.close()
        done = spool_command("status", "--spool", path)

        assert 2 == done.code
        assert "belongs to another program" in done.errors
        assert [("theirs",)] == asked(path, "SELECT name FROM sqlite_master")


def test_a_file_without_a_record_is_told_in_words(path: Path) -> None:
    """A file that was just made is no file yet; one without destinations says that nothing was recorded."""
    path.touch(mode=0o600)
    empty = spool_command("status", "--spool", path)
    append(path, record("r"))
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("DELETE FROM destinations")
        connection.execute("DELETE FROM records")
    connection.close()
    unused = spool_command("status", "--spool", path)

    assert (0, 0) == (empty.code, unused.code)
    assert "There is no spool file" in empty.output
    assert "Nothing was ever recorded in it" in unused.output


def test_a_damaged_file_that_was_put_aside_is_mentioned(path: Path) -> None:
    """Where an app has put a damaged file aside, status and purge say that it is there, with records in it."""
    append(path, record("r"))
    aside = path.with_name(f"{path.name}.corrupt-20260101T000000")
    aside.write_bytes(b"records")
    aside.with_name(f"{aside.name}-wal").write_bytes(b"")
    status = spool_command("status", "--spool", path)
    purge = spool_command("purge", "--yes", "--json", "--spool", path)
    in_words = spool_command("purge", "--yes", "--spool", path)

    assert f"put aside as {aside};" in status.output
    assert [str(aside)] == purge.document["files"][0]["put_aside"]
    assert f"delete it: {aside}" in in_words.output
    assert aside.exists()


def test_who_ships(path: Path) -> None:
    """A living process, a dead one, a silent one, one of another container, and one of a name that nobody knows."""
    append(path, record("r"))
    now = time.monotonic()
    ended = subprocess.Popen(["true"])
    ended.wait(DEADLINE)
    own = owners.new_owner()
    namespace, pid, *rest = own.split(":")
    shippers = {
        own: (now, now + 60, {"pid": os.getpid(), "state": "alive"}, f"process {os.getpid()} ships (alive)"),
        f"{namespace}:{ended.pid}:1:0": (now, now + 60, {"pid": ended.pid, "state": "dead"}, "is dead"),
        ":".join([namespace, pid, *rest[:-1], "99"]): (
            now - 90,
            now - 30,
            {"pid": os.getpid(), "state": "late"},
            "silent for too long",
        ),
        "elsewhere:7:1:0": (now, now + 60, {"pid": 7, "state": "unknown"}, "in another container"),
        "elsewhere:seven:1:0": (now, now + 60, {"pid": None, "state": "unknown"}, "process ? ships"),
    }
    for owner, (since, until, document, words) in shippers.items():
        owned(path, owner, since, until)
        found = spool_command_here("status", "--json", "--spool", path).document["files"][0]["destinations"][0]
        assert document == found["shipper"]
        assert words in spool_command_here("status", "--spool", path).output


def test_rejected_records_in_a_table(path: Path) -> None:
    """Position, ids, customer, times, attempts and reason, the newest last, no content."""
    append(path, record("r1", text="secret text"), record("r2", "globex"), record("r3", None))
    reject(path, 3, "HTTP 422: no such model")
    done = spool_command("rejected", "--spool", path)
    last = spool_command("rejected", "--limit", "2", "--spool", path)

    assert 0 == done.code
    assert "3 rejected records" in done.output
    assert ["r1", "r2", "r3"] == [line.split()[2] for line in done.output.splitlines()[2:5]]
    assert ["acme", "globex", "-"] == [line.split()[3] for line in done.output.splitlines()[2:5]]
    assert done.output.count("HTTP 422: no such model") == 3
    assert "secret text" not in done.output
    assert "3 rejected records, the last 2 of them" in last.output
    assert "r1" not in last.output


def test_rejected_records_as_json(path: Path) -> None:
    """One document; the records themselves only if asked for, also one that is no JSON."""
    append(path, record("r1"), record("r2", "globex"))
    reject(path, 2)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE records SET entry = ? WHERE record_id = 'r2'", (b"\xffnot json",))
    connection.close()
    without = spool_command("rejected", "--json", "--spool", path).document["files"][0]
    with_entries = spool_command("rejected", "--json", "--entries", "--spool", path).document["files"][0]

    assert 2 == without["in_all"]
    assert [("r1", "acme", 1), ("r2", "globex", 1)] == [
        (each["record_id"], each["customer"], each["attempts"]) for each in without["rejected"]
    ]
    assert not any("entry" in each for each in without["rejected"])
    assert "r1" == with_entries["rejected"][0]["entry"]["metadata"]["kwai_record_id"]
    assert "\\xffnot json" == with_entries["rejected"][1]["entry"]
    assert with_entries["rejected"][0]["destination"]["is_this_app"]


def test_filters(path: Path) -> None:
    """A customer's records, and those recorded long enough ago."""
    append(path, record("old"), record("old-globex", "globex"), **long_ago(7200))
    append(path, record("new"))
    reject(path, 3)

    def ids(*words: str) -> list[str]:
        document = spool_command_here("rejected", "--json", "--spool", path, *words).document
        return [each["record_id"] for each in document["files"][0]["rejected"]]

    assert ["old", "old-globex", "new"] == ids()
    assert ["old", "new"] == ids("--customer", "acme")
    assert ["old", "old-globex"] == ids("--older-than", "1h")
    assert ["old"] == ids("--older-than", "1h", "--customer", "acme")
    assert [] == ids("--customer", "initech")
    assert "no rejected record" in spool_command("rejected", "--spool", path, "--customer", "initech").output


def test_no_record_commands_a_terminal(path: Path) -> None:
    """Control characters of identifiers and answers are escaped, on one line, also where there is only ASCII."""
    append(path, Record_with_escapes := record("r\x1b[2J", "acme\n\x9b31m\u202e Zoë\r"))
    reject(path, 1, "HTTP 422: \x1b]0;owned\x07")
    done = spool_command("rejected", "--spool", path, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    status = spool_command("status", "--spool", path)

    assert Record_with_escapes.customer is not None
    for output in (done.output, status.output):
        assert [] == [each for each in output if not each.isprintable() and each != "\n"]
    assert "acme\\n\\x9b31m\\u202e Zo\\xeb\\r" in done.output
    assert "r\\x1b[2J" in done.output
    assert "\\x1b]0;owned\\x07" in done.output
    assert 3 == len(done.output.strip().splitlines())


def test_wide_characters_keep_the_columns(path: Path) -> None:
    """A customer whose name takes two columns a character, or marks above its characters, moves nothing."""
    append(path, record("r1", "株式会社"), record("r2", "Zoe\u0308"), record("r3", "acme"))
    reject(path, 3)
    rows = spool_command("rejected", "--spool", path).output.splitlines()[2:5]
    year = f"  {time.gmtime().tm_year}-"
    wide, marked_above, plain = (row.index(year) for row in rows)

    assert wide + len("株式会社") == marked_above - len("\u0308") == plain


def test_requeue_lets_rejected_records_wait_again(path: Path) -> None:
    """They wait as if never tried, the ledger moves with them, and an app gets them to send."""
    append(path, record("r1"), record("r2", "globex"))
    append(path, record("other"), destination=ELSEWHERE)
    reject(path, 2)
    reject(path, 1, destination=ELSEWHERE)
    some = spool_command("requeue", "--customer", "globex", "--spool", path)
    pending = counters(path).pending
    rest = spool_command("requeue", "--json", "--spool", path)
    none = spool_command("requeue", "--spool", path)

    assert [0, 0, 0] == [each.code for each in (some, rest, none)]
    assert "1 record of" in some.output
    assert 1 == pending
    assert [{"path": str(path), "requeued": 2}] == rest.document["files"]
    assert "0 records of" in none.output
    for destination, number in ((HERE, 2), (ELSEWHERE, 1)):
        ledger = counters(path, destination)
        assert (number, 0) == (ledger.pending, ledger.rejected)
        assert ledger.pending_bytes > 0
        assert balanced(ledger)
    with app(path) as spool:
        rows = spool.lease(10, 1 << 30, bulk=True).rows
        assert [("r1", 0, 500), ("r2", 0, 500)] == [(row.record_id, row.attempts, row.together) for row in rows]


def test_commands_work_beside_an_app_that_writes(path: Path) -> None:
    """While an app appends without a pause, each command does its work, and the ledger balances at the end."""
    done = threading.Event()
    with app(path) as spool:
        spool.append([record(f"first{number}") for number in range(5)])

        def write() -> None:
            number = 0
            while not done.is_set():
                number += 1
                assert 1 == spool.append([record(f"r{number}", "globex")])

        writer = threading.Thread(target=write)
        writer.start()
        try:
            codes = [
                spool_command(*words, "--spool", path).code
                for words in (["status"], ["rejected"], ["requeue"], ["purge", "--yes", "--customer", "acme"])
            ]
        finally:
            done.set()
            writer.join(DEADLINE)
        ledger = spool.counters()

    assert [0, 0, 0, 0] == codes
    assert 5 == ledger.purged
    assert balanced(ledger)
    assert [(ledger.pending,)] == asked(path, "SELECT count(*) FROM records")


def test_a_reader_that_leaves_is_no_error(path: Path) -> None:
    """`spool rejected | head` ends without a traceback."""
    append(path, *(record(f"r{number}") for number in range(100)))
    reject(path, 100)
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        arguments("rejected", "--spool", path),
        env=environment(),
        stdout=write,
        stderr=subprocess.PIPE,
        timeout=DEADLINE,
    )
    os.close(write)

    assert (1, b"") == (done.returncode, done.stderr)


def test_sizes_and_times_in_words() -> None:
    """From bytes to gibibytes, from seconds to days, the two units that count."""
    assert ["0 B", "1.0 KiB", "976.6 KiB", "1.0 MiB", "2.0 GiB"] == [
        in_bytes(number) for number in (0, 1024, 1_000_000, 1 << 20, 1 << 31)
    ]
    assert ["0 s", "59 s", "1 min", "1 h", "1 d 1 h"] == [in_time(seconds) for seconds in (0.4, 59, 60, 3601, 90061)]


def test_only_spools_are_looked_for_in_a_folder(tmp_path: Path) -> None:
    """Logs, locks, files put aside and what others keep there are no spools."""
    for name in ("spool-b.db", "spool-a.db", "spool-a.db-wal", "spool-a.db.lock", "spool-a.db.corrupt-1", "x.db"):
        (tmp_path / name).write_bytes(b"x")

    assert [str(tmp_path / "spool-a.db"), str(tmp_path / "spool-b.db")] == found_in(str(tmp_path))
    assert json.dumps([]) == json.dumps(found_in(str(tmp_path / "missing")))
