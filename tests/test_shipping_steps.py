"""The parts of shipping, each for itself: what an answer means, when to try, what is told, what a step does."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware import _notices
from kwai_middleware._delivery import judgement
from kwai_middleware._delivery.backoff import Backoff
from kwai_middleware._delivery.crew import Crew
from kwai_middleware._delivery.memory import MemorySpool
from kwai_middleware._delivery.sender import Sender
from kwai_middleware._delivery.shipper import Shipper
from kwai_middleware._delivery.spool import MOST_ALONE, MOST_TOGETHER, Handout, Outcome, Row, Spool, most_at_once
from kwai_middleware._delivery.traffic import Traffic
from kwai_middleware._delivery.verdict import BulkVerdict, Fate, Verdict
from kwai_middleware._delivery.weather import Weather
from kwai_middleware._secret import Secret
from tests.support.paces import has_pace
from tests.support.processes import DEADLINE
from tests.support.shipping import until
from tests.support.spooling import Clock, Host, balanced, records

NOW = 1_000_000.0
MINUTE = 60.0
LARGE = 1 << 30
LINGER = 0.25
"""Seconds, and more than it is, after which no other record is expected soon."""
DELIVERED = Verdict(Fate.DELIVERED)
FAILED = Verdict(Fate.FAILED, "HTTP 500")


def row(attempts: int = 0, together: int = MOST_TOGETHER, position: int = 1) -> Row:
    """A row on lease."""
    return Row(position, str(position), b"{}", attempts, together)


# What an answer means


@pytest.mark.parametrize(
    ("attempts", "verdict", "expected"),
    [
        (0, DELIVERED, ("delivered", "", 0, 0.0)),
        (2, Verdict(Fate.REJECTED, "HTTP 422: no"), ("rejected", "HTTP 422: no", 0, 0.0)),
        # None of these is the row's fault.
        (2, None, ("returned", "", 2, 0.0)),
        (2, Verdict(Fate.BUSY, "HTTP 429", 5.0), ("returned", "", 2, 0.0)),
        (2, Verdict(Fate.REFUSED, "HTTP 401"), ("returned", "", 2, 0.0)),
        (2, Verdict(Fate.FAILED, "nobody there", is_connected=False), ("returned", "", 2, 0.0)),
        # These may be; from the third time on it makes way.
        (0, FAILED, ("returned", "", 1, 0.0)),
        (1, FAILED, ("returned", "", 2, 0.0)),
        (2, FAILED, ("returned", "", 3, 103.0)),
        (7, judgement.UNFORESEEN, ("returned", "", 8, 108.0)),
    ],
)
def test_what_an_answer_means_for_a_row(
    attempts: int, verdict: Verdict | None, expected: tuple[str, str, int, float]
) -> None:
    """One row, one answer; how often it fails decides how long it rests."""
    outcome = judgement.of_one(row(attempts, together=4), verdict, lambda times: 100.0 + times)
    assert expected == (outcome.end, outcome.reason, outcome.attempts, outcome.rest)
    assert outcome.end != "returned" or outcome.together == 4


RETURNED = "returned"


@pytest.mark.parametrize(
    ("verdict", "attempts", "together", "expected"),
    [
        (BulkVerdict(Fate.DELIVERED), 0, 500, [("delivered", 0, 500)] * 4),
        (
            BulkVerdict(Fate.DELIVERED, refused={1: "no"}),
            1,
            4,
            [("delivered", 0, 500), (RETURNED, 1, 1), ("delivered", 0, 500), ("delivered", 0, 500)],
        ),
        (BulkVerdict(Fate.UNCLEAR, "?"), 1, 4, [(RETURNED, 1, 1)] * 4),
        (BulkVerdict(Fate.REJECTED, "HTTP 413"), 1, 500, [(RETURNED, 1, 2)] * 4),
        (BulkVerdict(Fate.REJECTED, "HTTP 400", refused=dict.fromkeys(range(4), "no")), 0, 4, [(RETURNED, 0, 1)] * 4),
        (BulkVerdict(Fate.FAILED, "HTTP 500"), 0, 500, [(RETURNED, 1, 500)] * 4),
        (BulkVerdict(Fate.FAILED, "HTTP 500"), 1, 500, [(RETURNED, 2, 2)] * 4),
        (BulkVerdict(Fate.FAILED, "nobody there", is_connected=False), 1, 500, [(RETURNED, 1, 500)] * 4),
        (BulkVerdict(Fate.BUSY, "HTTP 429"), 1, 4, [(RETURNED, 1, 4)] * 4),
        (BulkVerdict(Fate.REFUSED, "HTTP 401"), 1, 4, [(RETURNED, 1, 4)] * 4),
    ],
)
def test_what_an_answer_means_for_rows_together(
    verdict: BulkVerdict, attempts: int, together: int, expected: list[tuple[str, int, int]]
) -> None:
    """None of them is given up by it; with how many each is sent next depends on what was said."""
    rows = [row(attempts, together, position) for position in range(4)]
    outcomes = judgement.of_bulk(rows, verdict)
    assert rows == [outcome.row for outcome in outcomes]
    assert expected == [(outcome.end, outcome.attempts, outcome.together) for outcome in outcomes]


def test_two_that_fail_again_go_alone_and_begin_anew() -> None:
    """What they failed of together need not be the fault of either."""
    rows = [row(1, 2, position) for position in range(2)]
    outcomes = judgement.of_bulk(rows, BulkVerdict(Fate.FAILED, "HTTP 500"))
    assert [(0, 1)] * 2 == [(outcome.attempts, outcome.together) for outcome in outcomes]


@given(count=st.integers(2, 500))
def test_halving_ends(count: int) -> None:
    """However many were sent: refused again and again, they are single after nine times."""
    together = count
    for _ in range(9):
        if together > 1:
            rows = [row(0, together, position) for position in range(together)]
            together = judgement.of_bulk(rows, BulkVerdict(Fate.REJECTED, "HTTP 413"))[0].together
    assert 1 == together


# When to try


def test_one_goes_ahead_after_each_failure_until_a_success() -> None:
    """Haste shortens the wait; it does not make the vendor well."""
    backoff = Backoff()
    assert not backoff.is_probing
    for fail in (backoff.failed, backoff.refused):
        fail(NOW)
        assert backoff.is_probing
        backoff.hasten()
        assert (True, 0.0) == (backoff.is_probing, backoff.remaining(NOW))
        backoff.succeeded()
        assert not backoff.is_probing


# What is told


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """Gives the levels of what was logged, as if nothing had ever been before."""
    for key in [key for key in _notices._warned if key[0] in ("rejected", "delivery")]:
        del _notices._warned[key]
    caplog.set_level(logging.DEBUG, "kwai_middleware")
    return lambda: [record.levelname for record in caplog.records]


@pytest.mark.parametrize(
    ("verdict", "levels"),
    [
        (DELIVERED, []),
        (BulkVerdict(Fate.DELIVERED), []),
        (Verdict(Fate.REJECTED, "HTTP 422: a word of the customer"), ["WARNING"]),
        (BulkVerdict(Fate.REJECTED, "HTTP 413"), []),
        (BulkVerdict(Fate.UNCLEAR, "?"), []),
        (Verdict(Fate.BUSY, "HTTP 429"), []),
        (FAILED, ["WARNING"]),
        (Verdict(Fate.REFUSED, "HTTP 401"), ["ERROR"]),
    ],
)
def test_each_kind_of_weather_is_told_once(
    told: Callable[[], list[str]], caplog: pytest.LogCaptureFixture, verdict: Any, levels: list[str]
) -> None:
    """Not for each record; and never what was said about one."""
    weather = Weather()
    for _ in range(5):
        weather.observe(verdict)
    assert levels == told()
    assert "a word of the customer" not in caplog.text
    is_good = verdict.fate is Fate.DELIVERED
    assert (is_good, is_good) == (weather.last_success is not None, weather.last_error is None)
    weather.observe(DELIVERED)
    assert weather.last_error is None


def test_a_refusal_is_told_again_when_it_is_another_or_after_a_success(told: Callable[[], list[str]]) -> None:
    """What an operator has to do differs; and that it is done is told too."""
    weather = Weather()
    for verdict in (
        Verdict(Fate.REFUSED, "HTTP 401"),
        Verdict(Fate.REFUSED, "HTTP 401"),
        Verdict(Fate.REFUSED, "HTTP 404"),
        DELIVERED,
        DELIVERED,
        Verdict(Fate.REFUSED, "HTTP 404"),
    ):
        weather.observe(verdict)
    assert ["ERROR", "ERROR", "WARNING", "ERROR"] == told()


def test_the_weather_is_that_of_all_who_ship() -> None:
    """The later success, and what went wrong since, here or elsewhere."""
    weather = Weather()
    assert (None, None) == weather.of_all(None, None)
    assert (5.0, "theirs") == weather.of_all(5.0, "theirs")
    weather.observe(FAILED)
    assert (5.0, "HTTP 500") == weather.of_all(5.0, None)
    assert (5.0, "theirs") == weather.of_all(5.0, "theirs")
    in_future = 1e12
    assert (in_future, None) == weather.of_all(in_future, None)
    weather.observe(DELIVERED)
    assert (weather.last_success, None) == weather.of_all(5.0, None)
    assert (in_future, None) == weather.of_all(in_future, None)


# What a step does


class Scripted(Sender):
    """Answers as it is told, and notes what it was given."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9", Secret("k"))
        self.one: Callable[[], Verdict] = lambda: DELIVERED
        self.many: Callable[[], BulkVerdict] = lambda: BulkVerdict(Fate.DELIVERED)
        self.sent: list[int] = []

    def send(self, entry: bytes, timeout: float) -> Verdict:
        self.sent.append(1)
        return self.one()

    def send_bulk(self, entries: Sequence[bytes], timeout: float) -> BulkVerdict:
        self.sent.append(len(entries))
        return self.many()


