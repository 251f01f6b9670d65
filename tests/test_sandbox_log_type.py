"""The sandbox loses exactly those logs that the vendor's own published type refuses."""

from __future__ import annotations

import json
import warnings
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware.sandbox import Sandbox
from kwai_middleware.sandbox.log_type import refusal

# The vendor marks its own types as deprecated, and its backend as their user.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from respan_sdk.respan_types.param_types import RespanTextLogParams

pytest_plugins = ["kwai_middleware.testing"]


def said(content: object, **more: object) -> dict[str, Any]:
    return {"prompt_messages": [{"role": "user", "content": content, **more}]}


def part(kind: str, **more: object) -> dict[str, Any]:
    return said([{"type": kind, **more}])


TAKEN = {
    "text": said("Hi"),
    "nothing": said(None),
    "null messages": {"prompt_messages": None},
    "texts": said(["a", {"type": "text", "text": "b", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]),
    "image": part("image_url", image_url={"url": "u", "detail": "low"}, more=1),
    "image as text": part("image_url", image_url="u"),
    "input text": part("input_text", text="a"),
    "output text": part("output_text", text="a", annotations=[{}, "x"]),
    "input image": part("input_image", image="u", providerData=None),
    "input file": part("input_file", file="f", providerData={}),
    "file": part("file", file={"file_data": "d"}, file_size=3),
    "tool use": part("tool_use", input={"a": 1}),
    "tool result": part("tool_result", tool_use_id="t", content="c"),
    "image source": part("image", source={"type": "base64", "media_type": "image/png", "data": "d"}),
    "developer": {"prompt_messages": [{"role": "developer", "content": "a"}]},
    "unknown members": said("a", refusal="no", images=[1], audio={"id": 1}),
    "tool calls": said(None, tool_calls=[{"function": {"name": "f"}}, {"custom": 1}, {}]),
    "answer": {"completion_message": {"role": "assistant", "content": None, "annotations": [{}]}},
    "answers": {"completion_messages": [{"role": "assistant"}]},
    "tool choice": {"tool_choice": "required"},
    "chosen function": {"tool_choice": {"type": "function", "function": {"name": "f"}}},
    "chosen type": {"tool_choice": {"type": "web_search"}},
    "warnings": {"warnings": "one"},
    "response format": {"response_format": "json_object"},
    "stop": {"stop": ["a", "b"]},
    "numbers as names": {
        "customer_identifier": 7,
        "group_identifier": 8,
        "customer_params": {"customer_identifier": 7},
    },
    "text beside": {"input": [1, "a"], "output": {"a": 1}},
}
LOST = {
    "role function": {"prompt_messages": [{"role": "function", "name": "f", "content": "1"}]},
    "no role": {"prompt_messages": [{"content": "a"}]},
    "no object": {"prompt_messages": ["a"]},
    "audio": part("input_audio", input_audio={"data": "d", "format": "wav"}),
    "video": part("video_url", video_url={"url": "u"}),
    "refusal": part("refusal", refusal="no"),
    "part without type": said([{"text": "a"}]),
    "part of number": said([7]),
    "text without text": part("text"),
    "null file": part("file", file=None),
    "content object": said({"a": 1}),
    "content number": said(7),
    "tool call of text": said(None, tool_calls=["f"]),
    "annotation of text": said(None, annotations=["f"]),
    "name of number": said("a", name=7),
    "answer of another role": {"completion_message": {"role": "model", "content": "a"}},
    "one answer of several": {"completion_messages": [{"role": "assistant"}, {"role": "function"}]},
    "alias": {"messages": [{"role": "function"}]},
    "tool choice any": {"tool_choice": "any"},
    "tool choice without type": {"tool_choice": {"function": {"name": "f"}}},
    "chosen nothing": {"tool_choice": {"type": "function", "function": {}}},
    "list of warnings": {"warnings": ["one"]},
    "object of warnings": {"warnings": {"one": 1}},
    "tool of text": {"tools": ["f"]},
    "own tool call of text": {"tool_calls": ["f"]},
    "stop of numbers": {"stop": [1]},
    "bias of texts": {"logit_bias": {"1": "much"}},
    "name of customer": {"customer_params": {"customer_identifier": "acme", "name": 7}},
    "numeric input": {"input": 7},
}


def taken_by_the_vendor(row: dict[str, Any]) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # Decoded anew: the vendor's types write into what they are given.
            RespanTextLogParams.model_validate(json.loads(json.dumps(row)))
        except ValueError:
            return False
    return True


@pytest.mark.parametrize("members", [*TAKEN.values(), *LOST.values()], ids=[*TAKEN, *LOST])
def test_the_sandbox_and_the_vendor_agree(members: dict[str, Any]) -> None:
    """Side by side over a table: what one takes the other takes, and what one refuses the other refuses."""
    row = {"model": "m", **members}
    assert (members in TAKEN.values()) is taken_by_the_vendor(row)
    assert (members in TAKEN.values()) is (refusal(row) is None)


small = st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=2)
values = st.recursive(
    small,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "a"]), inner, max_size=2),
    max_leaves=3,
)
kinds = st.sampled_from(
    [
        "text", "image_url", "input_text", "output_text", "file", "input_file", "input_image", "tool_use", "image",
        "tool_result", "input_audio", "video_url",
    ]
)  # fmt: skip
parts = st.fixed_dictionaries(
    {"type": kinds},
    optional={
        "text": st.text(max_size=2) | values,
        "image_url": st.just({"url": "u"}) | values,
        "image": st.just("u") | values,
        "file": values,
        "input": values,
        "source": st.just({"type": "t", "media_type": "m", "data": "d"}) | values,
        "tool_use_id": st.just("t"),
        "content": st.text(max_size=2) | values,
        "cache_control": st.just({"type": "e"}) | values,
    },
)
messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "developer", "none", "function", None])},
    optional={
        "content": st.lists(parts | small, max_size=2) | values,
        "name": small,
        "tool_calls": st.lists(values, max_size=2) | values,
        "annotations": st.lists(values, max_size=2),
        "thinking_blocks": values,
        "reasoning_content": values,
    },
)


