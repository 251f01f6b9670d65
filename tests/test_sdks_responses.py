"""OpenAI's SDK and the Responses API on our clients: its answers are its own, and each call is seen whole."""

from __future__ import annotations

import contextlib
import json
import queue
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest

from kwai_middleware import CompletedCall, Secret, bind_caller
from kwai_middleware._delivery.media import replaced
from kwai_middleware.sandbox import Sandbox
from tests.support.callers import caller, key_of
from tests.support.examples import HOUSE_KEY, sandbox_process
from tests.support.flavours import SYNC_FLAVOURS, Flavour
from tests.support.vendor_logs import logged

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}
SAID = "one two three"


@pytest.fixture(scope="module")
def vendors() -> Iterator[Sandbox]:
    with sandbox_process() as sandbox:
        yield sandbox


class Asking:
    """OpenAI's SDK on one of our clients, and the records of what it asked."""

    def __init__(self, flavour: Flavour, base_url: str, http_client: Callable[..., Any]) -> None:
        self._flavour = flavour
        self._calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._http = http_client(deliver=self._deliver)
        make = openai.AsyncOpenAI if flavour.asynchronous else openai.OpenAI
        self._client: Any = make(base_url=base_url, api_key=HOUSE_KEY, http_client=self._http, max_retries=0)

    def ask(self, model: str, *, stream: bool = False, **more: Any) -> Any:
        """The response that the SDK gives, be it at once or with the last event."""
        request = {"model": model, "input": SAID, "stream": stream, **more}
        with bind_caller(caller("acme")):
            return self._flavour.run(self._ask_async(request) if self._flavour.asynchronous else self._ask(request))

    def record(self) -> CompletedCall:
        """The record of the one call that there was."""
        call = self._calls.get(timeout=30)
        call.release()
        assert self._calls.empty()
        record: CompletedCall = call.build()
        return record

    def end(self) -> None:
        self._flavour.close(self._http)

    def _deliver(self, call: Any) -> bool:
        self._calls.put(call)
        return True

    def _ask(self, request: dict[str, Any]) -> Any:
        answer = self._client.responses.create(**request)
        return _last(list(answer)) if request["stream"] else answer

    async def _ask_async(self, request: dict[str, Any]) -> Any:
        answer = await self._client.responses.create(**request)
        return _last([event async for event in answer]) if request["stream"] else answer


def _last(events: list[Any]) -> Any:
    return getattr(events[-1], "response", None)


