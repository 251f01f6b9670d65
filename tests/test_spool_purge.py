"""`spool purge`: what is asked, what is deleted, and that nothing of it is left in the files."""

from __future__ import annotations

import contextlib
import random
import signal
import sqlite3
import time
from pathlib import Path

import pytest

from kwai_middleware._delivery.disk.inspection import Choice, Inspection
from kwai_middleware._delivery.disk.intervention import leave_no_trace, purge, requeue
from kwai_middleware._delivery.spool import Outcome, Record
from tests.support.spool_command import (
    ELSEWHERE,
    app,
    append,
    at_a_terminal,
    counters,
    entry,
    record,
    reject,
    spool_command,
    spool_command_here,
)
from tests.support.spooling import asked, balanced, without_a_trace

MIB = 1024 * 1024


def test_purge_counts_what_waited_and_keeps_the_count_of_the_rejected(path: Path) -> None:
    """Pending records become purged ones; rejected ones go, and stay counted as rejected."""
    append(path, *(record(f"r{number}") for number in range(5)))
    append(path, record("other"), destination=ELSEWHERE)
    reject(path, 2)
    done = spool_command("purge", "--yes", "--json", "--spool", path)
    ledger, other = counters(path), counters(path, ELSEWHERE)

    assert 0 == done.code
    assert (4, 2, 0, None) == tuple(
        done.document["files"][0][name] for name in ("purged", "purged_rejected", "being_sent", "traces")
    )
    assert (5, 3, 2, 0, 0) == (ledger.appended, ledger.purged, ledger.rejected, ledger.pending, ledger.pending_bytes)
    assert (1, 1) == (other.appended, other.purged)
    assert balanced(ledger)
    assert [(0,)] == asked(path, "SELECT count(*) FROM records")


def test_filters(path: Path) -> None:
    """By customer, by age, or only the rejected ones; each leaves the others."""
    append(path, record("old"), record("old-globex", "globex"), clock=lambda: time.time() - 5 * 86400)
    append(path, record("rejected"), record("new"), record("new-globex", "globex"))
    reject(path, 1)

    def purged(*words: str) -> set[str]:
        before = set(asked(path, "SELECT record_id FROM records"))
        assert 0 == spool_command_here("purge", "--yes", "--spool", path, *words).code
        return {name for (name,) in before - set(asked(path, "SELECT record_id FROM records"))}

    assert {"old"} == purged("--rejected")
    assert {"old-globex"} == purged("--older-than", "4d")
    assert {"new-globex"} == purged("--customer", "globex")
    assert set() == purged("--customer", "initech")
    assert {"rejected", "new"} == purged()


@pytest.mark.parametrize(
    ("typed", "code", "left"), [("y", 0, 0), ("YES", 0, 0), ("n", 1, 3), ("", 1, 3), ("\x04", 1, 3), ("yellow", 1, 3)]
)
def test_at_a_terminal_it_asks(path: Path, typed: str, code: int, left: int) -> None:
    """The question names numbers and file; only a yes deletes."""
    append(path, record("r1"), record("r2", "globex"), record("r3", None))
    with at_a_terminal("purge", "--spool", path) as terminal:
        terminal.wait_for(f"Delete 3 records of 2 customers and 1 of nobody from {path}? [y/N]")
        terminal.type(typed)
        assert code == terminal.end()
        output = terminal.output

    assert left == counters(path).pending
    assert ("Nothing was deleted" in output) == bool(left)
    assert ("Deleted 3 records" in output) != bool(left)


@pytest.mark.parametrize(("customer", "whose"), [("acme", "1 customer"), (None, "nobody")])
def test_the_question_in_the_singular(path: Path, customer: str | None, whose: str) -> None:
    """One record of one customer, or of nobody; Ctrl-C answers it too."""
    append(path, record("r", customer))
    with at_a_terminal("purge", "--spool", path) as terminal:
        terminal.wait_for(f"Delete 1 record of {whose} from")
        terminal.popen.send_signal(signal.SIGINT)
        assert 1 == terminal.end()

    assert 1 == counters(path).pending


