"""From the SDK's call to the vendor's log: what reached the logs API is what the vendor's own types take whole."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest

from kwai_middleware import (
    CompletedCall,
    Delivery,
    Secret,
    WSGIMiddleware,
    bind_caller,
    default_delivery,
    httpx2_transport,
)
from kwai_middleware.sandbox import Sandbox
from tests.support.callers import caller, key_of
from tests.support.examples import sandbox_process
from tests.support.vendor_logs import taken_whole

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
IMAGE: Any = {"type": "image_url", "image_url": {"url": "https://example.com/cat.png"}}
AUDIO: Any = {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}
TEXT: Any = {"type": "text", "text": "what is this?"}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
STATUSES = (400, 402, 403, 404, 408, 413, 422, 429, 502, 503, 524, 529)
CALLED: Any = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
QUESTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "parameters": {"temperature": 0.5, "max_tokens": 9, "seed": 1, "stop": ["x"], "extra_body": {"top_k": 3}},
    "tools": {"model": "sandbox/tools", "tools": [TOOL], "tool_choice": "auto"},
    "an image": {"messages": [{"role": "user", "content": [TEXT, IMAGE]}]},
    "audio, which the vendor's type rejects": {"messages": [{"role": "user", "content": [TEXT, AUDIO]}]},
    "a conversation": {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "assistant", "content": None, "tool_calls": [CALLED]},
            {"role": "tool", "tool_call_id": "c", "content": "sunny"},
            {"role": "user", "content": "And?"},
        ]
    },
    "reasoning": {"model": "sandbox/reasoning"},
    "a provider key at OpenRouter": {"model": "sandbox/byok"},
    "gzip": {"model": "sandbox/gzip"},
    "a late end": {"model": "sandbox/late-end-0.3"},
    "no end": {"model": "sandbox/no-done"},
    "an error inside 200": {"model": "sandbox/error-in-200"},
    "an error in the stream": {"model": "sandbox/stream-error"},
    "a cut connection": {"model": "sandbox/cut"},
    "an empty answer": {"model": "sandbox/empty"},
    "a page of HTML": {"model": "sandbox/html-error"},
    **{f"status {status}": {"model": f"sandbox/error-{status}"} for status in STATUSES},
}


@pytest.fixture(scope="module")
def vendors() -> Iterator[Sandbox]:
    with sandbox_process() as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def app(vendors: Sandbox) -> Iterator[tuple[openai.OpenAI, Delivery]]:
    """The SDK with a ready client, and the delivery that the client uses by itself."""
    settings = vendors.settings()
    with httpx2_transport.client(settings=settings) as http_client:
        delivery = default_delivery(settings)
        yield (
            openai.OpenAI(base_url=vendors.openrouter_url, api_key="house", http_client=http_client, max_retries=0),
            delivery,
        )
        assert delivery.close()


@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "streamed"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_what_reached_the_logs_api(
    vendors: Sandbox, app: tuple[openai.OpenAI, Delivery], question: str, streamed: bool
) -> None:
    """One record, of the right customer, and the vendor's types drop nothing of it."""
    client, delivery = app
    vendors.reset()
    request = {"model": "sandbox/echo", "messages": [{"role": "user", "content": "one two"}], **QUESTIONS[question]}
    failed = (
        "status" in question
        or "error" in question
        or "HTML" in question
        or question in ("a cut connection", "an empty answer")
    )
    # What the SDK makes of a bad answer is its own affair: the record is ours.
    with (
        bind_caller(caller("acme", name="Acme", thread="t-1", group="corp", metadata={"plan": "pro"})),
        contextlib.suppress(openai.APIError, json.JSONDecodeError, AttributeError),
    ):
        if streamed:
            for _ in client.chat.completions.create(stream=True, **request):
                pass
        else:
            client.chat.completions.create(**request)
    assert delivery.flush(30)
    [entry] = vendors.logs()
    assert ([], []) == (entry["dropped"], entry["keys_seen"])
    log = taken_whole(json.dumps(entry["log"]).encode())
    assert "acme" == entry["customer"]
    assert {"customer_identifier": "acme", "name": "Acme", "email": None} == {"email": None, **log["customer_params"]}
    assert ("corp", "t-1", "pro") == (log["group_identifier"], log["thread_identifier"], log["metadata"]["plan"])
    assert ("error" if failed else "success") == log["status"]
    assert log["metadata"]["kwai_record_id"]
    assert streamed == log["stream"]
    assert 0 < log["generation_time"] < 30
    if question in ("plain", "tools", "reasoning", "gzip", "a late end"):
        assert log["cost"] > 0
        assert log["usage"]["total_tokens"] == log["prompt_tokens"] + log["completion_tokens"]
        assert streamed == ("time_to_first_token" in log)
        assert "complete" == log["metadata"]["outcome"]
    if question == "a late end" and streamed:
        assert log["generation_time"] < 0.3


