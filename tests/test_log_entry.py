"""Records as logs: the vendor's own types, old and new, take every one of them and drop nothing."""

from __future__ import annotations

import json
import warnings
from datetime import datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._caller import Caller
from kwai_middleware._delivery import log_entry
from kwai_middleware._delivery.log_entry import encode
from kwai_middleware._record import CompletedCall
from tests.support.observations import CALLER

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from keywordsai_sdk.keywordsai_types.log_types import KeywordsAILogParams
    from keywordsai_sdk.keywordsai_types.param_types import KeywordsAITextLogParams
    from respan_sdk.respan_types.log_types import RespanLogParams
    from respan_sdk.respan_types.param_types import RespanTextLogParams

# The vendor marks its own types as deprecated, and its backend as their user.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

VENDOR_TYPES: dict[Any, set[str]] = {
    RespanTextLogParams: set(),
    KeywordsAITextLogParams: {"reasoning_tokens"},
    RespanLogParams: {"log_type", "status"},
    KeywordsAILogParams: {"log_type", "status", "reasoning_tokens"},
}
"""Each type, with the members it does not have though the vendor's API reference does. The tokens are in
`usage` as well, and the vendor derives the status from `status_code`, the type from the endpoint."""

ALIASES = {"generation_time": "latency", "thread_identifier": "session_identifier"}
"""Members that the vendor documents under one name and keeps under another."""


