"""Anthropic's messages: what is read out of requests and answers, and what the vendor's log makes of it."""

from __future__ import annotations

import json
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._outbound.formats import FORMATS, Answer, Failure, Received, Request, Tokens, messages
from kwai_middleware._outbound.observation import Ending
from kwai_middleware._outbound.records import completed
from kwai_middleware._outbound.routes import Endpoint
from kwai_middleware._record import CompletedCall
from kwai_middleware._secret import Secret
from tests.support.observations import JSON, STREAM, observed
from tests.support.vendor_logs import logged

ENDPOINT = Endpoint("direct", "openrouter", "openrouter.ai", "/api/v1/messages", "messages")
KEY = "Plain+Key/of=acme~0123456789"
REQUEST = {"model": "anthropic/claude", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}
ANSWER = {
    "id": "msg-1", "type": "message", "role": "assistant", "model": "claude-5", "provider": "Anthropic",
    "content": [{"type": "text", "text": "Hello"}], "stop_reason": "end_turn", "stop_sequence": None,
    "usage": {"input_tokens": 3, "output_tokens": 2},
}  # fmt: skip


def event(kind: str, **members: Any) -> bytes:
    """One event, with its name on a line of its own as Anthropic sends it."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()


def begins(block: dict[str, Any], index: int = 0) -> bytes:
    return event("content_block_start", index=index, content_block=block)


def piece(kind: str, index: int = 0, **members: Any) -> bytes:
    return event("content_block_delta", index=index, delta={"type": kind, **members})


def says(text: str, index: int = 0) -> bytes:
    return piece("text_delta", index, text=text)


def ends(index: int = 0) -> bytes:
    return event("content_block_stop", index=index)


def counts(stop_reason: str | None = "end_turn", **usage: Any) -> bytes:
    return event("message_delta", delta={"stop_reason": stop_reason, "stop_sequence": None}, usage=usage)


TEXT = {"type": "text", "text": ""}
TOOL = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
STARTS = event(
    "message_start",
    message={**ANSWER, "content": [], "stop_reason": None, "usage": {"input_tokens": 3, "output_tokens": 1}},
)
PING = event("ping")
STOPS = event("message_stop")
DONE = b"event: data\ndata: [DONE]\n\n"
EVENTS = [STARTS, PING, begins(TEXT), says("Hel"), says("lo"), ends(), counts(output_tokens=2), STOPS]


def unary(answer: Any = ANSWER, *, secrets: tuple[Secret, ...] = ()) -> Answer:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return messages.answer(Received((body,), streamed=False, secrets=secrets), Request())


def streamed(*events: bytes) -> Answer:
    return messages.answer(Received((b"".join(events),), streamed=True), Request())


def with_blocks(*blocks: Any) -> Answer:
    return unary({**ANSWER, "content": list(blocks)})


def recorded(body: bytes | list[bytes], **members: Any) -> CompletedCall:
    """The record of one call, and with it a log that every type of the vendor takes whole."""
    call = completed(observed(body, **({"request": REQUEST, "endpoint": ENDPOINT} | members)))
    assert "chat" == logged(call)["log_type"]
    return call


def test_messages_are_a_format() -> None:
    """Anthropic's messages are found by the name that endpoints use."""
    assert FORMATS["messages"] is messages  # type: ignore[comparison-overlap]  # a module is a Format by its functions


class TestRequests:
    @pytest.mark.parametrize(
        ("members", "expected"),
        [
            pytest.param({}, b'[{"role": "user", "content": "Hi"}]', id="as written"),
            pytest.param(
                {"system": "Be kind."},
                b'[{"role":"system","content":"Be kind."},{"role": "user", "content": "Hi"}]',
                id="with a system prompt",
            ),
            pytest.param(
                {"system": [{"type": "text", "text": "a"}], "messages": []},
                b'[{"role":"system","content":[{"type": "text", "text": "a"}]}]', id="a system prompt alone",
            ),
            pytest.param({"messages": "odd", "system": "a"}, b'"odd"', id="no list"),
            pytest.param({"messages": None}, b"null", id="null"),
        ],
    )  # fmt: skip
    def test_the_system_prompt_is_the_first_message(self, members: dict[str, Any], expected: bytes) -> None:
        """The prompt is one list of messages, each of them as the app wrote it."""
        assert expected == messages.request(json.dumps({**REQUEST, **members}).encode()).messages

    def test_what_else_is_asked_for_is_read(self) -> None:
        """Model and stream have their places; the rest are parameters, without what may carry a key."""
        body = {**REQUEST, "stream": True, "top_k": 5, "metadata": {"respan_params": {"customer_credentials": {}}}}

        read = messages.request(json.dumps(body).encode())

        assert ("anthropic/claude", True, 1) == (read.model, read.stream, read.choices)
        assert {"max_tokens": b"100", "top_k": b"5"} == read.parameters

    @pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"model": 7}', b'{"model": ""}'])
    def test_what_cannot_be_read_is_nothing(self, body: bytes) -> None:
        """A request that is no JSON object is a request still."""
        assert Request() == messages.request(body)

    @pytest.mark.parametrize("text", [b"a\xffb", b"a\\ud83d"], ids=["no UTF-8", "half of a character"])
    def test_odd_texts_are_mended(self, text: bytes) -> None:
        """A prompt that is no Unicode is valid JSON in the record."""
        prompt = messages.request(b'{"messages":[{"role":"user","content":"%b"}],"model":"m\xff"}' % text).messages

        assert prompt is not None
        assert json.loads(prompt.decode())[0]["content"].startswith("a")