def test_without_a_terminal_it_refuses(path: Path) -> None:
    """In cron there is nobody to be asked: without --yes nothing is deleted."""
    append(path, record("r"))
    done = spool_command("purge", "--spool", path)

    assert 2 == done.code
    assert "--yes" in done.errors
    assert 1 == counters(path).pending


def test_nothing_to_delete_is_not_asked_about(path: Path) -> None:
    """Where no record is chosen there is no question."""
    append(path, record("r"))
    with at_a_terminal("purge", "--customer", "initech", "--spool", path) as terminal:
        assert 0 == terminal.end()
        assert "[y/N]" not in terminal.output
        assert "Deleted 0 records" in terminal.output


def test_what_is_being_sent_is_left(path: Path) -> None:
    """A record on lease of a living process stays, and is told of; when it came back, the next purge takes it."""
    append(path, record("r1"), record("r2"), record("r3"))
    with app(path) as spool:
        handout = spool.lease(1, MIB, bulk=False)
        first = spool_command("purge", "--yes", "--spool", path)
        waiting = spool.counters().pending
        spool.settle([Outcome(row, "returned", rest=60.0) for row in handout.rows])
        second = spool_command("purge", "--yes", "--spool", path)
        ledger = spool.counters()

    assert (1, 1) == (first.code, waiting)
    assert "Deleted 2 records" in first.output
    assert "1 record left, being sent at this moment" in first.output
    assert 0 == second.code
    assert (3, 0) == (ledger.purged, ledger.pending)
    assert [(0, 0)] == asked(path, "SELECT (SELECT count(*) FROM leases), (SELECT count(*) FROM rests)")


def test_the_lease_of_a_dead_process_protects_nothing(path: Path) -> None:
    """Nobody is sending what a process that has ended had on lease."""
    append(path, record("r"))
    with app(path) as spool:
        assert spool.lease(1, MIB, bulk=False).rows
        namespace, _, rest = spool_owner(path).partition(":")
        connection = sqlite3.connect(path)
        with connection:
            # The number of a process that is never given.
            connection.execute("UPDATE leases SET owner = ?", (f"{namespace}:{2**22 + 1}:{rest.split(':')[1]}:0",))
        connection.close()
        done = spool_command("purge", "--yes", "--spool", path)

    assert 0 == done.code
    assert "Deleted 1 record " in done.output


def spool_owner(path: Path) -> str:
    """Who has something on lease."""
    ((owner,),) = asked(path, "SELECT owner FROM leases")
    return str(owner)


def test_an_app_goes_on_after_a_purge(path: Path) -> None:
    """What an app had on lease before, and settles after the file was written anew, counts; so does what comes."""
    append(path, record("r1", "globex"), record("r2"))
    with app(path) as spool:
        (row,) = spool.lease(1, MIB, bulk=False).rows
        assert 0 == spool_command("purge", "--yes", "--customer", "acme", "--spool", path).code
        spool.settle([Outcome(row, "delivered")])
        assert 1 == spool.append([record("r3")])
        ledger = spool.counters()

    assert (3, 1, 1, 1) == (ledger.appended, ledger.delivered, ledger.purged, ledger.pending)


@pytest.mark.parametrize("size", [300, 1500, 9000])
@pytest.mark.parametrize("seed", range(2))
def test_a_customer_is_forgotten(path: Path, size: int, seed: int) -> None:
    """After much coming and going no byte of the customer's text, name or errors is in any file."""
    chance = random.Random(seed)
    with app(path) as spool:
        for number in range(30):
            spool.append([some_record(chance, f"{number}-{each}", size) for each in range(20)])
            rows = spool.lease(30, 4 * MIB, bulk=False).rows
            spool.settle([some_outcome(chance, row, b"forgotten" in row.entry) for row in rows], "quoting forgotten")
        done = spool_command("purge", "--yes", "--customer", "forgotten inc", "--spool", path)
        ledger = spool.counters()
    kept = asked(path, "SELECT customer, count(*) FROM records GROUP BY customer")

    assert 0 == done.code
    assert without_a_trace(path, b"forgotten")
    assert [("kept inc", ledger.pending)] == kept
    assert ledger.pending > 100
    assert balanced(ledger)


