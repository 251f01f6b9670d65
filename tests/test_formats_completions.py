"""Completions of a text: what is read out of requests and answers, and what the vendor's log makes of it."""

from __future__ import annotations

import json
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._outbound.formats import FORMATS, Answer, Failure, Received, Request, Tokens, completions
from kwai_middleware._outbound.observation import Ending
from kwai_middleware._outbound.records import completed
from kwai_middleware._outbound.routes import Endpoint
from kwai_middleware._record import CompletedCall
from kwai_middleware._secret import Secret
from tests.support.observations import JSON, STREAM, observed, stream_of
from tests.support.vendor_logs import logged

ENDPOINT = Endpoint("direct", "openrouter", "openrouter.ai", "/api/v1/completions", "completions")
REQUEST = {"model": "m", "prompt": "Once upon", "max_tokens": 9}
USAGE = {
    "prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "cost": 0.5, "is_byok": True,
    "cost_details": {"upstream_inference_cost": 2},
    "prompt_tokens_details": {"cached_tokens": 1}, "completion_tokens_details": {"reasoning_tokens": 1},
}  # fmt: skip
KEY = "Plain+Key/of=acme~0123456789"


def choice(text: Any = "", index: Any = 0, finish_reason: Any = None, **members: Any) -> dict[str, Any]:
    return {"index": index, "text": text, "finish_reason": finish_reason, "logprobs": None, **members}


ANSWER = {
    "id": "gen-1", "object": "text_completion", "model": "m-2", "provider": "P",
    "choices": [choice(" a time", finish_reason="stop")], "usage": USAGE,
}  # fmt: skip
HEAD = {"id": "gen-1", "model": "m-2", "provider": "P"}
CHUNKS: list[dict[str, Any] | str] = [
    {**HEAD, "choices": [choice("")]},
    {**HEAD, "choices": [choice(" a ")]},
    {**HEAD, "choices": [choice("time", finish_reason="stop")]},
    {**HEAD, "choices": [choice("")], "usage": USAGE},
    "[DONE]",
]


def unary(answer: Any = ANSWER, request: Request | None = None, secrets: tuple[Secret, ...] = ()) -> Answer:
    body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
    return completions.answer(Received((body,), streamed=False, secrets=secrets), request or Request())


def streamed(*chunks: dict[str, Any] | str, choices: int = 1) -> Answer:
    return completions.answer(Received((stream_of(*chunks),), streamed=True), Request(choices=choices))


def recorded(body: bytes | list[bytes], **members: Any) -> CompletedCall:
    """The record of one call, and with it a log that every type of the vendor takes whole."""
    call = completed(observed(body, **({"request": REQUEST, "endpoint": ENDPOINT} | members)))
    assert "completion" == logged(call)["log_type"]
    return call


def test_completions_are_a_format() -> None:
    """Completions are found by the name that endpoints use."""
    assert FORMATS["completions"] is completions  # type: ignore[comparison-overlap]  # a module is a Format


@pytest.mark.parametrize(
    ("members", "choices"),
    [
        pytest.param({"prompt": "Once"}, 1, id="a text"),
        pytest.param({"prompt": ["Once", "Twice"]}, 2, id="two texts"),
        pytest.param({"prompt": ["Once", "Twice"], "n": 3}, 6, id="three of each"),
        pytest.param({"prompt": [1, 2, 3]}, 1, id="tokens"),
        pytest.param({"prompt": [[1, 2], [3]], "n": None}, 2, id="two of tokens"),
        pytest.param({"prompt": []}, 1, id="an empty list"),
        pytest.param({"prompt": ["Once", 7, [1]]}, 2, id="odd items"),
        pytest.param({"prompt": None, "n": "x"}, 1, id="null"),
    ],
)
def test_a_prompt_is_kept_as_it_is_written(members: dict[str, Any], choices: int) -> None:
    """Each of several prompts gets an answer of its own; a prompt is no chat message."""
    read = completions.request(json.dumps({"model": "m", "stream": True, "suffix": "!", **members}).encode())

    assert (json.dumps(members["prompt"]).encode(), None, choices) == (read.input, read.messages, read.choices)
    assert ("m", True, b'"!"') == (read.model, read.stream, read.parameters["suffix"])


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"{}"])
def test_what_asks_for_nothing_is_a_request(body: bytes) -> None:
    """A request without a prompt, or that is no JSON object, is one still."""
    assert Request() == completions.request(body)


