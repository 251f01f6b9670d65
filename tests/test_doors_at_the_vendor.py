"""A user's own JSON, handed on through a real SDK: in each order of the vendor's doors it is the bound caller's."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import openai
import pytest

from kwai_middleware import Secret, Settings, bind_caller, httpx2_transport
from kwai_middleware._caller import Caller
from kwai_middleware.sandbox import Sandbox
from tests.support.callers import caller, key_of
from tests.support.examples import APP_KEY, HOUSE_KEY, sandbox_process

MESSAGES: Any = [{"role": "user", "content": "one"}]
FORGED = {
    "customer_credentials": {"openrouter": {"api_key": "sk-or-v1-forged0123456789"}},
    "customer_params": {"customer_identifier": "victim", "name": "Victim"},
    "customer_identifier": "victim",
    "credential_override": {"m": {"api_key": "sk-or-v1-forged0123456789"}},
}
BODY = {
    **FORGED,
    "respan_params": json.dumps(FORGED),
    "keywordsai_params": FORGED,
    "metadata": {"respan_params": FORGED, "keywordsai_params": FORGED},
}
HEADERS = {"X-Data-Respan-Params": base64.b64encode(json.dumps(FORGED).encode()).decode()}
WHO = {"a key": caller(), "no key": caller(credentials=()), "nobody": None}
Order = Literal["2026-10", "2026-06"]


@pytest.fixture(scope="module")
def vendors() -> Iterator[Sandbox]:
    with sandbox_process() as sandbox:
        yield sandbox


def _ask(vendors: Sandbox, route: str) -> None:
    settings = Settings(base_url=vendors.gateway_url, openrouter_base_url=vendors.openrouter_url)
    with httpx2_transport.client(settings=settings, deliver=lambda call: None) as http_client:
        if route == "anthropic":
            claude = anthropic.Anthropic(
                api_key=APP_KEY, base_url=vendors.gateway_anthropic_url, http_client=http_client, max_retries=0
            )
            claude.messages.create(model="m", messages=MESSAGES, max_tokens=9, extra_body=BODY, extra_headers=HEADERS)
            return
        urls = {"gateway": vendors.gateway_url, "relay": vendors.relay_url, "direct": vendors.openrouter_url}
        headers = HEADERS if route != "relay" else {**HEADERS, "X-OpenRouter-Api-Key": HOUSE_KEY}
        api_key = HOUSE_KEY if route == "direct" else APP_KEY
        llm = openai.OpenAI(api_key=api_key, base_url=urls[route], http_client=http_client, max_retries=0)
        llm.chat.completions.create(model="m", messages=MESSAGES, extra_body=BODY, extra_headers=headers)


@pytest.mark.parametrize("order", ["2026-10", "2026-06"])
@pytest.mark.parametrize("who", WHO.values(), ids=WHO)
@pytest.mark.parametrize("route", ["gateway", "relay", "anthropic", "direct"])
def test_the_vendor_reads_the_bound_caller(vendors: Sandbox, route: str, who: Caller | None, order: Order) -> None:
    """Whichever door wins, it is the caller's; no two disagree, and nothing of it goes on to a model's provider."""
    vendors.reset()
    vendors.precedence(order)
    with bind_caller(who):
        _ask(vendors, route)
    [call] = vendors.calls(wait=1)
    assert 200 == call["status"]
    assert (None if who is None or route == "direct" else "acme") == call["customer"]
    assert [] == call["doors_disagree"]
    assert [] == call["forwarded"]
    assert "victim" not in json.dumps(call["doors"])
    house = HOUSE_KEY if route in ("relay", "direct") else APP_KEY
    has_key = who is not None and bool(who.credentials)
    # The vendor's own credentials pay at its Anthropic endpoint.
    payer = key_of("acme") if has_key and route != "anthropic" else house
    assert Secret(payer).fingerprint == call["paid_by"]["fingerprint"]
