"""The sandbox in Anthropic's format, read by Anthropic's own SDK: answers, streams, errors, attribution."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic.types import Message

from kwai_middleware._secret import Secret
from kwai_middleware.sandbox import Sandbox
from tests.support.sandbox_requests import APP_KEY, GATEWAY_MESSAGES, HELLO, OPENROUTER_MESSAGES, USER_KEY, ask_messages

pytest_plugins = ["kwai_middleware.testing"]

WEATHER: Any = {
    "name": "weather",
    "description": "Tells the weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
GATEWAY_STREAM = """\
event: message_start
data: {"type":"message_start","message":{"id":"ID","type":"message","role":"assistant","model":"any","content":[],\
"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":8,"cache_creation_input_tokens":0,\
"cache_read_input_tokens":0,"output_tokens":1}}}

event: ping
data: {"type":"ping"}

event: content_block_start
data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" you"}}

event: content_block_delta
data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" there"}}

event: content_block_stop
data: {"type":"content_block_stop","index":0}

event: message_delta
data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":8,\
"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":4}}

event: message_stop
data: {"type":"message_stop"}

"""


def client(sandbox: Sandbox, vendor: str, **options: Any) -> anthropic.Anthropic:
    gateway = vendor == "gateway"
    base_url = sandbox.gateway_anthropic_url if gateway else sandbox.openrouter_anthropic_url
    key: dict[str, Any] = {"api_key": APP_KEY} if gateway else {"auth_token": USER_KEY}
    return anthropic.Anthropic(
        base_url=base_url, max_retries=0, http_client=httpx2.Client(trust_env=False), **key, **options
    )


@pytest.mark.parametrize("vendor", ["gateway", "openrouter"])
def test_the_anthropic_sdk_gets_a_message(kwai_sandbox: Sandbox, vendor: str) -> None:
    """A unary call through Anthropic's SDK is answered in Anthropic's shape by either vendor."""
    with client(kwai_sandbox, vendor) as llm:
        message = llm.messages.create(model="sandbox/echo", max_tokens=64, messages=HELLO)
    [call] = kwai_sandbox.calls(wait=1, route=vendor)
    [block] = message.content
    assert ("text", "Hello you there") == (block.type, block.text if block.type == "text" else None)
    assert ("message", "assistant", "end_turn", "sandbox/echo") == (
        message.type,
        message.role,
        message.stop_reason,
        message.model,
    )
    assert (8, 4, 0) == (
        message.usage.input_tokens,
        message.usage.output_tokens,
        message.usage.cache_read_input_tokens,
    )
    key = APP_KEY if vendor == "gateway" else USER_KEY
    assert {"source": "authorization", "fingerprint": Secret(key).fingerprint} == call["paid_by"]
    assert (200, "sent", [], "gateway" if vendor == "gateway" else None) == tuple(
        call[name] for name in ("status", "outcome", "forwarded", "logged_by")
    )


@pytest.mark.parametrize("vendor", ["gateway", "openrouter"])
def test_the_anthropic_sdk_streams(kwai_sandbox: Sandbox, vendor: str) -> None:
    """The SDK puts a streamed message together, and its text is told in pieces."""
    with (
        client(kwai_sandbox, vendor) as llm,
        llm.messages.stream(model="sandbox/echo", max_tokens=64, messages=HELLO) as stream,
    ):
        pieces = list(stream.text_stream)
        message = stream.get_final_message()
    assert ["Hello", " you", " there"] == pieces
    assert ("end_turn", 8, 4) == (message.stop_reason, message.usage.input_tokens, message.usage.output_tokens)


@pytest.mark.parametrize("vendor", ["gateway", "openrouter"])
def test_the_async_anthropic_sdk_reads_both(kwai_sandbox: Sandbox, vendor: str) -> None:
    """The asynchronous SDK reads unary and streamed messages, many at once, each its own."""
    gateway = vendor == "gateway"

    async def ask(llm: anthropic.AsyncAnthropic, text: str) -> tuple[Message, Message]:
        messages: list[Any] = [{"role": "user", "content": text}]
        whole = await llm.messages.create(model="any", max_tokens=64, messages=messages)
        async with llm.messages.stream(model="any", max_tokens=64, messages=messages) as stream:
            return whole, await stream.get_final_message()

    async def everyone() -> list[tuple[Message, Message]]:
        async with anthropic.AsyncAnthropic(
            base_url=kwai_sandbox.gateway_anthropic_url if gateway else kwai_sandbox.openrouter_anthropic_url,
            api_key=APP_KEY if gateway else None,
            auth_token=None if gateway else USER_KEY,
            http_client=httpx2.AsyncClient(trust_env=False),
        ) as llm:
            return await asyncio.gather(*(ask(llm, f"Hello number {number}") for number in range(8)))

    told = [
        [block.text for message in pair for block in message.content if block.type == "text"]
        for pair in asyncio.run(everyone())
    ]
    assert [[f"Hello number {number}"] * 2 for number in range(8)] == told


def test_the_gateways_stream_has_anthropics_events(kwai_sandbox: Sandbox) -> None:
    """Byte for byte what Anthropic sends, with the gateway's sign that it logged the call."""
    answer = ask_messages(kwai_sandbox, GATEWAY_MESSAGES, {"stream": True})
    [call] = kwai_sandbox.calls(wait=1)
    message_id = json.loads(answer.text.splitlines()[1].removeprefix("data: "))["message"]["id"]
    assert GATEWAY_STREAM == answer.text.replace(message_id, "ID")
    assert message_id.startswith("msg_")
    assert (call["log_id"], True) == (
        answer.headers["x-respan-log-id"],
        answer.headers["request-id"].startswith("req_"),
    )


