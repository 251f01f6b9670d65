"""The Responses API: what is read out of requests and answers."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._delivery.log_entry import encode
from kwai_middleware._delivery.masking import ContentMask
from kwai_middleware._delivery.media import replaced
from kwai_middleware._outbound.formats import FORMATS, Answer, Failure, Received, Request, Tokens, responses
from kwai_middleware._outbound.formats.response_message import completion_of, encoded
from kwai_middleware._outbound.observation import Ending
from kwai_middleware._outbound.records import completed
from kwai_middleware._outbound.routes import Endpoint
from kwai_middleware._record import CompletedCall
from kwai_middleware._secret import Secret
from tests.support.observations import JSON, STREAM, observed, stream_of
from tests.support.vendor_logs import logged

ENDPOINT = Endpoint("direct", "openrouter", "openrouter.ai", "/api/v1/responses", "responses")
USAGE = {
    "input_tokens": 10,
    "input_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 2},
    "output_tokens": 4,
    "output_tokens_details": {"reasoning_tokens": 3},
    "total_tokens": 14,
}
HELLO = {"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}
INPUT_TEXT = {"type": "input_text", "text": "x"}
CALL = {
    "id": "fc_1", "type": "function_call", "status": "completed", "call_id": "call_1", "name": "f",
    "arguments": '{"x":1}',
}  # fmt: skip
TOOL_CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
CITED = {"type": "url_citation", "url": "https://x.example", "title": "X", "start_index": 0, "end_index": 1}
PICTURE = base64.b64encode(bytes(range(256)) * 3).decode()


def message(*parts: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": list(parts), **more,
    }  # fmt: skip


def reasoning(*, summary: str = "", thought: str = "", **more: Any) -> dict[str, Any]:
    return {
        "id": "rs_1",
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": summary}] if summary else [],
        "content": [{"type": "reasoning_text", "text": thought}] if thought else None,
        **more,
    }


def response(*items: Any, status: str = "completed", **more: Any) -> dict[str, Any]:
    return {
        "id": "resp_1", "object": "response", "created_at": 1, "status": status, "error": None,
        "incomplete_details": None, "model": "m", "output": list(items), "usage": USAGE, **more,
    }  # fmt: skip


def said(text: str | None = "Hello") -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def event(kind: str, **members: Any) -> dict[str, Any]:
    return {"type": f"response.{kind}", "sequence_number": 0, **members}


def started() -> dict[str, Any]:
    return event("created", response=response(status="in_progress", usage=None))


def delta(kind: str, text: Any, index: Any = 0, **more: Any) -> dict[str, Any]:
    return event(f"{kind}.delta", output_index=index, item_id=f"item_{index}", delta=text, **more)


def added(item: Any, index: Any = 0) -> dict[str, Any]:
    return event("output_item.added", output_index=index, item=item)


def streamed(*events: Any, secrets: tuple[Secret, ...] = ()) -> Answer:
    return responses.answer(Received((stream_of(*events),), streamed=True, secrets=secrets), Request())


def with_gap(before: list[Any], after: list[Any], secrets: tuple[Secret, ...] = ()) -> Answer:
    return responses.answer(
        Received((stream_of(*before), stream_of(*after)), streamed=True, secrets=secrets), Request()
    )


def unary(answer: Any) -> Answer:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return responses.answer(Received((body,), streamed=False), Request())


def asked(**members: Any) -> Request:
    return responses.request(json.dumps({"model": "m", **members}).encode())


def recorded(body: bytes | list[bytes], *, request: Any = None, **more: Any) -> CompletedCall:
    request = request or {"model": "m", "input": "Hi"}
    return completed(observed(body, request=request, endpoint=ENDPOINT, **more))


def test_responses_are_a_format() -> None:
    """The Responses API is found by the name that endpoints use."""
    assert FORMATS["responses"] is responses  # type: ignore[comparison-overlap]  # a module is one by its functions


class TestRequests:
    def test_a_text_is_what_the_user_says(self) -> None:
        """Instructions come first; names and parameters are where they are for other formats."""
        request = asked(
            instructions="Be kind.", input="Hi", stream=True, max_output_tokens=9, previous_response_id="resp_0",
            reasoning={"effort": "low"}, text={"format": {"type": "json_schema", "schema": {"x": "api_key"}}},
            respan_params={"customer_credentials": {"openai": {"api_key": "k"}}},
        )  # fmt: skip

        expected = Request(
            model="m",
            stream=True,
            messages=b'[{"role":"system","content":"Be kind."},{"role":"user","content":"Hi"}]',
            parameters={
                "max_output_tokens": b"9",
                "previous_response_id": b'"resp_0"',
                "reasoning": b'{"effort": "low"}',
                "text": b'{"format": {"type": "json_schema", "schema": {"x": "api_key"}}}',
            },
        )
        assert expected == request

    def test_chat_messages_stay_as_they_are_written(self) -> None:
        """A list of nothing but chat messages is the prompt byte for byte, behind the instructions."""
        written = (
            '[ {"role":"user",  "content":"Hi \\u00e9"}, {"role":"user","content":[{"type":"input_text","text":"x"}]} ]'
        )
        body = f'{{"model":"m","instructions":"Be","input":{written}}}'.encode()

        request = responses.request(body)

        assert request.messages == b'[{"role":"system","content":"Be"},%b]' % written[1:-1].strip().encode()
        assert None is request.input

    def test_a_conversation_with_tools_becomes_chat_messages(self) -> None:
        """Calls made at once are one message, results answer them, thoughts are left out; the whole is kept beside."""
        items = [
            {"role": "user", "content": "Hi"},
            reasoning(summary="hm"),
            CALL,
            {"type": "custom_tool_call", "call_id": "call_2", "name": "g", "input": "free"},
            {"type": "function_call_output", "call_id": "call_1", "output": "7"},
            {"type": "custom_tool_call_output", "call_id": "call_2", "output": [{"type": "input_text", "text": "8"}]},
            message(HELLO),
            CALL,
            {"type": "item_reference", "id": "msg_0"},
            "odd",
            CALL,
        ]

        request = asked(input=items)

        custom = {"id": "call_2", "type": "custom", "custom": {"name": "g", "input": "free"}}
        expected = [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL, custom]},
            {"role": "tool", "tool_call_id": "call_1", "content": "7"},
            {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "input_text", "text": "8"}]},
            {"role": "assistant", "content": [{"type": "output_text", "text": "Hello", "annotations": []}]},
            *[{"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}] * 2,
        ]
        assert expected == json.loads(request.messages or b"")
        assert json.dumps(items).encode() == request.input

    @pytest.mark.parametrize(
        ("item", "content", "is_whole"),
        [
            pytest.param({"content": "Hi"}, "Hi", True, id="text"),
            pytest.param({"type": "message", "content": "Hi"}, "Hi", True, id="said to be a message"),
            pytest.param({"id": "msg_1", "content": "Hi"}, "Hi", False, id="with an id"),
            pytest.param({"content": []}, [], True, id="no parts"),
            pytest.param({"content": ["Hi"]}, ["Hi"], True, id="a part that is none"),
            pytest.param({}, None, True, id="no content"),
            pytest.param(
                {"content": [{"type": "input_image", "image_url": "https://x.example/a.png", "detail": "low"}]},
                [{"type": "image_url", "image_url": {"url": "https://x.example/a.png", "detail": "low"}}],
                False, id="picture",
            ),
            pytest.param(
                {"content": [{"type": "input_image", "image_url": "data:,", "detail": None}, INPUT_TEXT]},
                [{"type": "image_url", "image_url": {"url": "data:,"}}, INPUT_TEXT],
                False, id="picture and text",
            ),
            pytest.param(
                {"content": [{"type": "input_image", "file_id": "file_1"}]},
                [{"type": "file", "file": {"file_id": "file_1"}}], False, id="picture by its id",
            ),
            pytest.param(
                {"content": [{"type": "input_file", "filename": "a.pdf", "file_data": "data:,"}]},
                [{"type": "file", "file": {"filename": "a.pdf", "file_data": "data:,"}}], False, id="file",
            ),
            pytest.param(
                {"content": [{"type": "refusal", "refusal": "No"}]},
                [{"type": "output_text", "text": "No"}], False, id="refusal",
            ),
        ],
    )  # fmt: skip
    def test_what_is_said_is_kept_in_chat_words(self, item: dict[str, Any], content: Any, is_whole: bool) -> None:
        """Pictures and files become what chat messages have for them, and the vendor takes the messages whole."""
        request = asked(input=[{"role": "user", **item}])

        assert content == json.loads(request.messages or b"")[0].get("content")
        assert is_whole is (request.input is None)
        body = json.dumps(response(message(HELLO))).encode()
        entry = logged(recorded(body, request={"model": "m", "input": [{"role": "user", **item}]}))
        assert content == entry["prompt_messages"][0].get("content")

    @pytest.mark.parametrize(
        ("members", "messages", "written"),
        [
            pytest.param({}, None, None, id="nothing"),
            pytest.param({"input": None, "instructions": None}, None, None, id="null"),
            pytest.param({"input": []}, None, None, id="no items"),
            pytest.param({"input": 7}, None, b"7", id="a number"),
            pytest.param({"input": [7]}, None, b"[7]", id="numbers"),
            pytest.param(
                {"input": {"a": 1}, "instructions": "Be"}, b'[{"role":"system","content":"Be"}]', b'{"a": 1}',
                id="object",
            ),
            pytest.param(
                {"prompt": {"id": "p"}, "instructions": "Be"}, b'[{"role":"system","content":"Be"}]', None, id="stored"
            ),
        ],
    )  # fmt: skip
    def test_odd_input_is_kept_as_it_is(self, members: Any, messages: Any, written: Any) -> None:
        """What is nothing of the kind is no chat message, and is kept as it was written."""
        request = asked(**members)

        assert (messages, written) == (request.messages, request.input)

    @given(st.binary() | st.binary().map(lambda value: b'{"input":[%b]}' % value))
    def test_any_body_gives_a_request(self, body: bytes) -> None:
        """Whatever is sent, reading it does not raise."""
        assert isinstance(responses.request(body), Request)

    @given(
        st.lists(
            st.dictionaries(
                st.sampled_from(["type", "role", "content", "call_id", "name", "arguments", "output", "id"]),
                st.sampled_from(["message", "function_call", "function_call_output", "user", "\ud800", 7, None, [], {}])
                | st.lists(
                    st.dictionaries(
                        st.sampled_from(["type", "text", "image_url"]), st.sampled_from(["refusal", "input_image", 1])
                    )
                ),
            ),
            max_size=4,
        )
    )  # fmt: skip
    def test_any_items_give_chat_messages_or_themselves(self, items: list[Any]) -> None:
        """Items of odd shapes never raise; the log of such a call validates."""
        body = json.dumps(response(message(HELLO))).encode()

        assert "response" == logged(recorded(body, request={"model": "m", "input": items}))["log_type"]


class TestWholeAnswers:
    def test_an_answer_is_read(self) -> None:
        """Text, usage and names come from their places; all counts are found."""
        body = response(message(HELLO), provider="OpenAI")

        expected = Answer(
            model="m",
            generation_id="resp_1",
            provider="OpenAI",
            completions=(said(),),
            finish_reason="stop",
            usage=USAGE,
            tokens=Tokens(prompt=10, completion=4, total=14, cached=6, cache_write=2, reasoning=3),
            finished=len(json.dumps(body)),
        )
        assert expected == unary(body)

    @pytest.mark.parametrize(
        ("items", "completion", "is_whole"),
        [
            pytest.param([message(HELLO)], said(), True, id="text"),
            pytest.param([message(HELLO, HELLO)], said("HelloHello"), True, id="two texts"),
            pytest.param([{**message(), "content": "Hello"}], said(), True, id="text without parts"),
            pytest.param([{**message(), "content": 7}], said(None), False, id="content of another type"),
            pytest.param([message(HELLO, {**HELLO, "text": 7})], said(), False, id="a text of another type"),
            pytest.param([message(HELLO, {"type": "refusal", "refusal": 7})], said(), False, id="odd refusal"),
            pytest.param([message(HELLO), message(HELLO)], said("HelloHello"), False, id="two messages"),
            pytest.param([message({**HELLO, "annotations": [CITED]})], said(), False, id="cited"),
            pytest.param([message({**HELLO, "logprobs": [{"token": "x"}]})], said(), False, id="with probabilities"),
            pytest.param([message({"type": "odd", "text": "Hello"})], said(), False, id="of another type"),
            pytest.param(
                [message({"type": "refusal", "refusal": "No"})],
                {"role": "assistant", "content": None, "refusal": "No"}, True, id="refusal",
            ),
            pytest.param(
                [CALL], {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}, True, id="tool call"
            ),
            pytest.param(
                [{**CALL, "namespace": "n"}],
                {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}, False, id="tool of a namespace",
            ),
            pytest.param(
                [{"type": "custom_tool_call", "id": "x", "call_id": "c", "name": "g", "input": "free"}],
                {
                    "role": "assistant", "content": None,
                    "tool_calls": [{"id": "c", "type": "custom", "custom": {"name": "g", "input": "free"}}],
                },
                True, id="custom tool",
            ),
            pytest.param(
                [{**CALL, "arguments": {"x": 1}}],
                {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}, True, id="arguments of another type",
            ),
            pytest.param(
                [reasoning(summary="hm", encrypted_content="x"), message(HELLO)],
                {**said(), "reasoning_content": "hm"}, True, id="sealed thoughts, summed up",
            ),
            pytest.param(
                [reasoning(thought="hm"), reasoning(thought="so"), message(HELLO)],
                {**said(), "reasoning_content": "hm\n\nso"}, True, id="thoughts",
            ),
            pytest.param(
                [reasoning(summary="hm", thought="hmm"), message(HELLO)],
                {**said(), "reasoning_content": "hm"}, False, id="thoughts and their summary",
            ),
            pytest.param([{"type": "web_search_call", "action": {}}, message(HELLO)], said(), False, id="search"),
            pytest.param([{"type": ["odd"]}], {"role": "assistant", "content": None}, False, id="odd"),
        ],
    )  # fmt: skip
    def test_items_become_one_chat_message(self, items: list[Any], completion: dict[str, Any], is_whole: bool) -> None:
        """What chat messages have room for is one; the items are kept beside where that is not all."""
        answer = unary(response(*items))

        assert (completion,) == answer.completions
        assert (None if is_whole else items) == (answer.output and json.loads(answer.output))
        entry = logged(recorded(json.dumps(response(*items)).encode()))
        assert completion["content"] == entry["completion_message"].get("content")
        assert is_whole or items == json.loads(entry["output"])

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            pytest.param(response(message(HELLO)), "stop", id="said all"),
            pytest.param(response(message(HELLO), CALL), "tool_calls", id="calls"),
            pytest.param(
                response(message(HELLO), status="incomplete", incomplete_details={"reason": "max_output_tokens"}),
                "max_output_tokens", id="too long",
            ),
            pytest.param(
                response(status="incomplete", incomplete_details={"reason": "content_filter"}),
                "content_filter", id="filtered",
            ),
            pytest.param(response(status="incomplete", incomplete_details=[]), "incomplete", id="no reason"),
            pytest.param(response(status="queued"), None, id="not begun"),
            pytest.param(response(status="cancelled"), None, id="cancelled"),
            pytest.param(response(status="failed"), None, id="failed"),
            pytest.param(response(status=7), None, id="odd"),
        ],
    )  # fmt: skip
    def test_why_it_stopped(self, body: dict[str, Any], expected: str | None) -> None:
        """Status and its details are told in one word."""
        assert expected == unary(body).finish_reason

    @pytest.mark.parametrize("status", ["queued", "in_progress"])
    def test_an_answer_that_is_made_in_the_background_is_complete(self, status: str) -> None:
        """There is nothing in it yet, and HTTP has said all it has to say."""
        call = recorded(json.dumps(response(status=status, background=True, usage=None)).encode())

        assert ("complete", (), None, "resp_1") == (call.outcome, call.completions, call.output, call.generation_id)
        assert "completion_message" not in logged(call)

    @pytest.mark.parametrize(
        ("body", "expected", "provider"),
        [
            pytest.param(
                response(status="failed", error={"code": "server_error", "message": "m"}, error_type="server"),
                Failure("server_error", "m", "server"), None, id="OpenRouter",
            ),
            pytest.param(
                response(status="failed", error={"code": "rate_limit_exceeded", "message": "m"}),
                Failure("rate_limit_exceeded", "m"), None, id="OpenAI",
            ),
            pytest.param(
                {"error": {"code": 502, "message": "m", "metadata": {"provider_name": "P", "error_type": "server"}}},
                Failure("502", "m", "server"), "P", id="nothing else",
            ),
            pytest.param(
                response(status="failed"), Failure(None, "The provider failed while it answered."), None, id="wordless"
            ),
        ],
    )  # fmt: skip
    def test_an_error_inside_a_200_is_told(self, body: Any, expected: Failure, provider: str | None) -> None:
        """A 200 may carry a failure: in the response, at the top, by its status alone."""
        answer = unary(body)

        assert (expected, provider) == (answer.failure, answer.provider)
        call = recorded(json.dumps(body).encode())
        assert ("error", 502) == (call.outcome, logged(call)["status_code"])

    def test_incomplete_is_no_failure(self) -> None:
        """An answer that hit its limit is an answer."""
        body = response(message(HELLO), status="incomplete", incomplete_details={"reason": "max_output_tokens"})

        call = recorded(json.dumps(body).encode())

        assert ("complete", "max_output_tokens") == (call.outcome, call.finish_reason)

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"7", b'"text"'])
    def test_what_is_no_object_is_not_finished(self, body: bytes) -> None:
        """Only a whole JSON object is a whole answer."""
        assert Answer() == unary(body)

    def test_the_beginning_of_an_answer_is_read(self) -> None:
        """What came of an answer that was cut is kept, and nobody says why it stopped."""
        body = json.dumps(response(message(HELLO))).encode()

        answer = unary(body[: body.index(b"llo")])

        assert ((said("He [...] "),), None, None) == (answer.completions, answer.finish_reason, answer.finished)

    @pytest.mark.parametrize(
        ("status", "end", "expected"),
        [
            pytest.param("completed", b'...","usage":{"input_tokens":3}}', (3, None), id="usage"),
            pytest.param(
                "incomplete",
                b'x"}],"incomplete_details": {\n"reason": "max_output_tokens"},"usage":{"input_tokens":3}}',
                (3, "max_output_tokens"),
                id="reason",
            ),
            pytest.param("completed", b"...", (None, None), id="nothing"),
        ],
    )  # fmt: skip
    def test_the_end_of_a_shortened_answer_is_read(self, status: str, end: bytes, expected: tuple[Any, Any]) -> None:
        """Of an answer whose middle was not kept, usage and reason at its end are still read."""
        head = json.dumps({"id": "resp_1", "status": status, "output": []}).encode()[:-3]

        answer = responses.answer(Received((head, end), streamed=False), Request())

        assert expected == (answer.tokens.prompt, answer.finish_reason)
        assert ("resp_1", None) == (answer.generation_id, answer.finished)

    @pytest.mark.parametrize(
        "item",
        [
            {"id": "i", "type": "image_generation_call", "output_format": "webp", "result": PICTURE, "size": "1x1"},
            {"id": "i", "result": PICTURE, "output_format": "webp", "type": "image_generation_call"},
            {"result": PICTURE, "type": "image_generation_call"},
        ],
    )
    def test_pictures_are_told_of(self, item: dict[str, Any]) -> None:
        """A picture that the model has made is not in the record, nor where an app hands it back."""
        request = {"model": "m", "input": [item, {"type": "odd", "result": PICTURE}]}
        call = replaced(recorded(json.dumps(response(item)).encode(), request=request))

        [kept], [given, other] = json.loads(call.output or b""), json.loads(call.input or b"")
        kind = "image/webp" if "output_format" in item else "image"
        assert f"[{kind}, 768 bytes, sha256:" == kept["result"][: len(kind) + 21]
        assert (kept, PICTURE) == (given, other["result"])
        assert kept["result"] in logged(call)["output"]

    def test_what_is_nested_too_deeply_is_left_out(self) -> None:
        """Nesting has an end; the text beside it is there."""
        for depth in (*range(800, 1000), 10_000):
            deep: Any = []
            for _ in range(depth):
                deep = [deep]
            raw = encoded([message(HELLO), {"type": "odd", "deep": deep}])
            assert raw is None or raw.endswith(b"]}]")
        assert None is raw
        completion = completion_of([message(HELLO), {**CALL, "arguments": deep}])
        assert ("Hello", "null") == (completion["content"], completion["tool_calls"][0]["function"]["arguments"])


BUILT = [
    pytest.param([delta("output_text", "Hel"), delta("output_text", "lo")], said(), id="deltas alone"),
    pytest.param(
        [
            added(message()), event("content_part.added", output_index=0, content_index=0, part={**HELLO, "text": ""}),
            delta("output_text", "Hel", content_index=0), delta("output_text", "lo", content_index=0),
        ],
        said(), id="opened",
    ),
    pytest.param([event("output_text.done", output_index=0, text="Hello")], said(), id="text at once"),
    pytest.param([event("content_part.done", output_index=0, part=HELLO)], said(), id="part at once"),
    pytest.param([event("output_item.done", output_index=0, item=message(HELLO))], said(), id="item at once"),
    pytest.param([added({**message(), "content": ["odd"]}), delta("output_text", "Hello")], said(), id="opened oddly"),
    pytest.param([added(message({**HELLO, "text": "Hel"})), delta("output_text", "lo")], said(), id="opened with text"),
    pytest.param(
        [delta("output_text", "x"), event("output_item.done", item=message(HELLO)), delta("output_text", "x")],
        said(), id="nothing is added to what is done",
    ),
    pytest.param(
        [delta("output_text", "Hello", 1, content_index=0), delta("refusal", "No", 1, content_index=1)],
        {**said(), "refusal": "No"}, id="text and refusal",
    ),
    pytest.param(
        [
            added({**CALL, "arguments": ""}), delta("function_call_arguments", '{"x"'),
            delta("function_call_arguments", ":1}"),
        ],
        {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}, id="tool call",
    ),
    pytest.param(
        [added({**CALL, "arguments": ""}), event("function_call_arguments.done", output_index=0, arguments='{"x":1}')],
        {"role": "assistant", "content": None, "tool_calls": [TOOL_CALL]}, id="arguments at once",
    ),
    pytest.param(
        [
            delta("reasoning_summary_text", "h", summary_index=0),
            delta("reasoning_summary_text", "so", summary_index=1),
            delta("reasoning_summary_text", "m", summary_index=0),
        ],
        {"role": "assistant", "content": None, "reasoning_content": "hm\n\nso"}, id="summary",
    ),
    pytest.param(
        [
            added(reasoning()), event("reasoning_summary_part.added", part={"type": "summary_text", "text": ""}),
            delta("reasoning_summary_text", "hm"), delta("reasoning_text", "hm"),
        ],
        {"role": "assistant", "content": None, "reasoning_content": "hm"}, id="thoughts",
    ),
]  # fmt: skip


class TestStreams:
    @pytest.mark.parametrize(("events", "completion"), BUILT)
    def test_a_stream_that_was_cut_is_what_came(self, events: list[Any], completion: dict[str, Any]) -> None:
        """Without its last event an answer is put together of its pieces, and nothing says that it is over."""
        answer = streamed(started(), *events)

        assert (completion,) == answer.completions
        assert ("m", "resp_1", None, None) == (
            answer.model, answer.generation_id, answer.finish_reason, answer.finished,
        )  # fmt: skip
        call = recorded(stream_of(started(), *events), headers=STREAM)
        assert ("incomplete", (completion,)) == (call.outcome, call.completions)
        assert "response" == logged(call)["log_type"]

    @pytest.mark.parametrize("kind", ["completed", "done"])
    def test_the_last_event_holds_it_all(self, kind: str) -> None:
        """The response at the end counts, whatever the pieces were."""
        events = [started(), delta("output_text", "Hel"), event(kind, response=response(message(HELLO)))]

        expected = Answer(
            model="m",
            generation_id="resp_1",
            completions=(said(),),
            finish_reason="stop",
            usage=USAGE,
            tokens=Tokens(prompt=10, completion=4, total=14, cached=6, cache_write=2, reasoning=3),
            first_content=len(stream_of(*events[:2])),
            finished=len(stream_of(*events)),
        )
        assert expected == streamed(*events, "[DONE]")

    def test_a_last_event_without_items_takes_nothing_away(self) -> None:
        """Some servers end a stream with an empty response: then the pieces count."""
        answer = streamed(delta("output_text", "Hello"), event("completed", response=response()))

        assert ((said(),), "stop") == (answer.completions, answer.finish_reason)

    def test_the_mark_ends_a_stream(self) -> None:
        """Whoever sends the mark of chat completions has no more to say."""
        events = [delta("output_text", "Hello"), "[DONE]"]

        assert len(stream_of(*events)) == streamed(*events).finished

    @pytest.mark.parametrize(
        ("told", "counts"),
        [
            *((pytest.param(delta(kind, "a"), True, id=kind)) for kind in (
                "output_text", "refusal", "reasoning_text", "reasoning_summary_text", "function_call_arguments",
                "custom_tool_call_input", "mcp_call_arguments", "code_interpreter_call_code", "audio",
                "audio.transcript",
            )),
            pytest.param(added({**CALL, "arguments": ""}), True, id="a tool's name"),
            pytest.param(event("image_generation_call.partial_image", partial_image_b64="AA=="), True, id="picture"),
            pytest.param(event("output_item.done", item=message(HELLO)), True, id="whole item"),
            pytest.param(
                event("output_item.done", item={"type": "image_generation_call", "result": "A"}), True,
                id="whole picture",
            ),
            pytest.param(event("content_part.done", part=HELLO), True, id="whole part"),
            pytest.param(event("output_text.done", text="a"), True, id="whole text"),
            pytest.param(event("completed", response=response(message(HELLO))), True, id="whole response"),
            pytest.param(event("completed", response=response()), False, id="empty response"),
            pytest.param(event("output_item.done", item=reasoning(encrypted_content="x")), False, id="sealed thought"),
            pytest.param(added(message()), False, id="empty message"),
            pytest.param(added({"type": "image_generation_call", "result": None}), False, id="picture to come"),
            pytest.param(event("content_part.added", part={**HELLO, "text": ""}), False, id="empty part"),
            pytest.param(delta("output_text", ""), False, id="empty text"),
            pytest.param(delta("output_text", 7), False, id="no text"),
            pytest.param(event("output_text.annotation.added", annotation=CITED), False, id="annotation"),
            pytest.param(event("audio.done"), False, id="end of sound"),
            pytest.param(event("web_search_call.searching", item_id="x"), False, id="search"),
            pytest.param(event("in_progress", response=response(status="in_progress")), False, id="progress"),
            pytest.param(event("queued"), False, id="queued"),
        ],
    )  # fmt: skip
    def test_what_counts_as_first_content(self, told: dict[str, Any], counts: bool) -> None:
        """Only what a reader would see starts the clock of the first token."""
        body = b": OPENROUTER PROCESSING\n\n" + stream_of(started(), told)

        answer = responses.answer(Received((body + stream_of(delta("output_text", "b")),), streamed=True), Request())

        assert counts is (len(body) == answer.first_content)

    @pytest.mark.parametrize(
        ("told", "expected"),
        [
            pytest.param(
                event("failed", response=response(status="failed", error={"code": "x", "message": 7}), error_type="a"),
                Failure("x", "7", "a"), id="OpenRouter, beside the response",
            ),
            pytest.param(
                event("failed", response=response(status="failed", error={"code": "x"}, error_type="server")),
                Failure("x", None, "server"), id="OpenRouter, in the response",
            ),
            pytest.param(event("failed"), Failure(None, "The provider failed while it answered."), id="wordless"),
            pytest.param(
                {"type": "error", "code": "server_error", "message": "m", "param": None, "sequence_number": 1},
                Failure("server_error", "m"), id="error, as documented",
            ),
            pytest.param(
                {"type": "error", "error": {"code": "502", "type": "x", "message": "m"}}, Failure("502", "m", "x"),
                id="error, as recorded",
            ),
            pytest.param({"error": {"code": 502, "message": "m"}}, Failure("502", "m"), id="no type"),
            pytest.param({"type": "response.error", "error": "m"}, Failure(None, "m"), id="another name"),
        ],
    )  # fmt: skip
    def test_an_error_inside_a_stream_is_told(self, told: dict[str, Any], expected: Failure) -> None:
        """A failure ends the stream and keeps what was said before."""
        body = stream_of(started(), delta("output_text", "Hel"), told)

        answer = responses.answer(Received((body,), streamed=True), Request())

        assert (expected, (said("Hel"),), len(body)) == (answer.failure, answer.completions, answer.finished)
        call = recorded(body, headers=STREAM)
        assert ("error", None) == (call.outcome, call.finish_reason)
        assert 502 == logged(call)["status_code"]

    def test_what_follows_an_error_still_counts(self) -> None:
        """The first failure is the one that is told; the usage behind it is read."""
        events = [
            {"type": "error", "code": "a", "message": "first"},
            event("failed", response=response(status="failed", error={"code": "b"})),
        ]

        answer = streamed(*events)

        assert (Failure("a", "first"), USAGE) == (answer.failure, answer.usage)
        assert len(stream_of(events[0])) == answer.finished

    def test_an_incomplete_stream_is_no_failure(self) -> None:
        """An answer that hit its limit ends with an event of its own."""
        final = response(message(HELLO), status="incomplete", incomplete_details={"reason": "max_output_tokens"})

        call = recorded(stream_of(event("incomplete", response=final)), headers=STREAM)

        assert ("complete", "max_output_tokens") == (call.outcome, call.finish_reason)

    def test_parallel_calls_are_told_apart(self) -> None:
        """Arguments of interleaved calls go to the item with their number, or with their id."""
        calls = [{**CALL, "id": f"fc_{name}", "call_id": name, "arguments": ""} for name in "ab"]

        def pieces(**places: dict[str, Any]) -> list[Any]:
            kind = "function_call_arguments.delta"
            return [event(kind, delta=text, **places[name]) for text in ("1", "2") for name in ("b", "a")]

        numbered = [added(calls[0], 4), added(calls[1], 7), *pieces(a={"output_index": 4}, b={"output_index": 7})]
        named = [
            event("output_item.added", item=calls[0]), event("output_item.added", item=calls[1]),
            *pieces(a={"item_id": "fc_a"}, b={"item_id": "fc_b"}),
        ]  # fmt: skip
        last = [
            event("output_item.added", item={**calls[0], "id": None}),
            event("function_call_arguments.delta", delta="12"),
            event("output_item.added", item={**calls[1], "id": None}),
            event("function_call_arguments.delta", delta="12"),
            event("output_item.done", item={**calls[1], "arguments": "12"}),
        ]
        for events in (numbered, named, last):
            [completion] = streamed(*events).completions
            assert [("a", "12"), ("b", "12")] == [
                (call["id"], call["function"]["arguments"]) for call in completion["tool_calls"]
            ]

    def test_annotations_are_kept_beside(self) -> None:
        """Citations of a stream that was cut are in the items."""
        cited = event("output_text.annotation.added", output_index=0, content_index=0, annotation=CITED)

        first, second = (
            json.loads(streamed(*events).output or b"")
            for events in ([cited, cited, delta("output_text", "Hello")], [added(message(HELLO)), cited, cited])
        )

        assert [
            {"type": "message", "content": [{"type": "output_text", "annotations": [CITED, CITED], "text": "Hello"}]}
        ] == first
        assert [CITED, CITED] == second[0]["content"][0]["annotations"]

    def test_a_first_token_has_its_time(self) -> None:
        """The time to the first token is that of the chunk with the first content in it."""
        events = [started(), delta("output_text", "Hello"), event("completed", response=response(message(HELLO)))]

        call = recorded([stream_of(each) for each in events], headers=STREAM)

        assert (0.02, 0.03, True) == (call.time_to_first_token, call.duration, call.stream)

    @pytest.mark.parametrize(
        ("ending", "outcome"),
        [(Ending.CLOSED, "cancelled"), (Ending.TIMEOUT, "timeout"), (Ending.ABANDONED, "abandoned")],
    )
    def test_how_a_stream_ended(self, ending: Ending, outcome: str) -> None:
        """A stream that was left keeps what came; one that was left behind its last event is complete."""
        events = [started(), delta("output_text", "Hello")]
        left = recorded(stream_of(*events), headers=STREAM, ending=ending)
        over = recorded(stream_of(*events, event("completed", response=response())), headers=STREAM, ending=ending)

        assert (outcome, (said(),), "complete") == (left.outcome, left.completions, over.outcome)


class TestCosts:
    @pytest.mark.parametrize("is_stream", [False, True], ids=["unary", "streamed"])
    @pytest.mark.parametrize(
        ("paid", "expected"),
        [
            pytest.param({}, (None, None, None), id="OpenAI"),
            pytest.param({"cost": 0.25, "is_byok": False}, (0.25, 0.25, False), id="credits"),
            pytest.param(
                {"cost": 0.25, "is_byok": True, "cost_details": {"upstream_inference_cost": 1.0}},
                (1.25, 0.25, True), id="own key",
            ),
            pytest.param({"cost": "free", "is_byok": "no", "cost_details": 7}, (None, None, None), id="odd"),
        ],
    )  # fmt: skip
    def test_costs_are_read(self, paid: dict[str, Any], expected: tuple[Any, ...], is_stream: bool) -> None:
        """What OpenRouter says of costs stands in the usage."""
        body = response(message(HELLO), usage=USAGE | paid)
        raw = stream_of(event("completed", response=body)) if is_stream else json.dumps(body).encode()

        call = recorded(raw, headers=STREAM if is_stream else JSON)

        assert expected == (call.cost, call.reported_cost, call.is_byok)
        entry = logged(call)
        assert (10, 4, 6, 3) == (
            entry["prompt_tokens"], entry["completion_tokens"], entry["prompt_cache_hit_tokens"],
            entry["reasoning_tokens"],
        )  # fmt: skip
        assert ({"cached_tokens": 6, "cache_write_tokens": 2}, "response") == (
            entry["usage"]["prompt_tokens_details"], entry["log_type"],
        )  # fmt: skip


class TestLogs:
    def test_parameters_go_along(self) -> None:
        """What the vendor's types have is a member there; all else is told as metadata, no key among it."""
        request = {
            "model": "m", "input": "Hi", "temperature": 0.5, "max_output_tokens": 9, "parallel_tool_calls": False,
            "tool_choice": {"type": "function", "name": "f"}, "reasoning": {"effort": "low"},
            "text": {"verbosity": "low"},
            "tools": [
                {"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True},
                {"type": "mcp", "server_label": "x", "authorization": "secret"},
            ],
        }  # fmt: skip

        entry = logged(recorded(json.dumps(response(CALL)).encode(), request=request))

        assert (0.5, False, {"type": "function", "name": "f"}) == (
            entry["temperature"], entry["parallel_tool_calls"], entry["tool_choice"],
        )  # fmt: skip
        assert [request["tools"][0], {"type": "mcp"}] == entry["tools"]  # type: ignore[index]  # a list it is
        assert {"request.max_output_tokens": "9", "request.reasoning": '{"effort": "low"}'}.items() <= entry[
            "metadata"
        ].items()
        assert [TOOL_CALL] == entry["tool_calls"]

    def test_a_mask_of_the_apps_leaves_the_types(self) -> None:
        """Every text is shown to the mask; what the vendor's types stand on is no text, and the log is taken whole."""
        items = [{"role": "user", "content": [INPUT_TEXT]}, CALL]
        call = recorded(json.dumps(response(message(HELLO))).encode(), request={"model": "m", "input": items})

        entry = logged(ContentMask(lambda _: "***").masked(call))

        assert [{"type": "input_text", "text": "***"}] == entry["prompt_messages"][0]["content"]
        assert "***" == entry["prompt_messages"][1]["tool_calls"][0]["function"]["arguments"]
        assert "***" == entry["completion_message"]["content"]


class TestGaps:
    KEY = "sk-or-v1-the-key-of-acme"

    @pytest.mark.parametrize(
        ("before", "after", "expected"),
        [
            pytest.param(
                [delta("output_text", "Hello")], [delta("output_text", "you")], said("Hello [...] you"), id="text"
            ),
            pytest.param([], [delta("output_text", "you")], said(" [...] you"), id="its beginning"),
            pytest.param(
                [delta("output_text", "Hello"), event("output_text.done", output_index=0, text="Hello")], [],
                said(), id="what was done before",
            ),
            pytest.param([event("output_item.done", item=message(HELLO))], [], said(), id="an item done before"),
            pytest.param(
                [added(message())],
                [event("content_part.added", part={"type": "output_text", "text": ""}), delta("output_text", "Hello")],
                said(), id="a part begun behind",
            ),
            pytest.param(
                [added(message())], [added(message(), 1), delta("output_text", "Hello", 1)], said(),
                id="an item begun behind",
            ),
            pytest.param(
                [added({**CALL, "arguments": ""}), delta("function_call_arguments", '{"x')],
                [delta("function_call_arguments", "}")],
                {
                    "role": "assistant", "content": None,
                    "tool_calls": [{**TOOL_CALL, "function": {"name": "f", "arguments": '{"x [...] }'}}],
                },
                id="arguments",
            ),
            pytest.param(
                [delta("output_text", "x")], [event("completed", response=response(message(HELLO)))], said(),
                id="the last event kept",
            ),
        ],
    )  # fmt: skip
    def test_a_gap_is_marked(self, before: list[Any], after: list[Any], expected: dict[str, Any]) -> None:
        """Where pieces may be missing a mark stands, and nowhere else."""
        assert (expected,) == with_gap(before, after).completions

    def test_what_is_left_of_a_key_is_masked(self) -> None:
        """A key that the gap has cut in two is not in the record, on either side."""
        answer = with_gap(
            [delta("output_text", f"key {self.KEY[:12]}")], [delta("output_text", self.KEY[12:])], (Secret(self.KEY),)
        )

        [completion] = answer.completions
        assert self.KEY[:12] not in completion["content"]
        assert self.KEY[12:] not in completion["content"]

    def test_the_end_of_a_last_event_is_read(self) -> None:
        """Of a last event that is longer than what is kept of the end, the usage there still counts."""
        final = stream_of(event("completed", response=response(message(HELLO), padding="x" * 100)))
        parts = stream_of(started(), delta("output_text", "Hello")), final[-400:]

        answer = responses.answer(Received(parts, streamed=True), Request())

        assert (USAGE, sum(map(len, parts)), None) == (answer.usage, answer.finished, answer.finish_reason)
        assert (said(),) == tuple(
            {**each, "content": each["content"].removesuffix(" [...] ")} for each in answer.completions
        )


MEMBERS = (
    "type", "response", "item", "part", "delta", "output_index", "content_index", "item_id", "text", "annotation",
    "status", "output", "content", "summary", "usage", "id", "name", "arguments", "call_id", "error", "result",
)  # fmt: skip
WORDS = (
    "response.created", "response.output_item.added", "response.output_item.done", "response.content_part.added",
    "response.output_text.delta", "response.output_text.done", "response.function_call_arguments.delta",
    "response.reasoning_summary_part.added", "response.reasoning_summary_text.delta", "response.completed",
    "response.output_text.annotation.added", "response.failed", "error", "message", "reasoning", "function_call",
    "custom_tool_call", "completed", "failed", "incomplete", "\ud83d", "\ude00", "é",
)  # fmt: skip
VALUES = st.recursive(
    st.sampled_from(WORDS) | st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=5),
    max_leaves=20,
)


