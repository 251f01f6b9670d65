"""Several keys of one provider, at its own API and the relay: one that fails gives way to the next, at each door."""

from __future__ import annotations

import gzip
import itertools
import json
import socket
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from kwai_middleware import Caller, Credential, Route, Secret, key_state
from kwai_middleware._outbound.replays import MOST_BYTES
from tests.support.callers import caller, key_of
from tests.support.every_door import Door, door
from tests.support.keyed_vendor import KeyedVendor, answer
from tests.support.raw_server import Connection, raw_server

__all__ = ["door"]

LIMIT = {"error": {"message": "Key limit exceeded (daily limit). Manage it using https://openrouter.ai", "code": 403}}
BAD = json.dumps({"error": {"message": "User not found.", "code": 401}}).encode()
BUSY = json.dumps({"error": {"message": "Provider returned error", "code": 429, "metadata": {"raw": "busy"}}}).encode()
BODY = b'{"model":"m"}'
_numbers = itertools.count()


@pytest.fixture
def vendor() -> Iterator[KeyedVendor]:
    keyed = KeyedVendor()
    with raw_server(keyed, backlog=128) as server:
        keyed.url = server.url
        yield keyed


def new_key() -> str:
    """A key that no test has used before: what a key is known for, all tests of a process share."""
    return f"sk-or-v1-{next(_numbers):06}-0000000000"


def credentials(*keys: str, weights: tuple[float, ...] = ()) -> tuple[Credential, ...]:
    """Keys of OpenRouter, the first of which is chosen first."""
    weights = weights or tuple(1e6**-number for number in range(len(keys)))
    return tuple(Credential(api_key=Secret(key), weight=weight) for key, weight in zip(keys, weights, strict=True))


def with_keys(*keys: str) -> Caller:
    return caller(credentials=credentials(*keys))


def routed(vendor: KeyedVendor, kind: Any = "direct") -> dict[str, Any]:
    return {"routes": (Route(vendor.url, kind=kind, provider="openrouter"),)}


def ask(
    door: Door, vendor: KeyedVendor, who: Caller | None, content: Any = BODY, kind: Any = "direct", **more: Any
) -> Any:
    return door.ask(f"{vendor.url}/chat/completions", who, content, **{**routed(vendor, kind), **more})


def fingerprints(*keys: str) -> list[str]:
    return [Secret(key).fingerprint for key in keys]


# --- it goes on


@pytest.mark.parametrize(
    ("status", "body"),
    [(401, BAD), (401, b""), (402, b"{}"), (403, json.dumps(LIMIT).encode()), (429, json.dumps(LIMIT).encode())],
)
def test_a_key_that_fails_gives_way_to_the_next(door: Door, vendor: KeyedVendor, status: int, body: bytes) -> None:
    """The app sees the good answer only; each attempt is a record of its own, of one call."""
    dead, alive = new_key(), new_key()
    vendor.answers[dead] = answer(status, body)
    answered = ask(door, vendor, with_keys(dead, alive))
    assert (200, [dead, alive]) == (answered.status, vendor.keys)
    assert {BODY} == {asked.body for asked in vendor.asked}
    first, second = door.records
    assert [("error", status, 1), ("complete", 200, 2)] == [
        (record.outcome, record.status_code, record.attempt) for record in (first, second)
    ]
    assert first.call_id == second.call_id
    assert first.trace_id == second.trace_id
    assert fingerprints(dead, alive) == [first.key_fingerprint, second.key_fingerprint]
    assert ["caller", "caller"] == [first.billed_to, second.billed_to]
    if body == BAD:
        assert "User not found." == first.error_message


def test_the_connection_serves_the_next_attempt(door: Door, vendor: KeyedVendor) -> None:
    """The first answer has been closed, and given its connection back, before the call goes out again."""
    dead, alive = new_key(), new_key()
    vendor.answers[dead] = answer(401, BAD)
    ask(door, vendor, with_keys(dead, alive))
    assert [1, 1] == [asked.connection for asked in vendor.asked]