class Rig:
    """A shipper with a spool in memory, whose time the test decides."""

    def __init__(self, *, bulk: bool = True, spool: Spool | None = None) -> None:
        self.clock = Clock()
        self.spool: Any = MemorySpool(LARGE, 1e9, MINUTE, self.clock) if spool is None else spool
        self.sender = Scripted()
        self.crew = Crew(lambda: self.sender)
        self.progress = 0
        self.shipper = Shipper(
            self.spool, self.sender, self.crew, 1.0, self._progressed, bulk=bulk, traffic=Traffic(self.clock, bulk=bulk)
        )

    def _progressed(self) -> None:
        self.progress += 1

    def wait_for(self, count: int) -> None:
        """Let so many more records wait."""
        assert count == self.spool.append(records(*range(count)))

    def step(self) -> tuple[float | None, list[int]]:
        """Returns what a step says, and how much each of its requests carried."""
        self.sender.sent = []
        delay = self.shipper.step(1.0)
        return delay, self.sender.sent


@pytest.fixture
def rig() -> Iterator[Rig]:
    """A shipper that may send in bulk."""
    made = Rig()
    yield made
    made.crew.close()
    assert balanced(made.spool.counters())


@pytest.mark.parametrize(
    ("count", "requests"), [(1, [1]), (10, [1]), (11, [1] * 8), (100, [1] * 8), (101, [101]), (501, [500])]
)
def test_how_many_wait_decides_how_they_go(rig: Rig, count: int, requests: list[int]) -> None:
    """A few one by one, more over a few connections, many together."""
    rig.wait_for(count)
    assert (0.0, requests) == rig.step()
    assert sum(requests) == rig.spool.counters().delivered
    assert 1 == rig.progress


