"""The delivery as an app uses it: it takes calls, loses none without a number, and never stands in the way."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import logging
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from kwai_middleware._caller import Caller
from kwai_middleware._delivery.delivery import Delivery, default_delivery
from kwai_middleware._delivery.live import aflush_all
from kwai_middleware._delivery.stats import Stats
from kwai_middleware._secret import Secret
from kwai_middleware._settings import Settings
from kwai_middleware.errors import BlockingCall
from kwai_middleware.sandbox import Sandbox, sandbox
from tests.support.finished_calls import Pending, completed
from tests.support.logs_api import KEY, LogsAPI, answer, logs_api, taken
from tests.support.processes import DEADLINE, free_port


def balanced(stats: Stats) -> bool:
    """Say whether both ledgers balance."""
    ends = (stats.delivered, stats.pending, stats.rejected, stats.evicted, stats.purged)
    calls = (stats.spooled, stats.observed, stats.in_memory, stats.dropped)
    reasons = sum(stats.dropped_by_reason.values())
    return stats.accepted == sum(calls) and stats.appended == sum(ends) and stats.dropped == reasons


def until(condition: Callable[[], bool]) -> None:
    """Wait for what happens on other threads."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)  # a state of another thread gives nothing to wait on


@pytest.fixture
def api() -> Iterator[LogsAPI]:
    """A logs API that takes everything, until the test says otherwise."""
    with logs_api() as running:
        yield running


@pytest.fixture
def delivery(api: LogsAPI) -> Iterator[Delivery]:
    """A delivery to it, that is closed in the end."""
    delivery = Delivery(api.settings())
    yield delivery
    api.answer = taken
    delivery.close(DEADLINE)


@pytest.fixture(scope="module")
def vendor() -> Iterator[Sandbox]:
    """The project's sandbox."""
    with sandbox() as running:
        yield running


# What becomes of a call


def test_a_call_reaches_the_vendor(vendor: Sandbox) -> None:
    """A record arrives as the vendor stores it, under the app's key, once."""
    vendor.reset()
    with Delivery(vendor.settings()) as delivery:
        assert delivery.submit(completed(record_id="first", caller=Caller(identifier="acme"), outcome="complete"))
        assert delivery.submit(Pending(lambda: completed(record_id="second")))
        assert delivery.flush(DEADLINE)
    logs = vendor.logs()
    assert ["first", "second"] == [entry["log"]["metadata"]["kwai_record_id"] for entry in logs]
    assert "acme" == logs[0]["stored"]["customer_identifier"]
    assert [{Secret("sandbox-app-key").fingerprint}] == [{entry["posted_by"] for entry in logs}]
    stats = delivery.stats()
    assert (2, 2, 2, 2) == (stats.accepted, stats.spooled, stats.appended, stats.delivered)
    assert stats.last_success is not None
    assert balanced(stats)


def test_a_record_goes_out_without_being_asked_for(api: LogsAPI, delivery: Delivery) -> None:
    """Nobody flushes: the first record, and one that comes when the threads have long been asleep, arrive."""
    for number in range(3):
        delivery.submit(completed())
        api.wait(number + 1)
        until(lambda: not delivery.stats().pending)


def test_a_pending_call_is_looked_into_elsewhere_and_gives_its_memory_back(api: LogsAPI, delivery: Delivery) -> None:
    """Looking into it happens on the recording thread; what it reserved is released once."""
    threads: list[str] = []

    def look() -> Any:
        threads.append(threading.current_thread().name)
        return completed()

    call = Pending(look)
    assert delivery.submit(call)
    assert delivery.flush(DEADLINE)
    assert ["kwai-recording"] == threads
    assert 1 == call.released


def test_no_key_of_the_caller_leaves(api: LogsAPI, delivery: Delivery) -> None:
    """The caller's own keys are masked in the record, wherever they stand."""
    seen: list[str] = []

    def keep(entry: dict[str, Any], times: int) -> bytes:
        seen.append(json.dumps(entry))
        return taken(entry, times)

    api.answer = keep
    prompt = b'[{"role":"user","content":"my key is correct-horse-battery, or sk-or-v1-0123456789abcdef"}]'
    delivery.submit(Pending(lambda: completed(messages=prompt), secrets=(Secret("correct-horse-battery"),)))
    assert delivery.flush(DEADLINE)
    [text] = seen
    assert "my key is ****, or ****" in text