class TestUsage:
    @pytest.mark.parametrize(
        ("first", "last", "expected"),
        [
            pytest.param(
                {"input_tokens": 25, "output_tokens": 1}, {"output_tokens": 15},
                Tokens(prompt=25, completion=15, total=40), id="the last count holds all before it",
            ),
            pytest.param(
                {"input_tokens": 5, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 20,
                 "output_tokens": 1},
                {"output_tokens": 10},
                Tokens(prompt=125, completion=10, total=135, cached=100, cache_write=20), id="what a cache had",
            ),
            pytest.param(
                {"input_tokens": 0, "output_tokens": 0}, {"input_tokens": 7, "output_tokens": 3},
                Tokens(prompt=7, completion=3, total=10), id="all of it at the end",
            ),
            pytest.param(
                {"input_tokens": 7}, {"output_tokens": 9, "output_tokens_details": {"thinking_tokens": 4}},
                Tokens(prompt=7, completion=9, total=16, reasoning=4), id="thinking",
            ),
            pytest.param({"input_tokens": 7}, {}, Tokens(prompt=7), id="no count of the answer"),
            pytest.param({}, {"output_tokens": 3}, Tokens(completion=3), id="no count of the prompt"),
            pytest.param(
                {"input_tokens": True, "cache_read_input_tokens": 3}, {"output_tokens": -1}, Tokens(cached=3),
                id="what is no count",
            ),
        ],
    )  # fmt: skip
    def test_counts_grow(self, first: dict[str, Any], last: dict[str, Any], expected: Tokens) -> None:
        """Counts of the start stand until the end says others; the whole prompt is counted, cached or not."""
        start = event("message_start", message={**ANSWER, "usage": first})
        both = unary({**ANSWER, "usage": first | last})

        assert expected == streamed(start, counts(**last), STOPS).tokens == both.tokens

    @pytest.mark.parametrize("is_stream", [False, True])
    def test_what_openrouter_bills_is_known(self, is_stream: bool) -> None:
        """OpenRouter's cost stands in Anthropic's usage too; a stored key's bill comes on top."""
        usage = {
            "input_tokens": 3, "cache_read_input_tokens": 4, "output_tokens": 2, "cost": 0.5, "is_byok": True,
            "cost_details": {"upstream_inference_cost": 2},
        }  # fmt: skip
        if is_stream:
            call = recorded([*EVENTS[:6], counts(**usage), STOPS, DONE], headers=STREAM)
        else:
            call = recorded(json.dumps({**ANSWER, "usage": usage}).encode())

        assert (2.5, 0.5, 2.0, True) == (call.cost, call.reported_cost, call.upstream_cost, call.is_byok)
        assert (7, 2, 9, 4) == (call.prompt_tokens, call.completion_tokens, call.total_tokens, call.cached_tokens)
        kept = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9, "cache_read_input_tokens": 4}
        assert kept == logged(call)["usage"]

    def test_a_cache_that_was_written_is_logged(self) -> None:
        """The vendor has a name for what a cache took, and one for the details."""
        usage = {
            "input_tokens": 1, "output_tokens": 2, "cache_creation_input_tokens": 3,
            "output_tokens_details": {"thinking_tokens": 1},
        }  # fmt: skip

        log = logged(recorded(json.dumps({**ANSWER, "usage": usage}).encode()))

        assert (4, 3, 1) == (log["prompt_tokens"], log["prompt_cache_creation_tokens"], log["reasoning_tokens"])
        assert (3, {"thinking_tokens": 1}) == (
            log["usage"]["cache_creation_prompt_tokens"], log["usage"]["completion_tokens_details"],
        )  # fmt: skip


