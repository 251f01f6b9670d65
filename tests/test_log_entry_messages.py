"""Prompts and answers in logs: as messages where the vendor's types keep all of them, else as text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kwai_middleware._delivery.log_entry import encode
from tests.support.vendor_logs import call_with, logged


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param('[ {"role":"user",\n"content":"\\u00f6 ö"} ]', id="text"),
        pytest.param('[{"role":"system","content":"s"},{"role":"developer","content":"d"}]', id="roles"),
        pytest.param('[{"role":"assistant","content":null,"refusal":null,"audio":null,"images":null}]', id="nulls"),
        pytest.param('[{"role":"user","content":["a",{"type":"text","text":"b"}]}]', id="parts"),
        pytest.param(
            '[{"role":"user","content":[{"type":"text","text":"b","cache_control":{"type":"ephemeral"}}]}]',
            id="cache control",
        ),
        pytest.param(
            '[{"role":"user","content":[{"type":"image_url","image_url":{"url":"u","detail":"low"},"x":1}]}]',
            id="image",
        ),
        pytest.param('[{"role":"user","content":[{"type":"image_url","image_url":"u"}]}]', id="image as text"),
        pytest.param('[{"role":"user","content":[{"type":"file","file":{"file_data":"d"}}]}]', id="file"),
        pytest.param(
            '[{"role":"assistant","tool_calls":[{"id":"a","type":"function",'
            '"function":{"name":"f","arguments":"{}"}}]},{"role":"tool","tool_call_id":"a","content":"1"}]',
            id="tool call",
        ),
        pytest.param(
            '[{"role":"assistant","tool_calls":[{"id":"a","type":"custom","custom":{"input":"x"}}]}]',
            id="custom tool call",
        ),
        pytest.param(
            '[{"role":"assistant","content":"a","name":"n","reasoning_content":"r","annotations":[{"type":"x"}],'
            '"thinking_blocks":[{"type":"y"}]}]',
            id="all members",
        ),
        pytest.param("[]", id="none"),
    ],
)
def test_messages_that_the_vendor_takes_whole_are_not_touched(messages: str) -> None:
    """The app's own bytes are the log's."""
    call = call_with(messages=messages.encode())

    entry = logged(call)

    assert f'"prompt_messages":{messages}'.encode() in encode(call)
    assert "input" not in entry


@pytest.mark.parametrize(
    "message",
    [
        pytest.param({"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}, id="audio"),
        pytest.param({"role": "user", "content": [{"type": "video_url", "video_url": {}}]}, id="video"),
        pytest.param({"role": "function", "name": "f", "content": "1"}, id="role function"),
        pytest.param({"content": "no role"}, id="no role"),
        pytest.param({"role": "user", "content": {"a": 1}}, id="content of another type"),
        pytest.param({"role": "user", "content": [{"type": "file", "file": None}]}, id="a file that is null"),
        pytest.param({"role": "user", "content": [{"type": "text", "text": "a", "x": 1}]}, id="a part with more"),
        pytest.param(
            {
                "role": "user",
                "content": [{"type": "text", "text": "a", "cache_control": {"type": "e", "ttl": "1h"}}],
            },
            id="cache control with more",
        ),
        pytest.param(
            {"role": "assistant", "tool_calls": [{"index": 0, "function": {"name": "f"}}]},
            id="a call without arguments",
        ),
        pytest.param({"role": "assistant", "tool_calls": [{"function": None}]}, id="a function that is null"),
        pytest.param({"role": "assistant", "tool_calls": [7]}, id="a tool call of another type"),
        pytest.param("text", id="no object"),
    ],
)
def test_messages_that_the_vendor_would_refuse_or_cut_travel_as_text(message: Any) -> None:
    """One message that its type does not keep whole sends the whole prompt another way, and the answer too."""
    messages = json.dumps([{"role": "user", "content": "Hi"}, message])

    entry = logged(call_with(messages=messages.encode()))

    assert messages == entry["input"]
    assert "prompt_messages" not in entry


@pytest.mark.parametrize(
    "completion",
    [
        pytest.param({"role": "assistant", "content": [{"type": "audio"}]}, id="content of another type"),
        pytest.param({"role": "model", "content": "a", "tool_calls": "x"}, id="another role"),
        pytest.param({"role": "assistant", "content": "a", "tool_calls": [7]}, id="a tool call of another type"),
    ],
)
def test_an_answer_that_the_vendor_would_refuse_travels_as_text(completion: dict[str, Any]) -> None:
    """An answer that its type does not take is text, and nothing else."""
    entry = logged(call_with(completions=(completion,)))

    assert completion == json.loads(entry["output"])
    assert not {"completion_message", "tool_calls"} & entry.keys()


def test_what_the_vendor_drops_of_a_message_is_text_beside_it() -> None:
    """A message with reasoning or a refusal is logged as far as the type goes, and whole as text."""
    messages = '[{"role":"user","content":"a"},{"role": "assistant", "content":"b", "reasoning":"r", "refusal":null}]'

    entry = logged(call_with(messages=messages.encode()))

    assert [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] == entry["prompt_messages"]
    assert messages == entry["input"]


def test_what_the_vendor_drops_of_an_answer_is_text_beside_it() -> None:
    """Reasoning has a place under another name; reasoning details, images and refusals are text."""
    completion = {"role": "assistant", "content": "a", "reasoning": "r", "refusal": "No", "images": [{"u": 1}]}

    entry = logged(call_with(completions=(completion,)))

    assert {"role": "assistant", "content": "a", "reasoning_content": "r"} == entry["completion_message"]
    assert completion == json.loads(entry["output"])


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"index": 0}, id="its number"),
        pytest.param({"provider": "p"}, id="a member"),
        pytest.param({"function": {"name": "f", "arguments": "{}", "strict": True}}, id="a member of the function"),
    ],
)
def test_what_the_vendor_drops_of_a_tool_call_is_text_beside_it(more: dict[str, Any]) -> None:
    """A call of a function is logged as far as the type goes, and whole as text, in prompts and in answers."""
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    other = {"type": "custom", "custom": {"name": "g", "input": "x"}, "index": 5}
    message = {"role": "assistant", "content": None, "refusal": "n", "tool_calls": [call | more, other]}

    entry = logged(call_with(messages=json.dumps([message]).encode(), completions=(message,)))

    kept = {"role": "assistant", "content": None, "tool_calls": [call, other]}
    assert [[kept], kept, [call, other]] == [
        entry["prompt_messages"], entry["completion_message"], entry["tool_calls"],
    ]  # fmt: skip
    assert [[message], message] == [json.loads(entry["input"]), json.loads(entry["output"])]


def test_the_place_of_a_tool_call_is_no_loss() -> None:
    """OpenRouter numbers the calls of an answer; the list says the same, and the vendor keeps all that counts."""
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    calls = [{"index": 0, **call}, {"index": 1, **call}]

    entry = logged(call_with(completions=({"role": "assistant", "content": None, "tool_calls": calls},)))

    assert [call, call] == entry["tool_calls"] == entry["completion_message"]["tool_calls"]
    assert "output" not in entry


def test_reasoning_alone_needs_no_text() -> None:
    """A message whose only unknown member is its reasoning is kept whole."""
    entry = logged(call_with(completions=({"role": "assistant", "content": "a", "reasoning": "r"},)))

    assert {"role": "assistant", "content": "a", "reasoning_content": "r"} == entry["completion_message"]
    assert "output" not in entry


def test_tool_calls_of_an_answer_are_a_member_of_their_own() -> None:
    """The vendor finds tool calls in the message and beside it."""
    calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]

    entry = logged(call_with(completions=({"role": "assistant", "content": None, "tool_calls": calls},)))

    assert [calls, calls] == [entry["tool_calls"], entry["completion_message"]["tool_calls"]]


def test_several_choices_are_all_logged() -> None:
    """The first choice is the answer, and all of them are there."""
    first, second = ({"role": "assistant", "content": text} for text in "ab")

    entry = logged(call_with(completions=(first, second)))

    assert (first, [first, second]) == (entry["completion_message"], entry["completion_messages"])
    assert "output" not in entry


def test_one_of_several_choices_that_does_not_fit_sends_all_as_text() -> None:
    """No choice is lost for another that the vendor would refuse."""
    first, second = {"role": "assistant", "content": "a"}, {"role": "model"}

    entry = logged(call_with(completions=(first, second)))

    assert [first, second] == json.loads(entry["output"])
    assert first == entry["completion_message"]
    assert "completion_messages" not in entry


@pytest.mark.parametrize("messages", [b'"text"', b'{"role":"user"}', b"no json", b'[{"a":"\xff"', b"[" * 100_000])
def test_a_prompt_that_is_no_list_travels_as_text(messages: bytes) -> None:
    """Whatever the app sent for messages is in the log."""
    assert messages.decode(errors="replace") == logged(call_with(messages=messages))["input"]


def test_broken_utf8_never_breaks_the_log() -> None:
    """Bytes that are no UTF-8 in a message send the prompt as text, with the place marked."""
    assert '[{"role":"user","content":"\ufffd"}]' == logged(
        call_with(messages=b'[{"role":"user","content":"\xff"}]')
    )["input"]  # fmt: skip


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "a"]), inner, max_size=2),
    max_leaves=4,
)
part_types = st.sampled_from(
    [
        "text",
        "image_url",
        "input_text",
        "output_text",
        "file",
        "input_file",
        "tool_use",
        "image",
        "tool_result",
        "x",
    ]
)
parts = st.fixed_dictionaries(
    {"type": part_types},
    optional={
        "text": st.text(max_size=3) | json_values,
        "image_url": st.just({"url": "u"}) | json_values,
        "file": json_values,
        "input": json_values,
        "cache_control": st.just({"type": "ephemeral"}) | json_values,
    },
)
tool_calls = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(max_size=2) | json_values,
        "type": st.sampled_from(["function", "custom"]) | json_values,
        "index": st.integers(0, 2),
        "function": st.fixed_dictionaries(
            {"name": st.text(max_size=2) | json_values}, optional={"arguments": st.text(max_size=2) | json_values}
        )
        | json_values,
    },
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool", "developer", "none", "function", "x"])},
        optional={
            "content": st.text(max_size=3) | st.lists(parts | json_values, max_size=3) | json_values,
            "name": st.text(max_size=2) | json_values,
            "tool_call_id": json_values,
            "tool_calls": st.lists(tool_calls | json_values, max_size=2),
            "reasoning": st.text(max_size=2) | json_values,
            "reasoning_content": json_values,
            "annotations": st.lists(json_values, max_size=2) | json_values,
            "thinking_blocks": st.lists(json_values, max_size=2),
            "refusal": json_values,
        },
    ),
    max_size=3,
)


@given(messages)
def test_any_prompt_is_logged_whole(messages: list[dict[str, Any]]) -> None:
    """Every prompt passes the vendor's types, as messages where they keep all of it, else as text."""
    entry = logged(call_with(messages=json.dumps(messages).encode()))

    whole = entry["input"] if "input" in entry else json.dumps(entry["prompt_messages"])
    assert messages == json.loads(whole)


