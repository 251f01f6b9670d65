"""A disk that fails: records wait in memory meanwhile, in order, and nothing is lost or doubled on the way back."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kwai_middleware import _notices
from kwai_middleware._delivery.disk.spool import Bounds, DiskSpool
from kwai_middleware._delivery.fallback import FallbackSpool
from kwai_middleware._delivery.memory import ROW_OVERHEAD, MemorySpool
from kwai_middleware._delivery.spool import Outcome
from tests.support.processes import DEADLINE
from tests.support.spooling import HERE, LARGE, Clock, asked, balanced, leased, names, record, records, settle

ROOM = 20
"""Small records that fit into memory."""


class Moody(sqlite3.Connection):
    """A connection to a disk that fails after so many more statements that write; None while it is well."""

    left: int | None = None
    is_moving: threading.Event | None = None
    """Set by the first record that is written, which then waits for the other one."""
    go_on = threading.Event()

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        self._perhaps_fail(statement)
        if Moody.is_moving is not None and statement.startswith("INSERT INTO records"):
            Moody.is_moving.set()
            assert Moody.go_on.wait(DEADLINE)
        return super().execute(statement, *values)

    def executemany(self, statement: str, values: Any) -> sqlite3.Cursor:
        self._perhaps_fail(statement)
        return super().executemany(statement, values)

    def _perhaps_fail(self, statement: str) -> None:
        if Moody.left is None or not statement.startswith(("INSERT", "UPDATE", "DELETE", "COMMIT")):
            return
        if not Moody.left:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        Moody.left -= 1


class Bench:
    """A disk, a memory, and the spool of both."""

    def __init__(self, folder: Path, *, is_asked_for: bool = True, max_bytes: int = 1 << 26, reserve: int = 0) -> None:
        self.clock = Clock()
        self.path = folder / "spool.db"
        self.disk = DiskSpool(
            str(self.path),
            HERE,
            Bounds(max_bytes=max_bytes, reserve=reserve),
            clock=self.clock,
            ticks=self.clock,
            connection_type=Moody,
        )
        self.memory = MemorySpool(ROOM * (ROW_OVERHEAD + 5), 7 * 24 * 3600.0, 2.0, self.clock)
        self.spool = FallbackSpool(self.disk, self.memory, is_asked_for=is_asked_for, clock=self.clock)

    def recovers(self) -> None:
        """Let the disk be well again, and the pause be over."""
        Moody.left = None
        self.clock.now += 31.0


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    Moody.left = None
    bench.spool.close()


def on_disk(bench: Bench) -> list[str]:
    """What lies in the file, in order."""
    return [name for (name,) in asked(bench.path, "SELECT record_id FROM records ORDER BY position")]


def test_while_the_disk_is_well_nothing_is_in_memory(bench: Bench) -> None:
    """All goes to the file and comes from there."""
    spool = bench.spool
    assert 1.0 == spool.poll
    assert 2 == spool.append(records(0, 1))
    assert 0 == bench.memory.backlog()
    assert 2 == spool.backlog()
    rows = leased(spool, 9, bulk=True)
    settle(spool, rows)
    assert spool.is_settled(spool.position())
    assert None is spool.lease(1, LARGE, bulk=False).wait
    assert 0.0 == spool.bulk_wait()
    assert not spool.renew()


def test_an_outage_is_told_of_once_and_so_is_its_end(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Loudly, but not for each record; and the next outage again."""
    before = _notices.counts().get("spool_unavailable", 0)
    for outage in (1, 2):
        caplog.clear()
        Moody.left = 0
        for number in range(5):
            assert 1 == bench.spool.append(records(f"{outage}.{number}"))
            bench.clock.now += 10.0
        assert ["ERROR"] == [each.levelname for each in caplog.records]
        assert "cannot be kept on disk (SQLITE" in caplog.text or "disk is full" in caplog.text
        assert before + outage == _notices.counts()["spool_unavailable"]
        caplog.clear()
        bench.recovers()
        bench.spool.append(records(f"{outage}.5"))
        assert ["kwai_middleware: records are kept on disk again"] == [each.message for each in caplog.records]
    assert [f"{outage}.{number}" for outage in (1, 2) for number in range(6)] == on_disk(bench)


