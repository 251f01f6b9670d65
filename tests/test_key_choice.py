"""What is decided about keys, without any door: which is chosen, what an answer says of it, how long it rests."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware import Credential, Secret
from kwai_middleware._outbound.draws import drawn
from kwai_middleware._outbound.failover import Failover, Seen
from kwai_middleware._outbound.key_faults import fault_of_key
from kwai_middleware._outbound.key_rest import KeyRests
from kwai_middleware.sandbox import openrouter
from kwai_middleware.sandbox.accounts import Accounts
from kwai_middleware.sandbox.answers import Refusal

NOW = 1_800_000_000.0
LIMIT = "Key limit exceeded (monthly limit). Manage it using https://openrouter.ai/settings/keys"


def key(name: str, weight: float = 1.0, provider: str = "openrouter") -> Credential:
    return Credential(provider=provider, api_key=Secret(f"sk-{name}"), weight=weight)


A, B, C = key("a", 1), key("b", 2), key("c", 5)


class Clock:
    """Shows what it is told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


# --- the choice


def test_each_key_is_chosen_by_its_weight() -> None:
    """Over evenly spread draws, each key has its share to within one draw; so has it when another one is out."""
    draws = [number / 8000 for number in range(8000)]
    shares = Counter(drawn((A, B, C), draw) for draw in draws)
    assert [1000, 2000, 5000] == [pytest.approx(shares[each], abs=1) for each in (A, B, C)]
    shares = Counter(drawn((A, B, C), draw, lambda each: each == C) for draw in draws)
    assert [2667, 5333, 0] == [pytest.approx(shares[each], abs=2) for each in (A, B, C)]


def test_a_key_that_is_out_moves_no_other_call() -> None:
    """Who would not have been paid by it is paid by the same key as before."""
    for number in range(1000):
        before = drawn((A, B, C), number / 1000)
        after = drawn((A, B, C), number / 1000, lambda each: each == B)
        assert before in (B, after)


def test_when_all_are_out_there_is_none() -> None:
    """Then it is for others to say what happens."""
    assert drawn((A, B, C), 0.5, lambda _: True) is None
    assert drawn((), 0.5) is None


@given(
    weights=st.lists(st.floats(min_value=5e-324, max_value=1.7e308), min_size=1, max_size=6),
    draw=st.floats(min_value=0, max_value=1, exclude_max=True),
    out=st.sets(st.integers(0, 5)),
)
def test_whatever_the_weights_one_that_is_not_out_is_chosen(weights: list[float], draw: float, out: set[int]) -> None:
    """Also weights whose sum no float holds, or of which one is nothing beside another."""
    keys = [key(str(number), weight) for number, weight in enumerate(weights)]
    awake = [each for number, each in enumerate(keys) if number not in out]
    chosen = drawn(keys, draw, lambda each: each not in awake)
    assert (chosen in awake) if awake else chosen is None


# --- what an answer says about the key


def error(message: str, **more: Any) -> bytes:
    return json.dumps({"error": {"message": message, **more}}).encode()


def fault(status: int, body: bytes = b"", headers: Any = (), **more: Any) -> Any:
    return fault_of_key(status, headers, body, NOW, **more)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, b""),
        (401, b"<html>"),
        (402, error("Insufficient credits. Add more using https://openrouter.ai/settings/credits", code=402)),
        (403, error(LIMIT, code=403)),
        (403, error("Your API key does not have permission to use the specified resource.", type="permission_error")),
        (403, error("This API key has expired")),
        (403, error("API key is disabled")),
        (429, error("Rate limit reached for this key")),
        (429, error("Rate limit exceeded: free-models-per-day. Add 10 credits to unlock more", code=429)),
        (429, error("You exceeded your current quota, please check your plan", code="insufficient_quota")),
        (429, error("You exceeded your current quota", type="insufficient_quota", code=None)),
        (403, b'{"type": "error", "error": {"type": "permission_error", "message": "your key may not"}}'),
    ],
)  # fmt: skip
def test_answers_about_the_key(status: int, body: bytes) -> None:
    """The status says so, or the words do."""
    assert str(status) == fault(status, body).reason


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, error(LIMIT)),
        (400, error(LIMIT)),
        (404, error(LIMIT)),
        (500, error(LIMIT)),
        (403, b""),
        (403, b"Key limit exceeded"),
        (403, b'{"error": "Key limit exceeded"}'),
        (403, b'["Key limit exceeded"]'),
        (403, b'{"detail": "Key limit exceeded"}'),
        (403, b'{"error": {"message": ["Key limit exceeded"]}}'),
        (403, b'{"error": {"message": "\xff"}}'),
        (403, b"[" * 5000),
        (403, error("Your chosen model requires moderation", metadata={"flagged_input": LIMIT})),
        (403, error("No monkey business: the key of the riddle is in your keyboard")),
        (429, error("Rate limit exceeded: limit_rpm/openai/gpt-5")),
        (429, error("Rate limit reached for gpt-4o in organization org-1", code="rate_limit_exceeded")),
        (429, error("m is temporarily rate-limited upstream. Please retry shortly, or add your own key to accumulate")),
        (429, error("Provider returned error", metadata={"raw": LIMIT, "provider_name": "P"})),
        (403, error("Your API key is blocked", metadata={"provider_name": "P"})),
    ],
)  # fmt: skip
def test_answers_about_something_else(status: int, body: bytes) -> None:
    """Where the words do not name the key, it is not blamed."""
    assert fault(status, body) is None