def test_nothing_waits(rig: Rig) -> None:
    """Then nothing is sent, and there is no time at which to look again."""
    assert (None, []) == rig.step()


def test_what_fits_into_the_next_bulk_waits_for_it(rig: Rig) -> None:
    """What does not goes alone; in a hurry all of it does; and after a minute it is a bulk again."""
    rig.wait_for(500)
    assert (0.0, [500]) == rig.step()
    rig.wait_for(508)
    assert (0.0, [1] * 8) == rig.step()
    assert (MINUTE, []) == rig.step()
    rig.clock.now += 20.0
    assert (40.0, []) == rig.step()
    rig.shipper.hurry()
    assert (0.0, [1] * 8) == rig.step()
    rig.clock.now += 40.0
    assert (0.0, [492]) == rig.step()


def test_whoever_waited_no_longer_does(rig: Rig) -> None:
    """A hurry ends with its deadline: from then on what fits into the next bulk waits for it again."""
    rig.wait_for(500)
    rig.step()
    rig.wait_for(300)
    rig.shipper.hurry(0.0)
    assert (MINUTE, []) == rig.step()
    rig.shipper.hurry()
    assert (0.0, [1] * 8) == rig.step()


def _send_singly(rig: Rig, count: int) -> None:
    for _ in range(count):
        rig.wait_for(1)
        assert (0.0, [1]) == rig.step()


