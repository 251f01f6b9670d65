"""Three spools on one file, in any order, with a crash between any two statements: nothing lost, nothing twice."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from kwai_middleware._delivery.disk.spool import Bounds, DiskSpool
from kwai_middleware._delivery.disk.tables import Lease
from kwai_middleware._delivery.spool import Outcome, Row
from tests.support.spooling import ELSEWHERE, HERE, LARGE, Clock, asked, record

LEASE_TIME = 60.0
MAX_AGE = 7 * 24 * 3600.0
CALM = 1 << 30


class Crash(BaseException):
    """The process dies at this statement."""


class Mortal(sqlite3.Connection):
    """A connection of a process that dies before or behind the n-th statement from now on, and stays dead."""

    statements_left = CALM
    is_behind = False
    has_crashed = False

    @classmethod
    def _step(cls) -> None:
        if cls.has_crashed or (cls.statements_left <= 0 and not cls.is_behind):
            cls.has_crashed = True
            raise Crash

    @classmethod
    def _stepped(cls) -> None:
        if cls.statements_left <= 0:
            cls.has_crashed = True
            raise Crash
        cls.statements_left -= 1

    def execute(self, *values: Any) -> sqlite3.Cursor:
        self._step()
        cursor = super().execute(*values)
        self._stepped()
        return cursor

    def executemany(self, statement: str, values: Any) -> sqlite3.Cursor:
        # Between any two of its rows too.
        return super().executemany(statement, self._mortally(values))

    def executescript(self, script: str) -> sqlite3.Cursor:
        for statement in script.split(";"):
            self.execute(statement)
        return self.cursor()

    def _mortally(self, values: Any) -> Iterator[Any]:
        for each in values:
            self._step()
            yield each
            self._stepped()


def crashes(most: int) -> st.SearchStrategy[tuple[int, bool] | None]:
    """At which statement, and whether behind it; most of the time none."""
    return st.none() | st.none() | st.tuples(st.integers(0, most), st.booleans())


class Machine(RuleBasedStateMachine):
    """Processes 0 and 1 have the same destination, process 2 another one."""

    leases = Bundle("leases")

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "spool.db"
        self.clock, self.ticks = Clock(), Clock(100.0)
        self.processes = [self.born(number) for number in range(3)]
        self.names = 0
        self.certain: set[str] = set()
        """Appended for sure."""
        self.possible: set[str] = set()
        """Appended by a process that died in the middle: all of a batch, or nothing."""
        self.batches: list[list[str]] = []
        self.held: dict[str, tuple[int, Row]] = {}
        """On a lease that is valid, by whom."""
        self.tried: dict[str, set[str]] = {}
        """Ends that a process began to write."""
        self.old: set[str] = set()
        """May have been given up for their age."""

    def born(self, number: int) -> DiskSpool:
        return DiskSpool(
            str(self.path),
            ELSEWHERE if number == 2 else HERE,
            Bounds(max_bytes=1 << 26, max_pending_age=MAX_AGE, lease_time=LEASE_TIME),
            clock=self.clock,
            ticks=self.ticks,
            connection_type=Mortal,
        )

    def surely(self, number: int, operation: Callable[[DiskSpool], Any], crash: tuple[int, bool] | None) -> Any:
        """Let a process do something, and die at a statement of it; None when it has died."""
        Mortal.has_crashed = False
        Mortal.statements_left, Mortal.is_behind = crash or (CALM, False)
        try:
            return operation(self.processes[number])
        except Crash:
            self.dies(number)
            return None
        finally:
            Mortal.has_crashed = False
            Mortal.statements_left = CALM

    def dies(self, number: int) -> None:
        spool = self.processes[number]
        attached = spool._attached
        for database in (attached.writing, attached.reading, attached.tidying):
            connection = database.detach()
            if connection is not None:
                # What is not committed is gone, as with the process.
                connection.close()
        self.processes[number] = self.born(number)
        # Its leases end by their deadline: the process that runs this test is alive.

    # What a process does.

    @rule(number=st.integers(0, 2), count=st.integers(1, 4), crash=crashes(12))
    def append(self, number: int, count: int, crash: tuple[int, bool] | None) -> None:
        batch = [record(f"{number}/{self.names + each}", 40 * each) for each in range(count)]
        self.names += count
        names = [each.record_id for each in batch]
        taken = self.surely(number, lambda spool: spool.append(batch), crash)
        self.batches.append(names)
        if taken is None:
            self.possible.update(names)
        else:
            assert count == taken
            self.certain.update(names)

    @rule(target=leases, number=st.integers(0, 2), rows=st.integers(1, 5), bulk=st.booleans(), crash=crashes(25))
    def lease(self, number: int, rows: int, bulk: bool, crash: tuple[int, bool] | None) -> Any:
        handout = self.surely(number, lambda spool: spool.lease(rows, LARGE, bulk=bulk), crash)
        if handout is None:
            return multiple()
        self.expire()
        for row in handout.rows:
            assert (row.record_id[0] == "2") is (number == 2), "of another destination"
            assert row.record_id not in self.held, "on valid lease twice"
            self.held[row.record_id] = (number, row)
        return multiple(*((number, row) for row in handout.rows))

    @rule(target=leases, number=st.integers(0, 1), rows=st.integers(1, 5), crash=crashes(25))
    def take_over(self, number: int, rows: int, crash: tuple[int, bool] | None) -> object:
        """The shipper stalls for too long, and perhaps wakes up later."""
        self.append(number, 2, None)
        stalled = self.lease(number, rows, True, None)
        self.time_passes(LEASE_TIME)
        return multiple(*stalled.values, *self.lease(1 - number, rows, True, crash).values)

    @rule(
        lease=leases,
        end=st.sampled_from(["delivered", "rejected", "returned"]),
        rest=st.sampled_from([0.0, 30.0]),
        crash=crashes(8),
    )
    def settle(
        self,
        lease: tuple[int, Row],
        end: Literal["delivered", "rejected", "returned"],
        rest: float,
        crash: tuple[int, bool] | None,
    ) -> None:
        number, row = lease
        outcome = Outcome(row, end, "because", row.attempts + 1, max(1, row.together // 2), rest)
        before, is_still_leased = self.rows(), self.is_still_leased(row)
        done = self.surely(number, lambda spool: spool.settle([outcome]) or True, crash)
        changed = self.rows() != before
        assert is_still_leased or not changed, "a lease that has been taken changes nothing"
        holder = self.held.get(row.record_id)
        assert is_still_leased or holder is None or holder[1] is not row, "a valid lease has been taken"
        self.tried.setdefault(row.record_id, set()).add(end)
        if holder is not None and holder[1] is row and (done or changed):
            del self.held[row.record_id]

    def is_still_leased(self, row: Row) -> bool:
        """Whether it is as it was handed out; it may have run out, but nobody has taken it."""
        lease = row.lease
        assert isinstance(lease, Lease)
        values = (row.position, lease.owner, lease.epoch, lease.until)
        question = "SELECT 1 FROM leases WHERE position = ? AND owner = ? AND epoch = ? AND until = ?"
        return bool(asked(self.path, question, values))

    @rule(number=st.integers(0, 2), crash=crashes(8))
    def hasten_and_renew(self, number: int, crash: tuple[int, bool] | None) -> None:
        self.surely(number, lambda spool: (spool.hasten(), spool.renew()), crash)

    @rule(number=st.integers(0, 2), crash=crashes(12))
    def close(self, number: int, crash: tuple[int, bool] | None) -> None:
        if self.surely(number, lambda spool: spool.close() or True, crash):
            self.processes[number] = self.born(number)

    # What time does.

    @rule(seconds=st.sampled_from([1.0, 6.0, 40.0, LEASE_TIME]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds
        self.ticks.now += seconds
        self.expire()

    @rule(seconds=st.sampled_from([-3600.0, 3600.0]))
    def the_clock_is_set(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def a_week_passes(self) -> None:
        self.clock.now += 2 * MAX_AGE
        self.old |= self.certain | self.possible

    @rule()
    def the_machine_starts_anew(self) -> None:
        for number in range(3):
            self.dies(number)
        self.ticks.now = 7.0
        self.held.clear()

    def expire(self) -> None:
        for name, (_, row) in list(self.held.items()):
            if self.ticks.now >= row.lease.until:  # type: ignore[attr-defined]  # it is one of the disk's
                del self.held[name]

    # What holds at every step.

    def rows(self) -> list[tuple[Any, ...]]:
        if not self.path.exists() or not self.path.stat().st_size:
            return []
        with contextlib.suppress(sqlite3.OperationalError):
            return asked(self.path, "SELECT record_id, is_rejected, attempts FROM records ORDER BY position")
        return []

    @invariant()
    def the_ledger_balances_and_is_what_lies_there(self) -> None:
        if not self.path.exists() or not self.path.stat().st_size:
            return
        try:
            ledger = asked(
                self.path,
                "SELECT id, appended, delivered, pending, rejected, evicted, purged, pending_bytes FROM destinations",
            )
        except sqlite3.OperationalError:
            return  # a crash before the tables were made
        for number, appended, delivered, pending, rejected, evicted, purged, size in ledger:
            assert appended == delivered + pending + rejected + evicted + purged
            assert [(pending, size)] == asked(
                self.path,
                "SELECT count(*), coalesce(sum(length(entry)), 0) FROM records WHERE is_rejected = 0"
                " AND destination = ?",
                (number,),
            )
            ((kept,),) = asked(
                self.path, "SELECT count(*) FROM records WHERE is_rejected = 1 AND destination = ?", (number,)
            )
            assert kept <= rejected
        assert [] == asked(
            self.path, "SELECT * FROM leases WHERE position NOT IN (SELECT position FROM records WHERE is_rejected = 0)"
        )
        self.no_record_is_lost(sum(row[1] for row in ledger))

    def no_record_is_lost(self, appended: int) -> None:
        pending = Counter(name for name, is_rejected, _ in self.rows() if not is_rejected)
        assert not pending or max(pending.values()) == 1
        for name in self.certain - set(pending):
            assert name in self.old or self.tried.get(name, set()) & {"delivered", "rejected"}, f"{name} is lost"
        assert set(pending) <= self.certain | self.possible
        # Of a batch whose process died in it there is all or nothing.
        for batch in self.batches:
            if not self.old & set(batch) and not any(name in self.tried for name in batch):
                assert len(set(batch) & set(pending)) in (0, len(batch))
        assert len(self.certain) <= appended <= len(self.certain) + len(self.possible)

    def teardown(self) -> None:
        if hasattr(self, "processes"):
            for spool in self.processes:
                spool.close()
            self.all_that_waits_comes_out()
            shutil.rmtree(self.folder)

    def all_that_waits_comes_out(self) -> None:
        """In the end every record that is pending is handed out, once, to whoever is there."""
        self.ticks.now += 4000.0
        self.clock.now -= 1000 * MAX_AGE
        pending = [name for name, is_rejected, _ in self.rows() if not is_rejected]
        found: list[str] = []
        for number in (0, 2):
            spool = self.born(number)
            while handout := spool.lease(3, LARGE, bulk=True).rows:
                found += [row.record_id for row in handout]
                spool.settle([Outcome(row, "delivered") for row in handout])
            spool.close()
        assert sorted(pending) == sorted(found)


Machine.TestCase.settings = settings(max_examples=15, stateful_step_count=30, deadline=None)
TestMachine = Machine.TestCase
TestMachine.__doc__ = "Whatever happens on a shared file, and whoever dies when, nothing is lost or on lease twice."