class TestAnswers:
    def test_a_stream_is_the_same_answer_as_a_whole_one(self) -> None:
        """Put together of its events, a streamed message is what came at once, with the time of its first word."""
        ends_of = list(accumulate(map(len, EVENTS)))
        expected = Answer(
            model="claude-5",
            generation_id="msg-1",
            provider="Anthropic",
            completions=({"role": "assistant", "content": "Hello"},),
            finish_reason="end_turn",
            usage={"input_tokens": 3, "output_tokens": 2},
            tokens=Tokens(prompt=3, completion=2, total=5),
            first_content=ends_of[3],
            finished=ends_of[-1],
        )

        assert expected == streamed(*EVENTS)
        assert (expected.completions, expected.usage, expected.tokens) == (
            unary().completions, unary().usage, unary().tokens,
        )  # fmt: skip
        assert (None, len(json.dumps(ANSWER))) == (unary().first_content, unary().finished)

    def test_what_openrouter_says_behind_the_end_changes_nothing(self) -> None:
        """The answer is over with its last event; a mark behind it is none of its own."""
        assert streamed(*EVENTS) == streamed(*EVENTS, DONE)
        assert sum(map(len, EVENTS[:-1])) + len(DONE) == streamed(*EVENTS[:-1], DONE).finished

    @pytest.mark.parametrize(
        ("events", "counts_as_content"),
        [
            pytest.param([begins(TEXT)], False, id="an empty text begins"),
            pytest.param([begins({"type": "text", "text": "a"})], True, id="a text begins"),
            pytest.param([begins({"type": "thinking", "thinking": "", "signature": ""})], False, id="thinking begins"),
            pytest.param([begins(TOOL)], True, id="the name of a tool"),
            pytest.param([begins({"type": "redacted_thinking", "data": "AA"})], True, id="hidden thoughts"),
            pytest.param([begins({"type": "server_tool_use", "name": "web_search"})], True, id="a server's tool"),
            pytest.param([begins(TEXT), says("")], False, id="an empty piece"),
            pytest.param([begins(TEXT), says("a")], True, id="a piece of text"),
            pytest.param([piece("thinking_delta", thinking="a")], True, id="a piece of thought"),
            pytest.param([piece("input_json_delta", partial_json="{")], True, id="a piece of a tool's input"),
            pytest.param([piece("signature_delta", signature="abc")], False, id="a signature"),
            pytest.param([piece("citations_delta", citation={"cited_text": "a"})], False, id="a citation"),
            pytest.param([PING, b": OPENROUTER PROCESSING\n\n"], False, id="nothing"),
        ],
    )
    def test_what_counts_as_first_content(self, events: list[bytes], counts_as_content: bool) -> None:
        """Only what a reader would see starts the clock of the first token."""
        body = STARTS + b"".join(events)

        assert (len(body) if counts_as_content else None) == streamed(body, ends(), PING).first_content

    def test_the_clock_starts_once(self) -> None:
        """The first word counts, not the second."""
        assert (
            len(STARTS + begins(TEXT) + says("a")) == streamed(STARTS, begins(TEXT), says("a"), says("b")).first_content
        )

    @pytest.mark.parametrize(
        ("pieces", "arguments"),
        [
            pytest.param(["", '{"x"', ': "ü', '"}'], '{"x":"ü"}', id="pieces"),
            pytest.param([], "{}", id="none"),
            pytest.param([""], "{}", id="an empty one"),
            pytest.param(['{"x": 1', ', "y'], '{"x": 1, "y', id="not whole"),
            pytest.param(['{"x": 1e999}'], '{"x":null}', id="no number of JSON's"),
            pytest.param(['{"x": "\\ud83d', '\\ude00"}'], '{"x":"😀"}', id="halves of a character"),
            pytest.param(['{"x": "\\ud83d"}'], '{"x":"\ufffd"}', id="half of a character"),
        ],
    )
    def test_tool_calls_are_put_together(self, pieces: list[str], arguments: str) -> None:
        """The pieces of a tool's input are one JSON text, as far as they came; beside text and other tools."""
        other = {"type": "tool_use", "id": "t2", "name": "g", "input": {"a": 1}}
        answer = streamed(
            STARTS, begins(TEXT), says("Wait."), ends(), begins(TOOL, 1), begins(other, 2),
            *(piece("input_json_delta", 1, partial_json=text) for text in pieces), ends(1), ends(2),
            counts("tool_use", output_tokens=5), STOPS,
        )  # fmt: skip

        [message] = answer.completions
        calls = [
            {"id": "t1", "type": "function", "function": {"name": "f", "arguments": arguments}},
            {"id": "t2", "type": "function", "function": {"name": "g", "arguments": '{"a":1}'}},
        ]
        assert {"role": "assistant", "content": "Wait.", "tool_calls": calls} == message
        assert ("tool_use", None) == (answer.finish_reason, answer.output)

    def test_tool_calls_that_came_at_once_are_read(self) -> None:
        """Inputs are JSON texts in a chat message; of a tool without any nothing is made up."""
        answer = with_blocks({**TOOL, "input": {"x": [1, "ä"]}}, {"type": "tool_use", "id": "t2", "name": "g"})

        assert ['{"x":[1,"ä"]}', ""] == [
            call["function"]["arguments"] for call in answer.completions[0]["tool_calls"]
        ]  # fmt: skip
        assert None is answer.completions[0]["content"]

    def test_thinking_is_kept_beside_the_text(self) -> None:
        """Thoughts grow with their signature, hidden ones come whole; the vendor's log has a place for both."""
        events = [
            STARTS,
            begins({"type": "thinking", "thinking": "", "signature": ""}),
            piece("thinking_delta", thinking="I "),
            piece("thinking_delta", thinking="am"),
            piece("signature_delta", signature="sig=="),
            ends(),
            begins({"type": "redacted_thinking", "data": "AA"}, 1), ends(1),
            begins({"type": "thinking", "thinking": "More."}, 2), ends(2),
            begins(TEXT, 3), says("Hello", 3), ends(3), counts(output_tokens=9), STOPS,
        ]  # fmt: skip
        thoughts = [
            {"type": "thinking", "thinking": "I am", "signature": "sig=="},
            {"type": "redacted_thinking", "data": "AA"},
            {"type": "thinking", "thinking": "More."},
        ]
        expected = {
            "role": "assistant", "content": "Hello", "reasoning_content": "I am\n\nMore.", "thinking_blocks": thoughts,
        }  # fmt: skip

        call = recorded(events, headers=STREAM)

        assert ((expected,), None) == (call.completions, call.output)
        assert expected == logged(call)["completion_message"]
        assert (expected,) == with_blocks(*thoughts, {"type": "text", "text": "Hello"}).completions

    def test_cited_texts_are_the_output_too(self) -> None:
        """A chat message has no room for citations: the blocks are logged as they came, and their text as message."""
        cited = [{"type": "char_location", "cited_text": text} for text in "ab"]
        events = [
            STARTS, begins(TEXT), piece("citations_delta", citation=cited[0]), says("x"),
            piece("citations_delta", citation=cited[1]), ends(),
            begins({"type": "text", "text": "y", "citations": cited[:1]}, 1),
            piece("citations_delta", 1, citation=cited[1]), ends(1), counts(output_tokens=9), STOPS,
        ]  # fmt: skip

        call = recorded(events, headers=STREAM)

        blocks = [{"type": "text", "text": text, "citations": cited} for text in "xy"]
        assert blocks == json.loads(call.output or b"")
        log = logged(call)
        assert ({"role": "assistant", "content": "xy"}, blocks) == (
            log["completion_message"],
            json.loads(log["output"]),
        )

    @pytest.mark.parametrize(
        "block",
        [
            pytest.param(
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {"query": "q"}}, id="tool"
            ),
            pytest.param(
                {"type": "web_search_tool_result", "tool_use_id": "s", "content": [{"url": "u"}]}, id="result"
            ),
            pytest.param({"type": "text", "text": ["odd"]}, id="a text of another type"),
            pytest.param({"text": "no type"}, id="no type"),
        ],
    )
    def test_blocks_that_no_chat_message_has_are_the_output(self, block: dict[str, Any]) -> None:
        """All that a server's own tools did is logged as it came, beside the text."""
        call = recorded(json.dumps({**ANSWER, "content": [*ANSWER["content"], block]}).encode())

        assert [{"type": "text", "text": "Hello"}, block] == json.loads(logged(call)["output"])
        assert "Hello" == call.completions[0]["content"]

    def test_long_blocks_are_the_output_whole(self) -> None:
        """What is written in windows says the same, broken characters aside."""
        blocks = [{"type": "x", "text": "ö" * 50_000, "more": {"a": [1]}}, {"type": "y"}]

        assert blocks == json.loads(with_blocks(*blocks).output or b"")
        body = json.dumps({"content": [{"type": "x", "a": "\ud83d"}]}).encode()
        assert [{"type": "x", "a": "\ufffd"}] == json.loads(unary(body).output or b"")

    @pytest.mark.parametrize("reason", ["end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal"])
    def test_why_it_stopped_is_told(self, reason: str) -> None:
        """Each reason is told as it is; an event that has none takes none away."""
        [*before, _, _] = EVENTS

        assert reason == unary({**ANSWER, "stop_reason": reason}).finish_reason
        assert reason == streamed(*before, counts(reason), counts(None), STOPS).finish_reason

    def test_blocks_are_in_their_order_and_bounded(self) -> None:
        """Interleaved blocks go by their number; a server that invents blocks without end cannot fill the memory."""
        order = streamed(begins(TEXT, 1), begins(TEXT, 0), says("b", 1), says("a", 0))
        many = b"".join(begins({"type": "text", "text": "a"}, index) for index in range(1100))
        whole = with_blocks(*[{"type": "text", "text": "a"}] * 1100)

        assert "ab" == order.completions[0]["content"]
        assert ["a" * 1000] * 2 == [each.completions[0]["content"] for each in (streamed(many), whole)]

    def test_blocks_without_numbers_are_told_apart(self) -> None:
        """Where a server numbers nothing, a piece belongs to the block that began last."""
        answer = streamed(
            event("content_block_delta", delta={"type": "text_delta", "text": "a"}),
            event("content_block_delta", delta={"type": "text_delta", "text": "b"}),
            event("content_block_start", content_block=TOOL),
            event("content_block_delta", delta={"type": "input_json_delta", "partial_json": '{"x":'}),
            event("content_block_delta", delta={"type": "input_json_delta", "partial_json": "1}"}),
        )

        [message] = answer.completions
        assert ("ab", '{"x":1}') == (message["content"], message["tool_calls"][0]["function"]["arguments"])

    @pytest.mark.parametrize(
        "odd",
        [
            pytest.param(b"data: no json\n\ndata: []\n\ndata: 7\n\ndata: {\"type\":\n\n", id="no JSON"),
            pytest.param(event("message_start", message=7), id="a message that is a number"),
            pytest.param(event("message_start", message={"usage": [1], "model": 7, "content": {"a": 1}}), id="members"),
            pytest.param(event("message_delta", delta=[1], usage="x"), id="a delta that is a list"),
            pytest.param(event("content_block_stop", index="x"), id="an end of nothing"),
            pytest.param(event("vendor_event", index=1), id="an event of a vendor's own"),
            pytest.param(b"data: {\"type\":[\"ping\"]}\n\ndata: {\"type\":{}}\n\n", id="kinds of odd types"),
            pytest.param(b'data: {"type":"ping","a":"\xff"}\n\n', id="no UTF-8"),
        ],
    )  # fmt: skip
    def test_odd_events_cost_no_more_than_themselves(self, odd: bytes) -> None:
        """Whatever stands between two events, the others are read."""
        assert streamed(*EVENTS).completions == streamed(EVENTS[0], odd, *EVENTS[1:]).completions
        assert streamed(*EVENTS).usage == streamed(EVENTS[0], odd, *EVENTS[1:]).usage

    def test_odd_blocks_cost_no_more_than_themselves(self) -> None:
        """A block or a piece of odd types is no content."""
        answer = streamed(
            begins(TEXT), piece("text_delta", text=7), event("content_block_delta", index=0, delta="x"), says("a"),
            event("content_block_start", index=1, content_block=[]),
        )  # fmt: skip

        assert {"role": "assistant", "content": "a"} == answer.completions[0]
        assert [{"type": "text", "text": "a"}, {}] == json.loads(answer.output or b"")

    def test_texts_that_are_no_unicode_are_mended(self) -> None:
        """Halves of a character in two pieces are one; bytes that are no UTF-8 are replaced."""
        halves = streamed(begins(TEXT), says("a\ud83d"), says("\ude00b"))
        broken = streamed(begins(TEXT), b'data: {"type":"content_block_delta","delta":{"text":"a\xffb"}}\n\n')

        assert ["a😀b", "a\ufffdb"] == [each.completions[0]["content"] for each in (halves, broken)]


