"""Everything that an answer can hold is in its record and in its log, whole or streamed, with every client."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import openai
import openrouter
import pytest

from kwai_middleware import bind_caller, httpx2_transport, httpx_transport
from kwai_middleware.sandbox import replies
from tests.support.callers import caller
from tests.support.examples import sandbox_process
from tests.support.flavours import SYNC_FLAVOURS, Flavour
from tests.support.recording import QUESTION, Recording, ask

TEXT = "one two three four"
TOOLS: Any = [
    {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
    }
    for name in ("weather", "news")
]
THOUGHT = "The user said 18 characters. I repeat them."
CITATIONS = [
    {
        "type": "url_citation",
        "url_citation": {
            "url": f"https://sandbox.example/{name}", "title": f"The {name} source", "start_index": 0, "end_index": 18,
        },
    }
    for name in ("first", "second")
]  # fmt: skip
IMAGES = [
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{replies.PNG}"}, "index": 0},
    {"type": "image_url", "image_url": {"url": "https://sandbox.example/second.png"}, "index": 1},
]
DETAILS = [
    {
        "type": "reasoning.text", "text": THOUGHT, "index": 0, "format": "anthropic-claude-v1",
        "signature": "c2lnbmVk",
    },
    {
        "type": "reasoning.summary", "summary": "I repeat what was said.", "index": 1,
        "format": "openai-responses-v1",
    },
    {
        "type": "reasoning.encrypted", "data": "c2VhbGVk", "id": "rs_0", "index": 2,
        "format": "openai-responses-v1",
    },
]  # fmt: skip


def called(identifier: str, name: str) -> dict[str, Any]:
    arguments = json.dumps({"city": TEXT}, separators=(",", ":"))
    return {"id": identifier, "type": "function", "function": {"name": name, "arguments": arguments}}


def message(**members: Any) -> dict[str, Any]:
    return {"role": "assistant", **members}


ANSWERS: dict[str, tuple[dict[str, Any], list[dict[str, Any]], str]] = {
    "sandbox/echo": ({}, [message(content=TEXT)], "stop"),
    "sandbox/tools": (
        {"tools": TOOLS},
        [message(tool_calls=[called("call_0", "weather"), called("call_1", "news")])],
        "tool_calls",
    ),
    "sandbox/parallel-tools": (
        {"tools": TOOLS, "n": 2},
        [
            message(
                tool_calls=[
                    called(f"call_0{of}", "weather"), called(f"call_1{of}", "news"),
                    called(f"call_0_again{of}", "weather"), called(f"call_1_again{of}", "news"),
                ]
            )
            for of in ("", "_of_1")
        ],
        "tool_calls",
    ),
    "sandbox/refusal": ({}, [message(refusal="I cannot help with that.")], "stop"),
    "sandbox/images": ({}, [message(content=TEXT, images=IMAGES)], "stop"),
    "sandbox/audio": (
        {},
        [
            message(
                audio={"id": "audio_sandbox", "transcript": TEXT, "data": replies._WAVE, "expires_at": 1_800_086_400}
            )
        ],
        "stop",
    ),
    "sandbox/annotations": ({}, [message(content=TEXT, annotations=CITATIONS)], "stop"),
    "sandbox/length": ({}, [message(content="one two")], "length"),
    "sandbox/content-filter": ({}, [message(content="one two")], "content_filter"),
    "sandbox/byok": ({}, [message(content=TEXT)], "stop"),
    "sandbox/cached": ({}, [message(content=TEXT)], "stop"),
    "sandbox/gzip": (
        {"n": 3},
        [message(content=f"{TEXT}{more}") for more in ("", " (choice 1)", " (choice 2)")],
        "stop",
    ),
}  # fmt: skip
"""What is sent beside the question, what comes back, and why it ended; as both vendors tell it."""
REFUSED_BY_THE_HELPER: dict[str, Any] = {
    "sandbox/length": pytest.raises(openai.LengthFinishReasonError),
    "sandbox/content-filter": pytest.raises(openai.ContentFilterFinishReasonError),
}
"""What the SDK's helper for streams makes an exception of; the record does not mind."""
REASONED = {
    "sandbox/reasoning": message(
        content=TEXT,
        reasoning=THOUGHT,
        reasoning_details=[{"type": "reasoning.text", "text": THOUGHT, "index": 0, "format": None}],
    ),
    "sandbox/reasoning-details": message(content=TEXT, reasoning=THOUGHT, reasoning_details=DETAILS),
}


