"""Several keys of one provider at the gateway: one of them, or all in a form that the vendor shows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from kwai_middleware import Credential, Secret, bind_caller, httpx_transport
from kwai_middleware.sandbox import Sandbox
from tests.support.callers import GATEWAY, OPENROUTER, caller
from tests.support.examples import HOUSE_KEY, sandbox_process
from tests.support.flavours import Flavour
from tests.support.wired import RELAY, wired, wired_call

FIRST, SECOND, OTHER = "sk-or-v1-first-000000000", "sk-or-v1-second-00000000", "sk-openai-other-00000000"
SEVERAL = (
    Credential(api_key=Secret(FIRST), weight=3.0),
    Credential(provider="openai", api_key=Secret(OTHER)),
    Credential(api_key=Secret(SECOND), weight=0.5),
)
TOP_LEVEL = [
    {"credentials": {"openrouter": {"api_key": FIRST}}, "weight": 3.0},
    {"credentials": {"openai": {"api_key": OTHER}}, "weight": 1.0},
    {"credentials": {"openrouter": {"api_key": SECOND}}, "weight": 0.5},
]
BY_PROVIDER = {
    "openrouter": [
        {"weight": 3.0, "credentials": {"api_key": FIRST}},
        {"weight": 0.5, "credentials": {"api_key": SECOND}},
    ],
    "openai": {"api_key": OTHER},
}
FORMS: Any = [("top-level", TOP_LEVEL), ("by-provider", BY_PROVIDER)]


@pytest.fixture(scope="module")
def vendors() -> Iterator[Sandbox]:
    with sandbox_process() as sandbox:
        yield sandbox


@pytest.mark.parametrize(("form", "expected"), FORMS)
def test_the_form_that_is_asked_for(flavour: Flavour, form: str, expected: Any) -> None:
    """All keys go with their weights, the caller's or the app's; which one pays, the gateway alone knows."""
    for who, options in (
        (caller(credentials=SEVERAL), {}),
        (caller(credentials=()), {"credentials": SEVERAL}),
    ):
        sent, call = wired_call(flavour, who, gateway_key_lists=form, **options)
        assert expected == json.loads(sent.content)["customer_credentials"]
        assert ("unknown", None) == (call.build().billed_to, call.build().key_fingerprint)


@pytest.mark.parametrize(("form", "expected"), FORMS)
def test_only_sends_a_list_of_one_provider(flavour: Flavour, form: str, expected: Any) -> None:
    """byok='only' pins the provider, whose keys are all the caller's."""
    sent, call = wired_call(flavour, caller(credentials=SEVERAL), gateway_key_lists=form, byok="only")
    of_one = [expected[0], expected[2]] if form == "top-level" else {"openrouter": expected["openrouter"]}
    assert of_one == json.loads(sent.content)["customer_credentials"]
    assert "openrouter" == sent.headers["x-respan-route-provider"]
    assert ("caller", None) == (call.build().billed_to, call.build().key_fingerprint)


@pytest.mark.parametrize("form", ["off", "top-level", "by-provider"])
def test_one_key_of_each_provider_is_never_a_list(flavour: Flavour, form: str) -> None:
    """The vendor documents the plain form everywhere; and then it is known which key pays."""
    sent, call = wired_call(flavour, caller(credentials=SEVERAL[:2]), gateway_key_lists=form)
    assert {"openrouter": {"api_key": FIRST}, "openai": {"api_key": OTHER}} == json.loads(sent.content)[
        "customer_credentials"
    ]
    assert Secret(FIRST).fingerprint == call.build().key_fingerprint


def test_without_being_asked_one_key_goes(flavour: Flavour) -> None:
    """The vendor contradicts itself about lists, so none is sent unless it is asked for."""
    sent = json.loads(wired(flavour, caller(credentials=SEVERAL)).content)["customer_credentials"]
    assert {"openrouter", "openai"} == set(sent)
    assert sent["openrouter"]["api_key"] in (FIRST, SECOND)


@pytest.mark.parametrize("url", [OPENROUTER, RELAY])
@pytest.mark.parametrize("form", ["top-level", "by-provider"])
def test_no_other_route_knows_lists(flavour: Flavour, url: str, form: str) -> None:
    """There one key is chosen, as ever."""
    sent, call = wired_call(flavour, caller(credentials=SEVERAL), url=url, gateway_key_lists=form)
    key = sent.headers.get("x-openrouter-api-key") or sent.headers["authorization"].removeprefix("Bearer ")
    assert key in (FIRST, SECOND)
    assert Secret(key).fingerprint == call.build().key_fingerprint


@pytest.mark.parametrize("form", ["top-level", "by-provider"])
def test_a_list_travels_in_the_header_beside_other_bodies(flavour: Flavour, form: str) -> None:
    """Wherever the object form goes, lists go too."""
    sent = wired(flavour, caller(credentials=SEVERAL), b"text", GATEWAY, gateway_key_lists=form)
    assert "x-data-respan-params" in sent.headers
    assert b"text" == sent.content


@pytest.mark.parametrize("form", ["off", "top-level", "by-provider"])
def test_the_sandbox_reads_each_form(vendors: Sandbox, form: Any) -> None:
    """Its journal shows which key paid, and that one customer was named."""
    vendors.reset()
    keys = SEVERAL[:2] if form == "off" else SEVERAL
    with (
        httpx_transport.client(settings=vendors.settings(gateway_key_lists=form), deliver=lambda call: None) as client,
        bind_caller(caller(credentials=keys)),
    ):
        body = {"model": "sandbox/echo", "messages": [{"role": "user", "content": "one"}]}
        answer: httpx.Response = client.post(
            f"{vendors.gateway_url}chat/completions", json=body, headers={"authorization": f"Bearer {HOUSE_KEY}"}
        )
    assert 200 == answer.status_code
    [call] = vendors.calls(wait=1)
    assert ("customer_credentials", Secret(FIRST).fingerprint) == (
        call["paid_by"]["source"], call["paid_by"]["fingerprint"],
    )  # fmt: skip
    assert "acme" == call["customer"]
    shown = json.dumps(call)
    assert [] == [each for each in (FIRST, SECOND, OTHER) if each in shown]