def test_the_relay_is_tried_key_by_key(door: Door, vendor: KeyedVendor) -> None:
    """The caller's keys are in a header there, and its name in the body: in each attempt."""
    dead, alive = new_key(), new_key()
    vendor.answers[dead] = answer(401, BAD)
    assert 200 == ask(door, vendor, with_keys(dead, alive), kind="relay").status
    assert [dead, alive] == vendor.keys
    for asked in vendor.asked:
        assert "acme" == json.loads(asked.body)["respan_params"]["customer_params"]["customer_identifier"]


def test_what_the_relay_says_for_itself_is_handed_on(door: Door, vendor: KeyedVendor) -> None:
    """A 401 of the gateway is about the app's key: no key of the caller's is blamed for it, or tried instead."""
    first, second = new_key(), new_key()
    vendor.answers[first] = answer(401, b'{"detail": "Your API key is invalid or expired"}')
    assert 401 == ask(door, vendor, with_keys(first, second), kind="relay").status
    assert ([first], 1) == (vendor.keys, len(door.records))
    assert not set(fingerprints(first)) & {state.fingerprint for state in key_state()}


def test_the_apps_keys_fail_over_as_well(door: Door, vendor: KeyedVendor) -> None:
    """Several keys of the app are tried one after the other."""
    dead, alive = new_key(), new_key()
    vendor.answers[dead] = answer(402, BAD)
    answered = ask(door, vendor, caller(credentials=()), credentials=credentials(dead, alive))
    assert (200, [dead, alive]) == (answered.status, vendor.keys)
    assert ["app", "app"] == [record.billed_to for record in door.records]


def test_a_gathered_body_goes_out_again(door: Door, vendor: KeyedVendor) -> None:
    """What came in pieces and was looked into for the relay is held."""
    dead, alive = new_key(), new_key()
    vendor.answers[dead] = answer(401, BAD)
    assert 200 == ask(door, vendor, with_keys(dead, alive), [BODY[:5], BODY[5:]], "relay").status
    assert [dead, alive] == vendor.keys


@pytest.mark.parametrize("content", [b"", None])
def test_a_call_without_a_body_is_one_call(door: Door, vendor: KeyedVendor, content: bytes | None) -> None:
    """Attempts belong together, whatever there is of a body to know them by."""
    dead, alive = new_key(), new_key()
    vendor.answers[dead] = answer(401, BAD)
    assert 200 == ask(door, vendor, with_keys(dead, alive), content).status
    first, second = door.records
    assert (first.call_id, 1, 2) == (second.call_id, first.attempt, second.attempt)


# --- it does not go on


@pytest.mark.parametrize(
    ("status", "body"),
    [(429, BUSY), (403, BUSY), (429, b"slow down"), (403, b""), (400, json.dumps(LIMIT).encode()), (500, BAD)],
)
def test_an_answer_about_something_else_is_handed_on(door: Door, vendor: KeyedVendor, status: int, body: bytes) -> None:
    """One attempt, the answer as it is, and nothing is held against the key."""
    first, second = new_key(), new_key()
    vendor.answers[first] = answer(status, body, retry_after="1")
    answered = ask(door, vendor, with_keys(first, second))
    assert (status, body, [first]) == (answered.status, answered.raw, vendor.keys)
    assert [(1, status)] == [(record.attempt, record.status_code) for record in door.records]
    assert not set(fingerprints(first)) & {state.fingerprint for state in key_state()}


def test_with_one_key_nothing_changes(door: Door, vendor: KeyedVendor) -> None:
    """Neither another attempt nor a rest."""
    dead = new_key()
    vendor.answers[dead] = answer(401, BAD)
    answered = ask(door, vendor, with_keys(dead))
    assert (401, BAD, [dead]) == (answered.status, answered.raw, vendor.keys)
    assert not set(fingerprints(dead)) & {state.fingerprint for state in key_state()}


def test_no_caller_ends_on_the_apps_bill(door: Door, vendor: KeyedVendor) -> None:
    """When all keys of the caller fail, the last answer is the app's: no key of the app takes their place."""
    dead, broke, house = new_key(), new_key(), new_key()
    vendor.answers = {dead: answer(401, BAD), broke: answer(402, BAD)}
    answered = ask(door, vendor, with_keys(dead, broke), credentials=credentials(house))
    assert (402, BAD, [dead, broke]) == (answered.status, answered.raw, vendor.keys)
    assert [1, 2] == [record.attempt for record in door.records]
    # Both rest by now: one pays all the same, and the other one is not tried.
    assert 402 == ask(door, vendor, with_keys(dead, broke), credentials=credentials(house)).status
    assert [dead, broke, broke] == vendor.keys


