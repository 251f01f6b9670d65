"""The spool in memory: bounded, in order, each record with one holder and one end, the ledger always balanced."""

from __future__ import annotations

import threading

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from kwai_middleware._delivery.memory import ROW_OVERHEAD, MemorySpool
from kwai_middleware._delivery.spool import Row, SpoolCounters


class Clock:
    """Time that passes when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def balanced(counters: SpoolCounters) -> bool:
    """Say whether every record that came in is accounted for."""
    ends = (counters.delivered, counters.pending, counters.rejected, counters.evicted, counters.purged)
    return counters.appended == sum(ends)


def leased(spool: MemorySpool) -> Row:
    """The next record; there must be one."""
    row = spool.lease()
    assert row is not None
    return row


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def spool(clock: Clock) -> MemorySpool:
    return MemorySpool(10 * (ROW_OVERHEAD + 100), 60.0, clock)


def test_records_come_out_in_the_order_they_came_in(spool: MemorySpool) -> None:
    """First in, first out, each once."""
    for number in range(3):
        assert spool.append(str(number), b"entry")
    assert ["0", "1", "2"] == [leased(spool).record_id for _ in range(3)]
    assert None is spool.lease()
    assert 3 == spool.counters().pending


def test_a_full_spool_refuses_the_new_record_and_keeps_the_old(spool: MemorySpool) -> None:
    """Bytes are bounded, the overhead of each record included; what is settled makes room."""
    for number in range(10):
        assert spool.append(str(number), b"x" * 100)
    assert not spool.append("too much", b"")
    row = leased(spool)
    assert "0" == row.record_id
    assert not spool.append("still too much", b"x" * 100)
    spool.delivered(row)
    assert spool.append("fits", b"x" * 100)
    assert not spool.append("larger than all", b"x" * 100_000)
    assert 10 * (ROW_OVERHEAD + 100) == spool.counters().pending_bytes


def test_each_end_is_counted_once(spool: MemorySpool) -> None:
    """Delivered and rejected are two ends, and a lease that has ended can end no more."""
    for number in range(3):
        spool.append(str(number), b"entry")
    first, second, third = (leased(spool) for _ in range(3))
    spool.delivered(first)
    spool.delivered(first)
    spool.rejected(first)
    spool.returned(first, None)
    spool.rejected(second)
    spool.returned(third, None)
    spool.delivered(third)
    assert (3, 1, 1, 1) == (
        spool.counters().appended,
        spool.counters().delivered,
        spool.counters().rejected,
        spool.counters().pending,
    )
    again = leased(spool)
    spool.delivered(third)
    assert 1 == spool.counters().pending
    spool.delivered(again)
    assert 0 == spool.counters().pending


def test_a_record_that_is_given_back_keeps_its_place_or_stands_behind(spool: MemorySpool, clock: Clock) -> None:
    """None and 0 keep the place, seconds send it behind the others until they have passed."""
    for number in range(3):
        spool.append(str(number), b"entry")
    spool.returned(leased(spool), None)
    row = leased(spool)
    assert ("0", 0) == (row.record_id, row.attempts)
    spool.returned(row, 0.0)
    row = leased(spool)
    assert ("0", 1) == (row.record_id, row.attempts)
    spool.returned(row, 5.0)
    assert ["1", "2"] == [leased(spool).record_id for _ in range(2)]
    assert None is spool.lease()
    assert 5.0 == spool.next_due()
    clock.now += 5.0
    assert 0.0 == spool.next_due()
    row = leased(spool)
    assert ("0", 2) == (row.record_id, row.attempts)
    assert None is spool.next_due()


def test_haste_ends_the_rest(spool: MemorySpool) -> None:
    """After `hasten` nothing rests any longer."""
    spool.append("0", b"entry")
    spool.returned(leased(spool), 3600.0)
    assert None is spool.lease()
    spool.hasten()
    assert "0" == leased(spool).record_id


def test_what_is_too_old_is_given_up_and_counted(spool: MemorySpool, clock: Clock) -> None:
    """Age bounds the wait, also of what rests; what is being sent at the moment has its chance first."""
    for number in range(4):
        spool.append(str(number), b"entry")
    sending = leased(spool)
    spool.returned(leased(spool), 3600.0)
    clock.now += 59
    spool.append("young", b"entry")
    assert 59.0 == spool.counters().oldest_pending
    clock.now += 2
    counters = spool.counters()
    assert (3, 2) == (counters.evicted, counters.pending)
    assert "young" == leased(spool).record_id
    spool.returned(sending, None)
    assert (4, 1) == (spool.counters().evicted, spool.counters().pending)


def test_it_can_be_asked_whether_all_up_to_a_point_is_settled(spool: MemorySpool) -> None:
    """`is_settled` looks at the records up to a position, and at none that came later."""
    assert spool.is_settled(spool.position())
    spool.append("0", b"entry")
    point = spool.position()
    spool.append("1", b"entry")
    row = leased(spool)
    assert not spool.is_settled(point)
    spool.delivered(row)
    assert spool.is_settled(point)
    assert not spool.is_settled(spool.position())


def test_a_closed_spool_is_empty_and_stays_so(spool: MemorySpool) -> None:
    """What waits in memory is lost with it, and is counted; a lease from before has no effect."""
    for number in range(3):
        spool.append(str(number), b"entry")
    spool.returned(leased(spool), 9.0)
    row = leased(spool)
    assert 3 == spool.close()
    assert 0 == spool.close()
    spool.delivered(row)
    spool.returned(row, 1.0)
    assert not spool.append("late", b"entry")
    assert (3, 0, 0, 0) == (
        spool.counters().purged,
        spool.counters().pending,
        spool.counters().delivered,
        spool.counters().pending_bytes,
    )
    assert None is spool.lease()
    assert None is spool.next_due()
    assert None is spool.counters().oldest_pending


def test_its_own_clock_is_the_monotonic_one() -> None:
    """Without a clock of the test's, time passes by itself."""
    spool = MemorySpool(10_000, 60.0)
    spool.append("0", b"entry")
    age = spool.counters().oldest_pending
    assert age is not None
    assert 0.0 <= age < 30.0