def test_openrouters_stream_has_comments_and_its_cost(kwai_sandbox: Sandbox) -> None:
    """OpenRouter's differs: comments first, the cost in its usage, the provider's name."""
    answer = ask_messages(kwai_sandbox, OPENROUTER_MESSAGES, {"stream": True})
    events = answer.text.split("\n\n")
    delta = json.loads(events[-3].partition("data: ")[2])
    assert [": OPENROUTER PROCESSING"] * 2 == events[:2]
    assert ['event: message_stop\ndata: {"type":"message_stop"}', ""] == events[-2:]
    assert (0.00001, False, {"upstream_inference_cost": 0.00001}) == tuple(
        delta["usage"][name] for name in ("cost", "is_byok", "cost_details")
    )
    started = json.loads(events[2].rpartition("data: ")[2])["message"]
    assert (started["id"], "Sandbox") == (answer.headers["x-generation-id"], started["provider"])
    byok = ask_messages(kwai_sandbox, OPENROUTER_MESSAGES, {"model": "sandbox/byok"}).json()
    assert (True, 5e-07) == (byok["usage"]["is_byok"], byok["usage"]["cost"])


def test_openrouter_says_done_where_that_was_observed(kwai_sandbox: Sandbox) -> None:
    """With `?beta=true` an event that holds `[DONE]` follows the message's end."""
    for query, ending in (("?beta=true", "event: data\ndata: [DONE]\n\n"), ("", '{"type":"message_stop"}\n\n')):
        answer = ask_messages(kwai_sandbox, OPENROUTER_MESSAGES + query, {"stream": True})
        assert (ending, 1) == (answer.text[-len(ending) :], answer.text.count("event: message_stop"))


@pytest.mark.parametrize("streamed", [False, True])
def test_tools_are_called_and_their_results_repeated(kwai_sandbox: Sandbox, streamed: bool) -> None:
    """Tools are offered, called and answered in Anthropic's format."""

    def ask(llm: anthropic.Anthropic, messages: list[Any]) -> Message:
        options: dict[str, Any] = {"model": "sandbox/tools", "max_tokens": 64, "tools": [WEATHER]}
        if not streamed:
            return llm.messages.create(messages=messages, **options)
        with llm.messages.stream(messages=messages, **options) as stream:
            return stream.get_final_message()

    with client(kwai_sandbox, "gateway") as llm:
        asked = ask(llm, HELLO)
        [use] = asked.content
        assert use.type == "tool_use"
        result = {"type": "tool_result", "tool_use_id": use.id, "content": "It rains"}
        turns = [*HELLO, {"role": "assistant", "content": asked.content}, {"role": "user", "content": [result]}]
        told = ask(llm, turns)
    assert ("tool_use", "weather", {"city": "Hello you there"}) == (asked.stop_reason, use.name, use.input)
    assert ("end_turn", ["It rains"]) == (
        told.stop_reason,
        [block.text for block in told.content if block.type == "text"],
    )


@pytest.mark.parametrize("streamed", [False, True])
def test_reasoning_is_a_block_of_its_own(kwai_sandbox: Sandbox, streamed: bool) -> None:
    """Thinking comes before the text, signed."""
    with client(kwai_sandbox, "openrouter") as llm:
        if streamed:
            with llm.messages.stream(model="sandbox/reasoning", max_tokens=64, messages=HELLO) as stream:
                message = stream.get_final_message()
        else:
            message = llm.messages.create(model="sandbox/reasoning", max_tokens=64, messages=HELLO)
    thinking, text = message.content
    assert ("thinking", "text") == (thinking.type, text.type)
    assert thinking.type == "thinking"
    assert ("The user said 15 characters. I repeat them.", True) == (thinking.thinking, bool(thinking.signature))


def test_what_was_cached_is_counted_apart(kwai_sandbox: Sandbox) -> None:
    """From 64 tokens on half of the prompt came from the cache, which Anthropic leaves out of the input."""
    messages = [{"role": "user", "content": "x" * 400}]
    usage = ask_messages(kwai_sandbox, GATEWAY_MESSAGES, {"messages": messages}).json()["usage"]
    assert (52, 52) == (usage["input_tokens"], usage["cache_read_input_tokens"])
    usage = ask_messages(kwai_sandbox, GATEWAY_MESSAGES, {"messages": messages, "model": "sandbox/cached"}).json()[
        "usage"
    ]
    assert (0, 52, 52) == tuple(
        usage[name] for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    )


