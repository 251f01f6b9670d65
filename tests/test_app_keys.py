"""The app's own keys: they pay where no key of the caller's may, and never instead of one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kwai_middleware._caller import Caller, Credential
from kwai_middleware._notices import counts
from kwai_middleware._route import Route
from kwai_middleware._secret import Secret
from kwai_middleware.errors import CannotAttribute, MissingCredential
from tests.support.callers import GATEWAY, OPENROUTER, caller, key_of
from tests.support.flavours import Flavour
from tests.support.wired import ANTHROPIC, RELAY, wired, wired_call

HOUSE = "sk-or-v1-house-0000000000"
OPENAI_HOUSE = "sk-openai-house-0000000000"
KEYS = (
    Credential(provider="openai", api_key=Secret(OPENAI_HOUSE)),
    Credential(api_key=Secret(HOUSE)),
)
OPENAI = "https://api.openai.com/v1/chat/completions"
OPENAI_ROUTE = {"routes": (Route("https://api.openai.com/v1"),)}
KEYLESS: list[Any] = [None, caller(credentials=())]


def paid(sent: Any) -> str | None:
    """The key that goes out for the provider."""
    relayed = sent.headers.get("x-openrouter-api-key")
    return relayed or sent.headers["authorization"].removeprefix("Bearer ")


@pytest.mark.parametrize("who", KEYLESS, ids=["nobody", "no key"])
@pytest.mark.parametrize(("url", "key"), [(OPENROUTER, HOUSE), (RELAY, HOUSE), (OPENAI, OPENAI_HOUSE)])
def test_the_apps_key_of_the_routes_provider_pays_where_the_caller_has_none(
    flavour: Flavour, who: Caller | None, url: str, key: str
) -> None:
    """It goes where a caller's key would; the record says who paid, and with which key."""
    sent, call = wired_call(flavour, who, url=url, credentials=KEYS, **OPENAI_ROUTE)
    assert key == paid(sent)
    assert ("app" if url == RELAY else key) == sent.headers["authorization"].removeprefix("Bearer ")
    record = call.build()
    assert ("app", Secret(key).fingerprint, "settings") == (record.billed_to, record.key_fingerprint, record.key_from)


@pytest.mark.parametrize("url", [OPENROUTER, RELAY, GATEWAY])
def test_a_callers_key_is_never_beside_or_behind_one_of_the_apps(flavour: Flavour, url: str) -> None:
    """Whoever brings a key of the route's provider pays with it alone."""
    sent, call = wired_call(flavour, caller(), url=url, credentials=KEYS)
    text = str(sent.headers.raw) + sent.content.decode()
    assert key_of("acme") in text
    assert HOUSE not in text
    assert OPENAI_HOUSE not in text
    assert Secret(key_of("acme")).fingerprint == call.build().key_fingerprint


def test_a_callers_key_for_another_provider_leaves_the_apps_to_pay_at_this_one(flavour: Flavour) -> None:
    """At a provider's own API only keys of that provider count; the gateway takes any of the caller's."""
    who = caller(credentials=(Credential(provider="openai", api_key=Secret("sk-openai-acme-000")),))
    assert HOUSE == paid(wired(flavour, who, url=OPENROUTER, credentials=KEYS))
    sent = json.loads(wired(flavour, who, credentials=KEYS).content)
    assert {"openai": {"api_key": "sk-openai-acme-000"}} == sent["customer_credentials"]


@pytest.mark.parametrize("url", [OPENROUTER, RELAY])
def test_off_means_the_apps_key(flavour: Flavour, url: str) -> None:
    """byok='off', of the app or of a caller for itself: the caller's key never goes out, the app's does."""
    for who, options in ((caller(), {"byok": "off"}), (caller(byok="off"), {})):
        sent, call = wired_call(flavour, who, url=url, credentials=KEYS, **options)
        assert HOUSE == paid(sent)
        assert "app" == call.build().billed_to