@given(messages)
def test_the_sandbox_and_the_vendor_agree_on_any_message(message: dict[str, Any]) -> None:
    """Whatever a message looks like, the sandbox loses it just when the vendor's type refuses it."""
    row = {"model": "m", "prompt_messages": [message]}
    assert taken_by_the_vendor(row) is (refusal(row) is None)


@pytest.mark.parametrize("path", ["/api/request-logs/create/", "/api/request-logs/bulk/"])
def test_a_log_that_the_vendors_type_refuses_is_answered_and_lost(kwai_sandbox: Sandbox, path: str) -> None:
    """As at the vendor, the answer says success; the journal shows that nothing is stored, and why."""
    row = {"model": "m", "customer_identifier": "acme", "prompt_messages": [{"role": "function", "content": "1"}]}
    body: dict[str, Any] = row if path.endswith("create/") else {"logs": [row, {"model": "m"}]}
    with httpx.Client(trust_env=False) as client:
        answer = client.post(kwai_sandbox.url + path, json=body, headers={"authorization": "Bearer app-key-0123"})
    entry = kwai_sandbox.logs(wait=1)[0]
    assert answer.is_success
    assert (None, [], None, "m", row) == (
        entry["stored"], entry["dropped"], entry["customer"], entry["model"], entry["log"],
    )  # fmt: skip
    assert "Invalid enum value 'function' - at `$.prompt_messages[0].role`" == entry["lost"]
    assert [] == kwai_sandbox.logs(customer="acme")


def test_a_newer_answer_tells_no_more_of_a_lost_log(kwai_sandbox: Sandbox) -> None:
    """The endpoint that answers the row answers one for a lost log too."""
    row = {"model": "m", "cost": 0.5, "warnings": ["one"]}
    with httpx.Client(trust_env=False) as client:
        answer = client.post(
            f"{kwai_sandbox.url}/api/request-logs/", json=row, headers={"authorization": "Bearer app-key-0123"}
        )
    [entry] = kwai_sandbox.logs(wait=1)
    assert (201, "success", 0.5, None) == (
        answer.status_code, answer.json()["status"], answer.json()["cost"], entry["stored"],
    )  # fmt: skip