def test_what_comes_often_is_gathered(rig: Rig) -> None:
    """After a hundred alone within half a second few records wait for another half, and go together."""
    _send_singly(rig, 100)
    rig.wait_for(21)
    assert (0.5, []) == rig.step()
    rig.clock.now += 0.5
    assert (0.0, [21]) == rig.step()
    rig.wait_for(30)
    # The next bulk is allowed after a minute.
    assert (MINUTE, []) == rig.step()
    rig.wait_for(500)
    assert (0.0, [1] * 8) == rig.step()


def test_what_comes_seldom_is_not(rig: Rig) -> None:
    """A hundred alone in half a second and more, and the next one goes alone as well."""
    _send_singly(rig, 99)
    rig.clock.now += 0.5
    _send_singly(rig, 2)


def test_gathering_ends_with_heavy_traffic(rig: Rig) -> None:
    """When no more than twenty have gathered, the next ones go alone; and so they do when none have."""
    _send_singly(rig, 100)
    rig.wait_for(20)
    rig.clock.now += 0.5
    assert (0.0, [20]) == rig.step()
    _send_singly(rig, 100)
    assert (0.5, []) == rig.step()
    rig.clock.now += 0.5
    assert (0.0, []) == rig.step()
    assert (None, []) == rig.step()
    _send_singly(rig, 1)


def test_who_has_just_sent_keeps_the_right_to_ship_for_a_moment(rig: Rig) -> None:
    """The next record is most likely about to come: others may ship a moment later, or at the end."""
    _send_singly(rig, 2)
    delay, sent = rig.step()
    assert delay is not None
    assert (True, []) == (0.0 < delay < LINGER, sent)
    _send_singly(rig, 1)
    rig.clock.now += delay
    assert (None, []) == rig.step()
    _send_singly(rig, 1)
    assert None is rig.shipper.step(1.0, is_last=True)
    _send_singly(rig, 1)
    rig.shipper.finish()
    assert (None, []) == rig.step()


def test_nobody_waits_for_a_gathering(rig: Rig) -> None:
    """Whoever flushes has the records sent at once; with the last of them, nobody waits any more."""
    _send_singly(rig, 100)
    rig.shipper.hurry(time.monotonic() + 3600)
    rig.wait_for(1)
    assert (0.0, []) == rig.step()
    assert (0.0, [1]) == rig.step()
    rig.clock.now += LINGER
    assert (None, []) == rig.step()
    _send_singly(rig, 99)
    rig.wait_for(1)
    assert (0.5, []) == rig.step()