@pytest.mark.parametrize("url", [OPENROUTER, RELAY, GATEWAY])
@pytest.mark.parametrize("who", KEYLESS, ids=["nobody", "no key"])
def test_only_never_means_the_apps_key(flavour: Flavour, who: Caller | None, url: str) -> None:
    """byok='only' refuses, whatever keys the app has."""
    with pytest.raises(MissingCredential):
        wired(flavour, who, url=url, credentials=KEYS, byok="only")


def test_without_a_key_of_that_provider_the_clients_own_pays(flavour: Flavour) -> None:
    """The key that the SDK was given stays where it is."""
    sent, call = wired_call(flavour, None, url=OPENROUTER, credentials=KEYS[:1])
    assert "app" == paid(sent)
    assert ("app", None) == (call.build().billed_to, call.build().key_fingerprint)


@pytest.mark.parametrize("who", KEYLESS, ids=["nobody", "no key"])
def test_the_gateway_gets_one_of_each_provider(flavour: Flavour, who: Caller | None) -> None:
    """As `customer_credentials`, where the caller has none at all; who is billed there, nobody here can know."""
    sent, call = wired_call(flavour, who, credentials=(*KEYS, Credential(api_key=Secret(HOUSE + "2"), weight=1e-9)))
    assert {"openai": {"api_key": OPENAI_HOUSE}, "openrouter": {"api_key": HOUSE}} == json.loads(sent.content)[
        "customer_credentials"
    ]
    assert ("unknown", Secret(HOUSE).fingerprint) == (call.build().billed_to, call.build().key_fingerprint)
    sent, call = wired_call(flavour, who, credentials=KEYS[:1])
    assert ["openai"] == list(json.loads(sent.content)["customer_credentials"])
    assert Secret(OPENAI_HOUSE).fingerprint == call.build().key_fingerprint


def test_a_request_that_may_bring_a_key_keeps_it(flavour: Flavour) -> None:
    """body_credentials='allow' lets a request's own key through where the caller has none: alone."""
    own = {"model": "m", "customer_credentials": {"openai": {"api_key": "own"}}}
    sent, call = wired_call(flavour, None, own, credentials=KEYS, body_credentials="allow")
    assert own == json.loads(sent.content)
    assert call.build().key_fingerprint is None
    sent = wired(flavour, None, own, credentials=KEYS)
    assert b"own" not in sent.content
    assert HOUSE == json.loads(sent.content)["customer_credentials"]["openrouter"]["api_key"]


def test_a_body_that_takes_no_key_goes_out_on_the_gateways_own(flavour: Flavour) -> None:
    """Either way the app pays: what a caller's key would refuse, the app's does not."""
    url = GATEWAY.replace("chat/completions", "embeddings")
    with pytest.raises(CannotAttribute):
        wired(flavour, caller(), b"[1]", url, credentials=KEYS)
    before = counts().get("unattributed", 0)
    sent, call = wired_call(flavour, caller(credentials=()), b"[1]", url, credentials=KEYS)
    assert (b"[1]", None) == (sent.content, call.build().key_fingerprint)
    assert before + 1 == counts()["unattributed"]


def test_nobody_is_warned_of_an_app_that_pays_for_itself(flavour: Flavour) -> None:
    """That the gateway's own key may pay at the Anthropic endpoint is news for a caller's key only."""
    before = counts().get("unconfirmed_payer", 0)
    sent = wired(flavour, None, url=ANTHROPIC, credentials=KEYS)
    assert HOUSE.encode() in sent.content
    assert before == counts().get("unconfirmed_payer", 0)


def test_no_record_shows_a_key_of_the_app(flavour: Flavour) -> None:
    """They are masked as a caller's are, of whatever shape, whoever paid."""
    odd = Credential(provider="other", api_key=Secret("hunter2-hunter2"))
    body = {"model": "m", "messages": [{"role": "user", "content": "it is hunter2-hunter2"}]}
    for who in (None, caller()):
        _, call = wired_call(flavour, who, body, OPENROUTER, credentials=(*KEYS, odd))
        assert {odd.api_key, *(key.api_key for key in KEYS)} <= set(call.secrets)
        assert (key_of("acme") in [secret.reveal() for secret in call.secrets]) == (who is not None)
