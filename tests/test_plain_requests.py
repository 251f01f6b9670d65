"""Requests that are taken in one look: the answer is the one that a closer look gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kwai_middleware._caller import Caller, Credential
from kwai_middleware._inbound.plain import PlainRequests
from kwai_middleware._inbound.resolver import Resolver
from kwai_middleware._secret import Secret
from kwai_middleware._slot import Slot
from kwai_middleware.credentials import HeaderCredentials
from kwai_middleware.httpx_transport import KwaiTransport
from kwai_middleware.identity import HeaderIdentity
from tests.apps.doors import DOORS, LOOPBACK, ASGIDoor, Door, Peer, Seen
from tests.support.callers import OPENROUTER, settings

KEY, OTHER_KEY, PROOF = "sk-or-v1-0123456789", "sk-other-0123456789", "between-us"
ONE_KEY = HeaderCredentials()
TWO_KEYS = HeaderCredentials({"x-openrouter-key": "openrouter", "x-openai-key": "openai"})
LISTED = HeaderIdentity(trusted_peers=["127.0.0.1"])
PROVEN = HeaderIdentity(proxy_secret=PROOF)
EITHER = HeaderIdentity(proxy_secret=PROOF, trusted_peers=["127.0.0.1"])

NAMES = (
    "x-customer-id", "x-customer-name", "x-customer-group", "x-thread-id", "x-openrouter-key", "x-openai-key",
    "x-kwai-proxy", "x-forwarded-for", "forwarded", "access-control-request-method", "origin", "x-request-id",
)  # fmt: skip
VALUES = st.sampled_from(
    [
        "acme", KEY, OTHER_KEY, PROOF, "", " ", " acme ", "a,b", "Jürgen", "two words", "a\tb", "x" * 120, "x" * 121,
        "x" * 255, "x" * 4096, "x" * 4097, b"\xff", "127.0.0.1", "for=127.0.0.1:80", "10.0.0.1, 127.0.0.1", "10.0.0.1",
    ]
)  # fmt: skip
PEERS: tuple[Peer, ...] = (LOOPBACK, ("127.0.0.1", 0), ("10.0.0.9", 5), ("1" * 70, 5), None)


def outcome(seen: Seen) -> Any:
    """All that the app and the client can tell of a request."""
    return seen.status, seen.body, seen.caller, seen.customer_id, seen.origins, sorted(seen.app_headers)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
@given(
    headers=st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=6),
    peer=st.sampled_from(PEERS),
    method=st.sampled_from(["GET", "OPTIONS"]),
    identify=st.sampled_from([LISTED, PROVEN, EITHER, None]),
    credentials=st.sampled_from([ONE_KEY, TWO_KEYS, None]),
    required=st.booleans(),
    required_key=st.booleans(),
)
@example([("x-customer-id", "acme"), ("x-openrouter-key", KEY)], LOOPBACK, "GET", LISTED, ONE_KEY, True, True)
@example([("x-customer-id", "a"), ("x-customer-id", "a")], LOOPBACK, "GET", LISTED, ONE_KEY, False, False)
@example([("x-openrouter-key", KEY), ("x-openrouter-key", KEY)], LOOPBACK, "GET", LISTED, ONE_KEY, False, False)
@example([("x-openai-key", OTHER_KEY), ("x-openrouter-key", KEY)], LOOPBACK, "GET", LISTED, TWO_KEYS, False, False)
@example([("x-customer-id", "a"), ("x-kwai-proxy", PROOF)], None, "GET", PROVEN, ONE_KEY, True, False)
@example([("x-customer-id", "a"), *[("x-kwai-proxy", PROOF)] * 2], None, "GET", PROVEN, ONE_KEY, False, False)
@example([("x-customer-id", "acme")], LOOPBACK, "GET", LISTED, ONE_KEY, False, True)
@example([("x-customer-id", "x" * 121)], LOOPBACK, "GET", LISTED, ONE_KEY, False, False)
@example([("x-openrouter-key", "x" * 4097)], LOOPBACK, "GET", LISTED, ONE_KEY, False, False)
@example([("x-customer-id", "a"), ("x-forwarded-for", "127.0.0.1")], LOOPBACK, "GET", LISTED, ONE_KEY, False, False)
def test_one_look_answers_as_a_closer_one_does(
    door: Door,
    headers: Any,
    peer: Peer,
    method: str,
    identify: Any,
    credentials: Any,
    required: bool,
    required_key: bool,
) -> None:
    """Whatever is sent, by whomever: the same caller or the same refusal, and the same headers left for the app."""

    def ask(**more: Any) -> Seen:
        options: dict[str, Any] = {"identify": identify, "credentials": credentials, "required": required}
        return door.ask(headers, method=method, peer=peer, required_key=required_key, **options, **more)

    # A caller that is only valid for a time is never told in one look.
    assert outcome(ask(max_age=3600.0)) == outcome(ask())


def one_look(headers: list[tuple[str, bytes]], identify: Any, **more: Any) -> Slot | None:
    """What one look tells of a request from this host, in which identity and key are required."""
    rules = Resolver(identify, ONE_KEY, True, True, **more).plain
    assert rules is not None
    names = {name: name for name, _ in headers}
    plain = PlainRequests(rules, names, frozenset(), lambda name: False, lambda request: LOOPBACK)
    return plain.slot(None, headers, (), True)


def test_most_requests_take_one_look() -> None:
    """Identity and key, behind a listed proxy or one with a secret: what is compared above is really another way."""
    sent = [("x-customer-id", b"acme"), ("x-openrouter-key", KEY.encode())]
    caller = Caller(identifier="acme", credentials=(Credential(api_key=Secret(KEY)),))
    for identify, headers in ((LISTED, sent), (PROVEN, [*sent, ("x-kwai-proxy", PROOF.encode())])):
        slot = one_look([*headers], identify)
        assert slot is not None
        assert caller == slot.caller
        assert one_look([*headers], identify, max_age=3600.0) is None


class Shouting(list[Any]):
    """A list of headers that is iterated in a way of its own, as those of frameworks may be."""

    def __iter__(self) -> Iterator[Any]:
        yield from ((name.upper(), value) for name, value in super().__iter__())


def test_the_key_is_what_is_taken_out_of_any_list() -> None:
    """Its place is counted only in lists that tell it."""
    door = ASGIDoor()
    seen = Seen()
    sent = [("x-customer-id", "acme"), ("x-openrouter-key", KEY), ("accept", "*/*")]
    seen.request = door.scope(sent, "GET", "/", LOOPBACK)
    seen.request["headers"] = Shouting(seen.request["headers"])
    door.send(door.wrap(seen, identify=LISTED, credentials=ONE_KEY), seen)
    assert seen.caller is not None
    assert Secret(KEY) == seen.caller.credentials[0].api_key
    assert [("X-CUSTOMER-ID", "acme"), ("ACCEPT", "*/*")] == seen.app_headers


def test_a_server_that_names_a_port_and_no_address_proves_nothing() -> None:
    """The app is served, for nobody: no exception carries the headers of such a request around."""
    nowhere: Any = (None, 5)  # as a bridge from WSGI may have it
    seen = ASGIDoor().ask([("x-customer-id", "acme"), ("x-openrouter-key", KEY)], peer=nowhere, identify=LISTED)
    assert 200 == seen.status
    assert seen.caller is not None
    assert seen.caller.identifier is None


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
@pytest.mark.parametrize("max_age", [None, 3600.0], ids=["one-look", "closer"])
def test_calls_of_a_request_are_its_own_however_it_was_looked_at(door: Door, max_age: float | None) -> None:
    """Its key pays for the model calls inside of it, and their records have the trace id that it brought."""
    delivered: list[Any] = []
    paid_with: list[str] = []

    def model(request: httpx.Request) -> httpx.Response:
        paid_with.append(request.headers["authorization"])
        return httpx.Response(200, json={})

    transport = KwaiTransport(httpx.MockTransport(model), settings=settings(), deliver=delivered.append)

    class Calling(Seen):
        def look(self) -> None:
            for _ in range(2):
                client.post(OPENROUTER, json={"model": "m"}, headers={"authorization": "Bearer app"})

    seen = Calling()
    make_request = door.scope if isinstance(door, ASGIDoor) else door.environ
    sent = [("x-customer-id", "acme"), ("x-openrouter-key", KEY), ("x-request-id", "ticket-7")]
    seen.request = make_request(sent, "GET", "/", LOOPBACK)
    with httpx.Client(transport=transport) as client:
        door.send(door.wrap(seen, identify=LISTED, credentials=ONE_KEY, max_age=max_age), seen)
    assert [f"Bearer {KEY}"] * 2 == paid_with
    assert [("ticket-7", "acme")] * 2 == [(call.trace_id, call.caller.identifier) for call in delivered]