@pytest.mark.parametrize(
    "call",
    [
        completed(route="gateway"),
        completed(route="relay"),
        completed(capture="none"),
        Pending(logged_by_vendor=True),
        Pending(lambda: completed(capture="none")),
    ],
    ids=["gateway", "relay", "no capture", "pending, gateway", "pending, no capture"],
)
def test_what_is_not_to_be_posted_is_observed(
    api: LogsAPI, delivery: Delivery, caplog: pytest.LogCaptureFixture, call: Any
) -> None:
    """A gateway logs its own calls, and `capture="none"` is obeyed: an event, and nothing is posted."""
    with caplog.at_level(logging.INFO, "kwai_middleware.calls"):
        assert delivery.submit(call)
        assert delivery.flush(DEADLINE)
    stats = delivery.stats()
    assert (1, 1, 0) == (stats.accepted, stats.observed, stats.appended)
    assert 1 == len(caplog.records)
    assert [] == api.arrived


def test_the_settings_bound_what_is_captured(api: LogsAPI) -> None:
    """A record that may be logged whole is not, where the settings say metadata; nor at all, where they say none."""
    entries: list[dict[str, Any]] = []

    def keep(entry: dict[str, Any], times: int) -> bytes:
        entries.append(entry)
        return taken(entry, times)

    api.answer = keep
    with Delivery(api.settings(capture="metadata")) as delivery:
        delivery.submit(completed(messages=b'[{"role":"user","content":"a private word"}]'))
    assert "a private word" not in json.dumps(entries)
    assert 1 == len(entries)
    with Delivery(api.settings(capture="none")) as delivery:
        delivery.submit(completed())
        assert delivery.flush(DEADLINE)
        assert 1 == delivery.stats().observed


def test_without_an_api_key_calls_are_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """No key and nowhere to log: counted as `not configured`, and still an event each."""
    caplog.set_level(logging.INFO, "kwai_middleware")
    with Delivery(Settings()) as delivery:
        for _ in range(3):
            assert delivery.submit(completed())
        assert delivery.submit(completed(route="gateway"))
        assert delivery.flush(DEADLINE)
        stats = delivery.stats()
    assert {"not configured": 3} == stats.dropped_by_reason
    assert 1 == stats.observed
    assert 4 == len([record for record in caplog.records if record.name == "kwai_middleware.calls"])
    assert balanced(stats)


def test_a_call_that_cannot_be_read_harms_no_other(
    api: LogsAPI, delivery: Delivery, nothing_is_swallowed: list[BaseException]
) -> None:
    """A surprise in one call is counted and reported; it gives its memory back; the next one is recorded."""

    def fail() -> Any:
        raise LookupError("a surprise")

    call = Pending(fail)
    delivery.submit(call)
    delivery.submit(completed(record_id="the next"))
    assert delivery.flush(DEADLINE)
    assert ["LookupError"] == [type(error).__name__ for error in nothing_is_swallowed]
    nothing_is_swallowed.clear()
    assert {"unreadable": 1} == delivery.stats().dropped_by_reason
    assert delivery.stats().swallowed["LookupError"] >= 1
    assert (1, ["the next"]) == (call.released, api.arrived)


def test_a_recording_thread_that_dies_is_back(
    api: LogsAPI, delivery: Delivery, nothing_is_swallowed: list[BaseException]
) -> None:
    """Even a SystemExit inside of it ends one call only; the death is counted, the ledger balances."""

    def die() -> Any:
        raise SystemExit

    delivery.submit(Pending(die))
    delivery.submit(completed(record_id="the next"))
    assert delivery.flush(DEADLINE)
    assert ["SystemExit"] == [type(error).__name__ for error in nothing_is_swallowed]
    nothing_is_swallowed.clear()
    stats = delivery.stats()
    assert {"recording": 1, "shipping": 0} == stats.restarts
    assert {"unreadable": 1} == stats.dropped_by_reason
    assert ["the next"] == api.arrived
    assert balanced(stats)


def test_a_failing_pipeline_of_the_app_costs_an_event_and_no_record(
    api: LogsAPI, delivery: Delivery, nothing_is_swallowed: list[BaseException]
) -> None:
    """What the app's structlog set-up raises is kept from the record."""

    def fail(logger: Any, method: str, event: Any) -> Any:
        raise ZeroDivisionError

    structlog.configure(processors=[fail])
    try:
        delivery.submit(completed(record_id="recorded"))
        assert delivery.flush(DEADLINE)
    finally:
        structlog.reset_defaults()
    assert [ZeroDivisionError] == [type(error) for error in nothing_is_swallowed]
    nothing_is_swallowed.clear()
    assert ["recorded"] == api.arrived


# Bounds


