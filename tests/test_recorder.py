"""The recording thread: small calls do not wait for large ones, and a flush waits for both."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from kwai_middleware._delivery.delivery import Delivery
from kwai_middleware._pace import breathe
from kwai_middleware._record import CompletedCall
from tests.support.finished_calls import Pending, completed
from tests.support.logs_api import LogsAPI, logs_api
from tests.support.processes import DEADLINE

LARGE = 1024 * 1024


@pytest.fixture
def api() -> Iterator[LogsAPI]:
    """A logs API that takes everything."""
    with logs_api() as running:
        yield running


def test_small_calls_are_recorded_in_the_middle_of_a_large_one(api: LogsAPI) -> None:
    """Looking into a large call goes on until hundreds of later small ones are on disk; another large one waits."""
    ends: list[str] = []
    go_on = threading.Event()

    def look_for_long() -> CompletedCall:
        assert go_on.wait(DEADLINE)
        until = time.monotonic() + DEADLINE
        while delivery.stats().spooled < 150:
            assert time.monotonic() < until
            breathe()
        ends.append("first")
        return completed(record_id="first")

    def look() -> CompletedCall:
        ends.append("second")
        return completed(record_id="second")

    with Delivery(api.settings()) as delivery:
        delivery.submit(Pending(look_for_long, size=LARGE))
        delivery.submit(Pending(look, size=LARGE))
        for number in range(150):
            delivery.submit(completed(record_id=f"small {number}"))
        go_on.set()
        assert delivery.flush(DEADLINE)
        assert 152 == delivery.stats().delivered
    assert ["first", "second"] == ends
    assert {"first", "second"} < set(api.arrived)


def test_a_flush_waits_for_a_large_call_although_later_ones_are_done(api: LogsAPI) -> None:
    """What was submitted first counts, not how many have found their end since."""
    with Delivery(api.settings()) as delivery:

        def look() -> CompletedCall:
            until = time.monotonic() + DEADLINE
            while delivery.stats().spooled < 5:
                assert time.monotonic() < until
                breathe()
            return completed(record_id="large")

        delivery.submit(Pending(look, size=LARGE))
        for number in range(5):
            delivery.submit(completed(record_id=f"small {number}"))
        assert delivery.flush(DEADLINE)
        assert 6 == delivery.stats().delivered
        assert "large" in api.arrived


def test_small_calls_keep_their_order(api: LogsAPI) -> None:
    """However long each takes, one is not overtaken by the next."""

    def look(number: int) -> CompletedCall:
        until = time.monotonic() + 0.002
        while time.monotonic() < until:
            breathe()
        return completed(record_id=str(number))

    with Delivery(api.settings(bulk_per_minute=0, spool="memory:")) as delivery:
        for number in range(8):
            delivery.submit(Pending(lambda number=number: look(number)))
        assert delivery.flush(DEADLINE)
    assert list(map(str, range(8))) == api.arrived
