"""What both spools promise: in order, bounded, each record with one holder and one end, the ledger always balanced."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from kwai_middleware._delivery.memory import ROW_OVERHEAD, MemorySpool
from kwai_middleware._delivery.spool import MOST_TOGETHER, Outcome, Record, Row, Spool, SpoolCounters
from tests.support.spooling import LARGE, Clock, Host, balanced, leased, ledger, names, record, records, settle

AGE = 60.0
SPACING = 2.0


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.close()


@pytest.fixture(params=["memory", "disk"])
def spool(request: pytest.FixtureRequest, host: Host) -> Spool:
    """A spool of either kind, at the host's time."""
    if request.param == "disk":
        return host.spool(max_pending_age=AGE, bulk_spacing=SPACING)
    return MemorySpool(64 * 1024 * 1024, AGE, SPACING, host.ticks)


def test_records_come_out_in_the_order_they_came_in(spool: Spool) -> None:
    """First in, first out, each once, however they are put together."""
    assert 3 == spool.append(records(0, 1, 2))
    assert 1 == spool.append(records(3))
    assert ["0", "1"] == names(leased(spool, 2))
    assert ["2", "3"] == names(leased(spool, 100))
    assert [] == leased(spool)
    assert 4 == spool.counters().pending == spool.backlog()


def test_an_entry_comes_out_as_it_went_in(spool: Spool) -> None:
    """Bytes are bytes: empty ones, ones that are no text, names that are no proper text."""
    spool.append([Record("0", b""), Record("1", bytes(range(256)), "half a pair: \ud800"), Record("2", b"\0", None)])
    assert [b"", bytes(range(256)), b"\0"] == [row.entry for row in leased(spool, 3)]


def test_nothing_to_append_is_nothing(spool: Spool) -> None:
    """An empty batch changes nothing."""
    assert 0 == spool.append([])
    assert SpoolCounters() == ledger(spool)


def test_each_end_is_counted_once(spool: Spool) -> None:
    """Delivered and rejected are two ends, and a lease that has ended can end no more."""
    spool.append(records(0, 1, 2))
    first, second, third = leased(spool, 3)
    settle(spool, [first, first])
    settle(spool, [first], "rejected")
    settle(spool, [first], "returned")
    settle(spool, [second], "rejected")
    settle(spool, [third], "returned")
    settle(spool, [third])
    counters = spool.counters()
    assert (3, 1, 1, 1) == (counters.appended, counters.delivered, counters.rejected, counters.pending)
    (again,) = leased(spool)
    assert again.record_id == third.record_id
    settle(spool, [again])
    assert 0 == spool.counters().pending == spool.counters().pending_bytes


def test_the_outcomes_of_one_request_may_differ(spool: Spool) -> None:
    """Row by row: what is given back keeps its place, and what became of it is remembered."""
    spool.append(records(0, 1, 2, 3))
    rows = leased(spool, 3)
    spool.settle(
        [
            Outcome(rows[0], "returned", attempts=2, together=1),
            Outcome(rows[1], "delivered"),
            Outcome(rows[2], "rejected", "half a pair: \ud800"),
        ],
        "no such field \ud800",
    )
    (again,) = leased(spool)
    assert ("0", 2, 1) == (again.record_id, again.attempts, again.together)
    assert ["3"] == names(leased(spool, 5))
    assert balanced(spool.counters())


def test_what_is_given_back_keeps_its_place_or_stands_behind(spool: Spool, host: Host) -> None:
    """Without a rest it is the next one again; with one the others go first until it has passed."""
    spool.append(records(0, 1, 2))
    settle(spool, leased(spool, 2), "returned")
    rows = leased(spool, 2)
    assert ["0", "1"] == names(rows)
    spool.settle([Outcome(row, "returned", attempts=1, rest=0.1) for row in rows])
    assert ["2"] == names(leased(spool, 9))
    wait = spool.lease(9, LARGE, bulk=False).wait
    assert wait is not None
    assert 0.0 < wait <= 0.15
    host.passes(0.2)
    assert [("0", 1), ("1", 1)] == [(row.record_id, row.attempts) for row in leased(spool, 9)]


def test_haste_ends_the_rest(spool: Spool) -> None:
    """After `hasten` nothing rests any longer."""
    spool.hasten()
    spool.append(records(0))
    spool.settle([Outcome(row, "returned", rest=3600.0) for row in leased(spool)])
    assert [] == leased(spool)
    spool.hasten()
    assert ["0"] == names(leased(spool))