@pytest.fixture(params=["gateway", "openrouter"])
def route(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def asking(flavour: Flavour, route: str, vendors: Sandbox) -> Iterator[Asking]:
    vendors.reset()
    settings = vendors.settings(max_call_bytes=256 * 1024)
    base_url = vendors.gateway_url if route == "gateway" else vendors.openrouter_url
    asking = Asking(flavour, base_url, lambda **options: flavour.client(settings=settings, **options))
    yield asking
    asking.end()


on_one_client = pytest.mark.parametrize("flavour", SYNC_FLAVOURS[1:], indirect=True)
both_ways = pytest.mark.parametrize("stream", [False, True], ids=["unary", "streamed"])


@both_ways
def test_a_call_on_every_client(asking: Asking, vendors: Sandbox, route: str, stream: bool) -> None:
    """The caller pays and is named, the SDK gets its answer, and the record has all of it, complete."""
    answer = asking.ask("openai/gpt-4o", stream=stream, instructions="Be kind.")
    assert (SAID, "completed") == (answer.output_text, answer.status)
    [call] = vendors.calls(wait=1)
    assert (Secret(key_of("acme")).fingerprint, route) == (call["paid_by"]["fingerprint"], call["route"])
    assert ([], []) == (call["doors_disagree"], call["forwarded"])
    record = asking.record()
    assert ("complete", 200, stream, "responses") == (
        record.outcome, record.status_code, record.stream, record.format,
    )  # fmt: skip
    assert ("openai/gpt-4o", "stop", answer.id) == (record.model, record.finish_reason, record.generation_id)
    asked = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": SAID}]
    assert (asked, None) == (json.loads(record.messages or b""), record.input)
    assert (({"role": "assistant", "content": SAID},), None) == (record.completions, record.output)
    assert (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens) == (
        record.prompt_tokens, record.completion_tokens, record.total_tokens,
    )  # fmt: skip
    assert (stream, route == "openrouter") == (record.time_to_first_token is not None, record.cost is not None)
    assert "response" == logged(record)["log_type"]


@on_one_client
@both_ways
def test_a_conversation_with_a_tool(asking: Asking, stream: bool) -> None:
    """The call of a tool is in its record, and in the next one, where the app hands it back with its result."""
    answer = asking.ask("sandbox/tools", stream=stream, tools=[WEATHER])
    [called] = answer.output
    record = asking.record()
    call = {
        "id": called.call_id,
        "type": "function",
        "function": {"name": "weather", "arguments": called.arguments},
    }
    assert ("tool_calls", [call]) == (record.finish_reason, record.completions[0]["tool_calls"])
    entry = logged(record)
    assert ([WEATHER], [call]) == (entry["tools"], entry["tool_calls"])

    result = {"type": "function_call_output", "call_id": called.call_id, "output": "sunny"}
    items = [
        {"role": "user", "content": SAID},
        called.model_dump(exclude_none=True, exclude={"parsed_arguments"}),
        result,
    ]
    answer = asking.ask("sandbox/tools", stream=stream, tools=[WEATHER], input=items)

    record = asking.record()
    entry = logged(record)
    assert [
        {"role": "user", "content": SAID},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": called.call_id, "content": "sunny"},
    ] == entry["prompt_messages"]
    assert items == json.loads(entry["input"])
    assert answer.output_text == record.completions[0]["content"]


@on_one_client
@both_ways
@pytest.mark.parametrize(
    ("model", "finish_reason", "members", "others"),
    [
        pytest.param("sandbox/parallel-tools", "tool_calls", {"tool_calls"}, set(), id="tools at once"),
        pytest.param("sandbox/reasoning", "stop", {"content", "reasoning_content"}, set(), id="thoughts"),
        pytest.param("sandbox/refusal", "stop", {"refusal"}, set(), id="refusal"),
        pytest.param("sandbox/images", "stop", {"content"}, {"image_generation_call"}, id="pictures"),
        pytest.param("sandbox/annotations", "stop", {"content"}, {"message"}, id="sources"),
        pytest.param("sandbox/length", "max_output_tokens", {"content"}, set(), id="limit"),
        pytest.param("sandbox/content-filter", "content_filter", {"content"}, set(), id="filter"),
    ],
)
def test_all_that_an_answer_can_hold(
    asking: Asking, stream: bool, model: str, finish_reason: str, members: set[str], others: set[str]
) -> None:
    """Each kind of answer is in the record, as a chat message where it is one, and the vendor takes the log whole."""
    answer = asking.ask(model, stream=stream, tools=[WEATHER])

    record = replaced(asking.record())

    assert ("complete", finish_reason) == (record.outcome, record.finish_reason)
    [completion] = record.completions
    assert members == {name for name, value in completion.items() if value} - {"role"}
    assert answer.output_text == (completion["content"] or "")
    assert others <= {item["type"] for item in json.loads(record.output or b"[]")}
    assert bool(others) is (record.output is not None)
    assert "response" == logged(record)["log_type"]
    assert b";base64," not in (record.output or b"")


@on_one_client
@pytest.mark.parametrize(
    ("model", "outcome"),
    [
        pytest.param("sandbox/stream-error", "error", id="failure"),
        pytest.param("sandbox/cut", "error", id="cut"),
        pytest.param("sandbox/no-done", "incomplete", id="no end"),
    ],
)
def test_a_stream_that_ends_badly(asking: Asking, model: str, outcome: str) -> None:
    """What was said until then is in the record, and why it stopped."""
    with contextlib.suppress(openai.APIError):
        asking.ask(model, stream=True)

    record = asking.record()

    assert outcome == record.outcome
    assert record.completions[0]["content"]
    assert (outcome == "error") == (logged(record)["status"] == "error")


@on_one_client
def test_a_failure_inside_a_200(asking: Asking) -> None:
    """The SDK hands on a response that failed; the record says what went wrong."""
    answer = asking.ask("sandbox/error-in-200")

    record = asking.record()

    assert ("failed", "error", answer.error.message) == (answer.status, record.outcome, record.error_message)
    assert 502 == logged(record)["status_code"]


@on_one_client
@pytest.mark.parametrize("model", ["sandbox/long-5000", "sandbox/huge-0.5"])
def test_an_answer_too_long_to_be_kept(asking: Asking, route: str, model: str) -> None:
    """The last event repeats the text: where it is not kept either, the usage at its end still counts."""
    answer = asking.ask(model, stream=True)
    record = asking.record()
    assert ("complete", True) == (record.outcome, record.truncated)
    assert (answer.usage.total_tokens, route == "openrouter") == (record.total_tokens, record.cost is not None)
    kept = record.completions[0]["content"]
    assert kept[:10] == answer.output_text[:10]
    assert (model == "sandbox/long-5000") is (kept == answer.output_text)
    assert len(kept) <= len(answer.output_text)