def test_a_gateways_own_refusal_is_not_about_the_callers_key() -> None:
    """Between us and OpenRouter it answers for itself in a shape of its own."""
    assert fault(401, b'{"detail": "Your API key is invalid"}', relayed=True) is None
    assert fault(402, b"", relayed=True) is None
    assert "401" == fault(401, error("User not found.", code=401), relayed=True).reason


def test_an_encoded_answer_is_understood() -> None:
    """Words are looked for in what the body stands for; a coding that nobody knows says nothing."""
    body = gzip.compress(error(LIMIT))
    gzipped = ((b"Content-Encoding", b"gzip"),)
    assert "403" == fault(403, body, gzipped).reason
    assert fault(403, body) is None
    assert fault(403, body[:-20], ((b"content-encoding", b"mystery"),)) is None
    assert "403" == fault(403, error(LIMIT), gzipped, is_decoded=True).reason


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (401, {}, 600),
        (401, {"retry-after": "5"}, 600),
        (402, {}, 60),
        (403, {}, 60),
        (429, {}, 60),
        (429, {"retry-after": "7"}, 7),
        (403, {"Retry-After": "7.5"}, 7.5),
        (429, {"retry-after": "0"}, 1),
        (429, {"retry-after": "999999"}, 3600),
        (429, {"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30),
        (429, {"retry-after": "Fri, 15 Jan 1999 08:00:30 GMT"}, 1),
        (429, {"retry-after": "soon"}, 60),
        (429, {"retry-after": "1e9"}, 60),
        (429, {"retry-after": "soon", "x-ratelimit-reset": str(int(NOW * 1000) + 9000)}, 9),
        (429, {"x-ratelimit-reset": str(int(NOW) + 11)}, 11),
        (429, {"x-ratelimit-reset": "13"}, 13),
        (429, {"x-ratelimit-reset": "1m13s"}, 60),
    ],
)  # fmt: skip
def test_how_long_a_key_rests(status: int, headers: dict[str, str], seconds: float) -> None:
    """As long as the vendor says, within bounds; a key that is refused rests longest."""
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    assert (str(status), pytest.approx(seconds)) == fault(status, error(LIMIT), raw)


@pytest.mark.parametrize("status", [401, 402, 403, 429])
def test_the_sandboxs_refusals_of_keys_are_understood(status: int) -> None:
    """What the sandbox says of a key by its ending is what is looked for here."""
    endings = {401: "dead", 402: "broke", 403: "spent", 429: "slow"}
    refusal = Accounts().refusal(f"sk-or-v1-{endings[status]}")
    assert isinstance(refusal, Refusal)
    headers = [(name.encode(), value.encode()) for name, value in openrouter.error_headers(refusal)]
    said = fault(status, openrouter.error_body(refusal, "sk"), headers)
    assert str(status) == said.reason
    assert (1 if status == 429 else {401: 600}.get(status, 60)) == said.seconds


# --- rest


def test_a_key_rests_for_its_time_and_no_longer() -> None:
    """Only that key of that provider does."""
    clock = Clock()
    resting = KeyRests(clock)
    resting.failed(A, "401", 10)
    twin = key("a", 7)
    assert [True, True, False, False] == [
        resting.is_resting(each) for each in (A, twin, B, key("a", provider="openai"))
    ]
    clock.now += 10
    assert not resting.is_resting(A)