class TestFailures:
    @pytest.mark.parametrize(
        ("error", "expected"),
        [
            pytest.param(
                {"type": "overloaded_error", "message": "Overloaded"},
                Failure("overloaded_error", "Overloaded", "overloaded_error"), id="Anthropic",
            ),
            pytest.param(
                {"type": "api_error", "message": "m", "error_type": "context_length_exceeded"},
                Failure("api_error", "m", "context_length_exceeded"), id="OpenRouter",
            ),
            pytest.param({"code": 502, "message": "m"}, Failure("502", "m"), id="chat completions"),
            pytest.param("text", Failure(None, "text"), id="a text"),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("wrapping", [{"type": "error"}, {}], ids=["typed", "bare"])
    def test_an_error_is_told(self, error: Any, expected: Failure, wrapping: dict[str, Any]) -> None:
        """Inside a 200 or in the middle of a stream, an error is the end, with what came before it kept."""
        members = {**wrapping, "error": error, "request_id": "r"}
        bare = f"data: {json.dumps(members)}\n\n".encode()

        whole, broken = unary(members), streamed(*EVENTS[:4], bare, *EVENTS[4:])

        assert [expected, expected] == [whole.failure, broken.failure]
        assert () == whole.completions
        assert ("Hel", len(b"".join(EVENTS[:4]) + bare)) == (broken.completions[0]["content"], broken.finished)

    def test_an_error_in_place_of_a_message_is_told(self) -> None:
        """A message that is an error is no message; whose failure it was is known."""
        error = {"message": "m", "metadata": {"provider_name": "Groq"}}

        answer = streamed(event("message_start", message={"error": error}))

        assert (Failure(None, "m"), "Groq", ()) == (answer.failure, answer.provider, answer.completions)

    def test_a_failure_of_nothing_is_one(self) -> None:
        """An error event without words has failed too."""
        failure = Failure("overloaded", "Overloaded")
        assert failure == streamed(event("error", code="overloaded", message="Overloaded")).failure
        assert [Failure(None, None)] * 2 == [streamed(event("error")).failure, unary({"type": "error"}).failure]

    def test_an_error_is_the_outcome(self) -> None:
        """The log of a call that failed inside a 200 says so, in its own words."""
        failure = event("error", error={"type": "overloaded_error", "message": "Overloaded"})

        call = recorded([*EVENTS[:4], failure], headers=STREAM, ending=Ending.CLOSED)

        assert ("error", "overloaded_error", "Overloaded") == (call.outcome, call.error_code, call.error_message)
        assert (502, "Hel") == (logged(call)["status_code"], logged(call)["completion_message"]["content"])

    @pytest.mark.parametrize(
        ("events", "ending", "expected"),
        [
            pytest.param(EVENTS, Ending.CLOSED, "complete", id="whole"),
            pytest.param(EVENTS[:-1], Ending.END, "incomplete", id="without its last event"),
            pytest.param(EVENTS[:4], Ending.END, "incomplete", id="cut"),
            pytest.param(EVENTS[:4], Ending.CLOSED, "cancelled", id="closed"),
            pytest.param(EVENTS[:4], Ending.ABANDONED, "abandoned", id="forgotten"),
            pytest.param([], Ending.END, "incomplete", id="empty"),
        ],
    )
    def test_how_a_stream_ended(self, events: list[bytes], ending: Ending, expected: str) -> None:
        """Without its last event a stream is what its way of ending says; what came of it is kept."""
        call = recorded(events, headers=STREAM, ending=ending)

        assert (expected, "Hel" in json.dumps(call.completions)) == (call.outcome, bool(events))

    @pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"id": "msg-1", "content": [{"type": "text", "te'])
    def test_what_is_no_whole_message_is_not_finished(self, body: bytes) -> None:
        """Only a whole JSON object is a whole answer."""
        assert None is unary(body).finished


class TestShortenedAnswers:
    def test_only_the_open_block_has_a_gap(self) -> None:
        """What was whole before the gap stays so; what was open, and what begins behind it, says that it is not."""
        head = [
            STARTS, begins({"type": "thinking", "thinking": ""}), piece("thinking_delta", thinking="I am"), ends(),
            begins(TEXT, 1), says("one", 1),
        ]  # fmt: skip
        tail = [
            b'ta":{"type":"text_delta"}}\n\n', says("two", 1), ends(1),
            says("three", 2), ends(2),
            piece("thinking_delta", 3, thinking="four"), piece("signature_delta", 3, signature="s"), ends(3),
            piece("input_json_delta", 4, partial_json='"five"}'), ends(4),
            piece("citations_delta", 5, citation={"a": 1}),
            begins(TOOL, 6), piece("input_json_delta", 6, partial_json='{"six":1}'), ends(6),
            counts("tool_use", output_tokens=7), STOPS,
        ]  # fmt: skip
        answer = messages.answer(Received((b"".join(head), b"".join(tail)), streamed=True), Request())

        [message] = answer.completions
        assert [
            {"type": "thinking", "thinking": "I am"},
            {"type": "text", "text": "one [...] two"},
            {"type": "text", "text": " [...] three"},
            {"type": "thinking", "thinking": " [...] four", "signature": " [...] s"},
            {"type": "tool_use", "input": ' [...] "five"}'},
            {"type": "text", "citations": [{"a": 1}]},
            {**TOOL, "input": {"six": 1}},
        ] == json.loads(answer.output or b"")
        assert "one [...] two [...] three" == message["content"]
        assert [' [...] "five"}', '{"six":1}'] == [call["function"]["arguments"] for call in message["tool_calls"]]
        assert ("tool_use", len(b"".join(head + tail))) == (answer.finish_reason, answer.finished)

    def test_a_block_that_was_whole_is_left_alone(self) -> None:
        """Between two blocks nothing is open: the gap costs neither of them a word."""
        parts = (b"".join(EVENTS[:6]), b"".join([begins(TEXT, 9), says("end", 9), *EVENTS[5:]]))

        assert "Helloend" == messages.answer(Received(parts, streamed=True), Request()).completions[0]["content"]

    def test_a_tool_whose_input_lies_in_the_gap_says_so(self) -> None:
        """Pieces behind the gap are the end of an input, not the whole of it."""
        parts = (STARTS + begins(TOOL), piece("input_json_delta", partial_json="1}") + ends())

        [call] = messages.answer(Received(parts, streamed=True), Request()).completions[0]["tool_calls"]

        assert " [...] 1}" == call["function"]["arguments"]

    def test_head_and_end_of_a_message_are_read(self) -> None:
        """Of a message that came at once and whose middle is missing, text, usage and reason are known."""
        body = json.dumps(ANSWER).encode()
        place = body.index(b"llo")

        answer = messages.answer(Received((body[:place], body[place + 3 :]), streamed=False), Request())

        assert ("He [...] ", "end_turn") == (answer.completions[0]["content"], answer.finish_reason)
        assert (ANSWER["usage"], None, "msg-1") == (answer.usage, answer.finished, answer.generation_id)

    def test_a_reason_that_came_is_not_looked_for_again(self) -> None:
        """The head knows better than the end; without either there is none."""
        head = b'{"stop_reason":"refusal","content":[{"type":"text","text":"a'

        assert ["refusal", None] == [
            messages.answer(Received((each, b"..."), streamed=False), Request()).finish_reason
            for each in (head, head[25:])
        ]
        assert (
            "refusal"
            == messages.answer(Received((head, b'"stop_reason": "x"}'), streamed=False), Request()).finish_reason
        )

    @pytest.mark.parametrize(
        "pieces",
        [
            pytest.param(lambda text: says(text), id="text"),
            pytest.param(lambda text: piece("thinking_delta", thinking=text), id="thinking"),
            pytest.param(lambda text: piece("input_json_delta", partial_json=text), id="a tool's input"),
        ],
    )
    def test_no_half_of_a_key_is_left_at_a_gap(self, pieces: Any) -> None:
        """A key that a gap has cut in two is masked on either side."""
        for place in range(len(KEY) + 1):
            parts = (pieces("Said ") + pieces(KEY[:place]), pieces(KEY[place:]) + pieces(" it was"))
            answer = messages.answer(Received(parts, streamed=True, secrets=(Secret(KEY),)), Request())
            said = json.dumps(answer.completions)
            assert [] == [KEY[at : at + 8] for at in range(len(KEY) - 7) if KEY[at : at + 8] in said]
            assert " [...] " in said
            assert " it was" in said

    def test_no_beginning_of_a_key_is_left_where_a_message_is_cut(self) -> None:
        """What came of a message that should have come at once ends before a key that was cut."""
        body = json.dumps({"content": [{"type": "text", "text": f"Said {KEY}"}]}).encode()

        assert "Said **** [...] " == unary(body[:-14], secrets=(Secret(KEY),)).completions[0]["content"]

    def test_the_record_says_so(self) -> None:
        """A shortened stream is logged with what is left of it."""
        call = recorded([*EVENTS[:4], *EVENTS[5:]], headers=STREAM, gap_after=4)

        assert ("complete", True, "Hel [...] ") == (call.outcome, call.truncated, call.completions[0]["content"])


def test_the_log_of_a_call_is_the_vendors() -> None:
    """Prompt and answer are messages, the parameters that the vendor knows are its members, the others metadata."""
    source = {"type": "base64", "media_type": "image/png", "data": "AA=="}
    prompt = [
        {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]},
        {"role": "user", "content": [{"type": "image", "source": source}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"x": 1}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "1"}]},
    ]
    request = {
        **REQUEST, "messages": prompt, "system": "s", "temperature": 0.5, "stop_sequences": ["x"],
        "thinking": {"type": "enabled", "budget_tokens": 9}, "tools": [{"name": "f", "input_schema": {}}],
        "tool_choice": {"type": "tool", "name": "f"},
    }  # fmt: skip

    log = logged(recorded(json.dumps(ANSWER).encode(), request=request))

    assert [{"role": "system", "content": "s"}, *prompt] == log["prompt_messages"]
    assert {"role": "assistant", "content": "Hello"} == log["completion_message"]
    assert (100, 0.5, request["thinking"], request["tools"]) == (
        log["max_tokens"], log["temperature"], log["thinking"], log["tools"],
    )  # fmt: skip
    assert ({"type": "tool", "name": "f"}, '["x"]') == (log["tool_choice"], log["metadata"]["request.stop_sequences"])
    assert not {"input", "output"} & log.keys()


@pytest.mark.parametrize(
    "part",
    [
        pytest.param({"type": "document", "source": {"type": "text", "data": "a"}}, id="document"),
        pytest.param({"type": "image", "source": {"type": "url", "url": "u"}}, id="picture by URL"),
        pytest.param({"type": "thinking", "thinking": "a", "signature": "s"}, id="thoughts"),
        pytest.param({"type": "tool_result", "tool_use_id": "t", "content": [TEXT]}, id="result in parts"),
        pytest.param({"type": "tool_result", "tool_use_id": "t", "content": "1", "is_error": True}, id="failed tool"),
        pytest.param({"type": "tool_use", "id": "t", "name": "f", "input": "x"}, id="no object of an input"),
        pytest.param(
            {"type": "tool_use", "id": "t", "name": "f", "input": {}, "cache_control": {"type": "ephemeral"}}, id="more"
        ),
    ],
)
def test_parts_that_the_vendor_would_refuse_travel_as_text(part: dict[str, Any]) -> None:
    """A prompt that the vendor's types do not keep whole is the log's input."""
    prompt = [{"role": "user", "content": [part]}]

    log = logged(recorded(json.dumps(ANSWER).encode(), request={**REQUEST, "messages": prompt}))

    assert prompt == json.loads(log["input"])
    assert "prompt_messages" not in log


MEMBERS = st.sampled_from(
    [
        "type", "index", "delta", "content_block", "message", "content", "text", "thinking", "signature", "input",
        "partial_json", "citation", "citations", "usage", "input_tokens", "cache_read_input_tokens", "output_tokens",
        "output_tokens_details", "error", "model", "id", "stop_reason", "name",
    ]
)  # fmt: skip
KINDS = st.sampled_from(
    [
        "message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta", "error",
        "text", "thinking", "redacted_thinking", "tool_use", "text_delta", "input_json_delta", "server_tool_use",
    ]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5) | KINDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(MEMBERS, inner, max_size=5),
    max_leaves=25,
)
BLOCKS = st.fixed_dictionaries(
    {"type": KINDS},
    optional=dict.fromkeys(("id", "name", "input", "text", "thinking", "signature", "citations", "data"), VALUES),
)
EVENT = st.fixed_dictionaries(
    {"type": KINDS},
    optional={
        "index": st.integers(-1, 3) | VALUES,
        "content_block": BLOCKS | VALUES,
        "delta": st.dictionaries(MEMBERS, st.text(st.characters(), max_size=5) | VALUES, max_size=4) | VALUES,
        "message": st.dictionaries(MEMBERS, VALUES, max_size=4) | VALUES,
        "usage": VALUES,
        "error": VALUES,
    },
)


