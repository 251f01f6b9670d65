"""Records as logs: the vendor's own types, old and new, take every one of them and drop nothing."""

from __future__ import annotations

import json
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
from kwai_middleware._secret import Secret
from tests.support.vendor_logs import call_with, logged


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
            trace_id="t1",
            call_id="c1",
            attempt=2,
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
        "trace_unique_id": "t1",
        "span_unique_id": "r1",
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
            "call_id": "c1",
            "attempt": "2",
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
                (499, "error", "The app ended the call before the answer was whole."), id="cancelled before",
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

    def test_metadata_does_not_pass_for_a_parameter(self) -> None:
        """An app's own metadata is told from the request's parameters, and a text that is no Unicode is mended."""
        entry = logged(call_with(caller=Caller(metadata={"request.x": 1}), finish_reason="b\ud83d"))

        assert {"finish_reason": "b?", "caller.request.x": "1"}.items() <= entry["metadata"].items()

    def test_metadata_of_the_same_name_does_not_come_and_go(self) -> None:
        """A name of ours is ours in every log, also where it has no value."""
        entry = logged(call_with(caller=Caller(metadata={"provider": "theirs"}), provider=None))

        assert "theirs" == entry["metadata"]["caller.provider"]
        assert "provider" not in entry["metadata"]


class TestKeys:
    def test_customers_are_never_merged(self) -> None:
        """Who a call was for is logged whole, though it may look like a key; what else looks like one is masked."""
        caller = Caller(
            identifier="sk-slovakia-logistics-gmbh",
            name="sk-of-the-second-customer",
            email="hf_abcdefghijklmnopqrst@acme.example",
            group="kiosk-550e8400-e29b-41d4-a716-446655440000",
            thread="gsk_0123456789abcdef0123",
            metadata={"note": "sk-or-v1-0123456789abcdef"},
        )

        entry = json.loads(encode(call_with(caller=caller, record_id="sk-0123456789abcdef0123")))

        assert (caller.identifier, caller.name, caller.email, caller.group, caller.thread) == (
            entry["customer_identifier"], entry["customer_name"], entry["customer_email"],
            entry["group_identifier"], entry["thread_identifier"],
        )  # fmt: skip
        assert {"customer_identifier": caller.identifier, "name": caller.name, "email": caller.email} == entry[
            "customer_params"
        ]
        assert ("sk-0123456789abcdef0123", "****") == (entry["metadata"]["kwai_record_id"], entry["metadata"]["note"])

    def test_a_callers_key_is_no_name(self) -> None:
        """A key of the caller is masked wherever it stands, in who they are, too."""
        secret = Secret("sk-or-v1-the-key-of-acme")

        entry = json.loads(encode(call_with(caller=Caller(identifier=secret.reveal(), name="Acme")), (secret,)))

        assert ("****", "Acme") == (entry["customer_identifier"], entry["customer_name"])

    @pytest.mark.parametrize(
        ("key", "secrets"),
        [("sk-or-v1-0123456789abcdef", ()), ("Plain+Key~0123456789", (Secret("Plain+Key~0123456789"),))],
        ids=["a shape", "the caller's own"],
    )
    def test_no_head_of_a_key_is_left_where_a_parameter_is_cut(self, key: str, secrets: tuple[Secret, ...]) -> None:
        """A key across the border at which a parameter is cut is masked before it is cut, at every offset."""
        for offset in range(1000 - len(key) - 3, 1002):
            parameter = json.dumps("-" * offset + key + " tail" * 300).encode()
            text = json.loads(encode(call_with(parameters={"user": parameter}), secrets))["metadata"]["request.user"]
            assert 1000 == len(text)
            assert key[:8] not in text


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
            {
                "messages": json.dumps([{"role": "user", "content": HALF}]).encode(),
                "completions": ({"content": HALF},),
            },
            {"output", "temperature"}, id="prompt and answer",
        ),
        pytest.param(
            {"parameters": {"stop": json.dumps(HUGE).encode()}},
            {"prompt_messages", "completion_message"}, id="parameters",
        ),
        pytest.param(
            {"completions": ({"role": "assistant", "content": HUGE},)},
            {"prompt_messages", "temperature"}, id="answer",
        ),
        pytest.param(
            {"caller": Caller(identifier="acme", metadata={"a": HUGE})}, {"temperature"}, id="the app's metadata"
        ),
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
