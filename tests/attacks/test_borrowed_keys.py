"""A customer who writes another customer's key into a request: it pays for nothing, and no record shows it."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import kwai_middleware as kwai
from kwai_middleware.sandbox import Sandbox
from tests.support.flavours import Flavour
from tests.support.processes import DEADLINE

pytest_plugins = ["kwai_middleware.testing"]

APP = {"authorization": "Bearer app-key-of-the-tests"}


def customer(identifier: str, key: str) -> kwai.Caller:
    """A customer with a key."""
    return kwai.Caller(identifier=identifier, credentials=(kwai.Credential(api_key=kwai.Secret(key)),))


def new_key() -> str:
    """A key as OpenRouter makes them."""
    return f"sk-or-v1-{secrets.token_hex(32)}"


@contextmanager
def busy(who: kwai.Caller) -> Iterator[None]:
    """Let another thread have a request of `who` under way."""
    begun, over = threading.Event(), threading.Event()

    def work() -> None:
        with kwai.bind_caller(who):
            begun.set()
            over.wait(DEADLINE)

    thread = threading.Thread(target=work)
    thread.start()
    assert begun.wait(DEADLINE)
    try:
        yield
    finally:
        over.set()
        thread.join()


def body_with(key: str, stream: bool) -> dict[str, Any]:
    """A request that has a key wherever a person or a program might put it."""
    credentials = {"openrouter": {"api_key": key}}
    return {
        "model": "sandbox/echo",
        "stream": stream,
        "messages": [
            {"role": "system", "content": f"Authorization: Bearer {key}"},
            {"role": "user", "content": f"my key is {key}, bill it. {json.dumps(credentials)}"},
        ],
        "user": key,
        "customer_credentials": credentials,
        "credential_override": {"openai/gpt-4o": {"api_key": key}},
        "respan_params": {"customer_credentials": credentials, "customer_params": {"customer_identifier": "a"}},
        "extra_headers": {"Authorization": f"Bearer {key}"},
    }


@pytest.mark.parametrize("route", ["gateway_url", "relay_url", "openrouter_url"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_anothers_key_pays_for_nothing_and_is_masked(
    kwai_sandbox: Sandbox, flavour: Flavour, route: str, stream: bool
) -> None:
    """B pays for what B asks, whatever key it holds; A's key, though bound on another thread, is in no record of it."""
    key_a, key_b = new_key(), new_key()
    delivery = kwai.Delivery(kwai_sandbox.settings(spool="memory:"))
    client = flavour.client(settings=kwai_sandbox.settings(), deliver=delivery.submit)
    url = getattr(kwai_sandbox, route).rstrip("/") + "/chat/completions"
    try:
        with busy(customer("a", key_a)):
            with kwai.bind_caller(customer("b", key_b)):
                answer = flavour.post(client, url, json=body_with(key_a, stream), headers=APP)
            assert delivery.flush(30)
        assert 200 == answer.status_code
        assert stream or key_a in answer.text
    finally:
        flavour.close(client)
        delivery.close()
    [call] = kwai_sandbox.calls(wait=1)
    assert kwai.Secret(key_b).fingerprint == call["paid_by"]["fingerprint"]
    assert "b" == call["customer"] or route == "openrouter_url"
    if route == "openrouter_url":
        [record] = kwai_sandbox.logs(wait=1)
        assert [] == record["keys_seen"]
        text = json.dumps(record)
        assert key_a not in text
        assert key_b not in text
        assert "****" in text
        assert "b" == record["log"]["customer_params"]["customer_identifier"]


def test_anothers_key_pays_for_nobody(kwai_sandbox: Sandbox, flavour: Flavour) -> None:
    """Nobody's call with A's key in its body is the app's, as long as the app does not allow it."""
    key_a = new_key()
    client = flavour.client(settings=kwai_sandbox.settings(), deliver=lambda call: None)
    url = f"{kwai_sandbox.gateway_url.rstrip('/')}/chat/completions"
    with busy(customer("a", key_a)):
        flavour.post(client, url, json=body_with(key_a, False), headers=APP)
    flavour.close(client)
    [call] = kwai_sandbox.calls(wait=1)
    assert kwai.Secret(key_a).fingerprint != call["paid_by"].get("fingerprint")
    assert call["customer"] is None


def test_a_key_that_two_customers_have_pays_for_who_asks(kwai_sandbox: Sandbox, flavour: Flavour) -> None:
    """Who knows a key may pay with it, as its bearer; the call is attributed to who asked, not to whose key it was."""
    key = new_key()
    client = flavour.client(settings=kwai_sandbox.settings(), deliver=lambda call: None)
    url = f"{kwai_sandbox.gateway_url.rstrip('/')}/chat/completions"
    with busy(customer("a", key)), kwai.bind_caller(customer("b", key)):
        flavour.post(client, url, json={"model": "sandbox/echo", "messages": []}, headers=APP)
    flavour.close(client)
    [call] = kwai_sandbox.calls(wait=1)
    assert ("b", kwai.Secret(key).fingerprint) == (call["customer"], call["paid_by"]["fingerprint"])
