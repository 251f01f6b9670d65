"""Whose key pays: the caller's, the app's, or nobody's."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from kwai_middleware._caller import Caller, Credential
from kwai_middleware._context import bind_caller
from kwai_middleware._notices import counts
from kwai_middleware._route import Route
from kwai_middleware._secret import Secret
from kwai_middleware.errors import CannotAttribute, MissingCredential
from tests.support.callers import GATEWAY, OPENROUTER, caller, key_of, settings
from tests.support.flavours import Flavour
from tests.support.wired import ANTHROPIC, RELAY, wired, wired_call


@pytest.mark.parametrize("url", [GATEWAY, OPENROUTER])
@pytest.mark.parametrize("who", [None, caller(credentials=())], ids=["nobody", "no key"])
def test_only_means_no_call_without_the_callers_key(flavour: Flavour, who: Caller | None, url: str) -> None:
    """byok='only' refuses before a byte is sent and says what to do."""
    with pytest.raises(MissingCredential, match="send the caller's key"):
        wired(flavour, who, url=url, byok="only")


def test_a_caller_may_tighten_and_not_loosen(flavour: Flavour) -> None:
    """Where the app prefers, a caller's own `only` or `off` counts; what the app insists on, no caller undoes."""
    assert "customer_credentials" not in json.loads(wired(flavour, caller(byok="off")).content)
    with pytest.raises(MissingCredential):
        wired(flavour, caller(credentials=(), byok="only"))
    for own in ("prefer", "off"):
        with pytest.raises(MissingCredential):
            wired(flavour, caller(credentials=(), byok=own), byok="only")
        assert "customer_credentials" in json.loads(wired(flavour, caller(byok=own), byok="only").content)
    for own in ("only", "prefer", None):
        assert "customer_credentials" not in json.loads(wired(flavour, caller(byok=own), byok="off").content)
    for own in ("only", "prefer", None):
        assert "customer_credentials" in json.loads(wired(flavour, caller(byok=own)).content)


@pytest.mark.parametrize(
    ("app", "own", "expected"),
    [
        ("full", None, "full"),
        ("full", "metadata", "metadata"),
        ("metadata", "full", "metadata"),
        ("metadata", "none", "none"),
        ("none", "full", "none"),
    ],
)
def test_a_caller_may_have_less_recorded_and_not_more(flavour: Flavour, app: Any, own: Any, expected: str) -> None:
    """Of the app's and the caller's `capture` the stricter one counts."""
    seen: list[Any] = []
    client = flavour.answering(
        lambda request: flavour.library.Response(200, json={}), settings=settings(capture=app), deliver=seen.append
    )
    with bind_caller(caller(capture=own)):
        flavour.post(client, OPENROUTER, content=b"{}")
    assert [expected] == [call.capture for call in seen]
    flavour.close(client)


def test_a_request_without_a_length_gets_none(flavour: Flavour) -> None:
    """An app that frames its body itself goes on doing so."""
    sent: list[Any] = []

    def handler(request: Any) -> Any:
        sent.append(request)
        return flavour.library.Response(200)

    client = flavour.answering(handler, settings=settings(), deliver=lambda call: None)
    headers = {"transfer-encoding": "chunked"}
    with bind_caller(caller()):
        response = flavour.post(client, GATEWAY, content=b'{"model":"m"}', headers=headers)
    # httpx adds a length of its own beside it, httpx2 does not.
    assert ("content-length" in response.request.headers) == ("content-length" in sent[0].headers)
    assert "acme" == json.loads(sent[0].content)["customer_params"]["customer_identifier"]
    flavour.close(client)