def test_a_handout_is_bounded_in_bytes_but_never_empty(spool: Spool) -> None:
    """As many as fit, and one that is larger than all goes alone."""
    spool.append([record(0, 50), record(1, 50), record(2, 500), record(3, 10)])
    assert ["0", "1"] == names(leased(spool, 9, 100))
    assert ["2"] == names(leased(spool, 9, 100))
    assert ["3"] == names(leased(spool, 9, 100))


def test_rows_of_one_request_may_be_sent_with_equally_many(spool: Spool) -> None:
    """What may be sent with few is not put together with what may be sent with many, nor with more than it may."""
    spool.append(records(*range(8)))
    rows = leased(spool, 5, bulk=True)
    spool.settle([Outcome(row, "returned", together=2) for row in rows])
    assert [["0", "1"], ["2", "3"], ["4"]] == [names(leased(spool, 500, bulk=True)) for _ in range(3)]
    assert [MOST_TOGETHER] * 3 == [row.together for row in leased(spool, 500, bulk=True)]


def test_single_ones_come_together_when_each_is_sent_alone(spool: Spool) -> None:
    """Those that may only be sent alone are handed out in one go; each is a request of its own."""
    spool.append(records(*range(4)))
    spool.settle([Outcome(row, "returned", together=1) for row in leased(spool, 3)])
    assert ["0", "1", "2"] == names(leased(spool, 500, bulk=True))


def test_bulk_requests_keep_their_distance(spool: Spool, host: Host) -> None:
    """After rows for a bulk request the next one has to wait; after a single row it does not."""
    assert 0.0 == spool.bulk_wait()
    spool.append(records(*range(5)))
    leased(spool, 1, bulk=True)
    assert 0.0 == spool.bulk_wait()
    leased(spool, 2)
    assert 0.0 == spool.bulk_wait()
    leased(spool, 2, bulk=True)
    assert SPACING == spool.bulk_wait()
    host.passes(1.5)
    assert 0.5 == spool.bulk_wait()
    host.passes(0.5)
    assert 0.0 == spool.bulk_wait()


@pytest.mark.parametrize(("age", "is_left"), [(AGE - 1, True), (AGE, False)])
def test_what_is_too_old_is_given_up_and_counted(spool: Spool, host: Host, age: float, is_left: bool) -> None:
    """Age bounds the wait, also of what rests."""
    spool.append(records(0, 1))
    spool.settle([Outcome(row, "returned", rest=3600.0) for row in leased(spool)])
    rows = leased(spool)
    assert ["1"] == names(rows)
    settle(spool, rows, "returned")
    host.passes(age)
    spool.append(records("young"))
    spool.hasten()
    first = leased(spool, 9)
    assert (["0", "1", "young"] if is_left else ["young"]) == sorted(names(first))
    counters = spool.counters()
    assert (0 if is_left else 2) == counters.evicted
    assert (age if is_left else 0.0) == counters.oldest_pending
    assert balanced(counters)


def test_it_can_be_asked_whether_all_up_to_a_point_is_settled(spool: Spool) -> None:
    """`is_settled` looks at the records up to a position, and at none that came later."""
    assert spool.is_settled(spool.position())
    spool.append(records(0))
    point = spool.position()
    spool.append(records(1))
    rows = leased(spool)
    assert not spool.is_settled(point)
    settle(spool, rows)
    assert spool.is_settled(point)
    assert not spool.is_settled(spool.position())
    settle(spool, leased(spool), "rejected")
    assert spool.is_settled(spool.position())


def test_nobody_else_is_in_a_hurry(spool: Spool) -> None:
    """A process does not take its own haste for that of another one."""
    assert not spool.renew()
    spool.append(records(0))
    leased(spool)
    spool.hasten()
    assert not spool.renew()


def test_threads_lose_nothing_between_them(spool: Spool) -> None:
    """With writers, a shipper and an observer at once, no record is lost, none is leased twice, every view balances."""
    seen: list[str] = []
    views: list[SpoolCounters] = []
    writers_left = threading.Semaphore(0)

    def write(name: int) -> None:
        for number in range(100):
            assert 3 == spool.append(records(*(f"{name}-{number}-{each}" for each in range(3))))
        writers_left.release()

    def ship() -> None:
        finished = 0
        while finished < 2 or spool.backlog():
            if finished < 2 and writers_left.acquire(blocking=False):
                finished += 1
            rows = leased(spool, 7)
            back = [row for row in rows if row.position % 7 == 0 and row.attempts == 0]
            spool.settle([Outcome(row, "returned", attempts=1) for row in back])
            sent = [row for row in rows if row not in back]
            settle(spool, sent)
            seen.extend(names(sent))

    def watch() -> None:
        views.append(spool.counters())
        while not is_shipped.is_set():
            views.append(spool.counters())

    is_shipped = threading.Event()
    threads = [threading.Thread(target=write, args=(name,)) for name in range(2)]
    threads += [threading.Thread(target=each) for each in (ship, watch)]
    for thread in reversed(threads):
        thread.start()
    for thread in threads[:3]:
        thread.join()
    is_shipped.set()
    for thread in threads:
        thread.join()
    assert 600 == len(set(seen)) == len(seen)
    assert views
    assert all(balanced(view) for view in views)