def lost(sent: Any, kept: Any, path: str = "") -> set[str]:
    """Return the paths of all that was sent and is not there any more, or is another value; null is nothing."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        return {
            place
            for name, value in sent.items()
            if value is not None
            for place in lost(
                value, kept.get(ALIASES.get(name, name) if not path else name), f"{path}.{name}".lstrip(".")
            )
        }
    if isinstance(sent, list) and isinstance(kept, list) and len(sent) == len(kept):
        return {
            place
            for number, pair in enumerate(zip(sent, kept, strict=True))
            for place in lost(*pair, f"{path}.{number}")
        }
    if isinstance(kept, datetime):
        kept = kept.isoformat(timespec="microseconds")
    return set() if sent == kept else {path}


def logged(call: CompletedCall) -> dict[str, Any]:
    """Encode a record; see that every type of the vendor takes it and drops nothing."""
    body = encode(call)
    entry: dict[str, Any] = json.loads(body)
    for vendor_type, unknown in VENDOR_TYPES.items():
        kept = vendor_type.model_validate(json.loads(body)).model_dump(mode="python")
        assert unknown & entry.keys() == lost(entry, kept), vendor_type.__name__
    return entry


def call_with(**members: Any) -> CompletedCall:
    defaults: dict[str, Any] = {
        "record_id": "r1",
        "host": "openrouter.ai",
        "provider_id": "openrouter",
        "caller": CALLER.with_credentials(()),
        "billed_to": "caller",
        "key_fingerprint": "0123abcd",
        "started_at": 1_763_875_740.5,
        "duration": 1.25,
        "status_code": 200,
        "model": "openai/gpt-5-2025",
        "requested_model": "openai/gpt-5",
        "messages": b'[{"role": "user", "content": "Hi"}]',
        "completions": ({"role": "assistant", "content": "Hello"},),
    }
    return CompletedCall(**(defaults | members))


def test_a_record_makes_this_log() -> None:
    """All members of the documented logging call are there, and all else that the vendor can use."""
    usage = {
        "prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14, "cost": 0.5, "is_byok": True,
        "prompt_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 3}, "cost_details": {"upstream_inference_cost": 1},
    }  # fmt: skip

    entry = logged(
        call_with(
            stream=True,
            time_to_first_token=0.5,
            parameters={"temperature": b"0.5", "seed": b"7"},
            finish_reason="stop",
            usage=usage,
            prompt_tokens=10,
            completion_tokens=4,
            total_tokens=14,
            cached_tokens=6,
            cache_write_tokens=2,
            reasoning_tokens=3,
            cost=1.5,
            reported_cost=0.5,
            upstream_cost=1.0,
            is_byok=True,
            generation_id="gen-1",
            provider="OpenAI",
        )
    )

    expected = {
        "model": "openai/gpt-5-2025",
        "prompt_messages": [{"role": "user", "content": "Hi"}],
        "completion_message": {"role": "assistant", "content": "Hello"},
        "cost": 1.5,
        "generation_time": 1.25,
        "customer_params": {"customer_identifier": "acme", "name": "Acme & Söhne", "email": "ops@acme.example"},
        "customer_identifier": "acme",
        "customer_name": "Acme & Söhne",
        "customer_email": "ops@acme.example",
        "group_identifier": "holding",
        "thread_identifier": "chat-7",
        "log_type": "chat",
        "provider_id": "openrouter",
        "stream": True,
        "start_time": "2025-11-23T05:29:00.500000+00:00",
        "timestamp": "2025-11-23T05:29:01.750000+00:00",
        "time_to_first_token": 0.5,
        "status_code": 200,
        "status": "success",
        "prompt_tokens": 10,
        "completion_tokens": 4,
        "prompt_cache_hit_tokens": 6,
        "prompt_cache_creation_tokens": 2,
        "reasoning_tokens": 3,
        "usage": {
            "prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14,
            "prompt_tokens_details": {"cached_tokens": 6, "cache_write_tokens": 2},
            "completion_tokens_details": {"reasoning_tokens": 3},
        },
        "temperature": 0.5,
        "metadata": {
            "plan": "gold",
            "seats": "12",
            "trial": "false",
            "caller.outcome": "theirs",
            "caller._hidden": "yes",
            "kwai_record_id": "r1",
            "outcome": "complete",
            "billed_to": "caller",
            "key_fingerprint": "0123abcd",
            "host": "openrouter.ai",
            "requested_model": "openai/gpt-5",
            "generation_id": "gen-1",
            "provider": "OpenAI",
            "finish_reason": "stop",
            "is_byok": "true",
            "reported_cost": "0.5",
            "upstream_cost": "1.0",
            "request.seed": "7",
        },
    }  # fmt: skip
    assert expected == entry


def test_an_empty_record_is_a_log() -> None:
    """A record of which nothing is known is still taken."""
    entry = logged(CompletedCall())

    assert "unknown" == entry["model"]
    assert {"outcome": "complete"}.items() <= entry["metadata"].items()


class TestMessages:
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
    def test_messages_that_the_vendor_takes_whole_are_not_touched(self, messages: str) -> None:
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
                {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "", "x": 1}}]},
                id="a function call with more",
            ),
            pytest.param(
                {"role": "assistant", "tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]},
                id="a tool call with more",
            ),
            pytest.param({"role": "assistant", "tool_calls": [{"function": None}]}, id="a function that is null"),
            pytest.param({"role": "assistant", "tool_calls": [7]}, id="a tool call of another type"),
            pytest.param("text", id="no object"),
        ],
    )
    def test_messages_that_the_vendor_would_refuse_or_cut_travel_as_text(self, message: Any) -> None:
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
        ],
    )
    def test_an_answer_that_the_vendor_would_refuse_travels_as_text(self, completion: dict[str, Any]) -> None:
        """An answer that its type does not take is text, and nothing else."""
        entry = logged(call_with(completions=(completion,)))

        assert completion == json.loads(entry["output"])
        assert not {"completion_message", "tool_calls"} & entry.keys()

    def test_what_the_vendor_drops_of_a_message_is_text_beside_it(self) -> None:
        """A message with reasoning or a refusal is logged as far as the type goes, and whole as text."""
        messages = (
            '[{"role":"user","content":"a"},{"role": "assistant", "content":"b", "reasoning":"r", "refusal":null}]'
        )

        entry = logged(call_with(messages=messages.encode()))

        assert [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] == entry["prompt_messages"]
        assert messages == entry["input"]

    def test_what_the_vendor_drops_of_an_answer_is_text_beside_it(self) -> None:
        """Reasoning has a place under another name; reasoning details, images and refusals are text."""
        completion = {"role": "assistant", "content": "a", "reasoning": "r", "refusal": "No", "images": [{"u": 1}]}

        entry = logged(call_with(completions=(completion,)))

        assert {"role": "assistant", "content": "a", "reasoning_content": "r"} == entry["completion_message"]
        assert completion == json.loads(entry["output"])

    def test_reasoning_alone_needs_no_text(self) -> None:
        """A message whose only unknown member is its reasoning is kept whole."""
        entry = logged(call_with(completions=({"role": "assistant", "content": "a", "reasoning": "r"},)))

        assert {"role": "assistant", "content": "a", "reasoning_content": "r"} == entry["completion_message"]
        assert "output" not in entry

    def test_tool_calls_of_an_answer_are_a_member_of_their_own(self) -> None:
        """The vendor finds tool calls in the message and beside it."""
        calls = [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]

        entry = logged(call_with(completions=({"role": "assistant", "content": None, "tool_calls": calls},)))

        assert [calls, calls] == [entry["tool_calls"], entry["completion_message"]["tool_calls"]]

    def test_several_choices_are_all_logged(self) -> None:
        """The first choice is the answer, and all of them are there."""
        first, second = ({"role": "assistant", "content": text} for text in "ab")

        entry = logged(call_with(completions=(first, second)))

        assert (first, [first, second]) == (entry["completion_message"], entry["completion_messages"])
        assert "output" not in entry

    def test_one_of_several_choices_that_does_not_fit_sends_all_as_text(self) -> None:
        """No choice is lost for another that the vendor would refuse."""
        first, second = {"role": "assistant", "content": "a"}, {"role": "model"}

        entry = logged(call_with(completions=(first, second)))

        assert [first, second] == json.loads(entry["output"])
        assert first == entry["completion_message"]
        assert "completion_messages" not in entry

    @pytest.mark.parametrize("messages", [b'"text"', b'{"role":"user"}', b"no json", b'[{"a":"\xff"', b"[" * 100_000])
    def test_a_prompt_that_is_no_list_travels_as_text(self, messages: bytes) -> None:
        """Whatever the app sent for messages is in the log."""
        assert messages.decode(errors="replace") == logged(call_with(messages=messages))["input"]

    def test_broken_utf8_never_breaks_the_log(self) -> None:
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
    def test_any_prompt_is_logged_whole(self, messages: list[dict[str, Any]]) -> None:
        """Every prompt passes the vendor's types, as messages where they keep all of it, else as text."""
        entry = logged(call_with(messages=json.dumps(messages).encode()))

        whole = entry["input"] if "input" in entry else json.dumps(entry["prompt_messages"])
        assert messages == json.loads(whole)

    @given(messages.filter(bool))
    def test_any_answer_is_logged_whole(self, messages: list[dict[str, Any]]) -> None:
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
            assert messages == renamed