def test_a_message_that_was_cut_short_says_so(kwai_sandbox: Sandbox) -> None:
    """The reason to stop is told in Anthropic's words."""
    assert (
        ask_messages(kwai_sandbox, GATEWAY_MESSAGES, {"model": "sandbox/length"}).json()["stop_reason"] == "max_tokens"
    )


@pytest.mark.parametrize(
    ("model", "events"),
    [
        ("sandbox/stream-error", ["content_block_delta", "content_block_delta", "error"]),
        ("sandbox/no-done", ["content_block_delta", "content_block_stop"]),
        ("sandbox/late-end-0.01", ["message_delta", "message_stop"]),
    ],
)
def test_streams_end_as_the_model_says(kwai_sandbox: Sandbox, model: str, events: list[str]) -> None:
    """An error in mid-stream is Anthropic's `error` event and the last; other endings are those of the scenario."""
    text = ask_messages(kwai_sandbox, GATEWAY_MESSAGES, {"stream": True, "model": model}).text
    told = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    assert events == told[-len(events) :]


def test_the_sdk_raises_on_an_error_in_the_stream(kwai_sandbox: Sandbox) -> None:
    """The SDK reads the error event as what it is."""
    with (
        client(kwai_sandbox, "gateway") as llm,
        llm.messages.stream(model="sandbox/stream-error", max_tokens=64, messages=HELLO) as stream,
        pytest.raises(anthropic.APIStatusError, match="Provider returned error"),
    ):
        stream.until_done()
    unary = ask_messages(kwai_sandbox, GATEWAY_MESSAGES, {"model": "sandbox/error-in-200"})
    assert (200, {"type": "error", "error": {"type": "api_error", "message": "Provider returned error"}}) == (
        unary.status_code,
        unary.json(),
    )


@pytest.mark.parametrize(
    ("status", "kind", "error"),
    [
        (400, "invalid_request_error", anthropic.BadRequestError),
        (404, "not_found_error", anthropic.NotFoundError),
        (429, "rate_limit_error", anthropic.RateLimitError),
        (502, "api_error", anthropic.InternalServerError),
        (529, "overloaded_error", anthropic.InternalServerError),
    ],
)
@pytest.mark.parametrize("vendor", ["gateway", "openrouter"])
def test_errors_have_anthropics_shape(
    kwai_sandbox: Sandbox, vendor: str, status: int, kind: str, error: type[anthropic.APIStatusError]
) -> None:
    """The SDK raises its own error for each status; OpenRouter's own type stands beside Anthropic's."""
    with client(kwai_sandbox, vendor) as llm, pytest.raises(error) as raised:
        llm.messages.create(model=f"sandbox/error-{status}", max_tokens=64, messages=HELLO)
    body: Any = raised.value.body
    assert ("error", kind, f"The sandbox was asked for {status}") == (
        body["type"],
        body["error"]["type"],
        body["error"]["message"],
    )
    assert (vendor == "openrouter") is ("error_type" in body["error"])
    assert ("1" if status == 429 else None) == raised.value.response.headers.get("retry-after")


@pytest.mark.parametrize(
    "path",
    [
        GATEWAY_MESSAGES,
        GATEWAY_MESSAGES[4:],
        f"{GATEWAY_MESSAGES}/",
        f"{GATEWAY_MESSAGES[4:]}/",
        OPENROUTER_MESSAGES,
        f"{OPENROUTER_MESSAGES}/",
    ],
)
def test_every_spelling_of_the_path_answers(kwai_sandbox: Sandbox, path: str) -> None:
    """The gateway takes its path with and without `/api`, both vendors theirs with and without a trailing slash."""
    assert ask_messages(kwai_sandbox, path).json()["type"] == "message"


@pytest.mark.parametrize("path", [GATEWAY_MESSAGES, OPENROUTER_MESSAGES])
@pytest.mark.parametrize("messages", [[], "Hello", None])
def test_malformed_messages_are_refused(kwai_sandbox: Sandbox, path: str, messages: object) -> None:
    """What holds no messages answers 400 in Anthropic's shape."""
    answer = ask_messages(kwai_sandbox, path, {"messages": messages})
    assert (400, "invalid_request_error") == (answer.status_code, answer.json()["error"]["type"])


def test_odd_messages_and_tools_are_taken_as_they_are(kwai_sandbox: Sandbox) -> None:
    """Messages and tools that are no objects are no reason to fail."""
    answer = ask_messages(
        kwai_sandbox, GATEWAY_MESSAGES, {"messages": [1, {"role": "user", "content": [1]}], "tools": [1]}
    )
    assert [{"type": "text", "text": "(nothing was said)", "citations": None}] == answer.json()["content"]