def test_a_full_queue_drops_the_new_call_and_counts_it(api: LogsAPI) -> None:
    """While the recording thread is busy, no more calls wait than the settings say; what is dropped is released."""
    busy, go_on = threading.Event(), threading.Event()

    def look() -> Any:
        busy.set()
        assert go_on.wait(DEADLINE)
        return completed()

    delivery = Delivery(api.settings(max_waiting_calls=2))
    delivery.submit(Pending(look))
    assert busy.wait(DEADLINE)
    calls = [Pending() for _ in range(5)]
    assert [True, True, False, False, False] == [delivery.submit(call) for call in calls]
    stats = delivery.stats()
    assert (6, 3, {"queue full": 3}) == (stats.accepted, stats.in_memory, stats.dropped_by_reason)
    assert balanced(stats)
    assert [0, 0, 1, 1, 1] == [call.released for call in calls]
    go_on.set()
    assert delivery.close(DEADLINE)
    assert 3 == delivery.stats().delivered


def test_a_vendor_that_is_away_costs_bounded_memory(nothing_is_swallowed: list[BaseException]) -> None:
    """With nobody to take the records, the spool fills to its bound, and the rest is dropped and counted."""
    nobody = f"http://127.0.0.1:{free_port()}/api"
    settings = Settings(api_key=Secret(KEY), base_url=nobody, spool="memory:", max_memory_bytes=64 * 1024)
    delivery = Delivery(settings)
    calls = [Pending(lambda: completed(messages=json.dumps(["x" * 2000]).encode())) for _ in range(200)]
    for call in calls:
        assert delivery.submit(call)
    until(lambda: not delivery.stats().in_memory)
    stats = delivery.stats()
    assert 10 < stats.pending < 32
    assert stats.pending_bytes <= 64 * 1024
    assert {"spool full": 200 - stats.pending} == stats.dropped_by_reason
    assert balanced(stats)
    assert {1} == {call.released for call in calls}
    assert not delivery.close(0.1)
    assert balanced(delivery.stats())


def test_a_record_that_nobody_takes_grows_too_old(api: LogsAPI) -> None:
    """After its time a record is given up, and counted as evicted."""
    api.answer = lambda entry, times: answer(503, retry_after="3600")
    delivery = Delivery(api.settings(max_pending_age=1.0))
    delivery.submit(completed())
    api.wait(1)
    until(lambda: delivery.stats().evicted == 1)
    assert delivery.flush(DEADLINE)
    assert balanced(delivery.stats())
    assert delivery.close(DEADLINE)


# What the vendor answers


def test_what_failed_is_sent_again(api: LogsAPI, delivery: Delivery, caplog: pytest.LogCaptureFixture) -> None:
    """A record that the vendor could not take twice arrives at the third try, under the same id, counted once."""
    api.answer = lambda entry, times: answer(500) if times < 2 else taken(entry, times)
    delivery.submit(completed(record_id="one"))
    assert delivery.flush(DEADLINE)
    assert ["one", "one", "one"] == api.arrived
    stats = delivery.stats()
    assert (1, 1, None) == (stats.appended, stats.delivered, stats.last_error)


def test_the_vendor_is_obeyed_until_somebody_is_in_a_hurry(api: LogsAPI, delivery: Delivery) -> None:
    """Asked to wait an hour, the shipper waits; a flush tries at once."""
    api.answer = lambda entry, times: answer(429, retry_after="3600") if times == 0 else taken(entry, times)
    delivery.submit(completed(record_id="one"))
    api.wait(1)
    until(lambda: delivery.stats().last_error == "HTTP 429")
    delivery.submit(completed(record_id="two"))
    until(lambda: delivery.stats().spooled == 2)
    assert ["one"] == api.arrived
    api.answer = taken
    assert delivery.flush(DEADLINE)
    assert ["one", "one", "two"] == api.arrived


def test_one_record_that_the_vendor_trips_over_does_not_stop_the_others(api: LogsAPI, delivery: Delivery) -> None:
    """A record that always yields 500 makes way for the others after a few attempts, and waits on."""
    api.answer = lambda entry, times: (
        answer(500) if entry["metadata"]["kwai_record_id"] == "bad" else taken(entry, times)
    )
    delivery.submit(completed(record_id="bad"))
    for number in range(20):
        delivery.submit(completed(record_id=str(number)))
    until(lambda: delivery.stats().delivered == 20)
    stats = delivery.stats()
    assert (1, 0) == (stats.pending, stats.rejected)
    assert api.arrived.count("bad") < 10
    api.answer = taken
    assert delivery.flush(DEADLINE)
    assert 21 == delivery.stats().delivered