class TestParameters:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("temperature", 1), ("top_p", 0.5), ("max_tokens", 9), ("max_completion_tokens", 9), ("n", 2),
            ("frequency_penalty", -1.5), ("presence_penalty", 1), ("logprobs", True), ("top_logprobs", 3),
            ("parallel_tool_calls", False), ("logit_bias", {"50256": -100}), ("stop", "x"), ("stop", ["x", "y"]),
            ("reasoning_effort", "high"), ("response_format", {"type": "json_schema", "json_schema": {"a": 1}}),
            ("stream_options", {"include_usage": True}), ("thinking", {"type": "enabled"}), ("tool_choice", "required"),
            ("tool_choice", {"type": "function", "function": {"name": "f"}}),
            ("tool_choice", {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}),
            ("tools", [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]),
        ],
    )  # fmt: skip
    def test_parameters_that_the_vendor_knows_are_members(self, name: str, value: Any) -> None:
        """A parameter with a place in the vendor's types goes there as it is."""
        entry = logged(call_with(parameters={name: json.dumps(value).encode()}))

        assert value == entry[name]
        assert f"request.{name}" not in entry["metadata"]

    @pytest.mark.parametrize(
        ("name", "value", "text"),
        [
            ("temperature", "hot", '"hot"'), ("max_tokens", 1.5, "1.5"), ("n", True, "true"), ("stop", [1], "[1]"),
            ("logit_bias", {"a": "b"}, '{"a": "b"}'), ("tool_choice", "any", '"any"'), ("tools", [7], "[7]"),
            ("tool_choice", {"function": {}}, '{"function": {}}'), ("response_format", "json", '"json"'),
            ("reasoning", {"effort": "low"}, '{"effort": "low"}'), ("provider", {"order": ["a"]}, '{"order": ["a"]}'),
            ("service_tier", "flex", '"flex"'), ("user", "u", '"u"'), ("_x", 1, "1"), ("models", ["a"], '["a"]'),
            ("metadata", {"a": "b"}, '{"a": "b"}'), ("model", 7, "7"), ("cost", 9, "9"),
            ("long", "x" * 2000, '"' + "x" * 998 + "…"),
        ],
    )  # fmt: skip
    def test_all_other_parameters_are_metadata(self, name: str, value: Any, text: str) -> None:
        """A parameter that the vendor's types do not take, or not with this value, is text of bounded length."""
        entry = logged(call_with(parameters={name: json.dumps(value).encode()}))

        assert text == entry["metadata"][f"request.{name}"]
        assert entry.get(name) != value

    def test_nesting_to_no_end_is_metadata(self) -> None:
        """A value too deep for any parser costs nothing but itself."""
        assert "request.tools" in logged(call_with(parameters={"tools": b"[" * 100_000}))["metadata"]