def test_only_pins_the_gateway_to_the_callers_provider(flavour: Flavour) -> None:
    """No fall-back to a key that is not the caller's, and no second provider's key."""
    who = caller(
        credentials=(
            Credential(provider="openai", api_key=Secret("sk-openai-1")),
            Credential(provider="openrouter", api_key=Secret("sk-or-2")),
        )
    )
    sent = wired(flavour, who, byok="only")
    assert {"openrouter": {"api_key": "sk-or-2"}} == json.loads(sent.content)["customer_credentials"]
    assert json.loads(sent.content)["disable_fallback"] is True
    assert "openrouter" == sent.headers["x-respan-route-provider"]


@pytest.mark.parametrize(
    "member",
    ["fallback_models", "models", "route_provider_override", "load_balance_group", "load_balance_models",
     "loadbalance_models", "credential_override", "customer_api_keys"],
)  # fmt: skip
def test_only_refuses_whatever_brings_another_payer(flavour: Flavour, member: str) -> None:
    """Each of these could put the call on another bill, wherever it stands."""
    for body in ({member: {}}, {"respan_params": {member: {}}}, {"metadata": {"keywordsai_params": {member: []}}}):
        with pytest.raises(CannotAttribute, match=f"{member}.*byok='only'"):
            wired(flavour, caller(), {"model": "m", **body}, byok="only")
    header = base64.b64encode(json.dumps({member: {}}).encode()).decode()
    with pytest.raises(CannotAttribute, match=f"x-data-respan-params: {member}"):
        wired(flavour, caller(), headers={"X-Data-Respan-Params": header}, byok="only")


def test_only_lets_nothing_else_decide(flavour: Flavour) -> None:
    """Where only the caller may pay, the caller's key goes out, whatever the request or `on_conflict` says."""
    forged = {"customer_credentials": {"openrouter": {"api_key": "forged"}}, "disable_fallback": False}
    header = base64.b64encode(json.dumps({"disable_fallback": False, "note": "n"}).encode()).decode()
    for options in ({}, {"on_conflict": "body"}):
        sent = wired(
            flavour,
            caller(),
            {"model": "m", **forged, "respan_params": forged},
            headers={"X-Data-Respan-Params": header, "X-Respan-Route-Provider": "openai"},
            byok="only",
            **options,
        )
        assert {
            "model": "m",
            "customer_credentials": {"openrouter": {"api_key": key_of("acme")}},
            "customer_params": {"customer_identifier": "acme"},
            "disable_fallback": True,
        } == json.loads(sent.content)
        assert {"note": "n"} == json.loads(base64.b64decode(sent.headers["x-data-respan-params"]))
        assert ["openrouter"] == sent.headers.get_list("x-respan-route-provider")


def test_only_travels_in_the_header_beside_other_bodies(flavour: Flavour) -> None:
    """Also a body of another kind is pinned to the caller's key."""
    sent = wired(flavour, caller(), b"text", byok="only")
    carried = json.loads(base64.b64decode(sent.headers["x-data-respan-params"]))
    assert carried["disable_fallback"] is True
    assert {"openrouter": {"api_key": key_of("acme")}} == carried["customer_credentials"]
    assert "openrouter" == sent.headers["x-respan-route-provider"]


def test_a_key_at_the_anthropic_endpoint_is_warned_of(flavour: Flavour, caplog: pytest.LogCaptureFixture) -> None:
    """The vendor does not say that a customer's key pays there, so an operator learns of it, each host once."""
    host = f"{flavour.name}.gateway.example"
    options = {"url": f"https://{host}/api/anthropic/v1/messages", "base_url": f"https://{host}/api"}
    before = counts().get("unconfirmed_payer", 0)
    for who in (caller(), caller(), caller(credentials=()), None):
        wired(flavour, who, **options)
    assert before + 2 == counts()["unconfirmed_payer"]
    assert 1 == caplog.text.count(host)
    assert key_of("acme") not in caplog.text


def test_only_at_the_anthropic_endpoint_is_refused(flavour: Flavour) -> None:
    """The vendor documents no way to have only the caller's key pay there."""
    with pytest.raises(CannotAttribute, match="documents no way"):
        wired(flavour, caller(), url=ANTHROPIC, byok="only")
    with pytest.raises(MissingCredential):
        wired(flavour, None, url=ANTHROPIC, byok="only")