def without_places(message: dict[str, Any]) -> dict[str, Any]:
    """A message whose tool calls are not numbered: that they come in this order says as much."""
    if "tool_calls" not in message:
        return message
    calls = [
        {name: value for name, value in call.items() if (name, value) != ("index", place)}
        if isinstance(call, dict)
        else call
        for place, call in enumerate(message["tool_calls"])
    ]
    return message | {"tool_calls": calls}


@given(messages.filter(bool))
@example([{"role": "user", "tool_calls": [{"type": "function", "id": "", "index": 0}]}])
def test_any_answer_is_logged_whole(messages: list[dict[str, Any]]) -> None:
    """Every answer passes the vendor's types, as a message where they keep all of it, else as text."""
    entry = logged(call_with(completions=tuple(messages)))

    if "output" in entry:
        assert (messages if len(messages) > 1 else messages[0]) == json.loads(entry["output"])
    else:
        kept = entry.get("completion_messages", [entry["completion_message"]])
        renamed = [
            {("reasoning" if "reasoning" in message and name == "reasoning_content" else name): value
             for name, value in one.items()}
            for one, message in zip(kept, messages, strict=True)
        ]  # fmt: skip
        assert list(map(without_places, messages)) == renamed


@pytest.mark.parametrize("name", ["input", "output"])
@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param(b'"say \\"\\u00f6\\""', 'say "ö"', id="a text"),
        pytest.param(b'""', "", id="an empty text"),
        pytest.param(b'["a", "b"]', '["a", "b"]', id="a list, as it is written"),
        pytest.param(b'"a", "b"', '"a", "b"', id="two texts"),
        pytest.param(b'"', '"', id="half a text"),
        pytest.param(b'"a\xff"', '"a\ufffd"', id="no UTF-8"),
        pytest.param(b'"' + b"a" * 50_000 + b'"', "a" * 50_000, id="a long text"),
    ],
)
def test_what_is_no_chat_is_text(name: str, document: bytes, expected: str) -> None:
    """A text is logged as itself, and all else as it is written."""
    entry = logged(call_with(messages=None, completions=(), **{name: document}))

    assert expected == entry[name]
    assert not {"prompt_messages", "completion_message"} & entry.keys()


def test_what_messages_do_not_hold_is_text_beside_them() -> None:
    """The whole of a prompt and of an answer counts as text, whether its messages fit or not."""
    message = {"role": "user", "content": "Hi"}
    for messages in ([message], [{"role": "function"}]):
        call = call_with(messages=json.dumps(messages).encode(), input=b'"in"', completions=(message,), output=b'"out"')
        entry = logged(call)
        assert ("in", "out", message) == (entry["input"], entry["output"], entry["completion_message"])
        assert (messages == [message]) == ("prompt_messages" in entry)