class TestOddAnswers:
    @given(st.lists(VALUES, max_size=5), st.integers(0, 400))
    def test_any_json_gives_an_answer_that_can_be_logged(self, events: list[Any], cut: int) -> None:
        """Members in any place and of any type, streamed or not, with a gap or cut: the log of it validates."""
        body = stream_of(*(json.dumps(each) for each in events))
        whole = json.dumps(events[0]).encode() if events else b""
        for parts, is_stream in (
            ((body,), True),
            ((body[:cut], body[cut:]), True),
            ((whole,), False),
            ((whole[:cut],), False),
        ):
            answer = responses.answer(Received(parts, streamed=is_stream), Request())
            msgspec.json.encode(answer.completions)
            call = recorded(b"".join(parts), headers=STREAM if is_stream else JSON)
            encode(replaced(call))

    @given(st.binary(), st.binary())
    def test_any_bytes_give_an_answer(self, first: bytes, second: bytes) -> None:
        """Whatever is sent, reading it does not raise."""
        for is_stream in (False, True):
            for parts in ((first,), (first, second)):
                assert isinstance(responses.answer(Received(parts, streamed=is_stream), Request()), Answer)

    def test_halves_of_characters_are_joined(self) -> None:
        """An emoji whose halves came in two deltas is whole; a half that is left alone is replaced."""
        answer = streamed(
            '{"type":"response.output_text.delta","output_index":0,"delta":"\\ud83d"}',
            '{"type":"response.output_text.delta","output_index":0,"delta":"\\ude00\\ud83d"}',
        )

        assert (said("😀\ufffd"),) == answer.completions

    def test_items_are_bounded(self) -> None:
        """A server that invents items without end cannot fill the memory."""
        answer = streamed(
            *(event("output_item.added", item=CALL | {"id": None}) for _ in range(1500)),
            *(delta("output_text", "x", index) for index in range(2000, 2500)),
        )

        assert 1000 == len(answer.completions[0]["tool_calls"])

    def test_a_hundred_thousand_deltas_take_linear_time(self) -> None:
        """Each of many pieces adds to its text; joined each time this would not end."""
        body = stream_of(*[delta("output_text", "word ")] * 100_000)

        answer = responses.answer(Received((body,), streamed=True), Request())

        assert 500_000 == len(answer.completions[0]["content"])

    def test_a_huge_answer_is_read(self) -> None:
        """Ten megabytes of text with a citation are in the record, text and items."""
        text = "Hello é " * 1_250_000

        answer = unary(response(message({**HELLO, "text": text, "annotations": [CITED]})))

        assert text == answer.completions[0]["content"]
        assert text == json.loads(answer.output or b"")[0]["content"][0]["text"]