def test_a_record_that_the_vendor_refuses_is_rejected_with_its_reason(
    api: LogsAPI, delivery: Delivery, caplog: pytest.LogCaptureFixture
) -> None:
    """Only that record is lost, and an operator can see which and why; the log does not quote the answer."""
    api.answer = lambda entry, times: (
        answer(422, b'{"detail":"Validation error of app-key-of-the-tests"}')
        if entry["metadata"]["kwai_record_id"] == "bad"
        else taken(entry, times)
    )
    for record_id in ("bad", "good"):
        delivery.submit(completed(record_id=record_id))
    assert delivery.flush(DEADLINE)
    stats = delivery.stats()
    assert (1, 1) == (stats.rejected, stats.delivered)
    assert ("bad: HTTP 422: Validation error of ****",) == stats.rejections
    assert ["bad", "good"] == api.arrived
    assert "Validation" not in caplog.text
    assert balanced(stats)


def test_the_reasons_kept_are_bounded(api: LogsAPI, delivery: Delivery) -> None:
    """Of many rejections the last twenty are kept, all are counted."""
    api.answer = lambda entry, times: answer(400)
    for number in range(30):
        delivery.submit(completed(record_id=str(number)))
    assert delivery.flush(DEADLINE)
    stats = delivery.stats()
    assert (30, 20, "29: HTTP 400") == (stats.rejected, len(stats.rejections), stats.rejections[-1])


