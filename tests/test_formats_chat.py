"""Chat completions: what is read out of requests and answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._outbound.formats import FORMATS, Answer, Failure, Received, Request, Tokens, chat, tolerant
from kwai_middleware._outbound.formats.interface import GAP
from kwai_middleware._secret import Secret
from tests.support.observations import stream_of

MEMBERS = [
    "choices", "index", "delta", "content", "tool_calls", "function", "arguments", "error", "usage", "id",
    "finish_reason", "message", "reasoning_details", "cost_details", "audio",
]  # fmt: skip


def delta(index: int = 0, *, finish_reason: str | None = None, **members: Any) -> dict[str, Any]:
    return {"index": index, "delta": members, "finish_reason": finish_reason, "logprobs": None}


def tool_calls(*calls: dict[str, Any]) -> dict[str, Any]:
    return {"choices": [delta(tool_calls=list(calls))]}


def streamed(*chunks: dict[str, Any] | str, choices: int = 1) -> Answer:
    return chat.answer(Received((stream_of(*chunks),), streamed=True), Request(choices=choices))


def unary(answer: Any) -> Answer:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return chat.answer(Received((body,), streamed=False), Request())


def test_chat_is_a_format() -> None:
    """Chat completions are found by the name that endpoints use."""
    assert FORMATS["chat"] is chat  # type: ignore[comparison-overlap]  # a module is a Format by its functions


class TestStreams:
    def test_a_stream_of_openrouter_is_one_answer(self) -> None:
        """Texts are joined; the usage chunk with its empty choice does not take the finish reason away."""
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "cost": 0}
        first = {"id": "gen-1", "model": "m", "provider": "P", "choices": [delta(role="assistant", content="")]}
        chunks: list[dict[str, Any] | str] = [
            first,
            {"id": "gen-1", "choices": [delta(content="Hel")]},
            {"id": "gen-1", "choices": [delta(content="lo")]},
            {"id": "gen-1", "choices": [delta(content="", finish_reason="stop")]},
            {"id": "gen-1", "choices": [delta(role="assistant", content="")], "usage": usage},
        ]
        sizes = [len(stream_of(*chunks[:count])) for count in range(6)]

        expected = Answer(
            model="m",
            generation_id="gen-1",
            provider="P",
            completions=({"role": "assistant", "content": "Hello"},),
            finish_reason="stop",
            usage=usage,
            tokens=Tokens(prompt=3, completion=2, total=5),
            first_content=sizes[2],
            finished=sizes[5],
        )
        assert expected == streamed(*chunks, "[DONE]")

    @pytest.mark.parametrize(
        "chunks",
        [
            pytest.param([{"choices": [], "usage": {"prompt_tokens": 3}}], id="no choices, as documented"),
            pytest.param([{"choices": [delta(content="")], "usage": {"prompt_tokens": 3}}], id="a choice, as sent"),
            pytest.param([{"usage": {"prompt_tokens": 3}}], id="no member of that name"),
            pytest.param([{"usage": {"prompt_tokens": 1}}, {"usage": {"prompt_tokens": 3}}], id="growing counts"),
        ],
    )
    def test_usage_is_taken_from_any_chunk(self, chunks: list[dict[str, Any]]) -> None:
        """Usage counts wherever it stands, and the last one counts."""
        answer = streamed({"choices": [delta(content="a", finish_reason="stop")]}, *chunks)

        assert ({"prompt_tokens": 3}, "stop") == (answer.usage, answer.finish_reason)

    def test_cost_in_a_chunk_of_its_own_is_added(self) -> None:
        """A later usage adds to an earlier one; null takes nothing away."""
        answer = streamed({"usage": {"prompt_tokens": 3, "cost": None}}, {"usage": {"cost": 1, "prompt_tokens": None}})

        assert {"prompt_tokens": 3, "cost": 1} == answer.usage

    @pytest.mark.parametrize(
        ("chunks", "choices", "expected"),
        [
            pytest.param(["[DONE]"], 1, 0, id="the mark"),
            pytest.param(
                [{"choices": [delta(finish_reason="stop")]}, {"usage": {"cost": 1}}], 1, 1, id="finish, usage"
            ),
            pytest.param(
                [{"choices": [delta(content="a")], "usage": {"cost": 1}}, {"choices": [delta(finish_reason="stop")]}],
                1, 1, id="usage, finish",
            ),
            pytest.param(
                [{"choices": [delta(finish_reason="stop")], "usage": {"cost": 1}}, {"choices": []}, "[DONE]"],
                1, 0, id="the first that says so counts",
            ),
            pytest.param([{"choices": [delta(finish_reason="stop")]}], 1, None, id="finish alone"),
            pytest.param([{"choices": [delta(content="a")]}, {"usage": {"cost": 1}}], 1, None, id="usage alone"),
            pytest.param(
                [{"choices": [delta(finish_reason="stop")], "usage": {"cost": 1}}], 2, None, id="one of two choices"
            ),
            pytest.param(
                [{"choices": [delta(content="a"), delta(1, finish_reason="stop")], "usage": {"cost": 1}}],
                1, None, id="one of two begun",
            ),
            pytest.param([{"choices": [delta(content="a")]}, {"error": {"code": 502}}, {}], 1, 1, id="an error"),
        ],
    )  # fmt: skip
    def test_when_a_stream_is_over(
        self, chunks: list[dict[str, Any] | str], choices: int, expected: int | None
    ) -> None:
        """A stream is over with its mark, with usage when all choices have finished, or with an error."""
        size = None if expected is None else len(stream_of(*chunks[: expected + 1]))

        assert size == streamed(*chunks, choices=choices).finished

    @pytest.mark.parametrize(
        ("members", "counts"),
        [
            pytest.param({"content": "a"}, True, id="content"),
            pytest.param({"reasoning": "a"}, True, id="reasoning"),
            pytest.param({"reasoning_content": "a"}, True, id="reasoning_content"),
            pytest.param({"refusal": "a"}, True, id="refusal"),
            pytest.param({"tool_calls": [{"index": 0, "id": "a"}]}, True, id="tool call"),
            pytest.param({"function_call": {"name": "f"}}, True, id="function call"),
            pytest.param({"reasoning_details": [{"type": "reasoning.encrypted"}]}, True, id="reasoning details"),
            pytest.param({"images": [{}]}, True, id="image"),
            pytest.param({"audio": {"data": "AA=="}}, True, id="audio"),
            pytest.param({"role": "assistant"}, False, id="role"),
            pytest.param({"content": "", "tool_calls": [], "refusal": None}, False, id="empty"),
            pytest.param({"annotations": [{}]}, False, id="annotation"),
        ],
    )
    def test_what_counts_as_first_content(self, members: dict[str, Any], counts: bool) -> None:
        """Only what a reader would see starts the clock of the first token; comments and roles do not."""
        chunk = {"choices": [delta(**members)]}
        body = b": OPENROUTER PROCESSING\n\n" + stream_of(chunk)

        answer = chat.answer(Received((body,), streamed=True), Request())

        assert (len(body) if counts else None) == answer.first_content

    def test_parallel_tool_calls_are_put_together(self) -> None:
        """Arguments of interleaved calls go to the call with their index; the index itself is not kept."""
        answer = streamed(
            tool_calls({"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}),
            tool_calls({"index": 0, "function": {"arguments": '{"x"'}}),
            tool_calls({"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{"}}),
            tool_calls(
                {"index": 0, "id": None, "function": {"arguments": ":1}"}},
                {"index": 1, "function": {"arguments": "}"}},
            ),
            {"choices": [delta(finish_reason="tool_calls")]},
        )

        calls = [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
            {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ]
        assert ({"role": "assistant", "content": None, "tool_calls": calls},) == answer.completions
        assert "tool_calls" == answer.finish_reason

    @pytest.mark.parametrize("place", [{"index": 0}, {}], ids=["all are number 0", "no numbers"])
    def test_calls_without_numbers_of_their_own_are_told_apart(self, place: dict[str, int]) -> None:
        """A new id with a new name begins a call, whatever its number; the same id goes on."""
        answer = streamed(
            tool_calls({**place, "id": "a", "function": {"name": "f", "arguments": "{"}}),
            tool_calls({**place, "id": "a", "function": {"arguments": "}"}}),
            tool_calls({**place, "id": "b", "function": {"name": "f", "arguments": "1"}}),
            tool_calls({**place, "function": {"arguments": "2"}}),
        )

        calls = answer.completions[0]["tool_calls"]
        assert [("a", "{}"), ("b", "12")] == [(call["id"], call["function"]["arguments"]) for call in calls]

    def test_reasoning_and_its_details_are_put_together(self) -> None:
        """Details of one index and type grow; one of another type at the same index is another."""
        text = {"type": "reasoning.text", "index": 0}
        sealed = {"type": "reasoning.encrypted", "index": 0, "data": "x"}
        answer = streamed(
            {"choices": [delta(reasoning="I ", reasoning_details=[{**text, "text": "I "}])]},
            {"choices": [delta(reasoning="am", reasoning_details=[{**text, "text": "am", "signature": "s"}, sealed])]},
            {"choices": [delta(reasoning_details=[{"type": "reasoning.summary", "summary": "y"}])]},
            {"choices": [delta(reasoning_details=[{"type": "reasoning.summary", "summary": "z"}])]},
        )

        expected = {
            "role": "assistant",
            "content": None,
            "reasoning": "I am",
            "reasoning_details": [
                {"type": "reasoning.text", "index": 0, "text": "I am", "signature": "s"},
                {"type": "reasoning.encrypted", "index": 0, "data": "x"},
                {"type": "reasoning.summary", "summary": "yz"},
            ],
        }
        assert (expected,) == answer.completions

    def test_details_with_ids_of_their_own_are_told_apart(self) -> None:
        """Sealed reasoning of parallel tool calls is one detail each, also when all are number 0; one id goes on."""
        sealed = {"type": "reasoning.encrypted", "index": 0, "format": "google-gemini-v1"}
        answer = streamed(
            {"choices": [delta(reasoning_details=[{**sealed, "id": "tool_0_f", "data": "AA"}])]},
            {"choices": [delta(reasoning_details=[{**sealed, "id": "tool_0_f", "data": "BB"}])]},
            {"choices": [delta(reasoning_details=[{**sealed, "id": None, "data": "CC"}])]},
            {"choices": [delta(reasoning_details=[{**sealed, "id": "tool_1_f", "data": "DD"}])]},
        )

        details = answer.completions[0]["reasoning_details"]
        assert [("tool_0_f", "AABBCC"), ("tool_1_f", "DD")] == [(each["id"], each["data"]) for each in details]

    def test_calls_of_the_old_kind_are_put_together(self) -> None:
        """`function_call`, the one call that messages could have before there were tools, grows like any other."""
        answer = streamed(
            {"choices": [delta(function_call={"name": "f", "arguments": "{"})]},
            {"choices": [delta(function_call={"arguments": "}"})]},
        )

        assert {"name": "f", "arguments": "{}"} == answer.completions[0]["function_call"]
        assert answer.first_content is not None

    def test_all_that_a_message_can_have_is_put_together(self) -> None:
        """Refusals and audio grow, images and annotations are collected."""
        answer = streamed(
            {"choices": [delta(refusal="No", annotations=[{"type": "file"}], audio={"id": "a", "data": "AA"})]},
            {"choices": [delta(refusal=".", annotations=[{"type": "url"}], images=[{"u": 1}], audio={"data": "BB"})]},
        )

        expected = {
            "role": "assistant",
            "content": None,
            "refusal": "No.",
            "annotations": [{"type": "file"}, {"type": "url"}],
            "images": [{"u": 1}],
            "audio": {"id": "a", "data": "AABB"},
        }
        assert (expected,) == answer.completions

    def test_interleaved_choices_are_told_apart(self) -> None:
        """Each choice has its own text, in the order of the choices; the first one's reason counts."""
        answer = streamed(
            {"choices": [delta(1, content="x")]},
            {"choices": [delta(0, content="a"), delta(1, content="y", finish_reason="length")]},
            {"choices": [delta(0, content="b", finish_reason="stop")]},
        )

        assert ["ab", "xy"] == [message["content"] for message in answer.completions]
        assert "stop" == answer.finish_reason

    def test_a_whole_message_inside_a_stream_counts(self) -> None:
        """A server that sends one chunk with a message in place of deltas is understood."""
        chunk = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]}

        answer = streamed(chunk, "[DONE]")

        assert ({"role": "assistant", "content": "Hi"},) == answer.completions
        assert len(stream_of(chunk)) == answer.first_content

    def test_the_gateways_own_last_chunk_does_not_rename_the_answer(self) -> None:
        """The chunk that breaks a request down has an id and a model that are not the answer's."""
        answer = streamed(
            {"id": "gen-1", "model": "", "choices": []},
            {"id": "gen-1", "model": "m", "choices": [delta(content="a")]},
            {"id": "request_breakdown", "model": "extra_parameter"},
        )

        assert ("gen-1", "m") == (answer.generation_id, answer.model)

    @pytest.mark.parametrize(
        ("chunk", "expected"),
        [
            pytest.param(
                {"error": {"code": 400, "message": "Token limit reached"}, "usage": {"prompt_tokens": 3}},
                Failure("400", "Token limit reached"), id="as recorded, with usage",
            ),
            pytest.param(
                {"error": {"code": "server_error", "message": "m"}, "choices": [delta(finish_reason="error")]},
                Failure("server_error", "m"), id="as documented",
            ),
            pytest.param(
                {"choices": [delta(finish_reason="error") | {"error": {"code": 502, "message": "m"}}]},
                Failure("502", "m"), id="in the choice",
            ),
            pytest.param(
                {"choices": [delta(finish_reason="error")]},
                Failure(None, "The provider failed while it answered."), id="by the reason alone",
            ),
        ],
    )  # fmt: skip
    def test_an_error_inside_a_stream_is_told(self, chunk: dict[str, Any], expected: Failure) -> None:
        """An error in a stream is a failure; the text before it and the usage beside it are kept."""
        answer = streamed({"choices": [delta(content="par")]}, {"choices": [delta(content="tial")]}, chunk, "[DONE]")

        assert expected == answer.failure
        assert "partial" == answer.completions[0]["content"]
        assert chunk.get("usage") == answer.usage

    def test_the_first_error_counts(self) -> None:
        """A second error is mostly the echo of the first."""
        assert Failure("1", None) == streamed({"error": {"code": 1}}, {"error": {"code": 2}}).failure

    def test_no_error_is_no_error(self) -> None:
        """A member error that is null says that all is well."""
        assert None is streamed({"error": None, "choices": [delta(content="a")]}).failure

    def test_odd_chunks_cost_no_more_than_themselves(self) -> None:
        """Chunks that are no JSON, or have members of odd types, are read as far as they can be."""
        answer = streamed(
            "not json",
            "",
            "[]",
            {"choices": {"0": 1}, "id": 7, "model": "m"},
            {"choices": [None, {"index": None, "delta": {"content": "a", "role": 7}, "finish_reason": 3}]},
            {"choices": [{"delta": "text"}], "usage": [1], "provider": ["P"]},
            {"choices": [delta(content=["b"], refusal="c")]},
            {"choices": [{"index": None, "delta": {"content": "d"}}]},
        )

        assert ({"role": "assistant", "content": "ad", "refusal": "c"},) == answer.completions
        assert ("m", None, None) == (answer.model, answer.usage, answer.provider)

    def test_a_character_split_between_chunks_is_joined(self) -> None:
        """Two halves of a surrogate pair in two chunks are one character; a half alone is replaced."""
        answer = streamed(
            {"choices": [delta(content="a\ud83d")]},
            {
                "choices": [
                    delta(content="\ude00b", reasoning="\ud83d", tool_calls=[{"function": {"arguments": "\ud83d"}}])
                ]
            },
            {"choices": [delta(tool_calls=[{"function": {"arguments": "\ude00"}}])]},
        )

        expected = {
            "role": "assistant",
            "content": "a😀b",
            "reasoning": "\ufffd",
            "tool_calls": [{"function": {"arguments": "😀"}}],
        }
        assert (expected,) == answer.completions

    def test_broken_utf8_is_replaced(self) -> None:
        """A chunk with bytes that are no UTF-8 is kept with the place marked."""
        body = b'data: {"choices":[{"index":0,"delta":{"content":"a\xffb"}}]}\n\n'

        assert "a\ufffdb" == chat.answer(Received((body,), streamed=True), Request()).completions[0]["content"]

    def test_a_model_that_says_what_stands_for_a_gap(self) -> None:
        """What is left of a key is masked on both sides of the gap, and not where a text only looks like one."""
        key = "Plain+Key/of=acme~0123456789"
        head = stream_of({"choices": [delta(content=GAP)]}, {"choices": [delta(content=f"a {key[:12]}")]})
        tail = stream_of({"choices": [delta(content=f"{key[12:]} b")]}, {"choices": [delta(content=GAP)]})

        answer = chat.answer(Received((head, tail), streamed=True, secrets=(Secret(key),)), Request())

        assert f"{GAP}a ****{GAP}**** b{GAP}" == answer.completions[0]["content"]
        assert (
            f"sk-learn{GAP}"
            == streamed({"choices": [delta(content="sk-learn")]}, {"choices": [delta(content=GAP)]}).completions[0][
                "content"
            ]
        )

    def test_what_stands_behind_a_gap_is_read(self) -> None:
        """The end of a long stream brings usage, reason and mark, although it begins inside an event."""
        head = stream_of({"id": "gen-1", "choices": [delta(content="a")]}) + b'data: {"choices":[{"del'
        tail = b'ta":{"content":"?"}}]}\n\n' + stream_of(
            {"choices": [delta(content="z", finish_reason="stop")]}, {"usage": {"cost": 1}}, "[DONE]"
        )

        answer = chat.answer(Received((head, tail), streamed=True), Request())

        assert "a [...] z" == answer.completions[0]["content"]
        assert ("stop", {"cost": 1}) == (answer.finish_reason, answer.usage)
        assert len(head + tail) - len(stream_of("[DONE]")) == answer.finished

    @given(st.binary(max_size=300), st.booleans())
    def test_any_bytes_give_an_answer(self, body: bytes, is_stream: bool) -> None:
        """Whatever comes as an answer, reading it does not raise."""
        assert isinstance(chat.answer(Received((body,), streamed=is_stream), Request()), Answer)

    @given(
        st.lists(
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
                lambda inner: st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(MEMBERS), inner, max_size=5,
                ),
                max_leaves=25,
            ),
            max_size=5,
        )
    )  # fmt: skip
    def test_any_json_gives_an_answer(self, chunks: list[Any]) -> None:
        """Members in any place and of any type, streamed or not: reading them does not raise."""
        assert isinstance(streamed(*(json.dumps(chunk) for chunk in chunks)), Answer)
        assert isinstance(unary(chunks[0] if chunks else None), Answer)

    def test_deeply_nested_chunks_give_an_answer(self) -> None:
        """Nesting to no end costs the chunk, not the record; nesting to some depth not even that."""
        deep = '{"choices":[{"delta":{"content":"a\\ud83d","annotations":[' + "[" * 400 + "]" * 400 + "]}}]}"
        answer = streamed("[" * 100_000, '{"choices":' * 100_000, deep, {"id": "gen-1"})

        assert "gen-1" == answer.generation_id

    @pytest.mark.parametrize("member", ["audio", "function_call", "reasoning_details", "tool_calls"])
    def test_pieces_nested_to_any_depth_are_kept(self, member: str) -> None:
        """What grows is a few levels deep; deeper objects are kept as the last piece had them."""
        deep: dict[str, Any] = {"z": 1}
        for _ in range(700):
            deep = {"a": deep}
        pieces = deep if member in ("audio", "function_call") else [deep]

        found = streamed(*[{"choices": [delta(**{member: pieces})]}] * 2).completions[0][member]

        assert pieces == found

    def test_usage_of_ever_new_members_takes_linear_time(self) -> None:
        """Each of many chunks adds to the usage; copied each time this would not end."""
        body = stream_of(*({"usage": {f"member{number}": 1}} for number in range(100_000)))

        assert 100_000 == len(chat.answer(Received((body,), streamed=True), Request()).usage or ())

    def test_choices_and_tool_calls_are_bounded(self) -> None:
        """A server that invents choices and calls without end cannot fill the memory."""
        answer = streamed(
            {"choices": [delta(index, content="a") for index in range(1000)]},
            {"choices": [delta(tool_calls=[{"index": index} for index in range(5000)])]},
        )

        assert (128, 1000) == (len(answer.completions), len(answer.completions[0]["tool_calls"]))

    def test_what_is_nested_too_deeply_to_be_mended_is_left_out(self) -> None:
        """Mending has an end too."""
        deep: list[Any] = []
        for _ in range(10_000):
            deep = [deep]

        assert None is tolerant.paired(deep)