class TestOutcomes:
    @pytest.mark.parametrize(
        ("members", "expected"),
        [
            pytest.param({}, (200, "success", None), id="complete"),
            pytest.param({"status_code": None}, (200, "success", None), id="complete, status unknown"),
            pytest.param({"outcome": "error", "status_code": 429}, (429, "error", None), id="HTTP error"),
            pytest.param({"outcome": "error", "error_code": "402"}, (402, "error", None), id="error in a 200"),
            pytest.param({"outcome": "error", "error_code": "4021"}, (502, "error", None), id="odd code"),
            pytest.param({"outcome": "error", "error_code": "server_error"}, (502, "error", None), id="a word"),
            pytest.param({"outcome": "error"}, (502, "error", None), id="no code"),
            pytest.param({"outcome": "error", "status_code": None}, (502, "error", None), id="no connection"),
            pytest.param({"outcome": "timeout"}, (504, "error", None), id="timeout inside"),
            pytest.param({"outcome": "timeout", "status_code": None}, (504, "error", None), id="timeout before"),
            pytest.param(
                {"outcome": "cancelled"},
                (200, "success", "The app ended the call before the answer was whole."), id="cancelled",
            ),
            pytest.param(
                {"outcome": "cancelled", "status_code": None},
                (499, "success", "The app ended the call before the answer was whole."), id="cancelled before",
            ),
            pytest.param(
                {"outcome": "abandoned"}, (200, "success", "The app left the answer unread."), id="abandoned"
            ),
            pytest.param(
                {"outcome": "incomplete", "truncated": True},
                (200, "success", "The answer stopped without saying that it was whole."
                 " A part was not kept, for its size."), id="incomplete and shortened",
            ),
            pytest.param(
                {"truncated": True}, (200, "success", "A part was not kept, for its size."), id="shortened"
            ),
        ],
    )  # fmt: skip
    def test_status_and_warnings_tell_the_outcome(
        self, members: dict[str, Any], expected: tuple[int, str, str | None]
    ) -> None:
        """Failures are errors with a status that says so; what ended early is a warning."""
        entry = logged(call_with(**members))

        assert expected == (entry["status_code"], entry["status"], entry.get("warnings"))
        assert members.get("outcome", "complete") == entry["metadata"]["outcome"]

    def test_an_error_is_told(self) -> None:
        """Message and code of an error are in the log."""
        entry = logged(call_with(outcome="error", error_code="429", error_message="slow", completions=()))

        assert ("slow", "429") == (entry["error_message"], entry["metadata"]["error_code"])
        assert "completion_message" not in entry


class TestCallers:
    def test_nobody_has_no_customer(self) -> None:
        """A call for nobody has no customer member at all."""
        entry = logged(call_with(caller=None))

        assert not {name for name in entry if "customer" in name}

    def test_a_caller_without_identifier_keeps_name_and_email(self) -> None:
        """The vendor drops customer_params without an identifier: name and email go beside it then."""
        entry = logged(call_with(caller=Caller(name="N", email="e@x.example")))

        assert ("N", "e@x.example") == (entry["customer_name"], entry["customer_email"])
        assert "customer_params" not in entry

    def test_metadata_that_is_not_unicode_is_mended(self) -> None:
        """Half a character in an app's own metadata does not lose the log."""
        entry = logged(call_with(caller=Caller(metadata={"a\ud83d": "b\ud83d", "request.x": 1})))

        assert {"a?": "b?", "caller.request.x": "1"}.items() <= entry["metadata"].items()

    def test_metadata_of_the_same_name_does_not_come_and_go(self) -> None:
        """A name of ours is ours in every log, also where it has no value."""
        entry = logged(call_with(caller=Caller(metadata={"provider": "theirs"}), provider=None))

        assert "theirs" == entry["metadata"]["caller.provider"]
        assert "provider" not in entry["metadata"]


