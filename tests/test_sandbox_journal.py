"""The sandbox's journal: filters, waiting, bounds; and its app without a server that can cut connections."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from kwai_middleware.sandbox import Sandbox, create_app
from kwai_middleware.sandbox import journal as journal_module
from kwai_middleware.sandbox import keys as keys_module
from kwai_middleware.sandbox.entries import CallEntry
from kwai_middleware.sandbox.journal import Journal
from kwai_middleware.sandbox.keys import KeyRing

pytest_plugins = ["kwai_middleware.testing"]


def call(sandbox: Sandbox, customer: str, model: str = "sandbox/echo") -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "x"}], "customer_identifier": customer}
    with httpx.Client(trust_env=False) as client:
        client.post(
            f"{sandbox.gateway_url}chat/completions", json=body, headers={"authorization": "Bearer app-key-0123"}
        ).raise_for_status()


def entry(body: bytes = b"") -> CallEntry:
    return CallEntry(route="gateway", method="POST", path="/", headers=[], raw_body=body)


def test_entries_are_numbered_and_filtered(kwai_sandbox: Sandbox) -> None:
    """Filters combine; numbers tell the order of arrival."""
    for customer, model in (("acme", "a"), ("beta", "a"), ("acme", "b")):
        call(kwai_sandbox, customer, model)
    assert [1, 3] == [each["number"] for each in kwai_sandbox.calls(wait=2, customer="acme")]
    assert [3] == [each["number"] for each in kwai_sandbox.calls(customer="acme", model="b")]
    assert [] == kwai_sandbox.calls(customer="nobody")


def test_reset_forgets_everything(kwai_sandbox: Sandbox) -> None:
    """After a reset, by either method, the journal is empty and counts from 1 again."""
    for method in ("POST", "DELETE"):
        call(kwai_sandbox, "acme")
        assert httpx.request(method, f"{kwai_sandbox.url}/sandbox/reset", trust_env=False).status_code == 204
        assert [] == kwai_sandbox.calls()
    call(kwai_sandbox, "acme")
    assert [1] == [each["number"] for each in kwai_sandbox.calls()]


def test_waiting_ends_with_the_entry_that_is_waited_for(kwai_sandbox: Sandbox) -> None:
    """A wait returns as soon as enough entries match, long before its deadline."""
    answers: list[list[dict[str, Any]]] = []
    waiting = threading.Thread(target=lambda: answers.append(kwai_sandbox.calls(wait=2, timeout=50, customer="acme")))
    began = time.monotonic()
    waiting.start()
    for customer in ("acme", "beta", "acme"):
        call(kwai_sandbox, customer)
    waiting.join(20)
    assert [["acme", "acme"]] == [[each["customer"] for each in answer] for answer in answers]
    assert time.monotonic() - began < 20


def test_waiting_in_vain_raises(kwai_sandbox: Sandbox) -> None:
    """A wait that nothing ends raises at its deadline and says how many arrived."""
    call(kwai_sandbox, "acme")
    with pytest.raises(TimeoutError, match=r"sandbox: 2 calls expected within 0\.1 s, 1 arrived"):
        kwai_sandbox.calls(wait=2, timeout=0.1)


def test_waiting_among_many_entries_works_too(kwai_sandbox: Sandbox) -> None:
    """Also a wait for hundreds of entries ends with the last of them."""
    answers: list[int] = []
    waiting = threading.Thread(target=lambda: answers.append(len(kwai_sandbox.calls(wait=300, timeout=50))))
    waiting.start()
    body = {"model": "sandbox/echo", "messages": [{"role": "user", "content": "x"}]}
    with httpx.Client(trust_env=False, headers={"authorization": "Bearer app-key-0123"}) as client:
        for _ in range(300):
            client.post(f"{kwai_sandbox.openrouter_url}/chat/completions", json=body)
    waiting.join(50)
    assert [300] == answers


@pytest.mark.parametrize("query", ["wait=x", "timeout=soon", "colour=red"])
@pytest.mark.parametrize("what", ["calls", "logs", "log-requests"])
def test_a_wrong_query_is_explained(kwai_sandbox: Sandbox, what: str, query: str) -> None:
    """An unknown filter or a number that is none answers 400 with what there is."""
    answer = httpx.get(f"{kwai_sandbox.url}/sandbox/{what}?{query}", trust_env=False)
    assert (400, True) == (answer.status_code, "wait: a whole number" in answer.text or "there are" in answer.text)


def test_the_handle_raises_what_the_sandbox_explains(kwai_sandbox: Sandbox) -> None:
    """A wrong filter is a ValueError with the sandbox's own words."""
    with pytest.raises(ValueError, match="unknown filter 'colour'; there are route, customer"):
        kwai_sandbox.calls(colour="red")


