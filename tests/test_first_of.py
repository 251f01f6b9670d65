"""Several sources of an identity or of keys: the first that has an answer counts, whole, and is named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

import kwai_middleware as kwai
from kwai_middleware import (
    ASGIMiddleware,
    Caller,
    Credential,
    HeaderCredentials,
    HeaderIdentity,
    InboundRequest,
    KeyResolver,
    Secret,
    SignedIdentity,
    Unauthenticated,
    WSGIMiddleware,
    first_of,
)
from kwai_middleware._inbound.callables import LazyIdentity
from kwai_middleware._unsettled import UserSource
from kwai_middleware.errors import ConfigurationError
from tests.apps.doors import DOORS, Door, Seen
from tests.support.callers import key_of

PROXY = HeaderIdentity(identifier="x-proxy-customer", proxy_secret="the-secret-of-the-proxy")
PROVEN = {"x-kwai-proxy": "the-secret-of-the-proxy", "x-proxy-customer": "by-proxy"}
PEER = HeaderIdentity()
KEYS = HeaderCredentials()


def partner(request: InboundRequest) -> Caller | None:
    """A partner's customers, with a key that the partner pays."""
    name = request.header("x-partner")
    if name == "forged":
        raise Unauthenticated("The partner's proof does not hold.")
    return None if name is None else Caller(identifier=name, group="partner", credentials=(partner_key(),))


async def partner_async(request: InboundRequest) -> Caller | None:
    return partner(request)


def partner_key() -> Credential:
    return Credential(api_key=Secret(key_of("partner")))


class Later(LazyIdentity):
    """Somebody whom a framework signs in."""

    def user_of(self, request: InboundRequest) -> UserSource:
        raise AssertionError("nobody asks in these tests")


@pytest.fixture(params=DOORS, ids=lambda door: door.name)
def door(request: pytest.FixtureRequest) -> Door:
    """Both doors."""
    made: Door = request.param
    return made


async def nobody_async(request: InboundRequest) -> None:
    """A source without an answer, which takes its time."""


def test_sources_that_take_their_time(door: Door) -> None:
    """Async sources are asked in order, too, between plain ones and after them."""
    for headers, expected in (({"x-partner": "beta"}, "beta"), ({"x-customer-id": "acme"}, "acme"), ({}, None)):
        for sources in ((nobody_async, partner_async, PEER), (nobody_async, partner, PEER, nobody_async)):
            seen = door.ask(tuple(headers.items()), identify=first_of(*sources))
            assert expected == (None if seen.caller is None else seen.caller.identifier)


@pytest.mark.parametrize("ask_partner", [partner, partner_async], ids=["plain", "async"])
@pytest.mark.parametrize(
    ("headers", "identifier", "group", "origin"),
    [
        ({**PROVEN, "x-partner": "beta", "x-customer-id": "acme"}, "by-proxy", None, "header via proxy secret"),
        ({"x-proxy-customer": "forged", "x-partner": "beta", "x-customer-id": "acme"}, "beta", "partner", "callable"),
        ({"x-customer-id": "acme", "x-customer-group": "own"}, "acme", "own", "header from a trusted peer"),
        ({}, None, None, None),
    ],
)
def test_the_first_answer_counts_whole(
    door: Door, ask_partner: Any, headers: dict[str, str], identifier: str | None, group: str | None, origin: str | None
) -> None:
    """In the order given; no field is taken from another source, and `explain` names the one that answered."""
    seen = door.ask(tuple(headers.items()), identify=first_of(PROXY, ask_partner, PEER))
    assert (identifier, group) == ((None, None) if seen.caller is None else (seen.caller.identifier, seen.caller.group))
    assert identifier == seen.customer_id
    named = f"callable {__name__}.{ask_partner.__name__}" if origin == "callable" else origin
    assert named == seen.origins.identity


def test_a_refusal_ends_the_search(door: Door) -> None:
    """A proof that does not hold is a 401, and no weaker source is asked."""
    seen = door.ask((("x-partner", "forged"), ("x-customer-id", "acme")), identify=first_of(partner, PEER))
    assert (401, False) == (seen.status, seen.app_ran)


def test_secret_headers_of_each_source_are_taken_out(door: Door) -> None:
    """Before any code of the app runs, whichever source answers."""
    given: list[Any] = []

    def spy(request: InboundRequest) -> Caller | None:
        given.extend((request.scope or {}).get("headers", ()))
        given.extend(request.environ or ())
        return None

    keys = first_of(spy_keys, HeaderCredentials({"x-first-key": "openrouter"}), KEYS)
    headers = (*PROVEN.items(), ("x-first-key", key_of("first")), ("x-openrouter-key", key_of("second")))
    seen = door.ask(headers, identify=first_of(spy, PROXY), credentials=keys)
    assert "secret-of" not in str(given)
    assert key_of("first") not in str((given, seen.app_headers))
    assert key_of("second") not in str((given, seen.app_headers))
    assert (key_of("first"),) == _keys(seen.caller)
    assert ("header via proxy secret", "header x-first-key") == seen.origins


