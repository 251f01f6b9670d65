"""What an answer of the logs API means, and when to try again."""

from __future__ import annotations

import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._delivery.backoff import Backoff
from kwai_middleware._delivery.verdict import Fate, Verdict, clipped, judge
from kwai_middleware._secret import Secret

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("status", "fate"),
    [
        *[(status, Fate.DELIVERED) for status in (200, 201, 202, 204, 299)],
        *[(status, Fate.BUSY) for status in (408, 425, 429)],
        *[(status, Fate.FAILED) for status in (500, 502, 503, 504, 520, 599, 600, 199)],
        *[(status, Fate.REFUSED) for status in (300, 301, 302, 304, 307, 308)],
        *[(status, Fate.REFUSED) for status in (401, 402, 403, 404, 405, 407, 410, 423, 426, 451)],
        *[(status, Fate.REJECTED) for status in (400, 406, 409, 411, 413, 415, 422, 431)],
    ],
)
def test_the_status_decides(status: int, fate: Fate) -> None:
    """Only a refusal of this very record loses it; what is wrong with the app or the vendor loses nothing."""
    assert fate is judge(status, None, b"", now=NOW).fate


@pytest.mark.parametrize(
    ("header", "body", "after"),
    [
        (None, b"", None),
        ("7", b"", 7.0),
        ("0.5", b"", 0.5),
        (" 7 ", b"", 7.0),
        ("-3", b"", 0.0),
        ("99999999", b"", 3600.0),
        ("inf", b"", 3600.0),
        ("nan", b"", None),
        ("soon", b"", None),
        (email.utils.formatdate(NOW + 90, usegmt=True), b"", 90.0),
        (email.utils.formatdate(NOW - 90, usegmt=True), b"", 0.0),
        ("Fri, 31 Feb 2026 25:61:00 GMT", b"", None),
        (None, b'{"detail":"Rate limit exceeded","retry_after":30}', 30.0),
        (None, b'{"retry_after":1e400}', None),
        (None, b'{"retry_after":true}', None),
        (None, b'{"retry_after":"30"}', None),
        (None, b'{"retry_after":-1}', 0.0),
        (None, b'{"retry_after":' + b"9" * 400 + b"}", 3600.0),
        (None, b'{"retry_after":-' + b"9" * 400 + b"}", 0.0),
        (None, b'[{"retry_after":30}]', None),
        (None, b"\xff\xfe<html>", None),
        (None, b"[" * 5000, None),
        ("soon", b'{"retry_after":30}', 30.0),
        ("7", b'{"retry_after":30}', 7.0),
    ],
)
def test_the_vendor_is_asked_how_long_to_wait(header: str | None, body: bytes, after: float | None) -> None:
    """By the header, as seconds or as a date, else by the body; nonsense asks for nothing, and an hour is the most."""
    assert after == judge(429, header, body, now=NOW).after
    assert after == judge(503, header, body, now=NOW).after


@given(body=st.binary(max_size=200), header=st.none() | st.text(max_size=40), status=st.integers(100, 999))
def test_no_answer_is_too_odd(body: bytes, header: str | None, status: int) -> None:
    """Whatever comes back there is a verdict, and a wait that can be waited."""
    verdict = judge(status, header, body, now=NOW)
    assert verdict.after is None or 0.0 <= verdict.after <= 3600.0
    assert len(verdict.reason) <= 200


def test_the_reason_is_short_and_holds_no_key() -> None:
    """An answer that quotes a key or a book is cut down to what an operator needs."""
    key = Secret("the-app-key-itself")
    body = b'{"detail":"bad key the-app-key-itself, or sk-or-v1-0123456789abcdef\\nline two ' + b"x" * 500 + b'"}'
    reason = judge(400, None, body, now=NOW, secrets=(key,)).reason
    assert reason.startswith("HTTP 400: bad key ****, or **** line two xxx")
    assert 200 == len(reason)
    assert "HTTP 400" == judge(400, None, b'{"detail":["no","text"]}', now=NOW).reason
    assert "HTTP 400" == judge(400, None, b'{"detail":""}', now=NOW).reason
    assert Verdict(Fate.DELIVERED) == judge(200, None, body, now=NOW)
    assert "a b" == clipped(" a\n\tb ")


def test_the_wait_grows_and_has_an_end() -> None:
    """Each failure doubles the wait, from half a second to a minute, and a success begins anew."""
    backoff = Backoff(lambda: 1.0)
    waits: list[float] = []
    for _ in range(2000):
        backoff.failed(NOW)
        waits.append(backoff.remaining(NOW))
    assert [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0] == waits[:9]
    assert 60.0 == waits[-1]
    assert 20.0 == backoff.remaining(NOW + 40)
    backoff.succeeded()
    assert 0.0 == backoff.remaining(NOW)
    backoff.failed(NOW)
    assert 0.5 == backoff.remaining(NOW)


@given(chance=st.floats(0, 1), failures=st.integers(1, 50))
def test_chance_takes_up_to_half_of_the_wait(chance: float, failures: int) -> None:
    """Processes that failed together do not come back together, and none comes back at once."""
    backoff, sure = Backoff(lambda: chance), Backoff(lambda: 1.0)
    for _ in range(failures):
        backoff.failed(0.0)
        sure.failed(0.0)
    assert sure.remaining(0.0) / 2 <= backoff.remaining(0.0) <= sure.remaining(0.0)


def test_the_vendor_may_ask_for_more_but_not_for_less() -> None:
    """Retry-After is the least that is waited."""
    backoff = Backoff(lambda: 1.0)
    backoff.failed(NOW, 30.0)
    assert 30.0 == backoff.remaining(NOW)
    backoff.failed(NOW, 0.0)
    assert 1.0 == backoff.remaining(NOW)


def test_a_refusal_is_waited_for_long() -> None:
    """A minute first, doubling to an hour; haste tries at once and does not forget how long it has been."""
    backoff = Backoff(lambda: 1.0)
    waits: list[float] = []
    for _ in range(9):
        backoff.refused(NOW)
        waits.append(backoff.remaining(NOW))
        backoff.hasten()
        assert 0.0 == backoff.remaining(NOW)
    assert [60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 3600.0, 3600.0, 3600.0] == waits


def test_one_record_rests_longer_each_time() -> None:
    """The record that the vendor trips over comes back ever more seldom."""
    backoff = Backoff(lambda: 1.0)
    assert [4.1, 8.1, 16.1, 3600.1] == [backoff.rest_of_row(attempts) for attempts in (3, 4, 5, 5000)]
    assert 0.5 < Backoff().rest_of_row(1) <= 1.1


@given(failures=st.integers(1, 40))
def test_a_record_rests_until_the_others_have_had_their_turn(failures: int) -> None:
    """Whatever chance says: after as many failures all try again before the one that failed comes back."""
    longest, shortest = Backoff(lambda: 1.0), Backoff(lambda: 0.0)
    for _ in range(failures):
        longest.failed(NOW)
    assert longest.remaining(NOW) < shortest.rest_of_row(failures)