def test_a_disk_with_little_room_is_not_filled_but_emptied(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What would be left is needed to say that records were sent: new ones wait in memory, those on disk go out."""
    bench = Bench(tmp_path)
    bench.spool.append(records(0, 1))
    crowded = Bench(tmp_path, reserve=1 << 60)
    crowded.clock.now = bench.clock.now
    bench.spool.close()
    for number in (2, 3):
        assert 1 == crowded.spool.append(records(number))
        assert (["0", "1"], number - 1) == (on_disk(bench), crowded.memory.backlog())
    assert ["ERROR"] == [each.levelname for each in caplog.records]
    assert f"the disk of {bench.path} is full but for what is needed to empty the spool" in caplog.text
    # In the middle of the pause after which the disk is tried again.
    for expected in (["2", "3"], ["0", "1"]):
        rows = leased(crowded.spool, 9)
        assert expected == names(rows)
        settle(crowded.spool, rows)
    assert [] == on_disk(bench)
    assert balanced(crowded.spool.counters())
    crowded.spool.close()


def test_nobody_asked_for_this_disk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Then it is a warning only: a container without a place to write is nothing unusual."""
    bench = Bench(tmp_path, is_asked_for=False)
    Moody.left = 0
    bench.spool.append(records(0))
    Moody.left = None
    assert [logging.WARNING] == [each.levelno for each in caplog.records]
    bench.spool.close()


def test_memory_is_bounded_and_keeps_the_old(bench: Bench) -> None:
    """What does not fit is refused, as from a full file."""
    Moody.left = 0
    assert ROOM == bench.spool.append(records(*range(ROOM + 5)))
    assert 0 == bench.spool.append(records("more"))
    bench.recovers()
    assert 1 == bench.spool.append(records("last"))
    assert [*map(str, range(ROOM)), "last"] == on_disk(bench)


def test_records_in_memory_are_sent_while_the_disk_fails(bench: Bench) -> None:
    """They are the ones that a crash would lose; those on disk follow when it works again."""
    spool = bench.spool
    spool.append(records("disk"))
    Moody.left = 0
    spool.append(records("memory", "more"))
    rows = leased(spool, 1)
    assert ["memory"] == names(rows)
    settle(spool, rows)
    rest = leased(spool, 9)
    spool.settle([Outcome(row, "returned", rest=0.4) for row in rest])
    handout = spool.lease(9, LARGE, bulk=False)
    assert ((), True) == (handout.rows, handout.wait is not None and handout.wait <= 1.0)
    bench.recovers()
    assert ["disk", "more"] == names(leased(spool, 9))
    assert balanced(spool.counters())


def test_what_is_under_way_from_memory_stays_there(bench: Bench) -> None:
    """It is not moved, so that it cannot be sent twice; new records do not wait for it."""
    spool = bench.spool
    Moody.left = 0
    spool.append(records(0, 1))
    rows = leased(spool, 1)
    bench.recovers()
    spool.append(records(2))
    assert ["1", "2"] == on_disk(bench)
    assert 3 == spool.backlog() == spool.counters().pending
    settle(spool, rows)
    assert ["1", "2"] == names(leased(spool, 9))
    assert (3, 1) == (spool.counters().appended, spool.counters().delivered)


def test_both_kinds_of_rows_are_settled_each_where_it_came_from(bench: Bench) -> None:
    """One request never holds both, but one call may."""
    spool = bench.spool
    spool.append(records("disk"))
    of_disk = leased(spool)
    Moody.left = 0
    spool.append(records("memory"))
    of_memory = leased(spool)
    Moody.left = None
    settle(spool, [*of_disk, *of_memory])
    assert (2, 2, 0) == (spool.counters().appended, spool.counters().delivered, spool.counters().pending)


def test_marks_stay_right_across_an_outage(bench: Bench) -> None:
    """What was appended before the mark is waited for, wherever it lies by now."""
    spool = bench.spool
    Moody.left = 0
    spool.append(records(0))
    mark = spool.position()
    assert not spool.is_settled(mark)
    bench.recovers()
    spool.append(records(1))
    assert 0 == bench.memory.backlog()
    assert not spool.is_settled(mark)
    rows = leased(spool, 2)
    settle(spool, rows[:1])
    assert spool.is_settled(mark)
    assert not spool.is_settled(spool.position())


def test_a_mark_from_before_the_outage(bench: Bench) -> None:
    """Nobody can tell while the file cannot be written, or it can: either way no record is forgotten."""
    spool = bench.spool
    spool.append(records(0))
    mark = spool.position()
    Moody.left = 0
    spool.append(records(1))
    assert not spool.is_settled(mark)
    settle(spool, leased(spool))
    assert not spool.is_settled(mark)
    bench.recovers()
    settle(spool, leased(spool))
    assert spool.is_settled(mark)
    assert spool.is_settled(spool.position())


def test_records_of_a_file_that_is_gone_wait_in_memory(bench: Bench) -> None:
    """When no new file can be made, they are in memory by then, and the mark knows."""
    spool = bench.spool
    spool.append(records(0, 1))
    mark = spool.position()
    for each in bench.path.parent.iterdir():
        each.unlink()
    Moody.left = 0
    assert 1 == spool.append(records(2))
    assert 3 == bench.memory.backlog()
    assert not spool.is_settled(mark)
    bench.recovers()
    rows = leased(spool, 9)
    assert ["0", "1", "2"] == sorted(names(rows))
    assert not spool.is_settled(mark)
    settle(spool, rows)
    assert spool.is_settled(mark)


def test_another_process_gets_its_turn_on_disk(bench: Bench) -> None:
    """Who makes way lets others ship what is on disk; in memory there are no others."""
    spool = bench.spool
    spool.append(records("disk"))
    settle(spool, leased(spool), "returned")
    spool.make_way(4.0)
    assert [] == leased(spool)
    Moody.left = 0
    spool.append(records("memory"))
    assert ["memory"] == names(leased(spool))
    bench.memory.make_way(4.0)


def test_haste_looks_at_the_disk_at_once(bench: Bench) -> None:
    """Who flushes does not wait for the pause to end."""
    Moody.left = 0
    bench.spool.append(records(0))
    Moody.left = None
    bench.spool.append(records(1))
    assert 2 == bench.memory.backlog()
    bench.spool.hasten()
    bench.spool.append(records(2))
    assert ["0", "1", "2"] == on_disk(bench)


def test_a_file_that_is_full_is_no_outage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A bound that somebody has set is not to be got round by memory."""
    bench = Bench(tmp_path, max_bytes=4 * 1024 * 1024)
    assert 1 == bench.spool.append([record(0), record(1, 5 * 1024 * 1024)])
    assert 0 == bench.memory.backlog()
    assert [] == caplog.records
    bench.spool.close()


def test_what_the_file_has_no_room_for_stays_in_memory(tmp_path: Path) -> None:
    """After an outage: what does not fit waits in its place, and the next look is at whoever is due first."""
    bench = Bench(tmp_path, max_bytes=4 * 1024 * 1024)
    spool = bench.spool
    for size in (500_000, 20_000, 500, 0):
        while bench.disk.append([record("filler", size)]):
            bench.clock.now += 1.0
    Moody.left = 0
    spool.append(records(0, 1))
    spool.settle([Outcome(row, "returned", rest=40.0) for row in leased(spool, 9)])
    assert 2 == bench.memory.backlog()
    bench.recovers()
    assert 1 == spool.append(records(2))
    assert 3 == bench.memory.backlog()
    assert ["2"] == names(leased(spool, 9))
    assert {"filler"} == set(names(leased(spool, 9999)))
    bench.clock.now += 8.95
    wait = spool.lease(9, LARGE, bulk=False).wait
    assert wait is not None
    assert 0.04 < wait < 0.06
    assert balanced(spool.counters())
    spool.close()


def test_closing_moves_what_is_in_memory_to_the_disk(bench: Bench) -> None:
    """Nothing is lost by it."""
    Moody.left = 0
    bench.spool.append(records(0, 1))
    Moody.left = None
    assert 0 == bench.spool.close()
    assert ["0", "1"] == on_disk(bench)
    assert 0 == bench.spool.append(records(2))


def test_closing_while_a_request_is_late_moves_what_is_in_memory_to_the_disk(bench: Bench) -> None:
    """What the request carries too: nobody may be there to say what became of it, and twice is better than never."""
    spool = bench.spool
    Moody.left = 0
    spool.append(records(0, 1, 2))
    late = leased(spool, 2)
    settle(spool, leased(spool), "returned")
    Moody.left = None
    assert 0 == spool.close(is_in_use=True)
    settle(spool, late)
    assert ["0", "1", "2"] == on_disk(bench)
    assert (3, 3) == (spool.counters().appended, spool.counters().pending)
    assert 0 == spool.close()


def test_closing_leaves_a_disk_alone_at_which_a_thread_may_hang(bench: Bench) -> None:
    """While the thread that appends is late, what is in memory stays there, and is lost."""
    spool = bench.spool
    spool.append(records("disk"))
    Moody.left = 0
    spool.append(records(0, 1))
    Moody.left = None
    assert 2 == spool.close(is_in_use=True, is_appended_to=True)
    assert 0 == spool.close()
    assert ["disk"] == on_disk(bench)


def test_closing_does_not_wait_for_a_thread_that_moves_records(bench: Bench) -> None:
    """It may hang at the disk: what it has not moved yet is lost, and said to be."""
    spool = bench.spool
    Moody.left = 0
    spool.append(records("memory"))
    bench.recovers()
    Moody.is_moving, Moody.go_on = threading.Event(), threading.Event()
    moving = threading.Thread(target=leased, args=(spool,))
    moving.start()
    assert Moody.is_moving.wait(DEADLINE)
    assert 1 == spool.close(is_in_use=True)
    Moody.go_on.set()
    moving.join(DEADLINE)
    Moody.is_moving = None


def test_closing_while_the_disk_fails_loses_what_is_in_memory(bench: Bench) -> None:
    """And says how much."""
    bench.spool.append(records("disk"))
    Moody.left = 0
    bench.spool.append(records(0, 1))
    assert 2 == bench.spool.close()
    assert (1, 2) == (bench.spool.counters().pending, bench.spool.counters().purged)
    assert balanced(bench.spool.counters())


def test_closing_does_not_wait_for_another_process_beyond_its_time(bench: Bench) -> None:
    """Another one keeps the file: what is in memory is lost, what is to be said stays unsaid, and the end comes."""
    spool = bench.spool
    spool.append(records("disk"))
    rows = leased(spool)
    Moody.left = 0
    spool.append(records("memory"))
    settle(spool, rows)
    Moody.left = None
    with contextlib.closing(sqlite3.connect(bench.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        spool.end_by(began)
        assert 1 == spool.close()
        # One turn that is waited for takes two seconds.
        assert 2.0 > time.monotonic() - began
    assert ["disk"] == on_disk(bench)


def test_a_look_does_not_wait_while_records_are_moved(bench: Bench) -> None:
    """What an event loop asks for meanwhile is how it was before; afterwards nothing is in both."""
    spool = bench.spool
    Moody.left = 0
    spool.append(records("memory"))
    before = spool.counters()
    bench.recovers()
    Moody.is_moving, Moody.go_on = threading.Event(), threading.Event()
    moving = threading.Thread(target=spool.append, args=(records("disk"),))
    moving.start()
    assert Moody.is_moving.wait(DEADLINE)
    during = spool.counters()
    Moody.go_on.set()
    moving.join(DEADLINE)
    assert not moving.is_alive()
    Moody.is_moving = None
    assert before == during
    assert (2, 2) == (spool.counters().appended, spool.counters().pending)


class FallbackMachine(RuleBasedStateMachine):
    """A disk that fails at any statement and comes back, with everything else meanwhile."""

    @initialize()
    def begin(self) -> None:
        Moody.left = None
        self.folder = Path(tempfile.mkdtemp())
        self.bench = Bench(self.folder)
        self.spool = self.bench.spool
        self.taken: list[str] = []
        self.delivered: list[str] = []
        self.next_name = 0

    @rule(count=st.integers(1, 5))
    def append(self, count: int) -> None:
        batch = records(*range(self.next_name, self.next_name + count))
        self.next_name += count
        self.taken += [each.record_id for each in batch[: self.spool.append(batch)]]

    @rule(rows=st.integers(1, 5), keep=st.booleans())
    def ship(self, rows: int, keep: bool) -> None:
        sent = leased(self.spool, rows)
        if keep:
            settle(self.spool, sent, "returned")
        else:
            settle(self.spool, sent)
            self.delivered += names(sent)

    @rule(left=st.integers(0, 8))
    def fails(self, left: int) -> None:
        Moody.left = left

    @rule()
    def recovers(self) -> None:
        self.bench.recovers()

    @rule(seconds=st.sampled_from([0.5, 2.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.bench.clock.now += seconds

    @rule()
    def hasten(self) -> None:
        self.spool.hasten()

    @rule()
    def a_mark_knows_what_is_pending(self) -> None:
        if self.spool.is_settled(self.spool.position()):
            assert set(self.taken) == set(self.delivered)

    @invariant()
    def balances(self) -> None:
        counters = self.spool.counters()
        assert balanced(counters)
        assert len(self.taken) == counters.appended
        assert len(self.delivered) == len(set(self.delivered)), "delivered twice"

    def teardown(self) -> None:
        self.bench.recovers()
        self.bench.clock.now += 60.0
        while rows := leased(self.spool, 7):
            settle(self.spool, rows)
            self.delivered += names(rows)
        assert sorted(self.taken) == sorted(self.delivered)
        assert 0 == self.spool.close()
        shutil.rmtree(self.folder)


FallbackMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestFallbackMachine = FallbackMachine.TestCase
TestFallbackMachine.__doc__ = (
    "Whenever the disk fails, every record that was taken is delivered once, and all sums balance."
)