def test_a_success_ends_it() -> None:
    """Of a key that has paid nothing is left."""
    resting = KeyRests(Clock())
    resting.succeeded(A)
    resting.failed(A, "429", 10)
    resting.succeeded(B)
    assert resting.is_resting(A)
    resting.succeeded(A)
    assert (False, ()) == (resting.is_resting(A), resting.states())


def test_the_state_tells_no_key() -> None:
    """Who rests, for how long and why; those that are over for an hour are forgotten."""
    clock = Clock()
    resting = KeyRests(clock)
    resting.failed(A, "402", 5)
    resting.failed(A, "401", 600)
    resting.failed(B, "429", 10)
    clock.now += 20
    first, second = resting.states()
    assert ("openrouter", A.api_key.fingerprint, 580.0, "401", 2) == (
        first.provider, first.fingerprint, first.resting_for, first.reason, first.failures,
    )  # fmt: skip
    assert (B.api_key.fingerprint, 0.0, "429", 1) == (
        second.fingerprint, second.resting_for, second.reason, second.failures,
    )  # fmt: skip
    assert "sk-" not in repr(first)
    clock.now += 3600
    assert [A.api_key.fingerprint] == [state.fingerprint for state in resting.states()]


def test_it_is_bounded() -> None:
    """The key that failed first is forgotten."""
    resting = KeyRests(Clock(), most=3)
    keys = [key(str(number)) for number in range(10)]
    for each in keys:
        resting.failed(each, "401", 10)
    assert [False] * 7 + [True] * 3 == [resting.is_resting(each) for each in keys]
    assert 3 == len(resting.states())


# --- one after the other


def failing(keys: tuple[Credential, ...], resting: KeyRests, *, can_resend: bool = True) -> Failover:
    return Failover(keys, 0.0, relayed=False, can_resend=can_resend, resting=resting)


def test_each_key_is_tried_once() -> None:
    """All fail: then the last answer is the app's. A key that is there twice is one key."""
    resting = KeyRests(Clock())
    failover = failing((A, key("a"), B, C), resting)
    tried = [failover.credential]
    while (following := failover.next_key(401, (), Seen(b"", True))) is not None:
        tried.append(following)
    assert [A, B, C] == sorted(tried, key=lambda each: each.weight)
    assert 3 == len(resting.states())


def test_when_all_rest_the_first_to_wake_pays_alone() -> None:
    """There is always one; and none of the others is tried, since they rest."""
    clock = Clock()
    resting = KeyRests(clock)
    for each, seconds in ((A, 30), (B, 10), (C, 20)):
        resting.failed(each, "401", seconds)
    failover = failing((A, B, C), resting)
    assert B == failover.credential
    assert failover.next_key(402, (), Seen(b"", True)) is None


def test_a_key_that_rests_is_passed_over() -> None:
    """As long as another one is awake."""
    resting = KeyRests(Clock())
    resting.failed(A, "401", 10)
    assert {B, C} == {
        Failover((A, B, C), number / 100, relayed=False, can_resend=True, resting=resting).credential
        for number in range(100)
    }


def test_what_cannot_be_sent_again_still_lets_the_key_rest() -> None:
    """The next call has another one."""
    resting = KeyRests(Clock())
    failover = failing((A, B), resting, can_resend=False)
    assert failover.next_key(401, (), Seen(b"", True)) is None
    assert resting.is_resting(failover.credential)
    assert failing((A, B), resting).credential != failover.credential


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 403, 500])
def test_only_some_answers_are_looked_into(status: int) -> None:
    """Those that may be about the key; and one that went well wakes it."""
    resting = KeyRests(Clock())
    failover = failing((A, B), resting)
    resting.failed(failover.credential, "401", 10)
    assert (status in (401, 403)) == failover.is_in_doubt(status)
    assert (status >= 300) == resting.is_resting(failover.credential)


def test_a_fault_of_ours_hands_the_answer_on(nothing_is_swallowed: list[BaseException]) -> None:
    """Whatever goes wrong while it is decided, the app gets its answer."""
    failover = failing((A, B), KeyRests(Clock()))
    assert failover.next_key(401, None, Seen(b"", True)) is None  # type: ignore[arg-type]  # the fault
    assert ["TypeError"] == [type(error).__name__ for error in nothing_is_swallowed]
    nothing_is_swallowed.clear()