@pytest.mark.parametrize("status", [401, 403, 404, 405, 410, 307])
def test_a_vendor_that_refuses_the_app_pauses_everything_and_loses_nothing(
    api: LogsAPI, delivery: Delivery, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """One loud event, no more tries; a flush tries once and gives up at once; all arrives when it is put right."""
    caplog.set_level(logging.WARNING, "kwai_middleware")
    api.answer = lambda entry, times: answer(status)
    for number in range(5):
        delivery.submit(completed(record_id=str(number)))
    api.wait(1)
    assert not delivery.flush(100 * DEADLINE)
    assert not delivery.flush(100 * DEADLINE)
    assert {"0"} == set(api.arrived)
    loud = [record for record in caplog.records if record.levelname == "ERROR"]
    assert 1 == len(loud)
    assert f"HTTP {status}" in loud[0].getMessage()
    assert 5 == delivery.stats().pending
    api.answer = taken
    assert delivery.flush(DEADLINE)
    assert 5 == delivery.stats().delivered
    assert "takes records again" in caplog.messages[-1]


@pytest.mark.parametrize("mode", ["reset", "garbage", "500", "503", "429", "slow"])
def test_a_vendor_that_misbehaves_for_a_while_gets_every_record(vendor: Sandbox, mode: str) -> None:
    """Whatever it did meanwhile, every record is with the vendor in the end, and the ledger balances."""
    vendor.reset()
    vendor.logs_mode(mode, times=2, retry_after=0, seconds=0.1)
    with Delivery(vendor.settings()) as delivery:
        for number in range(5):
            delivery.submit(completed(record_id=str(number)))
        assert delivery.flush(DEADLINE)
        assert balanced(delivery.stats())
        assert 5 == delivery.stats().delivered
    arrived = {entry["log"]["metadata"]["kwai_record_id"] for entry in vendor.logs()}
    assert {"0", "1", "2", "3", "4"} == arrived


# Flush and close


def test_a_flush_has_one_deadline(api: LogsAPI) -> None:
    """With a vendor that accepts and never answers, flush and close give up in time; the loss has numbers."""
    api.answer = lambda entry, times: None
    delivery = Delivery(api.settings(spool="memory:"))
    for _ in range(3):
        delivery.submit(completed())
    api.wait(1)
    assert not delivery.flush(0.05)
    assert not delivery.close(0.05)
    stats = delivery.stats()
    assert (3, 0) == (stats.purged, stats.pending)
    assert balanced(stats)
    assert not delivery.close(0)


def test_what_was_not_recorded_in_time_is_counted_and_warned_of(api: LogsAPI, caplog: pytest.LogCaptureFixture) -> None:
    """Calls that the recording thread had no time for are released, dropped by their own reason, and told of once."""
    busy, go_on = threading.Event(), threading.Event()

    def look() -> Any:
        busy.set()
        assert go_on.wait(DEADLINE)
        return completed()

    delivery = Delivery(api.settings(spool="memory:"))
    slow = Pending(look)
    late = [Pending() for _ in range(3)]
    delivery.submit(slow)
    assert busy.wait(DEADLINE)
    for call in late:
        delivery.submit(call)
    assert not delivery.flush(0)
    assert not delivery.close(0.05)
    assert {"not recorded in time": 3} == delivery.stats().dropped_by_reason
    assert [1, 1, 1] == [call.released for call in late]
    assert 1 == len(
        [message for message in caplog.messages if "0 records and 3 calls not yet recorded are lost" in message]
    )
    go_on.set()
    until(lambda: slow.released == 1)
    until(lambda: not delivery.stats().in_memory)
    # The spool is closed by then: the last call finds no room.
    assert {"not recorded in time": 3, "spool full": 1} == delivery.stats().dropped_by_reason
    assert balanced(delivery.stats())


def test_after_closing_calls_are_refused_and_counted(api: LogsAPI) -> None:
    """A closed delivery takes nothing, says so, and can be closed again."""
    delivery = Delivery(api.settings())
    delivery.submit(completed())
    assert not delivery.is_closed
    assert delivery.close(DEADLINE)
    assert delivery.is_closed
    call = Pending()
    assert not delivery.submit(call)
    assert 1 == call.released
    assert {"closed": 1} == delivery.stats().dropped_by_reason
    assert delivery.close(DEADLINE)
    assert delivery.flush(DEADLINE)
    assert balanced(delivery.stats())


def test_what_is_not_delivered_in_time_waits_for_the_next_process(
    api: LogsAPI, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is lost by closing with a vendor that never answers: who comes next delivers it, the same records."""
    api.answer = lambda entry, times: None
    caplog.set_level(logging.INFO)
    first = Delivery(api.settings(request_timeout=0.5))
    for number in range(3):
        first.submit(completed(record_id=f"left-{number}"))
    api.wait(1)
    assert not first.flush(0.05)
    assert first.close(0.05)
    assert not first.flush(0.05)
    assert (3, 0) == (first.stats().pending, first.stats().purged)
    assert any("some records wait on disk for the next process" in message for message in caplog.messages)
    api.answer = taken
    with Delivery(api.settings()) as second:
        second.submit(completed(record_id="new"))
        until(lambda: second.stats().delivered == 4)
        assert balanced(second.stats())
    assert {"left-0", "left-1", "left-2", "new"} == set(api.arrived)


def test_what_a_late_thread_records_is_on_disk_all_the_same(api: LogsAPI, caplog: pytest.LogCaptureFixture) -> None:
    """A call that was in hand when all was closed is recorded for the next process, and nobody waited for it."""
    busy, go_on = threading.Event(), threading.Event()

    def look() -> Any:
        busy.set()
        assert go_on.wait(DEADLINE)
        return completed(record_id="late")

    delivery = Delivery(api.settings())
    delivery.submit(Pending(look))
    assert busy.wait(DEADLINE)
    assert not delivery.close(0.05)
    go_on.set()
    until(lambda: not delivery.stats().in_memory)
    assert (1, 1) == (delivery.stats().spooled, delivery.stats().pending)
    with Delivery(api.settings()) as following:
        following.submit(completed())
        until(lambda: following.stats().delivered == 2)
    assert "late" in api.arrived


def test_what_is_left_is_told_with_its_number(api: LogsAPI, caplog: pytest.LogCaptureFixture) -> None:
    """With a vendor that refuses the app, the end says how many records wait, and where."""
    caplog.set_level(logging.INFO)
    api.answer = lambda entry, times: answer(401)
    delivery = Delivery(api.settings())
    for _ in range(2):
        delivery.submit(completed())
    assert delivery.close(DEADLINE)
    assert any("2 records wait on disk for the next process" in message for message in caplog.messages)


def test_a_call_that_comes_while_the_delivery_closes_is_not_left_behind(api: LogsAPI) -> None:
    """Put into the queue a moment after the last look at it, it is refused, counted and released all the same."""
    delivery = Delivery(api.settings())
    assert delivery.close(DEADLINE)
    # The moment between the look at the flag and the queue, which no test can hit by itself.
    delivery._engine.is_closed = False
    call = Pending()
    assert not delivery.submit(call)
    assert 1 == call.released
    until(lambda: not delivery._engine._recording.running)
    assert (1, 0, {"closed": 1}) == (
        delivery.stats().accepted,
        delivery.stats().in_memory,
        delivery.stats().dropped_by_reason,
    )


def test_closing_ends_the_threads(api: LogsAPI) -> None:
    """Nothing of a closed delivery runs on."""
    with Delivery(api.settings()) as delivery:
        delivery.submit(completed())
        assert delivery.flush(DEADLINE)
        engine = delivery._engine
        assert engine._recording.running
        assert engine._shipping.running
    assert not engine._recording.running
    assert not engine._shipping.running


def test_no_thread_begins_before_the_first_call(api: LogsAPI) -> None:
    """Making a delivery, looking at it, flushing and closing it starts nothing."""
    with Delivery(api.settings()) as delivery:
        assert delivery.flush()
        assert balanced(delivery.stats())
        assert not delivery._engine._recording.running
        assert not delivery._engine._shipping.running


def test_what_is_in_memory_goes_to_a_disk_that_is_back_when_a_request_is_late(api: LogsAPI, tmp_path: Path) -> None:
    """The vendor hangs when all is closed: nothing is lost, and the next process delivers it."""
    folder = tmp_path / "state"
    folder.write_text("no folder yet")
    settings = api.settings(spool=f"sqlite://{folder / 'spool.db'}")
    api.answer = lambda entry, times: None
    delivery = Delivery(settings)
    for name in ("under way", "behind it"):
        delivery.submit(completed(record_id=name))
    api.wait(1)
    until(lambda: delivery.stats().pending == 2)
    assert "memory" == delivery.stats().kept_in
    folder.unlink()
    assert delivery.close(0.5)
    assert 0 == delivery.stats().purged
    api.answer = taken
    with Delivery(settings) as following:
        following.submit(completed(record_id="next"))
        until(lambda: following.stats().delivered == 3)
    assert {"under way", "behind it", "next"} == set(api.arrived)


def test_closing_tells_the_spool_how_long_it_may_take(api: LogsAPI) -> None:
    """From then on nobody waits for a disk that is in use elsewhere beyond the end."""
    with Delivery(api.settings()) as delivery:
        told: list[float] = []
        delivery._engine._spool.end_by = told.append  # type: ignore[method-assign]  # it is handed on like this
        before = time.monotonic()
        assert delivery.close(DEADLINE)
        assert [True] == [before <= until - DEADLINE <= time.monotonic() for until in told]


def test_the_shipping_thread_is_there_before_there_is_a_record(api: LogsAPI, tmp_path: Path) -> None:
    """An interpreter that shuts down gives none any more. Until there is a record it leaves the disk alone."""
    busy, go_on = threading.Event(), threading.Event()

    def look() -> Any:
        busy.set()
        assert go_on.wait(DEADLINE)
        return completed(record_id="recorded late")

    path = tmp_path / "spool.db"
    with Delivery(api.settings(spool=f"sqlite://{path}")) as delivery:
        delivery.submit(Pending(look))
        assert busy.wait(DEADLINE)
        engine = delivery._engine
        assert engine._shipping.running
        engine._shipper.hurry()
        assert not delivery.flush(0.1)
        assert not path.exists()
        go_on.set()
        assert delivery.flush(DEADLINE)
    assert ["recorded late"] == api.arrived


@pytest.mark.parametrize(("has_key", "is_gateway"), [(False, False), (True, True)])
def test_without_anything_to_send_there_is_no_shipping_thread(api: LogsAPI, has_key: bool, is_gateway: bool) -> None:
    """A gateway logs its own calls, and an app without a key has none to log them with."""
    with Delivery(api.settings(**({} if has_key else {"api_key": None}))) as delivery:
        delivery.submit(Pending(logged_by_vendor=is_gateway))
        assert delivery.flush(DEADLINE)
        assert (True, False) == (delivery._engine._recording.running, delivery._engine._shipping.running)


def test_a_release_that_fails_is_our_bug_and_no_ones_problem(
    api: LogsAPI, delivery: Delivery, nothing_is_swallowed: list[BaseException]
) -> None:
    """Giving memory back goes wrong: it is reported, the record is delivered."""

    class Stubborn(Pending):
        def release(self) -> None:
            raise RuntimeError("no")

    delivery.submit(Stubborn())
    assert delivery.flush(DEADLINE)
    assert 1 == delivery.stats().delivered
    assert 1 == len(nothing_is_swallowed)
    nothing_is_swallowed.clear()


async def blocking_calls(delivery: Delivery) -> None:
    """Both blocking methods, on an event loop."""
    with pytest.raises(BlockingCall, match=r"await Delivery\.aflush\(\)"):
        delivery.flush()
    with pytest.raises(BlockingCall, match=r"await Delivery\.aclose\(\)"):
        delivery.close()
    with pytest.raises(BlockingCall):
        delivery.__exit__(None, None, None)
    assert not delivery.is_closed


async def async_twins(delivery: Delivery) -> None:
    """Submit, flush and close on an event loop."""
    async with delivery as entered:
        assert entered.submit(completed())
        assert await entered.aflush(DEADLINE)
        assert 1 == entered.stats().delivered
        assert entered.submit(completed())
    assert delivery.is_closed
    assert 2 == delivery.stats().delivered


RUN: list[Any] = [pytest.param(asyncio.run, id="asyncio"), pytest.param(trio.run, id="trio")]


@pytest.mark.parametrize("run", RUN)
def test_the_blocking_methods_refuse_to_stop_an_event_loop(delivery: Delivery, run: Any) -> None:
    """They raise at once and name their async twin, on asyncio and trio."""
    if run is asyncio.run:
        run(blocking_calls(delivery))
    else:
        run(blocking_calls, delivery)


@pytest.mark.parametrize("run", RUN)
def test_the_async_twins_do_the_same(api: LogsAPI, run: Any) -> None:
    """Flushing and closing works on asyncio and trio."""
    delivery = Delivery(api.settings())
    if run is asyncio.run:
        run(async_twins(delivery))
    else:
        run(async_twins, delivery)


def test_blocking_in_a_thread_of_a_trio_app_is_fine(api: LogsAPI, delivery: Delivery) -> None:
    """Only the thread of the loop itself must not be stopped."""
    delivery.submit(completed())
    assert trio.run(trio.to_thread.run_sync, delivery.flush, DEADLINE)


def test_the_loop_goes_on_while_a_flush_waits(api: LogsAPI) -> None:
    """With a vendor that never answers, other tasks run until the flush gives up; it can be cancelled."""
    api.answer = lambda entry, times: None
    delivery = Delivery(api.settings(spool="memory:"))
    delivery.submit(completed())

    async def main() -> int:
        flushing = asyncio.create_task(delivery.aflush(0.3))
        turns = 0
        while not flushing.done():
            turns += 1
            await asyncio.sleep(0.001)
        assert not await flushing
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(delivery.aflush(5.0), 0.05)
        assert not await delivery.aclose(0.05)
        return turns

    assert asyncio.run(main()) > 10


def test_all_deliveries_are_flushed_together(api: LogsAPI) -> None:
    """At a server's shut-down everything that is alive is flushed, none is closed, and nothing raises."""
    one, two = Delivery(api.settings()), Delivery(api.settings(capture="metadata", exit_timeout=DEADLINE))
    for delivery in (one, two):
        delivery.submit(completed())
    asyncio.run(aflush_all())
    trio.run(aflush_all)
    assert 2 == one.stats().delivered == two.stats().delivered
    assert [0, 0] == [delivery.stats().pending for delivery in (one, two)]
    assert not one.is_closed
    assert one.close(DEADLINE)
    assert two.close(DEADLINE)
    del one, two, delivery
    gc.collect()
    asyncio.run(aflush_all())


# Who may submit, and where


def test_a_finalizer_may_submit(api: LogsAPI, delivery: Delivery) -> None:
    """A response that the garbage collector finds hands its record over from `__del__`."""

    class Response:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            delivery.submit(completed(record_id="from a finalizer"))

    Response()
    gc.collect()
    assert delivery.flush(DEADLINE)
    assert ["from a finalizer"] == api.arrived


def test_a_signal_handler_may_submit_in_the_middle_of_a_submit(api: LogsAPI) -> None:
    """However often it interrupts the submitting thread, nothing deadlocks and nothing is lost."""
    delivery = Delivery(api.settings(api_key=None, max_waiting_calls=10_000_000))
    interruptions = 0

    def handle(*_: object) -> None:
        nonlocal interruptions
        interruptions += 1
        assert delivery.submit(call)

    call = completed(route="gateway")
    previous = signal.signal(signal.SIGALRM, handle)
    submitted = 0
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.0002, 0.0002)
        while interruptions < 50:
            assert delivery.submit(call)
            submitted += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert delivery.flush(DEADLINE)
    assert submitted + interruptions == delivery.stats().observed
    assert delivery.close(DEADLINE)


def test_eight_threads_at_once_lose_nothing(api: LogsAPI, delivery: Delivery) -> None:
    """Every record arrives once, and every look at the ledger balances while they work."""
    views: list[Stats] = []
    done = threading.Event()

    def submit(name: int) -> None:
        for number in range(50):
            assert delivery.submit(completed(record_id=f"{name}-{number}"))

    def look() -> None:
        while not done.is_set():
            views.append(delivery.stats())

    observer = threading.Thread(target=look)
    threads = [threading.Thread(target=submit, args=(name,)) for name in range(8)]
    observer.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 400 == delivery.stats().accepted
    assert delivery.flush(DEADLINE)
    done.set()
    observer.join()
    assert 400 == len(set(api.arrived)) == len(api.arrived)
    assert [] == [view for view in views if not balanced(view)]
    assert sorted(view.accepted for view in views) == [view.accepted for view in views]


def test_the_ledger_balances_through_every_fault(api: LogsAPI, nothing_is_swallowed: list[BaseException]) -> None:
    """With unreadable calls, refusals, failures and a small spool and queue at once, every look balances."""
    chance = random.Random(7)
    kinds = [200, 200, 200, 422, 500, 429]
    ids = itertools.count()
    api.answer = lambda entry, times: answer(kinds[(int(entry["metadata"]["kwai_record_id"]) * 31 + times) % 6])

    def fail() -> Any:
        raise LookupError

    def make() -> Any:
        record_id = str(next(ids))
        return chance.choice(
            [
                lambda: completed(record_id=record_id),
                lambda: Pending(lambda: completed(record_id=record_id)),
                lambda: Pending(fail),
                lambda: completed(capture="none"),
                lambda: completed(route="gateway"),
            ]
        )()

    delivery = Delivery(api.settings(spool="memory:", max_memory_bytes=64 * 1024, max_waiting_calls=50))
    views: list[Stats] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            views.append(delivery.stats())

    observer = threading.Thread(target=look)
    observer.start()
    taken_at_once = [delivery.submit(make()) for _ in range(3000)]
    api.answer = taken
    assert delivery.flush(DEADLINE)
    assert delivery.close(DEADLINE)
    done.set()
    observer.join()
    nothing_is_swallowed.clear()
    stats = delivery.stats()
    assert [] == [view for view in [*views, stats] if not balanced(view)]
    assert 3000 == stats.accepted
    assert taken_at_once.count(False) == stats.dropped_by_reason["queue full"]
    assert 0 == stats.in_memory == stats.pending


# Life


def test_a_delivery_that_nobody_holds_delivers_and_ends(api: LogsAPI) -> None:
    """Dropped without a close, it delivers what it was given, and its threads end."""
    arrived = threading.Event()

    def hold(entry: dict[str, Any], times: int) -> bytes:
        assert arrived.wait(DEADLINE)
        return taken(entry, times)

    api.answer = hold
    delivery = Delivery(api.settings())
    for number in range(3):
        delivery.submit(completed(record_id=str(number)))
    engine = delivery._engine
    del delivery
    gc.collect()
    arrived.set()
    api.wait(3)
    until(lambda: not (engine._recording.running or engine._shipping.running))
    assert 3 == engine.stats().delivered


def test_a_delivery_that_was_never_used_leaves_without_a_trace() -> None:
    """No call, no thread, nothing to wait for."""
    delivery = Delivery(Settings())
    engine = delivery._engine
    del delivery
    gc.collect()
    assert engine.is_closed
    assert not engine._recording.running


def test_equal_settings_share_a_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each kind of settings, the environment's by default; a closed one is replaced."""
    settings = Settings(api_key=Secret("default-delivery-key"))
    first = default_delivery(settings)
    assert first is default_delivery(Settings(api_key=Secret("default-delivery-key")))
    assert first is not default_delivery(Settings(api_key=Secret("another-delivery-key")))
    monkeypatch.setenv("KEYWORDSAI_API_KEY", "default-delivery-key")
    assert first is default_delivery()
    assert first.close()
    assert first is not default_delivery()


def test_threads_that_ask_together_get_the_same_delivery() -> None:
    """Of many first uses at the same time, one makes it."""
    settings = Settings(api_key=Secret("asked-for-together"))
    together = threading.Barrier(8)
    found: list[Delivery] = []

    def ask() -> None:
        together.wait()
        found.append(default_delivery(settings))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 == len(set(map(id, found)))


def test_settings_come_from_the_environment_by_default(monkeypatch: pytest.MonkeyPatch, api: LogsAPI) -> None:
    """`Delivery()` reads the environment when it is made."""
    for name, value in api.environment().items():
        monkeypatch.setenv(name, value)
    with Delivery() as delivery:
        delivery.submit(completed(record_id="one"))
    assert ["one"] == api.arrived


def test_bad_settings_in_the_environment_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A delivery that cannot be made leaves nothing behind to be cleaned up."""
    monkeypatch.setenv("KWAI_EXIT_TIMEOUT", "soon")
    with pytest.raises(ValueError, match=r"^KWAI_EXIT_TIMEOUT: "):
        Delivery()
    gc.collect()
