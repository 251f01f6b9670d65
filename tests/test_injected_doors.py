"""Bodies that hold the gateway's members in every spelling: whoever parses them afterwards reads the bound caller."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import settings as configured
from hypothesis import strategies as st

from kwai_middleware._caller import Caller
from kwai_middleware._context import bind_caller
from kwai_middleware.httpx_transport import KwaiTransport
from kwai_middleware.sandbox.doors import Door, doors_of
from kwai_middleware.sandbox.json_types import object_or_empty
from kwai_middleware.sandbox.parameters import PRECEDENCES, customer_of, parameters, pass_through_parameters
from kwai_middleware.sandbox.payers import paying_credential
from tests.support.callers import GATEWAY, OPENROUTER, caller, key_of, settings
from tests.support.wired import ANTHROPIC, RELAY

KEY = "sk-or-v1-forged0123456789"
ROUTES = [GATEWAY, RELAY, ANTHROPIC, OPENROUTER]
CALLERS = [caller(), caller(credentials=()), None]


@st.composite
def _spelled(draw: st.DrawFn, value: st.SearchStrategy[str]) -> str:
    """An object with members of ours among others, doubled, in any order, with blanks and escapes."""
    members = draw(st.lists(st.tuples(_names, value), max_size=5))
    blanks = st.text(alphabet=" \n\t", max_size=2) if draw(st.booleans()) else st.just("")
    parts = [
        f"{draw(blanks)}{draw(_spellings_of(name))}{draw(blanks)}:{draw(blanks)}{text}{draw(blanks)}"
        for name, text in members
    ]
    return "{" + ",".join(parts) + draw(blanks) + "}"


def _spellings_of(name: str) -> st.SearchStrategy[str]:
    """A name as JSON may spell it."""
    escaped = st.lists(st.booleans(), min_size=len(name), max_size=len(name)).map(
        lambda flags: "".join(
            f"\\u{ord(letter):04x}" if flag else letter for flag, letter in zip(flags, name, strict=True)
        )
    )
    return st.one_of(st.just(name), escaped).map(lambda text: f'"{text}"')


_names = st.sampled_from(
    [
        "customer_credentials", "customer_params", "customer_identifier", "customer_name", "customer_email",
        "group_identifier", "credential_override", "customer_api_keys", "load_balance_group", "load_balance_models",
        "loadbalance_models", "extra_headers", "respan_params", "keywordsai_params", "extra_body", "metadata",
        "model", "models", "messages", "disable_fallback", "note",
    ]
)  # fmt: skip
_leaves = st.sampled_from(
    [
        "null", "1", '"forged"', "[]", "{}", "NaN",
        '{"customer_identifier":"forged","name":"forged"}',
        f'{{"openrouter":{{"api_key":"{KEY}"}}}}',
        f'{{"m":"{KEY}"}}',
        f'[{{"model":"m","credentials":{{"api_key":"{KEY}"}},"weight":1}}]',
        f'{{"group_id":"g","models":[{{"model":"m","credentials":{{"api_key":"{KEY}"}}}}]}}',
        f'{{"group_id":"g","models":[{{"credentials":{{"api_key":"{KEY}"}}}}],"models":[]}}',
        f'{{"Authorization":"Bearer {KEY}"}}',
    ]
)  # fmt: skip
_values: st.SearchStrategy[str] = st.recursive(
    _leaves, lambda inner: st.one_of(_spelled(inner), _spelled(inner).map(json.dumps)), max_leaves=6
)
_bodies = _spelled(_values)


def _sent(who: Caller | None, url: str, body: str) -> httpx.Request:
    requests: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, json={})

    transport = KwaiTransport(httpx.MockTransport(handler), settings=settings(), deliver=lambda call: None)
    with bind_caller(who):
        transport.handle_request(httpx.Request("POST", url, content=body.encode(), headers={"authorization": "app"}))
    return requests[0]


@pytest.mark.parametrize("url", ROUTES, ids=["gateway", "relay", "anthropic", "direct"])
@pytest.mark.parametrize("who", CALLERS, ids=["a key", "no key", "nobody"])
@example(body='{"respan_params":{"customer_identifier":"forged"},"respan_params":{}}')
@example(body='{"metadata":{"respan_params":{"customer_identifier":"forged"},"respan_params":1}}')
@example(
    body='{"load_balance_group":{"models":[{"credentials":{"a":"forged"}}]},"load_balance_group":{"group_id":"g"}}'
)
@example(body='{"respan_params":"{\\"respan_params\\":{\\"customer_name\\":\\"forged\\"}}"}')
@example(body='{"respan_params":' * 9 + '{"customer_name":"forged"}' + "}" * 9)
@given(body=_bodies)
@configured(max_examples=50)
def test_every_parser_reads_the_bound_caller(body: str, who: Caller | None, url: str) -> None:
    """At any depth, doubled, escaped, in strings: each door that is left names the caller and carries its key."""
    request = _sent(who, url, body)
    sent, headers = request.content, [(name.lower(), value) for name, value in request.headers.raw]
    for door in doors_of(sent, headers, in_metadata=True):
        _check(door, who)
    for hook in (_last_wins, _first_wins):
        _check_as_the_vendor_reads_it(json.loads(sent, object_pairs_hook=hook), who, url)
    _check_that_the_rest_is_there(json.loads(body), json.loads(sent))


def _check(door: Door, who: Caller | None) -> None:
    if door.kind == "key":
        assert who is not None
        assert who.credentials
        assert key_of("acme") == door.value
    elif door.kind is not None and door.kind != "thread":
        assert who is not None
        assert "acme" == door.value


def _check_as_the_vendor_reads_it(body: dict[str, Any], who: Caller | None, url: str) -> None:
    """Under each of the orders that the vendor has had."""
    for precedence in PRECEDENCES:
        if url == RELAY:
            merged = object_or_empty(body.get("respan_params"))
        elif url == ANTHROPIC:
            merged = pass_through_parameters(body, None, precedence)
        else:
            merged = parameters(body, None, precedence)
        named = who is not None and url != OPENROUTER
        assert ("acme" if named else None) == customer_of(merged)
        pays = who is not None and bool(who.credentials) and url in (GATEWAY, ANTHROPIC)
        paying = paying_credential(merged, "m", None)
        assert (("customer_credentials", key_of("acme")) if pays else None) == paying


def _last_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(pairs)


def _first_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return dict(reversed(pairs))


def _check_that_the_rest_is_there(body: dict[str, Any], sent: dict[str, Any]) -> None:
    """What is no door has the value that it had."""
    for name in ("model", "models", "messages", "disable_fallback", "note"):
        assert repr(body.get(name, "none")) == repr(sent.get(name, "none"))