class TestAnswers:
    def test_a_stream_is_the_same_answer_as_a_whole_one(self) -> None:
        """Put together of its chunks, a streamed text is what came at once, with the time of its first word."""
        sizes = list(accumulate(len(stream_of(chunk)) for chunk in CHUNKS))
        expected = Answer(
            model="m-2",
            generation_id="gen-1",
            provider="P",
            output=b'" a time"',
            finish_reason="stop",
            usage=USAGE,
            tokens=Tokens(prompt=3, completion=2, total=5, cached=1, reasoning=1),
            first_content=sizes[1],
            finished=sizes[3],
        )

        assert expected == streamed(*CHUNKS)
        assert (expected.output, expected.tokens, None) == (unary().output, unary().tokens, unary().first_content)
        assert ("stop", len(json.dumps(ANSWER))) == (unary().finish_reason, unary().finished)

    def test_a_call_is_logged_as_what_it_was(self) -> None:
        """Prompt and text are the log's input and output, as texts; no messages are made of them."""
        body = json.dumps(ANSWER).encode()
        for call in (recorded(body), recorded([stream_of(chunk) for chunk in CHUNKS], headers=STREAM)):
            log = logged(call)
            assert ("Once upon", " a time", 9) == (log["input"], log["output"], log["max_tokens"])
            assert not {"prompt_messages", "completion_message"} & log.keys()
            assert (2.5, 0.5, 2.0, True) == (call.cost, call.reported_cost, call.upstream_cost, call.is_byok)
            assert (3, 2, 1, 1) == (
                log["prompt_tokens"], log["completion_tokens"], log["prompt_cache_hit_tokens"], log["reasoning_tokens"],
            )  # fmt: skip
        assert (True, 0.02) == (call.stream, call.time_to_first_token)

    @pytest.mark.parametrize(
        ("chunks", "choices", "expected"),
        [
            pytest.param(["[DONE]"], 1, 0, id="the mark"),
            pytest.param([{"choices": [choice("a", 0, "stop")]}, {"usage": USAGE}], 1, 1, id="finish, usage"),
            pytest.param([{"choices": [choice("a", 0, "stop")], "usage": USAGE}], 2, None, id="one of two choices"),
            pytest.param([{"choices": [choice("a", 0, "stop")]}], 1, None, id="finish alone"),
            pytest.param([{"choices": [choice("a")]}, {"usage": USAGE}], 1, None, id="usage alone"),
            pytest.param([{"choices": [choice("a")]}, {"error": {"code": 502}}, {}], 1, 1, id="an error"),
        ],
    )
    def test_when_a_stream_is_over(
        self, chunks: list[dict[str, Any] | str], choices: int, expected: int | None
    ) -> None:
        """A stream is over with its mark, with usage when all choices have finished, or with an error."""
        size = None if expected is None else len(stream_of(*chunks[: expected + 1]))

        assert size == streamed(*chunks, choices=choices).finished

    def test_several_choices_are_a_list(self) -> None:
        """Interleaved choices are told apart, in the order of their numbers; the first one's reason counts."""
        answer = streamed(
            {"choices": [choice("x", 1)]},
            {"choices": [choice("a", 0), choice("y", 1, "length")]},
            {"choices": [choice("b", 0, "stop")]},
        )
        whole = unary({"choices": [choice("xy", 1), choice("ab", 0, "stop")]})

        assert [(b'["ab","xy"]', "stop")] * 2 == [(each.output, each.finish_reason) for each in (answer, whole)]
        assert (
            '["ab","xy"]'
            == logged(recorded(json.dumps({"choices": [choice("ab"), choice("xy", 1)]}).encode()))["output"]
        )

    def test_choices_are_bounded(self) -> None:
        """A server that invents choices without end cannot fill the memory."""
        assert ["a"] * 128 == json.loads(
            streamed({"choices": [choice("a", index) for index in range(999)]}).output or b""
        )

    @pytest.mark.parametrize(
        ("members", "expected"),
        [
            pytest.param({"error": {"code": 502, "message": "m"}}, Failure("502", "m"), id="top level"),
            pytest.param({"choices": [choice("!", error={"code": 429})]}, Failure("429", None), id="in the choice"),
            pytest.param(
                {"choices": [choice("!", 0, "error")]}, Failure(None, "The provider failed while it answered."),
                id="by the reason alone",
            ),
            pytest.param({"type": "error"}, Failure(None, None), id="without words"),
            pytest.param(
                {"type": "error", "code": "overloaded", "message": "m"}, Failure("overloaded", "m"), id="in the event"
            ),
        ],
    )  # fmt: skip
    def test_an_error_inside_a_200_is_told(self, members: dict[str, Any], expected: Failure) -> None:
        """At once or in the middle of a stream, an error is the outcome, with what came before it kept."""
        broken = streamed(CHUNKS[1], members, {"error": {"code": 1}}, "[DONE]")

        assert [expected, expected] == [unary(members).failure, broken.failure]
        assert (True, len(stream_of(CHUNKS[1], members))) == (b" a " in (broken.output or b""), broken.finished)
        assert "error" == recorded(json.dumps(members).encode()).outcome

    @pytest.mark.parametrize(
        ("count", "ending", "expected"),
        [
            pytest.param(4, Ending.CLOSED, ("complete", " a time"), id="whole"),
            pytest.param(2, Ending.END, ("incomplete", " a "), id="cut"),
            pytest.param(2, Ending.CANCELLED, ("cancelled", " a "), id="cancelled"),
            pytest.param(0, Ending.END, ("incomplete", None), id="empty"),
        ],
    )
    def test_how_a_stream_ended(self, count: int, ending: Ending, expected: tuple[str, str | None]) -> None:
        """Without its end a stream is what its way of ending says; what came of it is kept."""
        call = recorded([stream_of(chunk) for chunk in CHUNKS[:count]], headers=STREAM, ending=ending)

        assert expected == (call.outcome, logged(call).get("output"))

    def test_odd_chunks_cost_no_more_than_themselves(self) -> None:
        """Chunks that are no JSON, or have members of odd types, are read as far as they can be."""
        answer = streamed(
            "no json", "[]", {"choices": {"a": 1}, "id": 7}, {"choices": [None, choice(7, None, 3)], "usage": [1]},
            {"choices": [choice("a\ud83d")]}, {"choices": [choice("\ude00", "x")]}, {"model": "m\ud83d"},
        )  # fmt: skip

        assert ('"a😀"'.encode(), None, None, "m\ufffd") == (
            answer.output, answer.finish_reason, answer.usage, answer.model,
        )  # fmt: skip

    @pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"choices": [{"text": "a'])
    def test_what_is_no_whole_object_is_not_finished(self, body: bytes) -> None:
        """Only a whole JSON object is a whole answer."""
        assert None is unary(body).finished


class TestShortenedAnswers:
    def test_a_gap_is_marked_where_a_text_was_open(self) -> None:
        """A text that had ended is whole; one that had not, and one that begins behind the gap, say so."""
        head = stream_of({"choices": [choice("one", 0, "stop"), choice("two", 1)]}) + b'data: {"choi'
        tail = b'ces": []}\n\n' + stream_of({"choices": [choice("three", 1), choice("four", 2)]}, "[DONE]")

        answer = completions.answer(Received((head, tail), streamed=True), Request(choices=3))

        assert ["one", "two [...] three", " [...] four"] == json.loads(answer.output or b"")
        assert len(head + tail) == answer.finished

    @pytest.mark.parametrize("asked", [1, 2])
    def test_head_and_end_are_read(self, asked: int) -> None:
        """Text and names come from the head, usage and the reason from the end; of several reasons none is guessed."""
        body = json.dumps(ANSWER).encode()
        place = body.index(b"time")

        answer = completions.answer(Received((body[:place], body[place:]), streamed=False), Request(choices=asked))

        assert (b'" a  [...] "', USAGE, "m-2") == (answer.output, answer.usage, answer.model)
        assert ("stop" if asked == 1 else None, None) == (answer.finish_reason, answer.finished)

    def test_no_half_of_a_key_is_left_at_a_gap(self) -> None:
        """A key that a gap or an end has cut is masked on either side."""
        for place in range(len(KEY) + 1):
            parts = tuple(
                stream_of({"choices": [choice(text)]}) for text in (f"Said {KEY[:place]}", f"{KEY[place:]} ok")
            )
            said = completions.answer(Received(parts, streamed=True, secrets=(Secret(KEY),)), Request()).output or b""
            assert [] == [KEY[at : at + 8] for at in range(len(KEY) - 7) if KEY[at : at + 8].encode() in said]
            assert b" ok" in said
        cut = json.dumps({"choices": [choice(f"Said {KEY}")]}).encode().partition(KEY[20:].encode())[0]
        assert b'"Said **** [...] "' == unary(cut, secrets=(Secret(KEY),)).output

    def test_the_record_says_so(self) -> None:
        """A shortened stream is logged with what is left of it."""
        events = [stream_of(chunk) for chunk in CHUNKS]

        call = recorded([*events[:2], *events[3:]], headers=STREAM, gap_after=2)

        assert ("complete", True, 0.5) == (call.outcome, call.truncated, call.reported_cost)
        assert " a  [...] " == logged(call)["output"]


MEMBERS = st.sampled_from(
    ["choices", "index", "text", "finish_reason", "error", "usage", "id", "model", "type", "prompt"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(MEMBERS, inner, max_size=5),
    max_leaves=25,
)
CHOICES = st.lists(st.dictionaries(MEMBERS, st.text(st.characters(), max_size=5) | VALUES, max_size=4), max_size=3)


@given(
    st.lists(st.dictionaries(MEMBERS, CHOICES | VALUES, max_size=4) | VALUES, max_size=5), st.sampled_from([None, 0, 1])
)
def test_any_json_makes_a_log(chunks: list[Any], gap: int | None) -> None:
    """Members in any place and of any type, asked or answered, whole or not: the vendor's types take the log whole."""
    events = [stream_of(json.dumps(chunk)) for chunk in chunks]
    whole = json.dumps(chunks[0] if chunks else None).encode()

    recorded(events, headers=STREAM, gap_after=None if gap is None else min(gap, len(events)))
    recorded(whole, request=whole)
    recorded([whole[:20], whole[30:]], gap_after=1)


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_make_a_log(body: bytes, is_stream: bool) -> None:
    """Whatever comes as an answer, reading it does not raise."""
    recorded(body, request=body, headers=STREAM if is_stream else JSON)
