"""Answers that were cut: what came of them is read, and nothing is made up."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._outbound.formats import Failure, Received, Request, chat
from kwai_middleware._outbound.formats.beginnings import beginning_of
from kwai_middleware._secret import Secret

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=20,
)
MESSAGE = {"role": "assistant", "content": "one two", "tool_calls": [{"id": "a", "function": {"arguments": "{}"}}]}
ANSWER = {
    "id": "gen-1", "provider": "P", "model": "m",
    "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}], "usage": {"cost": 1},
}  # fmt: skip


def is_beginning(found: Any, whole: Any) -> bool:
    """Whether `found` is what a part of `whole` may look like: less of it, and no more."""
    if isinstance(found, dict) and isinstance(whole, dict):
        return all(name in whole and is_beginning(value, whole[name]) for name, value in found.items())
    if isinstance(found, list) and isinstance(whole, list):
        return len(found) <= len(whole) and all(map(is_beginning, found, whole))
    if isinstance(found, str) and isinstance(whole, str):
        return found == whole or whole.startswith(found.removesuffix(" [...] "))
    return bool(found == whole) or (isinstance(whole, int) and str(whole).startswith(str(found)))


@given(value=st.dictionaries(st.text(max_size=4), JSON, max_size=4), ascii_only=st.booleans(), indent=st.booleans())
def test_every_beginning_of_an_object_is_a_part_of_it(value: dict[str, Any], ascii_only: bool, indent: bool) -> None:
    """Cut anywhere, in a name, an escape, a character or a number, an object holds nothing that it does not hold."""
    body = json.dumps(value, ensure_ascii=ascii_only, indent=2 if indent else None).encode()

    assert all(is_beginning(beginning_of(body[:size]), value) for size in range(len(body)))
    assert value == beginning_of(body)


@given(st.binary(max_size=200))
def test_any_bytes_have_a_beginning(body: bytes) -> None:
    """Whatever comes, reading it does not raise."""
    assert isinstance(beginning_of(b"{" + body), dict)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(b"", {}, id="nothing"),
        pytest.param(b"[1, 2", {}, id="no object"),
        pytest.param(b' {"a": 1, "b": [1, {"c": "x', {"a": 1, "b": [1, {"c": "x [...] "}]}, id="a text"),
        pytest.param(b'{"a": "x\\', {"a": "x [...] "}, id="an escape"),
        pytest.param(b'{"a": "x\\u00e', {"a": "x [...] "}, id="a longer escape"),
        pytest.param('{"a": "xé'.encode()[:-1], {"a": "x [...] "}, id="a character"),
        pytest.param(b'{"a": "x\\q234567', {"a": " [...] "}, id="no escape at all"),
        pytest.param(b'{"a": "x\n', {"a": "x\n [...] "}, id="a bare line feed"),
        pytest.param(b'{"a": 1, "b', {"a": 1}, id="a name"),
        pytest.param(b'{"a": 1, "b"', {"a": 1}, id="a whole name"),
        pytest.param(b'{"a": 1, "b":', {"a": 1}, id="before a value"),
        pytest.param(b'{"a": tru', {}, id="a word"),
        pytest.param(b'{"a": 1, oops, "b": 2}', {"a": 1}, id="broken"),
        pytest.param(b'{"a": 1 "b": 2}', {"a": 1}, id="without a comma"),
        pytest.param(b'{"a": [1 2]}', {"a": [1]}, id="an array without a comma"),
        pytest.param(b'{"a":' * 9 + b"[1,", {"a": {"a": {"a": {"a": {"a": {"a": {"a": {}}}}}}}}, id="deep"),
    ],
)
def test_what_came_of_an_object(body: bytes, expected: dict[str, Any]) -> None:
    """All that came before the cut is read; a text that was cut says so."""
    assert expected == beginning_of(body)


@pytest.mark.parametrize(
    "unit", [b'{"a":', b'{"a":[', b'"', b"[", b'{"a":"\\u', b'{"":{},', b'{"a":[1,', b'{"a":0,"b":']
)
def test_megabytes_of_nonsense_end(unit: bytes) -> None:
    """Nesting and repetition without end come to one; in quadratic time this test would not."""
    assert isinstance(beginning_of(b"{" + unit * 300_000), dict)
    assert isinstance(beginning_of(unit * 300_000), dict)


def test_items_are_bounded() -> None:
    """An array or an object of a million items costs no more than its first ten thousand."""
    array = beginning_of(b'{"a":[' + b"0," * 1_000_000)["a"]
    members = beginning_of(b"{" + b",".join(b'"%d":0' % number for number in range(100_000)))

    assert [10_000, 10_000] == [len(array), len(members)]


@pytest.mark.parametrize("size", range(1, len("Plain+Key/of=acme~0123456789")))
def test_no_part_of_a_key_is_left_at_the_cut(size: int) -> None:
    """A text that is cut within a key ends before it."""
    key = "Plain+Key/of=acme~0123456789"
    found = beginning_of(f'{{"a": "said {key[:size]}'.encode(), (Secret(key),))["a"]

    assert ("said **** [...] " if size >= 8 else f"said {key[:size]} [...] ") == found


def test_a_cut_answer_keeps_what_came_of_it() -> None:
    """The names, the text so far and the tool calls of an answer that never became whole are in the record."""
    body = json.dumps(ANSWER).encode()
    answer = chat.answer(Received((body[: body.index(b'{}"')],), streamed=False), Request())

    [message] = answer.completions
    assert ("gen-1", "P", "m", None) == (answer.generation_id, answer.provider, answer.model, answer.finished)
    assert ("one two", " [...] ") == (message["content"], message["tool_calls"][0]["function"]["arguments"])


def test_an_error_at_the_beginning_of_a_cut_answer_is_told() -> None:
    """What failed is known as soon as it was said."""
    body = b'{"error": {"code": 502, "message": "Provider returned er'
    assert (
        Failure("502", "Provider returned er [...] ")
        == chat.answer(Received((body,), streamed=False), Request()).failure
    )


class TestAGap:
    @pytest.mark.parametrize("asked", [1, 2])
    def test_head_and_end_are_read(self, asked: int) -> None:
        """Text and names come from the head, usage and the reason from the end; of several reasons none is guessed."""
        body = json.dumps(ANSWER).encode()
        place = body.index(b" two")
        answer = chat.answer(Received((body[:place], body[place + 3 :]), streamed=False), Request(choices=asked))

        assert ("one [...] ", {"cost": 1}) == (answer.completions[0]["content"], answer.usage)
        assert ("stop" if asked == 1 else None, "m") == (answer.finish_reason, answer.model)

    def test_a_failure_at_the_end_is_told(self) -> None:
        """An answer that ends with the reason `error` has failed, however much came before."""
        end = b'...","finish_reason": "error"}]}'
        answer = chat.answer(Received((b'{"choices":[{"message":{"content":"a', end), streamed=False), Request())

        assert (Failure(None, "The provider failed while it answered."), "a [...] ") == (
            answer.failure, answer.completions[0]["content"],
        )  # fmt: skip
