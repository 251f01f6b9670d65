"""Records that an app made by hand: whatever is in them, they are logged, and the vendor takes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._caller import Caller
from kwai_middleware._delivery.delivery import Delivery
from kwai_middleware._delivery.log_entry import encode
from kwai_middleware.sandbox import Sandbox
from kwai_middleware.sandbox.log_type import refusal
from tests.support.vendor_logs import call_with, logged

pytest_plugins = ["kwai_middleware.testing"]


class _Fails:
    def __str__(self) -> str:
        raise LookupError("no text")


ODD = {
    "messages that are no UTF-8": {"messages": b'[{"role":"user","content":"\xff"}]'},
    "messages with no UTF-8 where nobody looks": {
        "messages": b'[{"role":"user","content":[{"type":"image_url","image_url":"u","x":"\xff"}]}]'
    },
    "messages whose names are no UTF-8": {"messages": b'[{"\xff":1}]'},
    "messages that are cut": {"messages": b'[{"role":"us'},
    "messages that are nothing": {"messages": b""},
    "messages with half a character": {"messages": b'[{"role":"user","content":"\\ud83d"}]'},
    "NaN": {"cost": float("nan"), "duration": float("nan"), "time_to_first_token": float("inf")},
    "a start that is no time": {"started_at": float("nan")},
    "a start beyond all dates": {"started_at": 1e300, "duration": -1e300},
    "huge counts": {"prompt_tokens": 10**30, "total_tokens": -(10**30), "status_code": 10**5000},
    "huge numbers": {"cost": 10**400, "completions": ({"role": "assistant", "content": "a", "x": 10**5000},)},
    "huge numbers of usage": {"usage": {"prompt_tokens_details": {"cached_tokens": 10**30, "x": float("nan")}}},
    "huge metadata": {"caller": Caller(identifier="acme", metadata={"a": 10**5000})},
    "half characters": {
        "model": "m\ud83d", "error_message": "\udfff", "provider": "\ud83d", "provider_id": "p\ud83d",
        "requested_model": "\ud83d", "finish_reason": "\ud83d",
        "completions": ({"role": "assistant", "content": "a\ud83d", "\ud83d": ["\ud83d"]},),
    },
    "parameters that are no JSON": {
        "parameters": {
            "temperature": b"\xff", "stop": b'["a', "x\ud83d": b"1",
            "tool_choice": b'{"type":"t","x":"\xff"}',
        }
    },
    "objects of the app's": {"completions": ({"role": "assistant", "content": _Fails(), 7: {1}, _Fails(): b"x"},)},
    "a name that is a number": {"model": 7, "outcome": "error", "error_message": _Fails()},
    "nested without end": {
        "completions": ({"role": "assistant", "content": "a", "x": json.loads("[" * 900 + "]" * 900)},)
    },
}  # fmt: skip


@pytest.mark.parametrize("members", ODD.values(), ids=ODD.keys())
def test_a_record_with_odd_values_is_logged(members: dict[str, Any]) -> None:
    """Nothing raises, the log is JSON in UTF-8 that the vendor takes, and what was whole is in it."""
    entry = logged(call_with(**members))

    assert refusal(entry) is None
    assert "r1" == entry["metadata"]["kwai_record_id"]
    assert "acme" == entry["customer_identifier"]


texts = st.text(st.characters(), max_size=4) | st.sampled_from(["\ud83d", "a\udfff", "\x00"])
numbers = st.none() | st.integers() | st.floats() | st.sampled_from([10**30, -(10**30), 10**400])
values = st.recursive(
    numbers | texts | st.booleans() | st.binary(max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=5,
)
spelled = (
    st.binary(max_size=20)
    | st.binary(max_size=4).map(lambda some: b'[{"role":"user","content":"' + some + b'"}]')
    | st.binary(max_size=4).map(lambda some: b'{"type":"a","' + some + b'":"' + some + b'"}')
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "messages": st.none() | spelled,
            "parameters": st.dictionaries(
                st.sampled_from(["temperature", "tools", "tool_choice", "response_format"]) | texts, spelled, max_size=3
            ),
            "completions": st.lists(st.dictionaries(st.just("content") | texts, values, max_size=3), max_size=2).map(
                tuple
            ),
            "usage": st.none() | st.dictionaries(st.just("prompt_tokens_details") | texts, values, max_size=2),
            **dict.fromkeys(("cost", "reported_cost", "duration", "time_to_first_token", "prompt_tokens"), numbers),
            **dict.fromkeys(("model", "error_message", "error_code", "provider", "provider_id"), st.none() | texts),
            "started_at": st.floats() | st.integers(),
            "status_code": st.none() | st.integers(),
        },
    )
)
def test_whatever_is_in_a_record_it_is_logged(members: dict[str, Any]) -> None:
    """No bytes, no number and no text keep a record from being encoded as a log that the sandbox keeps."""
    body = encode(call_with(**members))

    entry = json.loads(body.decode())
    assert refusal(entry) is None
    assert "r1" == entry["metadata"]["kwai_record_id"]


def test_records_with_odd_values_arrive(kwai_sandbox: Sandbox) -> None:
    """From submit to the vendor nothing raises, and each such record is kept."""
    with Delivery(kwai_sandbox.settings()) as delivery:
        for members in ODD.values():
            delivery.submit(call_with(**members))
        assert delivery.flush(30)
    assert [None] * len(ODD) == [entry["lost"] for entry in kwai_sandbox.logs(wait=len(ODD))]
    assert {} == delivery.stats().dropped_by_reason