def test_keys_of_other_providers_are_not_tried(door: Door, vendor: KeyedVendor) -> None:
    """Only those of the route's own provider ever go there."""
    dead, broke = new_key(), new_key()
    vendor.answers = {dead: answer(401, BAD), broke: answer(402, BAD)}
    openai = Credential(provider="openai", api_key=Secret(new_key()))
    who = caller(credentials=(openai, *credentials(dead, broke)))
    assert 402 == ask(door, vendor, who).status
    assert [dead, broke] == vendor.keys


def test_the_gateway_is_asked_once(door: Door, vendor: KeyedVendor) -> None:
    """There a 401 is about the app's key, and a 429 may be a limit that the app has set."""
    vendor.otherwise = answer(401, BAD)
    assert 401 == ask(door, vendor, with_keys(new_key(), new_key()), kind="gateway").status
    assert (1, 1) == (len(vendor.asked), len(door.records))


def test_a_body_that_is_not_held_is_sent_once(door: Door, vendor: KeyedVendor) -> None:
    """It cannot be sent again; but the key rests, and the next call is paid by the other one."""
    dead, alive = new_key(), new_key()
    vendor.answers[dead] = answer(401, BAD)
    answered = ask(door, vendor, with_keys(dead, alive), [BODY])
    assert (401, BAD, [dead]) == (answered.status, answered.raw, vendor.keys)
    assert 200 == ask(door, vendor, with_keys(dead, alive), [BODY]).status
    assert [dead, alive] == vendor.keys


# --- what was looked into is as it was

WORDS = json.dumps({"error": {"message": "Provider returned error", "filler": "x" * 300, "end": "y"}}).encode()

ZIPPED = gzip.compress(WORDS, mtime=0)
LARGE = b"{" * 100_000
FULL = b"{" * MOST_BYTES


def chunked(body: bytes, *sizes: int) -> bytes:
    parts, left = [], body
    for size in sizes:
        parts.append(left[:size])
        left = left[size:]
    parts.append(left)
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts if part) + b"0\r\n\r\n"


HEAD = b"HTTP/1.1 403 Forbidden\r\nX-Id: 1\r\nx-id: 2\r\ncontent-type: application/json\r\n"
FRAMED = {
    "length": (HEAD + b"content-length: %d\r\n\r\n" % len(WORDS) + WORDS, WORDS),
    "chunks": (HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunked(WORDS, 3, 100, 1), WORDS),
    "gzip": (
        HEAD + b"content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(ZIPPED, 7),
        ZIPPED,
    ),
    "damaged": (HEAD + b"content-encoding: gzip\r\ncontent-length: 9\r\n\r\n\x1f\x8bdamaged", b"\x1f\x8bdamaged"),
    "large": (HEAD + b"content-length: 100000\r\n\r\n" + LARGE, LARGE),
    "large chunks": (HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunked(LARGE, 9, 50_000), LARGE),
    "as much as is looked at": (HEAD + b"content-length: %d\r\n\r\n" % MOST_BYTES + FULL, FULL),
    "until it ends": (HEAD + b"connection: close\r\n\r\n" + WORDS, WORDS),
    "nothing": (HEAD + b"content-length: 0\r\n\r\n", b""),
}  # fmt: skip


@pytest.mark.parametrize("framing", FRAMED)
def test_an_answer_that_was_looked_into_is_byte_for_byte_what_came(
    door: Door, vendor: KeyedVendor, framing: str
) -> None:
    """The last answer is the app's, status, headers and raw body, as it is for a caller with one key."""
    sent, body = FRAMED[framing]

    def say(connection: Connection) -> None:
        connection.send(sent)
        if b"connection: close" in sent:
            connection.sock.shutdown(socket.SHUT_WR)

    vendor.otherwise = say
    seen = ask(door, vendor, with_keys(new_key(), new_key()))
    plain = ask(door, vendor, with_keys(new_key()))
    assert 2 == len(vendor.asked)
    assert (403, body) == (seen.status, seen.raw)
    assert (plain.status, plain.headers, plain.raw) == (seen.status, seen.headers, seen.raw)
    first, second = door.records
    assert (first.outcome, first.error_message, first.error_code) == (
        second.outcome, second.error_message, second.error_code,
    )  # fmt: skip


