"""Threads that die of an error come back; what they had in hand is neither lost nor counted twice."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kwai_middleware._delivery.crew import Crew
from kwai_middleware._delivery.delivery import Delivery
from kwai_middleware._delivery.ledger import Ledger
from kwai_middleware._delivery.memory import MemorySpool
from kwai_middleware._delivery.sender import Sender
from kwai_middleware._delivery.shipper import Shipper
from kwai_middleware._delivery.spool import Outcome, Record
from kwai_middleware._delivery.stats import Stats
from kwai_middleware._delivery.verdict import Verdict
from kwai_middleware._delivery.worker import Worker
from kwai_middleware._secret import Secret
from tests.support.finished_calls import Pending, completed
from tests.support.logs_api import KEY, LogsAPI, answer, logs_api, taken
from tests.support.processes import DEADLINE
from tests.support.recorders import recorder


@pytest.fixture
def api() -> Iterator[LogsAPI]:
    """A vendor that takes everything."""
    with logs_api() as running_api:
        yield running_api


def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)  # what is waited for rings no bell: a look now and then


def balanced(stats: Stats) -> bool:
    """Whether both ledgers come to their sums."""
    calls = stats.spooled + stats.observed + stats.in_memory + stats.dropped
    records = stats.delivered + stats.pending + stats.rejected + stats.evicted + stats.purged
    return (stats.accepted, stats.appended) == (calls, records)


class Faults:
    """Raises a `SystemExit`, which nobody in a thread takes, the next so many times that a place is passed."""

    def __init__(self) -> None:
        self.left: Counter[str] = Counter()
        self.died: Counter[str] = Counter()

    def at(self, place: str) -> None:
        if self.left[place]:
            self.left[place] -= 1
            self.died[place] += 1
            raise SystemExit(place)


class FaultySpool(MemorySpool):
    def __init__(self, faults: Faults) -> None:
        super().__init__(1024 * 1024, DEADLINE)
        self.faults = faults

    def append(self, records: Sequence[Record]) -> int:
        self.faults.at("append")
        if any(record.record_id == "poison" for record in records):
            raise LookupError
        return super().append(records)

    def backlog(self) -> int:
        self.faults.at("look")
        return super().backlog()

    def settle(self, outcomes: Sequence[Outcome], error: str | None = None) -> None:
        self.faults.at("settle")
        super().settle(outcomes, error)
        self.faults.at("settled")


class FaultySender(Sender):
    def __init__(self, api: LogsAPI, faults: Faults) -> None:
        super().__init__(api.url, Secret(KEY))
        self.faults = faults

    def send(self, entry: bytes, timeout: float) -> Verdict:
        self.faults.at("send")
        verdict = super().send(entry, timeout)
        self.faults.at("sent")
        return verdict


class Rig:
    """Both threads as an engine puts them together, with faults in every place."""

    def __init__(self, api: LogsAPI) -> None:
        self.faults = Faults()
        self.calls = Ledger()
        self.spool = FaultySpool(self.faults)
        sender = FaultySender(api, self.faults)
        crew = Crew(lambda: FaultySender(api, self.faults))
        self.shipper = Shipper(
            self.spool, sender, crew, DEADLINE, lambda: self.faults.at("progress of shipping"), bulk=False
        )
        self.recorder = recorder(
            self.calls,
            self.spool,
            appended=self.appended,
            progressed=lambda: self.faults.at("progress of recording"),
        )
        self.ended = threading.Semaphore(0)
        self.recording = Worker("kwai-recording", self.recorder.run, self.ended.release)
        self.shipping = Worker("kwai-shipping", self.shipper.run, self.ended.release)

    def appended(self) -> None:
        self.faults.at("appended")
        self.shipping.ensure()
        self.shipper.wake()

    def submit(self, *calls: Any) -> None:
        for call in calls:
            self.calls.put(call)
        self.recording.ensure()
        self.shipping.ensure()
        self.recorder.wake()

    def stop(self) -> None:
        self.recorder.stop()
        self.recording.stop()
        self.shipper.stop()
        self.shipping.stop()
        for _ in range(2):
            assert self.ended.acquire(timeout=DEADLINE)

    def check(self, spooled: int, delivered: int) -> None:
        """Whether the two ledgers say so, and balance."""
        account, counters = self.calls.account(), self.spool.counters()
        assert (spooled, 0) == (account.spooled, account.in_memory)
        dropped = sum(account.dropped_by_reason.values())
        assert account.accepted == account.spooled + account.observed + account.in_memory + dropped
        assert (spooled, delivered, 0) == (counters.appended, counters.delivered, counters.pending)


@pytest.fixture
def rig(api: LogsAPI) -> Iterator[Rig]:
    assembled = Rig(api)
    yield assembled
    assembled.stop()


def end(swallowed: list[BaseException], *kinds: type[BaseException]) -> None:
    """Nothing else than what the test provokes has been swallowed."""
    assert set(kinds) == {type(error) for error in swallowed}
    swallowed.clear()


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("place", ["progress of recording", "append", "appended"])
def test_a_recording_thread_that_dies_comes_back(
    api: LogsAPI, rig: Rig, nothing_is_swallowed: list[BaseException], place: str, times: int
) -> None:
    """Wherever it dies, once or twice: each call is in the spool once and arrives once, and both ledgers balance."""
    rig.faults.left[place] = times
    rig.submit(*(completed(record_id=str(number)) for number in range(5)))
    until(lambda: rig.spool.counters().delivered == 5)
    assert sorted("01234") == sorted(api.arrived)
    rig.check(5, 5)
    assert times == rig.faults.died[place] == rig.recording.restarts
    end(nothing_is_swallowed, SystemExit)


def test_a_recording_thread_that_dies_while_it_builds_loses_that_call_only(
    rig: Rig, nothing_is_swallowed: list[BaseException]
) -> None:
    """Death in `build` or in giving memory back counts that call once; those before and after it are delivered."""

    def die() -> Any:
        raise SystemExit

    class DiesLate(Pending):
        def release(self) -> None:
            raise SystemExit

    rig.submit(completed(), Pending(die), completed(), DiesLate(completed), completed())
    until(lambda: rig.spool.counters().delivered == 4)
    rig.check(4, 4)
    assert {"unreadable": 1} == rig.calls.account().dropped_by_reason
    assert 2 == rig.recording.restarts
    end(nothing_is_swallowed, SystemExit)


@pytest.mark.parametrize("place", ["look", "send", "sent", "settle", "settled", "progress of shipping"])
def test_a_shipping_thread_that_dies_comes_back(
    api: LogsAPI, rig: Rig, nothing_is_swallowed: list[BaseException], place: str
) -> None:
    """Wherever it dies, no record stays behind or counts twice; only one that had been sent may arrive twice."""
    rig.faults.left[place] = 1
    rig.submit(*(completed(record_id=str(number)) for number in range(3)))
    until(lambda: rig.shipping.restarts == 1)
    rig.shipper.hurry()
    until(lambda: rig.spool.counters().delivered == 3)
    rig.check(3, 3)
    assert set("012") == set(api.arrived)
    assert (4 if place == "sent" else 3) == len(api.arrived)
    end(nothing_is_swallowed, SystemExit)


def test_a_record_that_the_spool_trips_over_is_given_up_alone(
    rig: Rig, nothing_is_swallowed: list[BaseException]
) -> None:
    """It is tried again, then alone, then dropped with a reason of its own; those that came with it get in."""
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> Any:
        begun.set()
        assert go_on.wait(DEADLINE)
        return completed()

    rig.submit(Pending(wait))
    assert begun.wait(DEADLINE)
    rig.submit(*(completed(record_id=name) for name in ("a", "b", "poison", "c")))
    go_on.set()
    until(lambda: rig.calls.account().in_memory == 0)
    until(lambda: rig.spool.counters().delivered == 4)
    rig.check(4, 4)
    assert {"spool failed": 1} == rig.calls.account().dropped_by_reason
    assert 3 == rig.recording.restarts
    rig.submit(completed(), completed())
    until(lambda: rig.spool.counters().delivered == 6)
    end(nothing_is_swallowed, LookupError)


def test_a_text_that_sqlite_cannot_take_is_written_as_far_as_it_can_be(api: LogsAPI, tmp_path: Path) -> None:
    """An id that is no Unicode, made by an app for a record of its own, costs neither that record nor any other."""
    with Delivery(api.settings(spool=f"sqlite://{tmp_path}/records.db", bulk_per_minute=0)) as delivery:
        for record_id in ("before", "\ud800", "after"):
            delivery.submit(completed(record_id=record_id))
        assert delivery.flush(DEADLINE)
        stats = delivery.stats()
    assert ["before", "?", "after"] == api.arrived
    assert ({}, 3, 3) == (stats.dropped_by_reason, stats.spooled, stats.delivered)
    assert 0 == stats.restarts["recording"]
    assert balanced(stats)


def test_a_log_handler_that_raises_holds_up_no_record(
    api: LogsAPI, nothing_is_swallowed: list[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An app's handler that fails on our warning kills the shipping thread; the record is tried again and arrives."""

    class Raising(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "refuses this app" in record.getMessage():
                raise LookupError

    handler = Raising()
    logging.getLogger("kwai_middleware").addHandler(handler)
    try:
        api.answer = lambda entry, times: answer(401) if times == 0 else taken(entry, times)
        with Delivery(api.settings(spool="memory:", bulk_per_minute=0)) as delivery:
            delivery.submit(completed())
            until(lambda: delivery.stats().restarts["shipping"] == 1)
            assert 1 == delivery.stats().pending
            assert delivery.flush(DEADLINE)
            stats = delivery.stats()
    finally:
        logging.getLogger("kwai_middleware").removeHandler(handler)
    assert (1, 1) == (stats.delivered, stats.appended)
    assert balanced(stats)
    end(nothing_is_swallowed, LookupError)


def test_what_no_spool_took_is_counted_when_the_process_ends(
    api: LogsAPI, nothing_is_swallowed: list[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """A batch that a dying thread leaves behind at the end is counted and warned of, and both ledgers balance."""
    released: list[str] = []

    class Large(Pending):
        def release(self) -> None:
            released.append("the large one")

    calls, spool = Ledger(), FaultySpool(Faults())
    recording = recorder(calls, spool)
    for call in (completed(record_id="poison"), Large(completed, size=1024 * 1024), completed()):
        calls.put(call)
    spool.faults.left["append"] = 3
    recording._has_large_in_hand = True
    recording.between()
    recording.between()
    recording.between()
    with pytest.raises(SystemExit):
        recording.between()
    assert 3 == calls.account().in_memory
    assert 3 == recording.give_up()
    assert ["the large one"] == released
    assert ({"not recorded in time": 3}, 0) == (calls.account().dropped_by_reason, calls.account().in_memory)
    assert 0 == recording.give_up()


def test_a_thread_that_dies_at_the_end_stays_dead(api: LogsAPI, nothing_is_swallowed: list[BaseException]) -> None:
    """What dies again and again does not hold up the end; what it had is counted as lost, and the sums are right."""
    delivery = Delivery(api.settings(spool="memory:"))
    wait = threading.Event()

    def die() -> Any:
        assert wait.wait(DEADLINE)
        raise SystemExit

    for _ in range(50):
        delivery.submit(Pending(die))
    wait.set()
    until(lambda: delivery.stats().restarts["recording"] >= 2)
    assert not delivery.close(0.2)
    stats = delivery.stats()
    assert stats.dropped_by_reason["unreadable"] + stats.dropped_by_reason["not recorded in time"] == 50
    assert balanced(stats)
    end(nothing_is_swallowed, SystemExit)


def test_records_that_no_file_takes_are_counted_at_the_end(
    api: LogsAPI, tmp_path: Path, nothing_is_swallowed: list[BaseException]
) -> None:
    """A batch that the file never took, tried again when the process ends, is counted as lost, each record once."""
    delivery = Delivery(api.settings(spool=f"sqlite://{tmp_path}/records.db"))
    faulty = delivery._engine._recorder._spool = FaultySpool(Faults())
    faulty.faults.left["append"] = 1_000_000
    begun, go_on = threading.Event(), threading.Event()

    def wait() -> Any:
        begun.set()
        assert go_on.wait(DEADLINE)
        return completed()

    delivery.submit(Pending(wait))
    assert begun.wait(DEADLINE)
    for _ in range(50):
        delivery.submit(completed())
    go_on.set()
    until(lambda: delivery.stats().restarts["recording"] >= 1)
    assert not delivery.close(0.2)
    until(lambda: delivery.stats().in_memory == 0)
    stats = delivery.stats()
    assert (51, 51, 0) == (stats.accepted, stats.dropped, stats.appended)
    # The last try may come when the file is closed.
    assert {"spool failed", "not recorded in time", "spool full"} >= stats.dropped_by_reason.keys()
    assert balanced(stats)
    end(nothing_is_swallowed, SystemExit)


def test_what_dies_again_and_again_is_given_longer_and_longer_pauses(
    nothing_is_swallowed: list[BaseException],
) -> None:
    """The pause doubles from death to death; who waits ends it; who has told it to stop sees it end."""
    began: list[float] = []
    runs, ended = threading.Semaphore(0), threading.Semaphore(0)

    def run() -> None:
        began.append(time.monotonic())
        runs.release()
        raise LookupError

    worker = Worker("kwai-test", run, ended.release)
    worker.ensure()
    for _ in range(4):
        assert runs.acquire(timeout=DEADLINE)
    pauses = [later - earlier for earlier, later in itertools.pairwise(began)]
    assert [True] * 3 == [pause >= least for pause, least in zip(pauses, (0.1, 0.2, 0.4), strict=True)]
    for _ in range(8):  # without haste these took minutes
        until(lambda: worker.restarts == len(began))
        worker.hasten()
        assert runs.acquire(timeout=DEADLINE)
    worker.stop()
    assert ended.acquire(timeout=DEADLINE)
    # The end may find it in its pause: then it has a last try.
    assert len(began) == worker.restarts <= 13
    assert not worker.running
    end(nothing_is_swallowed, LookupError)


def test_who_has_lived_for_long_is_back_soon(nothing_is_swallowed: list[BaseException]) -> None:
    """A death after a long life is a first one again."""
    moments = iter([0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0, 500.0, 500.0, 501.0])
    ended = threading.Semaphore(0)
    deaths = 0

    def run() -> None:
        nonlocal deaths
        deaths += 1
        if deaths < 6:
            raise LookupError

    worker = Worker("kwai-test", run, ended.release, lambda: next(moments))
    worker.ensure()
    for death in range(1, 5):
        until(lambda death=death: worker.restarts >= death)  # type: ignore[misc]
        worker.hasten()
    assert ended.acquire(timeout=DEADLINE)
    assert (5, 0.1) == (worker.restarts, worker._pause)
    end(nothing_is_swallowed, LookupError)


def test_work_done_in_the_place_of_a_thread_spares_the_app_our_errors(
    nothing_is_swallowed: list[BaseException],
) -> None:
    """Where there is no thread, an error of ours is counted and told by False; what the app is told to do is not."""

    def fail() -> None:
        raise LookupError

    def interrupt() -> None:
        raise KeyboardInterrupt

    ended: list[str] = []
    worker = Worker("kwai-test", fail, lambda: ended.append("ended"))
    assert not worker.borrow(fail)
    assert worker.borrow(lambda: None)
    with pytest.raises(KeyboardInterrupt):
        worker.borrow(interrupt)
    assert (3, False) == (len(ended), worker.running)
    end(nothing_is_swallowed, LookupError)