# --- what the gateway may log


@pytest.mark.parametrize("url", [GATEWAY, RELAY, ANTHROPIC], ids=["gateway", "relay", "anthropic"])
@pytest.mark.parametrize("capture", ["metadata", "none"])
def test_content_that_is_not_recorded_is_not_logged_by_the_gateway(flavour: Flavour, url: str, capture: Any) -> None:
    """The vendor's `disable_log` goes along, whoever calls, and no request undoes it."""
    forged = {"model": "m", "disable_log": False, "respan_params": {"disable_log": False}}
    for who, options in (
        (caller(capture=capture), {}),
        (caller(credentials=(), capture=capture), {}),
        (None, {"capture": capture}),
        (caller(capture=capture), {"on_conflict": "error"}),
        (caller(capture=capture), {"on_conflict": "body"}),
    ):
        sent = wired(flavour, who, forged, url, **options).content
        assert 1 == sent.count(b'"disable_log":true')
        assert b"false" not in sent
    assert b"disable_log" not in wired(flavour, caller(), url=url).content
    assert b"disable_log" not in wired(flavour, caller(capture=capture), url=OPENROUTER).content


def test_content_that_is_not_recorded_has_the_header_beside_other_bodies(flavour: Flavour) -> None:
    """Also a body of another kind is not logged; where no header is documented it passes as it is."""
    header = wired(flavour, None, b"text", capture="none").headers["x-data-respan-params"]
    assert {"disable_log": True} == json.loads(base64.b64decode(header))
    before = counts().get("unattributed", 0)
    assert b"text" == wired(flavour, None, b"text", RELAY, capture="none").content
    assert b"text" == wired(flavour, caller(identifier=None), b"text", RELAY, capture="none").content
    assert before == counts().get("unattributed", 0)


# --- the relay


def test_the_relay_gets_the_key_in_its_header_and_the_customer_in_the_body(flavour: Flavour) -> None:
    """The gateway's own key stays where it is, and on the app's own request there is nothing of ours."""
    sent = wired(flavour, caller("acme", name="Acme"), {"model": "m", "respan_params": {"note": "n"}}, RELAY)
    assert key_of("acme") == sent.headers["x-openrouter-api-key"]
    assert "Bearer app" == sent.headers["authorization"]
    assert {
        "model": "m",
        "respan_params": {"note": "n", "customer_params": {"customer_identifier": "acme", "name": "Acme"}},
    } == json.loads(sent.content)


def test_a_relay_that_the_app_lists_gets_both_in_the_same_places(flavour: Flavour) -> None:
    """Wherever a gateway is served: what its relay does not know of a body's members, it hands on to OpenRouter."""
    url = "https://relay.example/any/path"
    body = {"model": "m", "customer_identifier": "other"}
    sent = wired(flavour, caller(), body, f"{url}/chat/completions", routes=(Route(url, kind="relay"),))
    assert key_of("acme") == sent.headers["x-openrouter-api-key"]
    assert "Bearer app" == sent.headers["authorization"]
    assert {
        "model": "m",
        "respan_params": {"customer_params": {"customer_identifier": "acme"}},
    } == json.loads(sent.content)


@pytest.mark.parametrize("who", [None, caller(credentials=())], ids=["nobody", "no key"])
def test_the_relay_keeps_the_apps_key_where_the_caller_has_none(flavour: Flavour, who: Caller | None) -> None:
    """byok='prefer' falls back to the key that the app sends; `only` sends nothing."""
    sent = wired(flavour, who, url=RELAY, headers={"X-OpenRouter-Api-Key": "sk-app"})
    assert "sk-app" == sent.headers["x-openrouter-api-key"]
    with pytest.raises(MissingCredential):
        wired(flavour, who, url=RELAY, headers={"X-OpenRouter-Api-Key": "sk-app"}, byok="only")