def some_record(chance: random.Random, number: str, size: int) -> Record:
    """A record of one of two customers, as long as it comes."""
    who = chance.choice(["forgotten", "kept"])
    return Record(number, entry(number, f"said by {who} " * chance.randrange(1, size // 10)), f"{who} inc")


def some_outcome(chance: random.Random, row: object, is_to_be_forgotten: bool) -> Outcome:
    """Others' records stay; of the customer's some are delivered, some rejected, with words of theirs."""
    end = chance.choice(["delivered", "rejected", "returned"]) if is_to_be_forgotten else "returned"
    return Outcome(row, end, f"quoting forgotten {'words ' * chance.randrange(20)}", rest=60.0)  # type: ignore[arg-type]


def test_what_was_delivered_leaves_no_trace_either(path: Path) -> None:
    """Also where nothing of a customer waits any more, a purge for that customer cleans the file."""
    append(path, *(record(f"r{number}", text=f"text {number} " * 100) for number in range(20)))
    with app(path) as spool:
        rows = spool.lease(20, 4 * MIB, bulk=False).rows
        spool.settle([Outcome(row, "delivered") for row in rows])
        done = spool_command("purge", "--yes", "--customer", "acme", "--spool", path)

        assert 0 == done.code
        assert "Deleted 0 records" in done.output
        assert without_a_trace(path, b"acme")
        assert without_a_trace(path, b"text 7 ")


def test_where_too_much_waits_traces_are_admitted(path: Path) -> None:
    """A file that is too large to be written anew beside itself is not, and that is exit code 1."""
    append(path, record("r1"), *(record(f"g{number}", "globex", "x" * MIB) for number in range(2)))
    done = spool_command("purge", "--yes", "--customer", "acme", "--spool", path, KWAI_MAX_SPOOL_BYTES=str(4 * MIB))

    assert 1 == done.code
    assert "Deleted 1 record " in done.output
    assert "Traces of what was deleted may be left" in done.output


def test_where_somebody_reads_all_the_time_traces_are_admitted(path: Path) -> None:
    """The log cannot be emptied under a reader; who asks is told, and after that it can."""
    append(path, record("r1", text="to be deleted"), record("r2"))
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM records").fetchall()
    inspection = Inspection(str(path))
    try:
        assert 2 == purge(inspection, Choice(), inspection.amount(Choice()).last).pending
        told = leave_no_trace(inspection, 256 * MIB, patience=0.1)
        reader.close()
        assert told is not None
        assert "other processes read" in told
        assert leave_no_trace(inspection, 256 * MIB) is None
        assert without_a_trace(path, b"to be deleted")
    finally:
        inspection.close()


class Slow(Inspection):
    """Goes on with what it has seen first, whatever was changed since."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._seen: dict[Choice, list[tuple[int, int]]] = {}

    def positions(self, choice: Choice) -> list[tuple[int, int]]:
        return self._seen.setdefault(choice, super().positions(choice))


def test_what_changes_between_the_question_and_the_answer(path: Path) -> None:
    """What came later nobody was asked about, what is gone is gone, and what was requeued is not rejected any more."""
    append(path, *(record(f"r{number}") for number in range(4)))
    reject(path, 2)
    choice = Choice(rejected_only=True)
    with contextlib.closing(Slow(str(path))) as inspection:
        last = inspection.amount(Choice()).last
        assert 2 == requeue(inspection, choice)
        assert 0 == requeue(inspection, choice)
        done = purge(inspection, choice, last)
        assert (0, 0, 0) == (done.pending, done.rejected, done.left)
        append(path, record("later"))
        assert 4 == purge(inspection, Choice(), last).pending
        assert 0 == purge(inspection, Choice(), last).pending

    assert [("later",)] == asked(path, "SELECT record_id FROM records")
    assert balanced(counters(path))


def test_much_is_deleted_in_parts(path: Path) -> None:
    """Hundreds of records, and a few large ones, go in several transactions, with the log kept short."""
    append(
        path,
        *(record(f"r{number}") for number in range(450)),
        *(record(f"l{each}", text="x" * 3 * MIB) for each in range(4)),
    )
    reject(path, 454)
    requeued = spool_command_here("requeue", "--spool", path)
    done = spool_command_here("purge", "--yes", "--spool", path)

    assert "454 records of" in requeued.output
    assert "454 waited" in done.output
    assert 454 == counters(path).purged
