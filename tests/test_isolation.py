"""Never the wrong tenant: 64 customers at once through one shared SDK client, and each call is its own customer's."""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from kwai_middleware._secret import Secret
from kwai_middleware.sandbox import Sandbox
from tests.support.callers import key_of
from tests.support.examples import HOUSE_KEY, fastapi_example, flask_example, sandbox_process

CUSTOMERS = [f"customer-{number}" for number in range(64)]
FASTAPI_PATHS = ["/chat", "/chat/stream", "/direct", "/direct/stream", "/openrouter"]
FLASK_PATHS = ["/chat", "/chat/stream", "/direct"]
CALLS_EACH = 16  # 64 customers make 1,024 calls
SLOW = 0.25
"""Seconds that the vendors take at least for every eighth call, so that many customers' calls are under way at once."""


@pytest.fixture(scope="module")
def vendors() -> Iterator[Sandbox]:
    with sandbox_process() as sandbox:
        yield sandbox


async def _customer(client: httpx.AsyncClient, customer: str, paths: list[str]) -> None:
    """One customer's requests, one after the other; every fourth comes without the key."""
    for number in range(CALLS_EACH):
        path = paths[number % len(paths)]
        headers = {"x-customer-id": customer}
        if number % 4:
            headers["x-openrouter-key"] = key_of(customer)
        question = f"{customer} {path} {'paid' if number % 4 else 'house'} number {number}"
        model = "sandbox/echo" if number % 8 else f"sandbox/slow-{SLOW}"
        response = await client.post(path, json={"question": question, "model": model}, headers=headers)
        assert 200 == response.status_code, response.text
        assert question == (response.json()["answer"] if "json" in response.headers["content-type"] else response.text)


async def _everybody(url: str, paths: list[str]) -> None:
    limits = httpx.Limits(max_connections=64)
    client = httpx.AsyncClient(base_url=url, limits=limits, timeout=60, trust_env=False)
    async with client, asyncio.TaskGroup() as group:
        for customer in CUSTOMERS:
            group.create_task(_customer(client, customer, paths))


def _payer(text: str, customer: str) -> str:
    return Secret(key_of(customer) if " paid " in text else HOUSE_KEY).fingerprint


def _check_gateway_calls(sandbox: Sandbox, paths: list[str], expected: int) -> None:
    """What the gateway saw of each call agrees with what its customer said in the prompt."""
    calls = sandbox.calls(wait=expected, route="gateway")
    assert expected == len(calls)
    for call in calls:
        text = call["body"]["messages"][-1]["content"]
        customer = text.split(" ")[0]
        assert customer == call["customer"]
        assert {"customer_identifier": customer} == call["customer_params"]
        if " paid " in text:
            assert {"source": "customer_credentials", "fingerprint": _payer(text, customer)} == call["paid_by"]
        else:
            assert "customer_credentials" not in call["body"]


def _check_direct_calls(sandbox: Sandbox, expected: int) -> None:
    """OpenRouter was paid by the right key, and the record that was posted names the right customer."""
    calls = sandbox.calls(wait=expected, route="openrouter")
    assert expected == len(calls)
    for call in calls:
        text = call["body"]["messages"][-1]["content"]
        assert {"source": "authorization", "fingerprint": _payer(text, text.split(" ")[0])} == call["paid_by"]
        assert "customer_params" not in call["body"]
    # An attempt on a kept connection that the vendor closes at this moment fails, and the SDK repeats it: that is a
    # record too, of the same customer, but without an answer.
    logs = sandbox.logs(wait=expected, timeout=60, status_code=200)
    for entry in sandbox.logs():
        assert entry["customer"] == entry["log"]["prompt_messages"][0]["content"].split(" ")[0]
        assert [] == entry["keys_seen"]
    texts = Counter()
    for entry in logs:
        [message] = entry["log"]["prompt_messages"]
        text = message["content"]
        customer = text.split(" ")[0]
        texts[text] += 1
        assert customer == entry["customer"]
        assert text == entry["log"]["completion_message"]["content"]
        assert ("caller" if " paid " in text else "app") == entry["log"]["metadata"]["billed_to"]
        assert [] == entry["keys_seen"]
    assert expected == len(texts) == len(logs)


def _most_at_once(sandbox: Sandbox) -> int:
    """How many of the slow calls, at least, the vendors were answering at the same time."""
    calls = sandbox.calls(model=f"sandbox/slow-{SLOW}")
    assert CALLS_EACH // 8 * len(CUSTOMERS) == len(calls)
    arrivals = sorted(datetime.fromisoformat(call["arrived_at"]) for call in calls)
    return max(bisect_right(arrivals, begun + timedelta(seconds=SLOW)) - n for n, begun in enumerate(arrivals))


def _check(sandbox: Sandbox, paths: list[str]) -> None:
    asked = Counter(paths[number % len(paths)] for number in range(CALLS_EACH) for _ in CUSTOMERS)
    gateway = sum(count for path, count in asked.items() if path.startswith("/chat"))
    _check_gateway_calls(sandbox, paths, gateway)
    _check_direct_calls(sandbox, asked.total() - gateway)


@contextlib.contextmanager
def _server(kind: str, sandbox: Sandbox) -> Iterator[tuple[str, Any]]:
    if kind == "gthread":
        with flask_example(sandbox, "--worker-class", "gthread", "--workers", "1", "--threads", "64") as server:
            yield server
    else:
        with fastapi_example(sandbox, "--loop", kind) as server:
            yield server


@pytest.mark.parametrize("kind", ["asyncio", "uvloop", "gthread"])
def test_each_call_carries_its_own_customer_and_key(vendors: Sandbox, kind: str) -> None:
    """1,024 calls of 64 customers, streamed and not, through the gateway and straight to OpenRouter."""
    vendors.reset()
    paths = FLASK_PATHS if kind == "gthread" else FASTAPI_PATHS
    with _server(kind, vendors) as (url, process):
        asyncio.run(_everybody(url, paths))
        _check(vendors, paths)
        assert _most_at_once(vendors) >= 16
        output = process.output
    assert "sk-or-v1" not in output
    assert "swallowed" not in output