@given(st.lists(EVENT | VALUES, max_size=6), st.sampled_from([None, 0, 1, 3]))
def test_any_events_make_a_log(events: list[Any], gap: int | None) -> None:
    """Members in any place and of any type, with a gap or without: the vendor's types take the log whole."""
    chunks = [f"data: {json.dumps(each)}\n\n".encode() for each in events]

    recorded(chunks, headers=STREAM, gap_after=None if gap is None else min(gap, len(chunks)))


@given(st.dictionaries(MEMBERS, st.lists(BLOCKS, max_size=3) | VALUES, max_size=5), st.integers(0, 400))
def test_any_message_makes_a_log(message: dict[str, Any], size: int) -> None:
    """A message of any members, whole or cut anywhere, makes a log that the vendor's types take whole."""
    body = json.dumps(message).encode()

    recorded(body)
    recorded(body[:size])
    recorded([body[:size], body[size + 20 :]], gap_after=1)


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_give_an_answer(body: bytes, is_stream: bool) -> None:
    """Whatever comes as an answer, reading it does not raise, and the log is one."""
    assert isinstance(messages.answer(Received((body,), streamed=is_stream), Request()), Answer)
    recorded(body, headers=STREAM if is_stream else JSON)


@given(
    st.dictionaries(st.sampled_from(["messages", "system", "model", "stream", "tools", "thinking"]), VALUES) | VALUES,
    st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": st.lists(BLOCKS, max_size=2)}), max_size=2),
)
def test_any_request_makes_a_log(members: Any, prompt: list[Any]) -> None:
    """Whatever an app asks for, the vendor's types take the log of it whole."""
    body = {"messages": prompt} | members if isinstance(members, dict) else members

    recorded(json.dumps(ANSWER).encode(), request=json.dumps(body).encode())


def test_nesting_without_end_costs_the_block() -> None:
    """A block that is nested too deeply to be written is left out, and the record is one."""
    deep = b'{"type":"x","a":' + b"[" * 700 + b"]" * 700 + b"}"
    body = b'{"id":"msg-1","content":[%b,{"type":"text","text":"a"}]}' % deep

    assert ("msg-1", "a") == (unary(body).generation_id, unary(body).completions[0]["content"])
    assert "msg-1" == streamed(STARTS, b"data: " + b'{"a":' * 100_000 + b"\n\n").generation_id


def test_citations_without_end_take_linear_time() -> None:
    """Each of many pieces adds a citation; copied each time this would not end."""
    body = begins(TEXT) + piece("citations_delta", citation={"a": 1}) * 50_000

    assert 50_000 == len(json.loads(streamed(body).output or b"")[0]["citations"])