# Only in memory.


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def memory(clock: Clock) -> MemorySpool:
    return MemorySpool(10 * (ROW_OVERHEAD + 100), AGE, clock=clock)


def test_full_memory_refuses_the_new_record_and_keeps_the_old(memory: MemorySpool) -> None:
    """Bytes are bounded, the overhead of each record included; what is settled makes room."""
    assert 10 == memory.append([record(number, 100) for number in range(12)])
    assert 0 == memory.append([record("too much", 0)])
    rows = leased(memory)
    assert ["0"] == names(rows)
    assert 0 == memory.append([record("still too much", 100)])
    settle(memory, rows)
    assert 1 == memory.append([record("fits", 100), record("does not", 100)])
    assert 0 == memory.append([record("larger than all", 100_000)])
    assert 10 * (ROW_OVERHEAD + 100) == memory.counters().pending_bytes


def test_memory_gives_up_what_is_too_old_after_its_last_chance(memory: MemorySpool, clock: Clock) -> None:
    """What is being sent at the moment is not given up; when it comes back, it is."""
    memory.append(records(0))
    sending = leased(memory)
    clock.now += AGE + 1
    assert (0, 1) == (memory.counters().evicted, memory.counters().pending)
    settle(memory, sending, "returned")
    assert (1, 0) == (memory.counters().evicted, memory.counters().pending)


def test_closed_memory_is_empty_and_stays_so(memory: MemorySpool) -> None:
    """What waits in memory is lost with it, and is counted; a lease from before has no effect."""
    memory.append(records(0, 1, 2))
    memory.settle([Outcome(row, "returned", rest=9.0) for row in leased(memory)])
    rows = leased(memory)
    held = [row for row, _ in memory.hold(1)]
    assert 3 == memory.close()
    assert 0 == memory.close()
    settle(memory, rows)
    settle(memory, rows, "returned")
    memory.moved(held)
    memory.release(held)
    assert 0 == memory.append(records("late"))
    assert SpoolCounters(appended=3, purged=3) == ledger(memory)
    assert None is memory.lease(1, 1, bulk=False).wait


def test_what_another_spool_takes_is_as_if_it_had_never_come_in(memory: MemorySpool, clock: Clock) -> None:
    """What is on hold is handed out to nobody; what is let go is where it was before, at rest or first in line."""
    memory.append([*records(0, 1, 2), Record("3", b"entry", "acme")])
    rows = leased(memory, 2)
    memory.settle([Outcome(rows[0], "returned", rest=5.0)])
    held = memory.hold(9)
    assert ["2", "3", "0"] == [each.record_id for _, each in held]
    assert Record("3", b"entry", "acme") == held[1][1]
    assert [] == leased(memory)
    memory.moved([held[1][0]])
    memory.release([held[0][0], held[2][0]])
    assert ["2"] == names(leased(memory, 9))
    clock.now += 5
    assert ["0"] == names(leased(memory, 9))
    assert (3, 3) == (memory.counters().appended, memory.counters().pending)


def test_the_clock_of_memory_is_the_monotonic_one() -> None:
    """Without a clock of the test's, time passes by itself."""
    spool = MemorySpool(10_000, 60.0)
    spool.append(records(0))
    age = spool.counters().oldest_pending
    assert age is not None
    assert 0.0 <= age < 30.0


