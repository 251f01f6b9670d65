"""Every door by which a request can bring a key or an identity: it agrees with the context, or nothing is sent."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from kwai_middleware._caller import Caller
from kwai_middleware._context import bind_caller
from kwai_middleware.errors import CannotAttribute
from kwai_middleware.httpx_transport import KwaiTransport
from tests.support.callers import GATEWAY, OPENROUTER, caller, key_of, settings

RELAY = GATEWAY.replace("/chat/completions", "/openrouter/v1/chat/completions")
ANTHROPIC = GATEWAY.replace("/chat/completions", "/anthropic/v1/messages")
ROUTES = (GATEWAY, RELAY, ANTHROPIC, OPENROUTER)
CALLERS = {"a key": caller(), "no key": caller(credentials=()), "nobody": None}

FORGED_KEY = "sk-or-v1-forged0123456789"
KEYS: dict[str, Any] = {
    "customer_credentials": {"openrouter": {"api_key": FORGED_KEY}},
    "credential_override": {"m": {"api_key": FORGED_KEY, "api_base": "https://forged.example"}},
    "customer_api_keys": {"m": FORGED_KEY},
    "load_balance_models": [{"model": "a", "weight": 1}, {"model": "b", "credentials": {"api_key": FORGED_KEY}}],
    "loadbalance_models": [{"model": "a", "credentials": {"api_key": FORGED_KEY}, "weight": 1}],
    "load_balance_group": {"group_id": "g", "models": [{"model": "a", "credentials": {"api_key": FORGED_KEY}}]},
    "extra_headers": {"Authorization": f"Bearer {FORGED_KEY}", "x-api-key": FORGED_KEY, "x-title": "t"},
}
IDENTITIES: dict[str, Any] = {
    "customer_params": {"customer_identifier": "forged", "name": "forged", "metadata": {"forged": 1}},
    "customer_identifier": "forged",
    "customer_name": "forged",
    "customer_email": "forged@example.com",
    "group_identifier": "forged",
}
MEMBERS = KEYS | IDENTITIES


def _text(value: Any) -> str:
    return json.dumps(value)


def _encoded(value: Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


Place = Callable[[dict[str, Any]], tuple[dict[str, Any], dict[str, str]]]
"""Puts members into the body and headers of a request."""

PLACES: dict[str, Place] = {
    "top": lambda door: (door, {}),
    "respan_params": lambda door: ({"respan_params": {**door, "kept": 1}}, {}),
    "keywordsai_params": lambda door: ({"keywordsai_params": door}, {}),
    "text": lambda door: ({"respan_params": _text({**door, "kept": 1})}, {}),
    "old text": lambda door: ({"keywordsai_params": _text(door)}, {}),
    "extra_body": lambda door: ({"extra_body": {**door, "kept": 1}}, {}),
    "metadata": lambda door: ({"metadata": {"user_id": "u", "respan_params": {**door, "kept": 1}}}, {}),
    "old metadata": lambda door: ({"metadata": {"user_id": "u", "keywordsai_params": door}}, {}),
    "metadata text": lambda door: ({"metadata": {"user_id": "u", "respan_params": _text(door)}}, {}),
    "prompt": lambda door: ({"prompt": {"prompt_id": "p", "override_params": {**door, "kept": 1}}}, {}),
    "nested prompt": lambda door: ({"respan_params": {"prompt": {"override_params": door}, "kept": 1}}, {}),
    "twice nested": lambda door: ({"respan_params": {"keywordsai_params": _text({"respan_params": door})}}, {}),
    "header": lambda door: ({}, {"X-Data-Respan-Params": _encoded({**door, "kept": 1})}),
    "old header": lambda door: ({}, {"x-data-keywordsai-params": _encoded(door)}),
    "plain header": lambda door: ({}, {"X-Data-Respan-Params": _text(door)}),
    "prompt in a header": lambda door: (
        {},
        {"X-Data-Respan-Params": _encoded({"prompt": {"override_params": {**door, "kept": 1}}})},
    ),
    "nested header": lambda door: ({}, {"X-Data-Respan-Params": _encoded({"respan_params": door})}),
    "both headers": lambda door: (
        {},
        {"X-Data-Respan-Params": _encoded(door), "X-Data-Keywordsai-Params": _encoded({**door, "kept": 1})},
    ),
}


class _Wire:
    """What reached the network."""

    def __init__(self, who: Caller | None, url: str, body: Any, headers: dict[str, str], **options: Any) -> None:
        self.requests: list[httpx.Request] = []
        transport = KwaiTransport(
            httpx.MockTransport(self._answer), settings=settings(**options), deliver=lambda call: None
        )
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        with httpx.Client(transport=transport) as client, bind_caller(who):
            client.post(url, content=content, headers={"authorization": "Bearer app", **headers})

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return httpx.Response(200, json={})

    @property
    def body(self) -> Any:
        return json.loads(self.requests[0].content)

    @property
    def headers(self) -> httpx.Headers:
        return self.requests[0].headers

    @property
    def everything(self) -> str:
        """All that a vendor could read, in clear."""
        request = self.requests[0]
        hidden = [_decoded(value) for name, value in request.headers.items() if name.startswith("x-data-")]
        return f"{request.content.decode()} {request.headers} {hidden}"


def _decoded(value: str) -> str:
    return value if value.startswith("{") else base64.b64decode(value).decode()


def _said(wire: _Wire) -> Iterator[tuple[str, Any]]:
    """Every member at any depth of what goes out, JSON in strings and headers included."""
    yield from _members(wire.body)
    for name, value in wire.headers.items():
        if name.startswith("x-data-"):
            yield from _members(json.loads(_decoded(value)))


def _members(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, str) and value.startswith("{"):
        value = json.loads(value)
    if isinstance(value, list):
        for item in value:
            yield from _members(item)
    elif isinstance(value, dict):
        for name, member in value.items():
            yield name, member
            yield from _members(member)


@pytest.mark.parametrize("who", CALLERS.values(), ids=CALLERS)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("member", MEMBERS)
def test_the_context_wins_at_every_door(member: str, place: Place, who: Caller | None) -> None:
    """No part of what goes out has anything of the forged key or name; what is no door stays."""
    body, headers = place({member: MEMBERS[member]})
    for url in ROUTES:
        wire = _Wire(who, url, {"model": "m", **body}, headers)
        assert "forged" not in wire.everything
        said = list(_said(wire))
        if "kept" in str(place({})):
            assert ("kept", 1) in said
        if "user_id" in str(body):
            assert "u" == wire.body["metadata"]["user_id"]
        _check_whose_it_is(wire, url, who, said)


def _check_whose_it_is(wire: _Wire, url: str, who: Caller | None, said: list[tuple[str, Any]]) -> None:
    """Each door says the bound caller or is not there."""
    names = [value for name, value in said if name == "customer_params"]
    assert (
        [] == [value for name, value in said if name in IDENTITIES and name not in ("customer_params",)][len(names) :]
    )
    credentials = [value for name, value in said if name == "customer_credentials"]
    has_key = who is not None and bool(who.credentials)
    assert names == ([{"customer_identifier": "acme"}] if who is not None and url != OPENROUTER else [])
    in_body = has_key and url in (GATEWAY, ANTHROPIC)
    assert credentials == ([{"openrouter": {"api_key": key_of("acme")}}] if in_body else [])
    assert (f"Bearer {key_of('acme')}" if has_key and url == OPENROUTER else "Bearer app") == wire.headers[
        "authorization"
    ]
    assert (key_of("acme") if has_key and url == RELAY else None) == wire.headers.get("x-openrouter-api-key")


@pytest.mark.parametrize("who", CALLERS.values(), ids=CALLERS)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("member", MEMBERS)
def test_an_open_door_may_be_an_error(member: str, place: Place, who: Caller | None) -> None:
    """on_conflict='error' refuses each of them by its name, and the forged value is in no message."""
    body, headers = place({member: MEMBERS[member]})
    for url in ROUTES:
        with pytest.raises(CannotAttribute, match=member) as caught:
            _Wire(who, url, {"model": "m", **body}, headers, on_conflict="error")
        assert "forged" not in str(caught.value)


@pytest.mark.parametrize("who", CALLERS.values(), ids=CALLERS)
@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("member", MEMBERS)
def test_the_request_may_win_at_every_door(member: str, place: Place, who: Caller | None) -> None:
    """on_conflict='body' leaves what the request brings as it is, and adds nothing that would contradict it."""
    body, headers = place({member: MEMBERS[member]})
    for url in ROUTES:
        wire = _Wire(who, url, {"model": "m", **body}, headers, on_conflict="body")
        said = list(_said(wire))
        assert "forged" in wire.everything
        has_key = who is not None and bool(who.credentials)
        keys = [value for name, value in said if name == "customer_credentials"]
        names = [value for name, value in said if name == "customer_params"]
        if member in KEYS:
            assert not any(key_of("acme") in str(value) for value in keys)
            assert (who is not None and url != OPENROUTER) == ({"customer_identifier": "acme"} in names)
        else:
            assert {"customer_identifier": "acme"} not in names
            assert (has_key and url in (GATEWAY, ANTHROPIC)) == any(key_of("acme") in str(value) for value in keys)