def test_a_signed_header_goes_although_another_source_answers(door: Door) -> None:
    """It is good for a while for whoever sees it, so no code of the app does."""
    signed = SignedIdentity(secrets=["a-secret-of-tests-0123456789-0123456789"])
    headers = signed.headers(Caller(identifier="beta"), "GET", "/") | {"x-customer-id": "acme"}
    seen = door.ask(tuple(headers.items()), identify=first_of(PEER, signed))
    assert "acme" == (None if seen.caller is None else seen.caller.identifier)
    assert "x-kwai-identity" not in str(seen.app_headers).lower().replace("_", "-")
    assert ("beta", "signed header") == _answered(door.ask(tuple(headers.items()), identify=first_of(signed, PEER)))


def _answered(seen: Seen) -> tuple[str | None, str | None]:
    return None if seen.caller is None else seen.caller.identifier, seen.origins.identity


def spy_keys(request: InboundRequest) -> Sequence[Credential]:
    """A source of keys that has none."""
    assert key_of("first") not in str((request.scope, request.environ))
    return ()


def _keys(caller: Caller | None) -> tuple[str, ...]:
    return () if caller is None else tuple(each.api_key.reveal() for each in caller.credentials)


def test_keys_of_a_request_before_those_of_the_vault(door: Door) -> None:
    """A vault stands last: it is asked for a caller who has brought no key, and for nobody else."""
    vault = KeyResolver(lambda caller: None)
    for headers, asked_for in (
        ({"x-customer-id": "acme"}, True),
        ({"x-customer-id": "acme", "x-openrouter-key": key_of("acme")}, False),
        ({"x-openrouter-key": key_of("acme")}, False),
        ({}, False),
    ):
        for credentials in (
            first_of(KEYS, vault),
            first_of(first_of(KEYS), first_of(vault)),
            first_of(spy_keys, KEYS, vault),
        ):
            seen = door.ask(tuple(headers.items()), credentials=credentials)
            assert asked_for is seen.keys_asked_for
            assert tuple(headers.get(name, "") for name in headers if "key" in name) == _keys(seen.caller)


def test_of_several_sources_of_keys_none_has_any(door: Door) -> None:
    """None is an answer of each of them; of a callable by itself it is a mistake, as a forgotten return is."""

    def no_keys(request: InboundRequest) -> None:
        return None

    for credentials in (first_of(no_keys), first_of(KEYS, no_keys), first_of(no_keys, KEYS)):
        seen = door.ask((("x-customer-id", "acme"),), credentials=credentials)
        assert (200, ()) == (seen.status, _keys(seen.caller))
    with pytest.raises(TypeError, match="expected a list or tuple of Credential, got NoneType"):
        door.ask((("x-customer-id", "acme"),), credentials=no_keys)


def test_keys_that_identify_brings(door: Door) -> None:
    """A caller whom `identify` has given keys needs no vault; the keys come from where the caller does."""
    seen = door.ask((("x-partner", "beta"),), identify=first_of(partner), credentials=KeyResolver(lambda caller: None))
    assert not seen.keys_asked_for
    named = f"callable {__name__}.partner"
    assert (named, named) == seen.origins


def test_a_callable_that_is_an_object(door: Door) -> None:
    """It is named by its class."""

    class Who:
        def __call__(self, request: InboundRequest) -> Caller:
            return Caller(identifier="acme")

    assert f"callable {__name__}.{Who.__qualname__}" == door.ask(identify=Who()).origins.identity


@pytest.mark.parametrize("door_class", [ASGIMiddleware, WSGIMiddleware])
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: {"identify": first_of()}, "in the order in which they are asked"),
        (lambda: {"identify": first_of(PEER, "x-customer-id")}, "in the order in which they are asked"),
        (lambda: {"identify": first_of(HeaderIdentity)}, "in the order in which they are asked"),
        (lambda: {"identify": first_of(Later(), PEER)}, "put it last"),
        (lambda: {"identify": first_of(PEER, Later(), Later())}, "put it last"),
        (lambda: {"credentials": first_of(KeyResolver(len), KEYS)}, "put it last"),
        (lambda: {"identify": first_of(PEER, KEYS)}, "changed places"),
        (lambda: {"identify": KeyResolver(len)}, "changed places"),
        (lambda: {"credentials": first_of(KEYS, PEER)}, "changed places"),
        (lambda: {"credentials": Later()}, "changed places"),
        (lambda: {"identify": Later(), "required": True}, "require the login where the framework does"),
        (lambda: {"identify": first_of(PEER, Later()), "required": lambda request: True}, "after this middleware"),
        (lambda: {"credentials": KeyResolver(len), "required_key": True}, "set byok='only'"),
        (lambda: {"identify": first_of(PEER, HeaderIdentity(identifier="x-openrouter-key"))}, "same header"),
        (lambda: {"max_age": 0}, "max_age: seconds above 0"),
        (lambda: {"max_age": True}, "max_age: seconds above 0"),
        (lambda: {"max_age": float("inf")}, "max_age: seconds above 0"),
    ],
)
def test_what_cannot_be_combined(door_class: Any, make: Any, message: str) -> None:
    """It is refused when the app starts, with what to do."""
    with pytest.raises(ConfigurationError, match=message):
        door_class(lambda *_: None, **make())


def test_what_it_shows() -> None:
    """Its sources, in order."""
    combined = first_of(PEER, Later())
    assert repr(combined).startswith("first_of(HeaderIdentity(")
    assert "Later" in repr(combined)
    assert "first_of(KeyResolver(builtins.len))" == repr(first_of(KeyResolver(len)))
    assert kwai.first_of is first_of