class TestUnaryAnswers:
    def test_an_answer_of_openrouter_is_read(self) -> None:
        """Message, usage and names come from their places; all counts are found."""
        message = {"role": "assistant", "content": "Hi", "reasoning": None, "images": [{"x": 1}]}
        usage = {
            "prompt_tokens": 10,
            "completion_tokens": 4,
            "total_tokens": 14,
            "prompt_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 3},
        }
        body = {
            "id": "gen-1", "model": "m", "provider": "P", "usage": usage,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop", "logprobs": None}],
        }  # fmt: skip

        expected = Answer(
            model="m",
            generation_id="gen-1",
            provider="P",
            completions=(message,),
            finish_reason="stop",
            usage=usage,
            tokens=Tokens(prompt=10, completion=4, total=14, cached=6, cache_write=2, reasoning=3),
            finished=len(json.dumps(body)),
        )
        assert expected == unary(body)

    @pytest.mark.parametrize("details", [None, [], 7, {}])
    def test_counts_that_are_no_counts_are_left_out(self, details: Any) -> None:
        """Booleans, fractions, texts, negative and monstrous numbers are no token counts."""
        usage = {
            "prompt_tokens": True, "completion_tokens": 1.5, "total_tokens": -1,
            "prompt_tokens_details": details, "completion_tokens_details": {"reasoning_tokens": 10**30},
        }  # fmt: skip

        assert Tokens() == unary({"usage": usage}).tokens

    def test_several_choices_are_in_their_order(self) -> None:
        """Choices come in the order of their index, not of the text."""
        answer = unary(
            {"choices": [{"index": 1, "message": {"content": "b"}}, {"index": 0, "message": {"content": "a"}}]}
        )

        assert ["a", "b"] == [message["content"] for message in answer.completions]

    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            pytest.param({"error": {"code": 502, "message": "m"}}, Failure("502", "m"), id="top level"),
            pytest.param(
                {"choices": [{"error": {"code": 429, "message": "m"}, "message": {"content": "par"}}]},
                Failure("429", "m"), id="in the choice",
            ),
        ],
    )  # fmt: skip
    def test_an_error_inside_a_200_is_told(self, body: dict[str, Any], expected: Failure) -> None:
        """A 200 may carry an error, at the top or in a choice."""
        assert expected == unary(body).failure

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b"7", b'{"id": "gen-1"', b'"text"'])
    def test_what_is_no_object_is_not_finished(self, body: bytes) -> None:
        """Only a whole JSON object is a whole answer."""
        assert None is unary(body).finished

    @pytest.mark.parametrize(
        "odd",
        [{"choices": [{"\ud800": 1}]}, {"choices": [delta(content={"\udc00": 1})]}, {"usage": ["\ud83d"], "id": {}}],
    )
    def test_half_of_a_character_where_nothing_fits(self, odd: dict[str, Any]) -> None:
        """Names that are no Unicode, in members of odd types, cost those members and nothing else."""
        whole = unary({"model": "m", **odd})
        stream = streamed(odd, {"model": "m", "choices": [delta(content="Hi")]}, "[DONE]")

        assert ("m", None) == (whole.model, whole.failure)
        assert ("m", "Hi") == (stream.model, stream.completions[0]["content"])

    def test_odd_types_are_still_an_answer(self) -> None:
        """An object with members of odd types is whole, and read as far as it can be."""
        answer = unary({"id": 7, "model": "m", "choices": [{"index": "0", "message": {"content": "a"}}]})

        assert ("m", {"role": "assistant", "content": "a"}) == (answer.model, answer.completions[0])
        assert answer.finished is not None

    @pytest.mark.parametrize(
        ("end", "expected"),
        [
            pytest.param(b'...","usage":{"cost":0.5},"x":1}', {"cost": 0.5}, id="there"),
            pytest.param(b'"usage": {"cost":1}, "usage":null}', {"cost": 1}, id="the last that is one"),
            pytest.param(b'"usage":{"cost":', None, id="cut"),
            pytest.param(b'"usage":' + b"[" * 10_000, None, id="nested"),
            pytest.param(b'"no such thing"', None, id="absent"),
            pytest.param(b'"usage":{"cost":1},' + b'"usage":null,' * 15, {"cost": 1}, id="before some that are none"),
            pytest.param(b'"usage":{"cost":1},' + b'"usage":null,' * 16, None, id="before too many that are none"),
        ],
    )
    def test_usage_is_found_at_the_end_of_a_shortened_answer(self, end: bytes, expected: Any) -> None:
        """Of an answer whose middle was not kept, the usage at its end is still read."""
        answer = chat.answer(Received((b'{"id":"gen-1","choices":[', end), streamed=False), Request())

        assert (expected, None) == (answer.usage, answer.finished)