@pytest.fixture(scope="module")
def recording() -> Iterator[Recording]:
    with sandbox_process() as vendors:
        recording = Recording(vendors)
        yield recording
        assert recording.delivery.close()


def told(value: Any) -> Any:
    """A message without what says nothing: null, empty, and the place of a tool call that the list shows."""
    if isinstance(value, dict):
        return {name: told(member) for name, member in value.items() if member not in (None, "", [], {})}
    return [told(item) for item in value] if isinstance(value, list) else value


def unnumbered(messages: list[Any]) -> list[Any]:
    for each in messages:
        for place, call in enumerate(each.get("tool_calls") or ()):
            assert place == call.pop("index", place)
    return messages


def logged_messages(log: dict[str, Any]) -> list[Any]:
    """The answer's messages, from wherever a log has them."""
    if "output" in log:
        whole = json.loads(log["output"])
        return whole if isinstance(whole, list) else [whole]
    return list(log.get("completion_messages", [log["completion_message"]]))


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "streamed"])
@pytest.mark.parametrize("model", [*ANSWERS, *REASONED])
def test_nothing_of_an_answer_is_lost(recording: Recording, flavour: Flavour, model: str, stream: bool) -> None:
    """Text, calls, reasoning, refusals, pictures, sound and sources are in the record and in the vendor's log."""
    body, expected, reason = ANSWERS[model] if model in ANSWERS else ({}, [REASONED[model]], "stop")

    ask(recording, flavour, model, stream=stream, **body)

    call, log = recording.latest()
    assert ("complete", reason, 200, stream) == (call.outcome, call.finish_reason, call.status_code, call.stream)
    assert told(expected) == told(unnumbered(list(call.completions)))
    assert told(expected) == told(unnumbered(logged_messages(log)))
    assert told(expected[0].get("tool_calls")) == told(log.get("tool_calls"))
    assert stream == (call.time_to_first_token is not None) == ("time_to_first_token" in log)
    assert call.cost is not None
    assert (call.cost, call.prompt_tokens, call.completion_tokens) == (
        log["cost"], log["prompt_tokens"], log["completion_tokens"],
    )  # fmt: skip


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "streamed"])
def test_what_the_numbers_say(recording: Recording, flavour: Flavour, stream: bool) -> None:
    """A cached prompt is counted; with a provider key stored at OpenRouter the provider's bill is added, else not."""
    ask(recording, flavour, "sandbox/cached", stream=stream)
    cached, cached_log = recording.latest()
    ask(recording, flavour, "sandbox/byok", stream=stream)
    byok, byok_log = recording.latest()

    assert (9, 4, 5) == (cached.prompt_tokens, cached.cached_tokens, cached.cache_write_tokens)
    assert (4, 5) == (cached_log["prompt_cache_hit_tokens"], cached_log["prompt_cache_creation_tokens"])
    assert (False, cached.reported_cost, cached.upstream_cost) == (cached.is_byok, cached.cost, cached.cost)
    assert byok.reported_cost is not None
    assert byok.upstream_cost is not None
    assert (True, byok.reported_cost + byok.upstream_cost) == (byok.is_byok, byok.cost)
    assert byok.reported_cost < byok.upstream_cost
    assert ("true", str(byok.reported_cost)) == (
        byok_log["metadata"]["is_byok"], byok_log["metadata"]["reported_cost"],
    )  # fmt: skip


