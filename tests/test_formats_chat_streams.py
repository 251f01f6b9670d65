"""Streams of chat completions: many chunks read at once are what each of them is by itself."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from kwai_middleware._outbound.formats import Answer, Received, Request, chat
from kwai_middleware._outbound.sse import runs

TEXTS = st.sampled_from(["", "a", "night train, ", "größer 🚂", "\ud83d", "\ude82", '"}\n\ndata: {', " [...] "])

DELTAS = st.fixed_dictionaries(
    {},
    optional={
        "content": st.none() | TEXTS | st.sampled_from([7, ["text"]]),
        "role": st.sampled_from(["assistant", "tool", None, 5]),
        "reasoning": st.none() | TEXTS,
        "reasoning_content": st.none() | TEXTS,
        "refusal": st.none() | TEXTS,
        "tool_calls": st.none()
        | st.just([{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{"}}]),
        "reasoning_details": st.sampled_from([None, [], [{"type": "reasoning.text", "text": "so", "index": 0}]]),
        "images": st.sampled_from([None, []]),
        "annotations": st.sampled_from([None, [{"type": "url_citation"}]]),
        "logprobs": st.none(),
    },
)
CHOICES = st.fixed_dictionaries(
    {},
    optional={
        "index": st.sampled_from([0, 0, 0, 1, 0.0, "0"]),
        "delta": DELTAS | st.none(),
        "message": st.sampled_from([None, {"role": "assistant", "content": "whole"}]),
        "finish_reason": st.sampled_from([None, None, "", "stop", "error"]),
        "error": st.sampled_from([None, "", {"code": 502, "message": "Bad gateway"}]),
    },
)
ODD_CHUNKS = st.fixed_dictionaries(
    {"choices": st.lists(CHOICES, max_size=2) | st.none()},
    optional={
        "id": st.sampled_from(["gen-1", "gen-2", "", None, 5, "\ud83d"]),
        "model": st.sampled_from(["m", None, ""]),
        "provider": st.sampled_from(["OpenAI", None]),
        "usage": st.sampled_from([None, {}, {"prompt_tokens": 3, "completion_tokens": 5}]),
        "error": st.sampled_from([None, "", {"code": 429, "message": "Slow down"}]),
    },
)


def a_chunk_of_text(text: str) -> dict[str, Any]:
    """Return a chunk as most are."""
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
    return {"id": "gen-1", "provider": "OpenAI", "model": "m", "choices": [choice]}


CHUNKS = TEXTS.map(a_chunk_of_text) | ODD_CHUNKS
LINES = st.one_of(
    CHUNKS.map(lambda chunk: b"data: " + json.dumps(chunk).encode()),
    CHUNKS.map(lambda chunk: b"data: " + json.dumps(chunk, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [b": OPENROUTER PROCESSING", b"event: x", b"data: [DONE]", b"data: {", b"data: {}", b"data: {} {}", b"data:{}",
         b"", b'{"choices":[]}', b'data: {"choices":[{"delta":{"content":"cut',
         b'data: {"choices":[{"delta":{"content":"\xff"}}]}']
    ),
)  # fmt: skip
ENDS = st.sampled_from([b"\n\n", b"\n\n", b"\n\n", b"\n\n", b"\n", b"\n\n\n", b"\r\n\r\n"])
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=12).map(lambda pairs: b"".join(map(b"".join, pairs)))


def one_by_one(body: bytes) -> bytes:
    """Return a stream of the same length that says the same, of which no two events can be read at once."""
    marked = body.replace(b"\ndata: {", b"\ndata:\t{")
    return b"data:\t{" + marked[7:] if marked.startswith(b"data: {") else marked


def read(*parts: bytes, choices: int = 1) -> Answer:
    """Read a stream."""
    return chat.answer(Received(parts, streamed=True), Request(choices=choices))


PLAIN = b"".join(b"data: " + json.dumps(a_chunk_of_text(f"word {n}, ")).encode() + b"\n\n" for n in range(120))


@given(STREAMS, STREAMS, st.integers(0, 200), st.booleans(), st.integers(1, 2))
@example(b"", b"", 0, False, 1)
@example(b": hello\n\n", b"data: [DONE]\n\n", 1, True, 1)
def test_chunks_read_at_once_are_what_each_is_by_itself(
    before: bytes, after: bytes, cut: int, has_gap: bool, choices: int
) -> None:
    """Streams of any kind, cut anywhere, with whole windows of plain text or none, give the same answer either way."""
    for body in (before + after, before + PLAIN + after):
        rest = body[: len(body) - cut] if cut < len(after) else body
        parts = (rest, before + after) if has_gap else (rest,)

        assert read(*map(one_by_one, parts), choices=choices) == read(*parts, choices=choices)


def test_the_other_way_of_writing_streams_is_not_read_at_once() -> None:
    """The streams that the others are compared with are read event by event, and the others are not."""
    assert all(run.lines for run in runs(PLAIN))
    assert not any(run.lines for run in runs(one_by_one(PLAIN)))
    assert len(PLAIN) == len(one_by_one(PLAIN))


def test_where_the_first_text_of_many_chunks_came() -> None:
    """Chunks without any text before it do not count as content, however many are read at once."""
    silent = [b"data: " + json.dumps(a_chunk_of_text("")).encode() + b"\n\n" for _ in range(100)]
    said = b"data: " + json.dumps(a_chunk_of_text("now")).encode() + b"\n\n"

    answer = read(b": wait\n\n" * 3 + b"".join(silent) + said + PLAIN)

    assert 3 * len(b": wait\n\n") + sum(map(len, silent)) + len(said) == answer.first_content
    assert "now" + "".join(f"word {n}, " for n in range(120)) == answer.completions[0]["content"]


def test_text_of_one_more_choice_than_are_kept() -> None:
    """Of more choices than are kept, text for the first is left out like any other's, if it is too late."""
    others = b"".join(
        b'data: {"choices":[{"index":%d,"delta":{"content":"a"}}]}\n\n' % number for number in range(1, 129)
    )

    answer = read(others + b"\n: more\n\n" * 3 + b"x" * 20_000 + b"\n\n" + PLAIN)

    assert ["a"] * 128 == [completion["content"] for completion in answer.completions]
    assert "gen-1" == answer.generation_id


def test_the_last_role_of_many_chunks_counts() -> None:
    """Chunks of nothing but text say who speaks, too, and the last word about it counts."""
    another = b'data: {"choices":[{"delta":{"role":"tool","content":"a"}}]}\n\n'
    nobody = b'data: {"choices":[{"delta":{"content":"b"}}]}\n\n'

    assert ["tool"] == [completion["role"] for completion in read(another + nobody).completions]
    # The second window of each is read at once.
    comment = b": " + b"x" * 16_384 + b"\n\n"
    assert ["tool"] == [completion["role"] for completion in read(another + comment + nobody).completions]
    assert ["assistant"] == [completion["role"] for completion in read(another + comment + PLAIN).completions]