class MemoryMachine(RuleBasedStateMachine):
    """Any order of everything that can happen to a spool in memory, beside a model of what should."""

    leases = Bundle("leases")

    @initialize(room=st.integers(1, 6), age=st.integers(1, 50))
    def begin(self, room: int, age: int) -> None:
        self.clock = Clock()
        self.most = room * (ROW_OVERHEAD + 50)
        self.age = age
        self.spool = MemorySpool(self.most, age, clock=self.clock)
        self.waiting: dict[str, tuple[float, int]] = {}
        self.on_lease: dict[str, Row] = {}
        self.counted = {"appended": 0, "delivered": 0, "rejected": 0, "evicted": 0, "purged": 0}
        self.next_name = 0
        self.closed = False

    def expire(self) -> None:
        for name, (since, _) in list(self.waiting.items()):
            if since <= self.clock.now - self.age and name not in self.on_lease:
                del self.waiting[name]
                self.counted["evicted"] += 1

    @rule(sizes=st.lists(st.integers(0, 120), max_size=4))
    def append(self, sizes: list[int]) -> None:
        self.expire()
        room = 0 if self.closed else self.most - sum(size + ROW_OVERHEAD for _, size in self.waiting.values())
        batch = [record(self.next_name + number, size) for number, size in enumerate(sizes)]
        fitting = 0
        for size in sizes:
            room -= size + ROW_OVERHEAD
            if room < 0:
                break
            fitting += 1
        assert fitting == self.spool.append(batch)
        for each in batch[:fitting]:
            self.waiting[each.record_id] = (self.clock.now, len(each.entry))
        self.counted["appended"] += fitting
        self.next_name += fitting

    @rule(target=leases, rows=st.integers(1, 4), size=st.integers(1, 300), bulk=st.booleans())
    def lease(self, rows: int, size: int, bulk: bool) -> object:
        self.expire()
        handout = self.spool.lease(rows, size, bulk=bulk).rows
        assert len(handout) <= rows
        assert len(handout) <= 1 or sum(len(row.entry) for row in handout) <= size
        assert len({row.together for row in handout}) <= 1
        for row in handout:
            assert row.record_id in self.waiting
            assert row.record_id not in self.on_lease
            self.on_lease[row.record_id] = row
        return multiple(*handout)

    @rule(row=leases, end=st.sampled_from(["delivered", "rejected"]))
    def settle(self, row: Row, end: str) -> None:
        settle(self.spool, [row], end)  # type: ignore[arg-type]  # one of two of the three
        if self.on_lease.get(row.record_id) is row:
            del self.on_lease[row.record_id], self.waiting[row.record_id]
            self.counted[end] += 1

    @rule(row=consumes(leases), rest=st.integers(0, 30), together=st.integers(1, 3))
    def give_back(self, row: Row, rest: int, together: int) -> None:
        self.spool.settle([Outcome(row, "returned", together=together, rest=rest)])
        if self.on_lease.get(row.record_id) is row:
            del self.on_lease[row.record_id]

    @rule(most=st.integers(1, 4), taken=st.integers(0, 4))
    def move(self, most: int, taken: int) -> None:
        held = self.spool.hold(most)
        for row, same in held:
            assert row.record_id == same.record_id not in self.on_lease
        self.spool.moved([row for row, _ in held[:taken]])
        self.spool.release([row for row, _ in held[taken:]])
        for row, _ in held[:taken]:
            del self.waiting[row.record_id]
            self.counted["appended"] -= 1

    @rule(seconds=st.integers(1, 30))
    def time_passes(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule(target=leases)
    def hasten(self) -> object:
        self.expire()
        self.spool.hasten()
        free = set(self.waiting) - set(self.on_lease)
        rows: list[Row] = []
        while handout := leased(self.spool, 100):
            rows += handout
        assert free == set(names(rows))
        self.on_lease |= {row.record_id: row for row in rows}
        return multiple(*rows)

    @rule()
    def close(self) -> None:
        self.expire()
        self.spool.counters()
        assert len(self.waiting) == self.spool.close()
        self.counted["purged"] += len(self.waiting)
        self.waiting.clear()
        self.on_lease.clear()
        self.closed = True

    @invariant()
    def agrees_with_the_model(self) -> None:
        counters = self.spool.counters()
        self.expire()
        assert balanced(counters)
        assert self.counted == {name: getattr(counters, name) for name in self.counted}
        assert len(self.waiting) == counters.pending == self.spool.backlog()
        assert sum(size + ROW_OVERHEAD for _, size in self.waiting.values()) == counters.pending_bytes <= self.most
        oldest = min((since for since, _ in self.waiting.values()), default=None)
        assert (None if oldest is None else self.clock.now - oldest) == counters.oldest_pending
        assert self.spool.is_settled(self.spool.position()) is (not self.waiting)


MemoryMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestMemoryMachine = MemoryMachine.TestCase
TestMemoryMachine.__doc__ = (
    "Whatever happens to a spool in memory, in whatever order, it agrees with the model and its ledger balances."
)