@pytest.mark.parametrize("flavour", SYNC_FLAVOURS, indirect=True)
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "streamed"])
@pytest.mark.parametrize("model", [*ANSWERS, "sandbox/reasoning"])
def test_the_gateways_answers_are_read_too(recording: Recording, flavour: Flavour, model: str, stream: bool) -> None:
    """An answer in OpenAI's own shape makes the same record; the gateway logs it, and nothing is posted."""
    body, expected, reason = ANSWERS.get(model, ({}, [message(content=TEXT, reasoning_content=THOUGHT)], "stop"))

    ask(recording, flavour, model, stream=stream, route="gateway", **body, stream_options={"include_usage": True})

    assert recording.delivery.flush(30)
    [call] = recording.calls
    assert ("complete", reason, "gateway", None) == (call.outcome, call.finish_reason, call.route, call.cost)
    assert told(expected) == told(list(call.completions))
    assert call.completion_tokens is not None
    assert [] == recording.vendors.log_requests()


@pytest.mark.parametrize("door", [httpx_transport, httpx2_transport], ids=["httpx", "httpx2"])
@pytest.mark.parametrize("route", ["gateway", "openrouter"])
@pytest.mark.parametrize("model", [*ANSWERS, *REASONED])
def test_the_openai_sdk_takes_each_answer(recording: Recording, door: Any, route: str, model: str) -> None:
    """Unary, as a stream and through the SDK's own helper for streams the answer arrives, and is recorded whole."""
    vendors = recording.vendors
    recording.begin()
    body, expected, reason = ANSWERS[model] if model in ANSWERS else ({}, [REASONED[model]], "stop")
    request: Any = {"model": model, "messages": QUESTION, **body}
    with door.client(settings=recording.settings, deliver=recording.deliver) as http_client:
        base_url = vendors.gateway_url if route == "gateway" else vendors.openrouter_url
        llm = openai.OpenAI(base_url=base_url, api_key="house", http_client=http_client, max_retries=0)
        with bind_caller(caller()):
            whole = llm.chat.completions.create(**request)
            with llm.chat.completions.create(stream=True, **request) as chunks:
                said = [choice for chunk in chunks for choice in chunk.choices]
            final = whole
            with (
                REFUSED_BY_THE_HELPER.get(model, contextlib.nullcontext()),
                llm.chat.completions.stream(**request) as events,
            ):
                final = events.get_final_completion()

    texts = [one.get("content", "") for one in expected]
    assert texts == [choice.message.content or "" for choice in whole.choices]
    assert texts == [
        "".join(choice.delta.content or "" for choice in said if choice.index == index) for index in range(len(texts))
    ]
    assert texts == [choice.message.content or "" for choice in final.choices]
    assert reason == whole.choices[0].finish_reason
    assert [("complete", reason)] * 3 == [(call.outcome, call.finish_reason) for call in recording.calls]
    assert 1 == len({json.dumps(told(unnumbered(list(call.completions))), sort_keys=True) for call in recording.calls})


@pytest.mark.parametrize("model", [*ANSWERS, *REASONED])
def test_the_openrouter_sdk_takes_each_answer(recording: Recording, model: str) -> None:
    """OpenRouter's own types take each shape, whole and streamed, and each call is recorded."""
    recording.begin()
    body, expected, _ = ANSWERS[model] if model in ANSWERS else ({}, [REASONED[model]], "stop")
    body = {name: value for name, value in body.items() if name != "n"}
    with httpx_transport.client(settings=recording.settings, deliver=recording.deliver) as http_client:
        llm = openrouter.OpenRouter(api_key="house", server_url=recording.vendors.openrouter_url, client=http_client)
        with bind_caller(caller()):
            whole = llm.chat.send(model=model, messages=QUESTION, **body)
            with llm.chat.send(model=model, messages=QUESTION, stream=True, **body) as stream:
                chunks = list(stream)

    assert expected[0].get("content", "") == (whole.choices[0].message.content or "")
    assert expected[0].get("content", "") == "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert ["complete"] * 2 == [call.outcome for call in recording.calls]
    assert [told(expected[:1])] * 2 == [told(unnumbered(list(call.completions))) for call in recording.calls]