@pytest.mark.parametrize(("name", "bound"), [("_MOST_ENTRIES", 2), ("_MOST_BYTES", 20)])
def test_the_journal_is_bounded(monkeypatch: pytest.MonkeyPatch, name: str, bound: int) -> None:
    """Past the bound of entries or bytes the oldest go, counted, and the newest always stays."""
    monkeypatch.setattr(journal_module, name, bound)
    journal = Journal[CallEntry]()
    for _ in range(5):
        journal.append(entry(b"0123456789"))
    assert ([4, 5], 3) == ([each.number for each in journal.matching({})], journal.evicted)
    journal.append(entry(b"x" * 100))
    assert journal.matching({})[-1].number == 6


def test_a_clear_while_waiting_does_not_end_the_wait() -> None:
    """What arrived before a reset no longer counts."""

    async def scenario() -> int:
        journal = Journal[CallEntry]()
        journal.append(entry())
        waiting = asyncio.create_task(journal.wait({}, 2, 20))
        await asyncio.sleep(0)
        journal.clear()
        journal.append(entry())
        journal.append(entry())
        journal.append(entry())
        await waiting
        return len(journal.matching({}))

    assert asyncio.run(scenario()) == 3


def test_the_key_ring_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past its bound the oldest key is forgotten; short words are never remembered."""
    monkeypatch.setattr(keys_module, "_MOST_KEYS", 2)
    ring = KeyRing()
    for key in ("key-number-1", "key-number-2", "key-number-2", "key-number-3", "short", None):
        ring.remember(key)
    found: set[str] = set()
    text = ring.mask_text("key-number-1 key-number-2 key-number-3 short", found)
    assert len(found) == 2
    assert text.startswith("key-number-1 [key ")
    assert text.endswith("] short")


def test_a_kiosk_is_no_key() -> None:
    """What ends like the beginning of a key within a word is neither masked nor reported as one."""
    found: set[str] = set()
    assert "kiosk-550e8400-e29b-41d4-a716" == KeyRing().mask_text("kiosk-550e8400-e29b-41d4-a716", found)
    assert set() == found


def test_the_app_runs_without_a_server() -> None:
    """Under any ASGI server, Starlette's TestClient too, it is the same app; a cut is an exception there."""
    body = {"model": "sandbox/echo", "messages": [{"role": "user", "content": "Hello"}]}
    with TestClient(create_app(), headers={"authorization": "Bearer sk-or-v1-acme"}) as client:
        answer = client.post("/api/v1/chat/completions", json=body)
        with pytest.raises(ConnectionResetError):
            client.post("/api/v1/chat/completions", json=body | {"model": "sandbox/cut"})
        calls = client.get("/sandbox/calls").json()["calls"]
    assert answer.json()["choices"][0]["message"]["content"] == "Hello"
    assert ["sent", "cut"] == [each["outcome"] for each in calls]


@pytest.mark.parametrize("path", ["/api/chat/completions", "/api/request-logs/create/"])
def test_a_request_that_does_not_arrive_whole_is_not_answered(path: str) -> None:
    """A client that hangs up within its body is let go, without an entry and without an error."""
    app = create_app()
    sent: list[Any] = []

    async def scenario() -> None:
        messages = iter(({"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}))

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "headers": [], "app": None}
        await app(scope, receive, send)

    asyncio.run(scenario())
    assert [] == sent
    assert [] == app.state.sandbox.calls.matching({}) + app.state.sandbox.log_requests.matching({})