def test_a_gathering_finds_another_process_at_it() -> None:
    """Another one has begun to ship meanwhile, and the records are left to it."""
    rig = Rig(spool=Elsewhere(LARGE, 1e9, MINUTE))
    rig.shipper.finish()
    rig.spool.is_there = False
    _send_singly(rig, 100)
    rig.spool.is_there = True
    rig.wait_for(1)
    rig.clock.now += 0.5
    assert (0.0, []) == rig.step()
    assert (None, []) == rig.step()


def test_none_is_gathered_where_no_bulk_is_allowed() -> None:
    """Without bulk requests each record goes at once, however often they come."""
    _send_singly(Rig(bulk=False), 150)


def test_never_in_bulk() -> None:
    """Where no bulk may be sent, however many go over a few connections."""
    rig = Rig(bulk=False)
    rig.wait_for(600)
    assert (0.0, [1] * 8) == rig.step()
    rig.crew.close()


def test_few_are_in_hand_at_once_when_many_may_only_go_alone(rig: Rig) -> None:
    """No more than are surely sent before their lease ends, and than may come twice after a crash."""
    rig.sender.many = lambda: BulkVerdict(Fate.UNCLEAR, "?")
    rig.wait_for(300)
    assert (0.0, [300]) == rig.step()
    rig.clock.now += MINUTE
    for _ in range(3):
        assert (0.0, [1] * MOST_ALONE) == rig.step()
    assert (3 * MOST_ALONE, 300 - 3 * MOST_ALONE) == (rig.spool.counters().delivered, rig.spool.counters().pending)
    assert (MOST_ALONE, 2, 500) == (most_at_once(1), most_at_once(2), most_at_once(500))


def test_after_a_failure_one_goes_ahead(rig: Rig) -> None:
    """A bulk fails; a single record finds out whether the vendor is back, also in a hurry; then the bulk follows."""
    rig.sender.many = lambda: BulkVerdict(Fate.FAILED, "HTTP 500")
    rig.sender.one = lambda: FAILED
    rig.wait_for(300)
    assert (0.0, [300]) == rig.step()
    rig.clock.now += MINUTE
    delay, sent = rig.step()
    assert (True, []) == (delay is not None and 0.0 < delay <= 0.5, sent)
    for _ in range(3):
        rig.shipper.hurry()
        assert (0.0, [1]) == rig.step()
    rig.sender.one, rig.sender.many = lambda: DELIVERED, lambda: BulkVerdict(Fate.DELIVERED)
    rig.shipper.hurry()
    assert (0.0, [1]) == rig.step()
    assert (0.0, [299]) == rig.step()
    assert 300 == rig.spool.counters().delivered


def test_nothing_waits_while_the_vendor_is_away(rig: Rig) -> None:
    """The last one was given up meanwhile: nothing is to be waited for."""
    rig.sender.one = lambda: FAILED
    rig.wait_for(1)
    rig.step()
    rig.clock.now += 1e9
    assert 1 == rig.spool.counters().evicted
    assert (None, []) == rig.step()