def test_an_answer_of_a_key_is_understood_behind_its_coding(door: Door, vendor: KeyedVendor) -> None:
    """Words that name the key are found in a compressed body as well, and in its record."""
    spent, alive = new_key(), new_key()
    body = gzip.compress(json.dumps(LIMIT).encode())
    vendor.answers[spent] = answer(403, body, content_encoding="gzip")
    assert 200 == ask(door, vendor, with_keys(spent, alive)).status
    assert "Key limit exceeded" in door.records[0].error_message


@pytest.mark.parametrize("how", ["reset", "short"])
def test_an_answer_that_breaks_off_while_it_is_looked_into(door: Door, vendor: KeyedVendor, how: str) -> None:
    """It fails for the app as it would have; where the status is enough, the next key is tried all the same."""

    def break_off(connection: Connection) -> None:
        connection.send(b"HTTP/1.1 %s No\r\ncontent-length: 1000\r\n\r\n{" % status)
        if how == "reset":
            connection.reset()
        else:
            connection.sock.shutdown(socket.SHUT_WR)

    failures = []
    status = b"403"
    for keys in ((new_key(), new_key()), (new_key(),)):
        for key in keys:
            vendor.answers[key] = break_off
        with pytest.raises(Exception) as failed:
            ask(door, vendor, with_keys(*keys))
        failures.append(type(failed.value))
    assert failures[0] is failures[1]
    assert ["error", "error"] == [record.outcome for record in door.records]
    status = b"401"
    dead, alive = new_key(), new_key()
    vendor.answers[dead] = break_off
    assert 200 == ask(door, vendor, with_keys(dead, alive)).status


# --- rest


def test_a_key_that_failed_rests(door: Door, vendor: KeyedVendor) -> None:
    """The next calls are paid by the other one at once; the state tells of it, without the key."""
    dead, alive = new_key(), new_key()
    vendor.answers[dead] = answer(401, BAD)
    for _ in range(3):
        assert 200 == ask(door, vendor, with_keys(dead, alive)).status
    assert [dead, alive, alive, alive] == vendor.keys
    [state] = [state for state in key_state() if state.fingerprint in fingerprints(dead, alive)]
    assert ("openrouter", *fingerprints(dead), "401", 1) == (
        state.provider, state.fingerprint, state.reason, state.failures,
    )  # fmt: skip
    assert 590 < state.resting_for <= 600
    assert dead not in repr(state)


def test_another_callers_keys_are_not_touched_by_it(door: Door, vendor: KeyedVendor) -> None:
    """Only the very same key rests, whoever brings it."""
    dead, alive, other = new_key(), new_key(), new_key()
    vendor.answers[dead] = answer(401, BAD)
    ask(door, vendor, with_keys(dead, alive))
    ask(door, vendor, caller("globex", credentials=credentials(other, alive)))
    ask(door, vendor, caller("initech", credentials=credentials(dead, other)))
    assert [dead, alive, other, other] == vendor.keys


def test_a_key_that_pays_again_is_awake(door: Door, vendor: KeyedVendor) -> None:
    """When all rest, the first to wake is tried; if it pays, its rest is over."""
    one, two = new_key(), new_key()
    vendor.answers = {one: answer(402, BAD), two: answer(401, BAD)}
    assert 401 == ask(door, vendor, with_keys(one, two)).status
    vendor.answers.clear()
    assert 200 == ask(door, vendor, with_keys(one, two)).status
    assert [one, two, one] == vendor.keys
    assert fingerprints(two) == [
        state.fingerprint for state in key_state() if state.fingerprint in fingerprints(one, two)
    ]


def test_deflate_is_no_hindrance(door: Door, vendor: KeyedVendor) -> None:
    """Whatever the libraries do with a coding, what is looked into is looked into once."""
    spent, alive = new_key(), new_key()
    vendor.answers[spent] = answer(403, zlib.compress(json.dumps(LIMIT).encode()), content_encoding="deflate")
    assert 200 == ask(door, vendor, with_keys(spent, alive)).status
    assert key_of("acme") not in vendor.keys