def test_without_content_neither_prompt_nor_answer_nor_tools_are_logged() -> None:
    """With `capture` "metadata" numbers, names and switches are logged, and no text of the conversation."""
    secret = "the plot of the novel"
    call = call_with(
        capture="metadata",
        messages=json.dumps([{"role": "user", "content": secret}]).encode(),
        completions=({"role": "assistant", "content": secret, "tool_calls": [{"function": {"name": secret}}]},),
        parameters={
            "temperature": b"0.5",
            "tools": json.dumps([{"type": "function", "function": {"description": secret}}]).encode(),
            "stop": json.dumps(secret).encode(),
            "prediction": json.dumps({"content": secret}).encode(),
        },
        usage={"prompt_tokens": 3},
        prompt_tokens=3,
    )

    entry = logged(call)

    assert secret not in encode(call).decode()
    assert (0.5, 3, "acme", "gold") == (
        entry["temperature"], entry["prompt_tokens"], entry["customer_identifier"], entry["metadata"]["plan"],
    )  # fmt: skip
    assert not {"warnings", "prompt_messages", "input", "completion_message", "output", "tools", "stop"} & entry.keys()


def test_a_call_that_was_to_be_recorded_nowhere_has_no_content() -> None:
    """Should a record with `capture` "none" ever be encoded, nothing of the app's is in it."""
    entry = logged(call_with(capture="none", parameters={"temperature": b"0.5"}))

    assert not {"prompt_messages", "completion_message", "plan"} & {*entry, *entry["metadata"]}


HUGE = "x" * log_entry.MOST_BYTES
HALF = "x" * (log_entry.MOST_BYTES // 2)


@pytest.mark.parametrize(
    ("members", "kept"),
    [
        pytest.param(
            {"messages": json.dumps([{"role": "user", "content": HUGE}]).encode()},
            {"completion_message", "temperature"}, id="prompt",
        ),
        pytest.param(
            {"messages": json.dumps([{"role": "user", "content": HALF}]).encode(), "completions": ({"content": HALF},)},
            {"output", "temperature"}, id="prompt and answer",
        ),
        pytest.param(
            {"parameters": {"stop": json.dumps(HUGE).encode()}}, {"prompt_messages", "completion_message"}, id="parameters",
        ),
        pytest.param(
            {"completions": ({"role": "assistant", "content": HUGE},)},
            {"prompt_messages", "temperature"}, id="answer",
        ),
        pytest.param({"caller": Caller(identifier="acme", metadata={"a": HUGE})}, {"temperature"}, id="the app's metadata"),
    ],
)  # fmt: skip
def test_too_large_a_record_is_shortened(members: dict[str, Any], kept: set[str]) -> None:
    """A record over the vendor's limit loses what is heavy, says so, and still has tokens and cost."""
    call = call_with(**({"parameters": {"temperature": b"0.5"}, "cost": 0.5, "prompt_tokens": 3} | members))

    entry = logged(call)

    assert len(encode(call)) <= log_entry.MOST_BYTES
    assert kept == {"prompt_messages", "completion_message", "output", "temperature", "stop"} & entry.keys()
    assert (0.5, 3, "acme") == (entry["cost"], entry["prompt_tokens"], entry["customer_identifier"])
    assert ("true", "A part was not kept, for its size.") == (entry["metadata"]["truncated"], entry["warnings"])


@given(
    st.dictionaries(
        st.sampled_from(
            [
                "prompt_tokens",
                "completion_tokens",
                "total_tokens",
                "prompt_tokens_details",
                "completion_tokens_details",
                "x",
            ]
        ),
        st.integers() | st.none() | st.text(max_size=2) | st.floats(allow_nan=False) | st.just({"cached_tokens": 1}),
    )
)
def test_any_usage_is_taken(usage: dict[str, Any]) -> None:
    """What a server calls usage never loses the log."""
    logged(call_with(usage=usage))


@pytest.mark.parametrize("started_at", [0.0, 1_763_875_740.123456, 4_000_000_000.0])
@pytest.mark.parametrize("duration", [None, 0.0, 1e-9, 86_400.5])
def test_times_are_utc_in_iso_8601(started_at: float, duration: float | None) -> None:
    """Start and end are moments with their time zone, the end behind the start by the duration."""
    entry = logged(call_with(started_at=started_at, duration=duration))

    start, end = datetime.fromisoformat(entry["start_time"]), datetime.fromisoformat(entry["timestamp"])
    assert (duration or 0.0) == pytest.approx((end - start).total_seconds(), abs=1e-6)
    assert duration == entry.get("generation_time")


def test_a_record_may_be_nested_as_deeply_as_it_could_be_read() -> None:
    """What the parser took, the encoder takes."""
    deep = msgspec.json.decode(b"[" * 500 + b"]" * 500)

    entry = json.loads(encode(call_with(completions=({"role": "assistant", "content": "a", "x": deep},))))

    assert deep == json.loads(entry["output"])["x"]