@pytest.mark.parametrize("error", [LookupError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("count", [1, 300], ids=["alone", "together"])
def test_nothing_is_lost_by_what_nobody_foresaw(rig: Rig, error: type[BaseException], count: int) -> None:
    """Whatever is raised on the way goes on; the rows wait on, and are sent by the next step."""

    def fail() -> Any:
        raise error

    rig.wait_for(count)
    rig.sender.one = rig.sender.many = fail
    with pytest.raises(error):
        rig.shipper.step(1.0)
    assert (count, 0) == (rig.spool.counters().pending, rig.spool.counters().delivered)
    assert "internal error" == rig.shipper.weather.last_error
    rig.sender.one, rig.sender.many = lambda: DELIVERED, lambda: BulkVerdict(Fate.DELIVERED)
    rig.clock.now += MINUTE
    rig.shipper.hurry()
    while rig.shipper.step(1.0) is not None:
        rig.clock.now += 1.0
    assert count == rig.spool.counters().delivered


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_whoever_is_interrupted_returns_the_rows_unharmed(rig: Rig, error: type[BaseException]) -> None:
    """Ctrl-C while a few go over a few connections: no row is to blame, and nothing is said against the vendor."""

    class Interrupted(Crew):
        def send_all(self, entries: Sequence[bytes], timeout: float) -> list[Verdict | None]:
            raise error

    rig.shipper._crew = Interrupted(lambda: rig.sender)
    rig.wait_for(20)
    with pytest.raises(error):
        rig.shipper.step(1.0)
    assert rig.shipper.weather.last_error is None
    rows = rig.spool.lease(500, LARGE, bulk=False).rows
    assert [(str(number), 0, MOST_TOGETHER) for number in range(20)] == [
        (row.record_id, row.attempts, row.together) for row in rows
    ]


def test_a_stop_begins_no_further_record() -> None:
    """Of eight in hand those under way are sent and settled; the others wait on, and the thread ends."""
    rig = Rig()
    rig.wait_for(100)
    under_way, go_on = threading.Barrier(5), threading.Event()

    def hold() -> Verdict:
        if not go_on.is_set():
            under_way.wait(DEADLINE)
            assert go_on.wait(DEADLINE)
        return DELIVERED

    rig.sender.one = hold
    rig.shipper.wake()
    shipping = threading.Thread(target=rig.shipper.run)
    shipping.start()
    under_way.wait(DEADLINE)
    rig.shipper.stop()
    go_on.set()
    shipping.join(DEADLINE)
    assert not shipping.is_alive()
    assert (4, 96, 4) == (rig.spool.counters().delivered, rig.spool.counters().pending, len(rig.sender.sent))
    until(lambda: not any(helper._worker.running for helper in rig.crew._helpers))


def test_who_ships_in_the_background_has_a_pace() -> None:
    """The shipping thread and its helpers leave the app its turn; whoever ships while the app waits does not rest."""
    rig = Rig()
    rig.wait_for(40)
    together, go_on = threading.Barrier(4), threading.Event()
    threads: set[tuple[int, bool]] = set()

    def noted() -> Verdict:
        threads.add((threading.get_ident(), has_pace()))
        if not go_on.is_set():
            together.wait(DEADLINE)
            go_on.set()
        return DELIVERED

    rig.sender.one = noted
    rig.shipper.wake()
    rig.shipper.finish()
    shipping = threading.Thread(target=rig.shipper.run)
    shipping.start()
    shipping.join(DEADLINE)
    assert [True] * 4 == [is_paced for _, is_paced in threads]
    threads.clear()
    rig.wait_for(1)
    rig.shipper.drain(time.monotonic() + DEADLINE)
    assert {(threading.get_ident(), False)} == threads
    until(lambda: not any(helper._worker.running for helper in rig.crew._helpers))


class Elsewhere(MemorySpool):
    """Another process ships."""

    poll = 0.5
    is_hurried = False
    is_there = True

    def lease(self, rows: int, size: int, *, bulk: bool) -> Handout:
        if not self.is_there:
            return super().lease(rows, size, bulk=bulk)
        return Handout(wait=1.0, is_elsewhere=True)

    def renew(self) -> bool:
        was_hurried, self.is_hurried = self.is_hurried, False
        return was_hurried


def test_another_process_ships() -> None:
    """It is left alone, and looked after more often while somebody waits here; whoever is to end does not wait."""
    rig = Rig(spool=Elsewhere(LARGE, 1e9))
    rig.wait_for(3)
    assert (1.0, []) == rig.step()
    rig.shipper.hurry()
    assert (0.1, []) == rig.step()
    rig.shipper.hurry(0.0)
    assert (0.1, []) == rig.step()
    rig.shipper.finish()
    assert (None, []) == rig.step()


class Shared(MemorySpool):
    """Others write into it too, and may be in a hurry."""

    poll = 0.25
    is_hurried = False

    def renew(self) -> bool:
        was_hurried, self.is_hurried = self.is_hurried, False
        return was_hurried


def test_others_are_looked_after_while_nothing_is_sent() -> None:
    """Whoever waits, for a bulk or for the vendor, looks often what others have done, and hears that they hurry."""
    spool = Shared(LARGE, 1e9, MINUTE, Clock())
    rig = Rig(spool=spool)
    rig.wait_for(800)
    assert (0.0, [500]) == rig.step()
    assert (0.25, []) == rig.step()
    spool.is_hurried = True
    assert (0.0, []) == rig.step()
    rig.sender.one = lambda: Verdict(Fate.BUSY, "HTTP 429", 3600.0)
    assert 0.0 == rig.step()[0]
    assert (0.25, []) == rig.step()
    spool.is_hurried = True
    assert (0.0, []) == rig.step()
    assert (0.0, [1]) == rig.step()
    rig.crew.close()


class Full(MemorySpool):
    """What cannot be written down while the disk is full."""

    is_full = True

    def settle(self, outcomes: Sequence[Outcome], error: str | None = None) -> None:
        if self.is_full:
            raise OSError("the disk is full")
        super().settle(outcomes, error)


def test_what_the_spool_did_not_take_is_said_again() -> None:
    """A record that was delivered is not sent again because that could not be written down at once."""
    spool = Full(LARGE, 1e9)
    rig = Rig(spool=spool)
    rig.wait_for(1)
    for _ in range(2):
        with pytest.raises(OSError, match="full"):
            rig.shipper.step(1.0)
    spool.is_full = False
    rig.clock.now += LINGER
    assert (None, []) == rig.step()
    assert 1 == spool.counters().delivered


# Whose way leads nowhere

UNREACHABLE = Verdict(Fate.FAILED, "OSError: no route to host", is_connected=False)


class Generous(MemorySpool):
    """Notes when a process makes way."""

    def __init__(self) -> None:
        super().__init__(LARGE, 1e9)
        self.ways: list[float] = []
        self.pause = 0.0

    def lease(self, rows: int, size: int, *, bulk: bool) -> Handout:
        return msgspec.structs.replace(super().lease(rows, size, bulk=bulk), pause=self.pause)

    def make_way(self, seconds: float) -> None:
        self.ways.append(seconds)


def attempts(rig: Rig, *verdicts: Verdict) -> None:
    """Let one attempt after the other end so, without waiting in between."""
    for verdict in verdicts:
        rig.sender.one = lambda verdict=verdict: verdict  # type: ignore[misc]  # bound to this one
        rig.shipper.hurry(0.0)
        assert (0.0, [1]) == rig.step()


@pytest.mark.parametrize(
    ("verdicts", "times"),
    [
        ([UNREACHABLE] * 2, 0),
        ([UNREACHABLE] * 3, 1),
        ([UNREACHABLE] * 4, 2),
        # What the vendor says it would say to any process.
        ([FAILED] * 4, 0),
        ([Verdict(Fate.BUSY, "HTTP 429", is_connected=True)] * 4, 0),
        ([Verdict(Fate.REFUSED, "HTTP 401")] * 4, 0),
        ([UNREACHABLE, UNREACHABLE, FAILED, UNREACHABLE], 0),
    ],
)
def test_a_process_that_reaches_nobody_makes_way(verdicts: list[Verdict], times: int) -> None:
    """After three attempts in a row, and for as long as it waits itself."""
    spool = Generous()
    rig = Rig(spool=spool)
    rig.wait_for(9)
    attempts(rig, *verdicts)
    assert times == len(spool.ways)
    assert all(0.0 < seconds <= rig.shipper._backoff.remaining(0.0) for seconds in spool.ways)


def test_nobody_makes_way_while_somebody_waits() -> None:
    """A flush is not left to others, who may have nothing better to offer."""
    spool = Generous()
    rig = Rig(spool=spool)
    rig.wait_for(9)
    rig.sender.one = lambda: UNREACHABLE
    for _ in range(4):
        rig.shipper.hurry()
        assert (0.0, [1]) == rig.step()
    assert [] == spool.ways


def test_processes_that_take_turns_in_vain_are_no_quicker_than_one() -> None:
    """The next one tries once, and waits for as long as the one before it did at least; with luck it stays."""
    spool = Generous()
    rig = Rig(spool=spool)
    rig.wait_for(9)
    spool.pause = 40.0
    attempts(rig, FAILED)
    assert 1.0 > rig.shipper._backoff.remaining(time.monotonic())
    attempts(rig, UNREACHABLE)
    assert 39.0 < spool.ways[0] <= 40.0
    attempts(rig, DELIVERED)
    assert (1, 0.0) == (len(spool.ways), rig.shipper._backoff.remaining(time.monotonic()))


def test_another_process_ships_when_the_first_one_reaches_nobody(tmp_path: Path) -> None:
    """Two processes with one file, and a way to the vendor that only the second one has."""
    host = Host(tmp_path)
    broken, other = Rig(spool=host.spool()), Rig(spool=host.spool())
    broken.wait_for(9)
    attempts(broken, UNREACHABLE)
    assert (1.0, []) == other.step()
    attempts(broken, UNREACHABLE, UNREACHABLE)
    host.passes(60.0)
    while other.step()[0] == 0.0:
        pass
    assert 9 == host.spool().counters().delivered
    host.close()


# Who calls it


def test_on_the_calling_thread_all_is_sent(rig: Rig) -> None:
    """Where there is no thread to be had, whoever flushes sends it, and waits no longer than it takes."""
    rig.wait_for(25)
    rig.shipper.drain(time.monotonic() + DEADLINE)
    assert (25, 0) == (rig.spool.counters().delivered, rig.spool.counters().pending)


def test_on_the_calling_thread_a_wait_is_waited(rig: Rig) -> None:
    """What fails is tried again there too, after its wait."""
    answers = iter([FAILED])
    rig.sender.one = lambda: next(answers, DELIVERED)
    rig.wait_for(1)
    rig.shipper.drain(time.monotonic() + DEADLINE)
    assert (1, [1, 1]) == (rig.spool.counters().delivered, rig.sender.sent)


def test_on_the_calling_thread_time_is_bounded(rig: Rig) -> None:
    """When it is over, nothing more is begun."""
    rig.wait_for(5)
    rig.shipper.drain(time.monotonic())
    assert (5, []) == (rig.spool.counters().pending, rig.sender.sent)


def test_on_the_calling_thread_a_slow_vendor_is_looked_at_after_each_record(rig: Rig) -> None:
    """No more is on lease than what is being sent: whoever drains ends with that one when the time is over."""
    under_way: list[int] = []

    def take() -> Verdict:
        under_way.append(len(rig.spool._waiting) - len(rig.spool._ready))
        return DELIVERED

    rig.sender.one = take
    rig.wait_for(25)
    rig.shipper.drain(time.monotonic() + DEADLINE)
    assert [1] * 25 == under_way


def test_on_the_calling_thread_a_refusal_ends_it(rig: Rig) -> None:
    """Waiting on would not help, however much time there is."""
    rig.sender.one = lambda: Verdict(Fate.REFUSED, "HTTP 401")
    rig.wait_for(5)
    rig.shipper.drain(time.monotonic() + 1e6)
    assert (5, [1]) == (rig.spool.counters().pending, rig.sender.sent)


def test_whoever_is_to_finish_ends_when_nothing_waits(rig: Rig) -> None:
    """A delivery that nobody holds any more delivers what is left, and its thread ends."""
    rig.wait_for(25)
    rig.shipper.finish()
    rig.shipper.wake()
    rig.shipper.run()
    assert 25 == rig.spool.counters().delivered