@pytest.mark.parametrize("route", ["gateway", "relay"])
def test_a_call_through_the_gateway_is_not_posted_again(
    vendors: Sandbox, app: tuple[openai.OpenAI, Delivery], route: str
) -> None:
    """The gateway logs its own calls, relayed ones too; for us each is an event and nothing more."""
    client, delivery = app
    vendors.reset()
    before = delivery.stats()
    with bind_caller(caller()):
        base_url = vendors.gateway_url if route == "gateway" else vendors.relay_url
        client.with_options(base_url=base_url).chat.completions.create(
            model="sandbox/echo", messages=[{"role": "user", "content": "hi"}]
        )
    assert delivery.flush(30)
    assert 1 == len(vendors.calls(route=route))
    assert [] == vendors.log_requests()
    assert before.observed + 1 == delivery.stats().observed


def test_a_call_in_anthropics_format_is_logged_whole(vendors: Sandbox, app: tuple[openai.OpenAI, Delivery]) -> None:
    """Straight to OpenRouter the caller pays, the SDK reads its answer, and the log says whose call it was."""
    _, delivery = app
    vendors.reset()
    question: Any = {"model": "sandbox/echo", "max_tokens": 9, "messages": [{"role": "user", "content": "the prompt"}]}
    with httpx2_transport.client(settings=vendors.settings()) as http_client, bind_caller(caller()):
        base_url = vendors.openrouter_anthropic_url
        llm = anthropic.Anthropic(base_url=base_url, api_key="house", http_client=http_client, max_retries=0)
        answer: Any = llm.messages.create(**question)
        with llm.messages.stream(**question) as stream:
            streamed = stream.get_final_text()
    assert "the prompt" == answer.content[0].text == streamed
    assert delivery.flush(30)
    paid = {call["paid_by"]["fingerprint"] for call in vendors.calls(wait=2, route="openrouter")}
    assert {Secret(key_of("acme")).fingerprint} == paid
    entries = vendors.logs(wait=2)
    assert [(None, [], [])] * 2 == [(entry["lost"], entry["dropped"], entry["keys_seen"]) for entry in entries]
    for log, is_stream in zip((entry["log"] for entry in entries), (False, True), strict=True):
        assert ("acme", "sandbox/echo", 200, is_stream) == (
            log["customer_identifier"], log["model"], log["status_code"], log["stream"],
        )  # fmt: skip
        assert "caller" == log["metadata"]["billed_to"]
        assert [{"role": "user", "content": "the prompt"}] == log["prompt_messages"]
        assert {"role": "assistant", "content": "the prompt"} == log["completion_message"]
        assert log["cost"] > 0


@pytest.mark.parametrize(
    ("headers", "trace"),
    [
        ({"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "x-request-id": "one"}, TRACE),
        ({"x-request-id": "req-7"}, "req-7"),
        ({}, None),
    ],
    ids=["traceparent", "request id", "made"],
)
def test_the_calls_of_a_request_are_one_trace_at_the_vendor(
    vendors: Sandbox, app: tuple[openai.OpenAI, Delivery], headers: dict[str, str], trace: str | None
) -> None:
    """From the header of the request to the member of the log; with the conversation that it names."""
    client, delivery = app
    vendors.reset()

    def chat(environ: Any, start_response: Any) -> list[bytes]:
        for _ in range(2):
            client.chat.completions.create(model="sandbox/echo", messages=[{"role": "user", "content": "hi"}])
        start_response("204 No Content", [])
        return []

    sent = {"x-customer-id": "acme", "x-openrouter-key": key_of("acme"), "x-thread-id": "t-1", **headers}
    with httpx.Client(transport=httpx.WSGITransport(WSGIMiddleware(chat)), base_url="http://app") as browser:
        assert [204, 204] == [browser.get("/", headers=sent).status_code for _ in range(2)]
    assert delivery.flush(30)
    logs = [entry["log"] for entry in vendors.logs(wait=4)]
    assert {"t-1"} == {log["thread_identifier"] for log in logs}
    assert 4 == len({log["metadata"]["call_id"] for log in logs})
    traces = [log["trace_unique_id"] for log in logs]
    if trace is None:
        assert (traces[0], traces[2]) == (traces[1], traces[3])
        assert 2 == len(set(traces))
    else:
        assert [trace] * 4 == traces


def test_a_record_of_the_apps_own_making_is_delivered(vendors: Sandbox, app: tuple[openai.OpenAI, Delivery]) -> None:
    """`submit` takes a `CompletedCall` too."""
    _, delivery = app
    vendors.reset()
    assert delivery.submit(CompletedCall(model="m", messages=b'[{"role":"user","content":"x"}]', started_at=1.0))
    assert delivery.flush(30)
    assert "m" == vendors.logs()[0]["model"]