def test_the_relay_takes_openrouter_keys_only(flavour: Flavour) -> None:
    """A customer's key for another provider never gets there."""
    who = caller(credentials=(Credential(provider="openai", api_key=Secret("sk-openai-1")),))
    sent = wired(flavour, who, url=RELAY)
    assert b"sk-openai" not in sent.content
    assert "x-openrouter-api-key" not in sent.headers


def test_the_relays_own_key_gives_way_to_the_callers(flavour: Flavour) -> None:
    """What the app sends for everyone is not what this customer pays with, and it is there once."""
    sent = wired(flavour, caller(), url=RELAY, headers={"X-OpenRouter-Api-Key": "sk-app"}, byok="only")
    assert [key_of("acme")] == sent.headers.get_list("x-openrouter-api-key")


# --- whose bill it was

BILLED = [
    # route, settings, with a key of the caller, without
    (OPENROUTER, {}, "caller", "app"),
    (OPENROUTER, {"byok": "off"}, "app", "app"),
    (OPENROUTER, {"byok": "only"}, "caller", None),
    (RELAY, {}, "caller", "app"),
    (RELAY, {"byok": "off"}, "app", "app"),
    (RELAY, {"byok": "only"}, "caller", None),
    (GATEWAY, {}, "unknown", "unknown"),
    (GATEWAY, {"byok": "off"}, "unknown", "unknown"),
    (GATEWAY, {"byok": "only"}, "caller", None),
    (ANTHROPIC, {}, "unknown", "unknown"),
]


@pytest.mark.parametrize(("url", "options", "with_key", "without"), BILLED)
def test_the_record_says_who_was_billed(
    flavour: Flavour, url: str, options: dict[str, Any], with_key: str, without: str | None
) -> None:
    """As far as this side can know; the gateway may fall back to another key where it is not pinned."""
    _, call = wired_call(flavour, caller(), url=url, **options)
    record = call.build()
    assert with_key == record.billed_to
    sends = options.get("byok") != "off"
    assert (Secret(key_of("acme")).fingerprint if sends else None) == record.key_fingerprint
    assert (url != OPENROUTER) == call.logged_by_vendor
    if without is not None:
        _, call = wired_call(flavour, caller(credentials=()), url=url, **options)
        assert without == call.build().billed_to
        assert call.build().key_fingerprint is None


def test_a_key_that_gave_way_to_the_requests_own_is_not_in_the_record(flavour: Flavour) -> None:
    """Under on_conflict='body' the record must not say that the caller's key was sent."""
    forged = {"model": "m", "customer_credentials": {"openrouter": {"api_key": "own"}}}
    _, call = wired_call(flavour, caller(), forged, on_conflict="body")
    assert call.build().key_fingerprint is None
    _, call = wired_call(flavour, caller(), {"model": "m"}, on_conflict="body")
    assert Secret(key_of("acme")).fingerprint == call.build().key_fingerprint


def test_anthropics_header_gets_the_key_where_the_app_has_its_own(flavour: Flavour) -> None:
    """Whichever header the SDK sends the app's key in, it holds the caller's; both, if there are both."""
    url = OPENROUTER.replace("chat/completions", "messages")
    key = key_of("acme")
    sent = wired(flavour, caller(), url=url, headers={"X-Api-Key": "app"})
    assert [key] == sent.headers.get_list("x-api-key")
    assert f"Bearer {key}" == sent.headers["authorization"]
    library = flavour.library
    requests: list[Any] = []
    client = flavour.answering(
        lambda request: (requests.append(request), library.Response(200, json={}))[1],
        settings=settings(),
        deliver=lambda call: None,
    )
    with bind_caller(caller()):
        flavour.post(client, url, content=b"{}", headers={"x-api-key": "app"})
    flavour.close(client)
    assert key == requests[0].headers["x-api-key"]
    assert "authorization" not in requests[0].headers