def test_threads_lose_nothing_between_them() -> None:
    """With writers, a shipper and an observer at once, no record is lost, none is leased twice, every view balances."""
    spool = MemorySpool(1 << 30, 3600.0)
    seen: list[str] = []
    views: list[SpoolCounters] = []
    writers_left = threading.Semaphore(0)

    def write(name: int) -> None:
        for number in range(2000):
            assert spool.append(f"{name}-{number}", b"entry")
        writers_left.release()

    def ship() -> None:
        finished = 0
        while finished < 2 or spool.counters().pending:
            if finished < 2 and writers_left.acquire(blocking=False):
                finished += 1
            row = spool.lease()
            if row is None:
                continue
            if row.position % 7 == 0 and row.attempts == 0:
                spool.returned(row, 0.0)
            else:
                spool.delivered(row)
                seen.append(row.record_id)
            views.append(spool.counters())

    threads = [threading.Thread(target=write, args=(name,)) for name in range(2)] + [threading.Thread(target=ship)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 4000 == len(set(seen)) == len(seen)
    assert all(balanced(view) for view in views)


class SpoolMachine(RuleBasedStateMachine):
    """Any order of everything that can happen to a spool, beside a model of what should."""

    leases = Bundle("leases")

    @initialize(room=st.integers(1, 6), age=st.integers(1, 50))
    def begin(self, room: int, age: int) -> None:
        self.clock = Clock()
        self.most = room * (ROW_OVERHEAD + 50)
        self.age = age
        self.spool = MemorySpool(self.most, age, self.clock)
        self.waiting: dict[str, tuple[float, int]] = {}
        self.on_lease: dict[str, Row] = {}
        self.counted = {"appended": 0, "delivered": 0, "rejected": 0, "evicted": 0, "purged": 0}
        self.closed = False

    def expire(self) -> None:
        for name, (since, _) in list(self.waiting.items()):
            if since <= self.clock.now - self.age and name not in self.on_lease:
                del self.waiting[name]
                self.counted["evicted"] += 1

    @rule(size=st.integers(0, 120))
    def append(self, size: int) -> None:
        self.expire()
        name = str(self.counted["appended"])
        used = sum(size + ROW_OVERHEAD for _, size in self.waiting.values())
        fits = not self.closed and used + size + ROW_OVERHEAD <= self.most
        assert fits is self.spool.append(name, b"x" * size)
        if fits:
            self.counted["appended"] += 1
            self.waiting[name] = (self.clock.now, size)

    @rule(target=leases)
    def lease(self) -> object:
        self.expire()
        row = self.spool.lease()
        if row is None:
            return multiple()
        assert row.record_id in self.waiting
        assert row.record_id not in self.on_lease
        self.on_lease[row.record_id] = row
        return row

    @rule(row=leases, end=st.sampled_from(["delivered", "rejected"]))
    def settle(self, row: Row, end: str) -> None:
        getattr(self.spool, end)(row)
        if self.on_lease.get(row.record_id) is row:
            del self.on_lease[row.record_id], self.waiting[row.record_id]
            self.counted[end] += 1

    @rule(row=consumes(leases), rest=st.none() | st.integers(0, 30))
    def give_back(self, row: Row, rest: int | None) -> None:
        self.spool.returned(row, rest)
        if self.on_lease.get(row.record_id) is row:
            del self.on_lease[row.record_id]

    @rule(seconds=st.integers(1, 30))
    def time_passes(self, seconds: int) -> None:
        self.clock.now += seconds

    @rule()
    def hasten(self) -> None:
        self.expire()
        self.spool.counters()
        self.spool.hasten()
        assert (0.0 if set(self.waiting) - set(self.on_lease) else None) == self.spool.next_due()

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
        assert len(self.waiting) == counters.pending
        assert sum(size + ROW_OVERHEAD for _, size in self.waiting.values()) == counters.pending_bytes <= self.most
        oldest = min((since for since, _ in self.waiting.values()), default=None)
        assert (None if oldest is None else self.clock.now - oldest) == counters.oldest_pending
        first = min(map(int, self.waiting), default=None)
        assert self.spool.is_settled(counters.appended) is (first is None)
        if first is not None:
            assert self.spool.is_settled(first)  # positions count from 1, names from 0
            assert not self.spool.is_settled(first + 1)


SpoolMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestSpoolMachine = SpoolMachine.TestCase
TestSpoolMachine.__doc__ = (
    "Whatever happens to a spool, in whatever order, it agrees with the model and its ledger balances."
)
