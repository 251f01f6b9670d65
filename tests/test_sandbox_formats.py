"""What holds in every format of the sandbox: refusals, resets, pages of proxies, keys, the journal."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from kwai_middleware.sandbox import Sandbox
from kwai_middleware.sandbox.answers import Answer, Question
from kwai_middleware.sandbox.embeddings import OpenRouterEmbeddings
from tests.support.sandbox_requests import HELLO
from tests.support.sandbox_sdks import base_url

pytest_plugins = ["kwai_middleware.testing"]

CHAT: dict[str, Any] = {"messages": HELLO}
BODIES: dict[str, dict[str, Any]] = {
    "chat/completions": CHAT,
    "responses": {"input": "Hello"},
    "completions": {"prompt": "Hello"},
    "embeddings": {"input": "Hello"},
    "audio/speech": {"input": "Hello"},
    "audio/transcription": {},
    "audio/transcriptions": {},
    "images": {"prompt": "Hello"},
    "images/generations": {"prompt": "Hello"},
    "rerank": {"query": "Hello", "documents": ["Hello"]},
    "videos": {"prompt": "Hello"},
    "anthropic/v1/messages": CHAT,
    "messages": CHAT,
}
AT_THE_GATEWAY = [
    "chat/completions", "responses", "embeddings", "audio/speech", "audio/transcription", "audio/transcriptions",
    "anthropic/v1/messages",
]  # fmt: skip
ENDPOINTS = [("gateway", path) for path in AT_THE_GATEWAY] + [
    ("openrouter", path) for path in BODIES if path not in ("audio/transcription", "anthropic/v1/messages")
]


def ask(sandbox: Sandbox, vendor: str, path: str, model: str, key: str = "any-key-0123") -> httpx.Response:
    """Ask an endpoint for a model, with the least that it needs."""
    body: dict[str, Any] = {"model": model, **BODIES[path]}
    sent: dict[str, Any] = {"json": body}
    if path.startswith("audio/transcription"):
        sent = {"data": body, "files": {"file": ("a.wav", b"Hello")}}
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(base_url(sandbox, vendor) + path, headers=headers, trust_env=False, verify=False, **sent)


@pytest.mark.parametrize(("vendor", "path"), ENDPOINTS)
def test_scenarios_of_the_transport_work_everywhere(kwai_sandbox: Sandbox, vendor: str, path: str) -> None:
    """Each endpoint refuses, answers with a proxy's page, encodes and resets on demand, and the journal shows it."""
    refused = ask(kwai_sandbox, vendor, path, "sandbox/error-429")
    assert (429, "1", True) == (refused.status_code, refused.headers["retry-after"], "error" in refused.json())
    page = ask(kwai_sandbox, vendor, path, "sandbox/html-error-502")
    assert (502, "text/html") == (page.status_code, page.headers["content-type"])
    encoded = ask(kwai_sandbox, vendor, path, "sandbox/gzip")
    assert ("gzip", True) == (encoded.headers["content-encoding"], encoded.is_success)
    with pytest.raises(httpx.TransportError):
        ask(kwai_sandbox, vendor, path, "sandbox/cut")
    shown = [(call["model"], call["outcome"]) for call in kwai_sandbox.calls(wait=4, route=vendor)]
    outcomes = {"error-429": "sent", "html-error-502": "sent", "gzip": "sent", "cut": "cut"}
    assert [(f"sandbox/{scenario}", outcome) for scenario, outcome in outcomes.items()] == shown


@pytest.mark.parametrize(("vendor", "path"), ENDPOINTS)
def test_a_dead_key_is_refused_everywhere(kwai_sandbox: Sandbox, vendor: str, path: str) -> None:
    """It never shows in the journal, whatever the body is."""
    assert 401 == ask(kwai_sandbox, vendor, path, "any", "sk-or-v1-acme-dead").status_code
    [call] = kwai_sandbox.calls(wait=1, status=401)
    assert ("any", False) == (call["model"], "sk-or-v1-acme-dead" in json.dumps(call))


def test_what_is_never_streamed_has_no_events() -> None:
    """A vector comes whole, or not at all."""
    assert [] == list(OpenRouterEmbeddings.completion(Question({"model": "any"}, {}), Answer(pieces=())).telling())
