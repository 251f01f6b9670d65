"""What an answer says of a key is read in bounds, and what is not the key's fault costs it no rest."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from typing import Any

import pytest

from kwai_middleware import Caller, Credential, KeyResolver, Secret, Settings, bind_caller
from kwai_middleware._outbound.draws import drawn
from kwai_middleware._outbound.key_faults import fault_of_key
from kwai_middleware._outbound.key_rest import KeyRests
from tests.support.callers import OPENROUTER, key_of, settings
from tests.support.flavours import SYNC_FLAVOURS, Flavour
from tests.support.looked_up import ASKS, Vault, call, key_sent

GZIP = [(b"content-encoding", b"gzip")]


def credential(name: str, weight: float = 1.0) -> Credential:
    return Credential(api_key=Secret(key_of(name)), weight=weight)


@pytest.mark.parametrize(
    "bomb",
    [
        b'{"error":{"message":"' + b"your " * 3_000_000 + b'"}}',
        b'{"error":{"code":403,"a":[' + b"{}," * 4_000_000 + b"{}]}}",
        b"[" * 5_000_000,
    ],
    ids=["long", "wide", "deep"],
)
@pytest.mark.parametrize("status", [402, 403, 429])
def test_an_answer_that_stands_for_megabytes(bomb: bytes, status: int) -> None:
    """Of a few kilobytes that stand for many megabytes as much is undone as a refusal has words, on whoever's loop."""
    packed = gzip.compress(bomb)
    tracemalloc.start()
    try:
        fault = fault_of_key(status, GZIP, packed, 0.0)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (status == 402) is (fault is not None)
    assert 2 * 1024 * 1024 > peak


def test_a_request_that_is_too_large_for_what_is_left() -> None:
    """OpenRouter's 402 for one that asks for too much: another key may pay for it, this one for smaller ones."""
    words = "This request requires more credits, or fewer max_tokens. You requested 65536, but can only afford 9."
    of_the_request = fault_of_key(402, [], json.dumps({"error": {"message": words, "code": 402}}).encode(), 0.0)
    of_the_key = fault_of_key(402, [], b'{"error": {"message": "Insufficient credits", "code": 402}}', 0.0)
    assert [("402", 1.0), ("402", 60.0)] == [of_the_request, of_the_key]


@pytest.mark.parametrize(
    "body", [b'{"error": {"message": 5, "metadata": []}}', b'{"error": {"code": {}}}', b"\xff", b"[]"]
)
@pytest.mark.parametrize("status", [403, 429])
def test_odd_errors(body: bytes, status: int) -> None:
    """What says nothing that is understood blames no key."""
    assert fault_of_key(status, [], body, 0.0) is None


def test_weights_beyond_all_sums() -> None:
    """Each of two keys of the largest weight there is has its share."""
    first, second = credential("first", 1.7e308), credential("second", 1.7e308)
    assert [first, second] == [drawn((first, second), draw) for draw in (0.25, 0.75)]


def test_the_key_that_failed_last_is_remembered_longest() -> None:
    """Strangers' keys that fail push out what has not failed for longest, and not a key that fails time and again."""
    rests = KeyRests(most=2)
    for name in ("app", "stranger", "app", "another"):
        rests.failed(credential(name), "401", 600)
    assert [True, False, True] == [rests.is_resting(credential(name)) for name in ("app", "stranger", "another")]


def test_keys_in_the_environment_may_be_separated_by_commas() -> None:
    """As routes may; a list is never taken for one key."""
    made = Settings.from_env({"KWAI_CREDENTIALS": "openrouter=sk-or-1;w=3,openrouter=sk-or-2, openai=sk-3"})
    assert ["sk-or-1", "sk-or-2", "sk-3"] == [each.api_key.reveal() for each in made.credentials]


class Stopped(BaseException):
    """What a program is stopped by."""


class Stops:
    """The body of an answer, while which is read the program is stopped."""

    closed = False

    def __iter__(self) -> Any:
        raise Stopped

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("flavour", SYNC_FLAVOURS, indirect=True)
def test_an_interrupt_while_an_answer_is_looked_into(flavour: Flavour) -> None:
    """It passes through, the answer is closed, and the attempt is recorded."""
    stream = type("Stream", (Stops, flavour.library.SyncByteStream), {})()
    records: list[Any] = []
    client = flavour.answering(
        lambda request: flavour.library.Response(403, stream=stream), settings=settings(), deliver=records.append
    )
    keys = KeyResolver(lambda caller: [credential("one"), credential("two")])
    with bind_caller(Caller(identifier="acme"), credentials=keys), pytest.raises(Stopped):
        flavour.post(client, OPENROUTER, **ASKS)
    flavour.close(client)
    assert stream.closed
    assert ["cancelled"] == [record.build().outcome for record in records]


def test_calls_of_one_block_share_what_was_looked_up(flavour: Flavour) -> None:
    """A second call in the same block is paid by the same key, with no further question."""
    vault = Vault()
    keys = KeyResolver(vault.keys_of)
    sent = call(flavour, Caller(identifier="acme"), keys, times=2)
    assert [key_of("acme")] * 2 == [key_sent(request) for request in sent]
    assert ["acme"] == vault.asked
