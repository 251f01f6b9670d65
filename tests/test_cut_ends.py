"""Answers that end in the middle of a key: no beginning of it stays in the record."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kwai_middleware._delivery.log_entry import encode
from kwai_middleware._outbound.observation import Ending
from kwai_middleware._outbound.records import completed
from kwai_middleware._outbound.routes import Endpoint
from kwai_middleware._redaction import MASK
from tests.support.observations import CREDENTIAL, JSON, STREAM, observed, stream_of

KEY = CREDENTIAL.api_key.reveal()
HALF = f"Your key is {KEY[:-3]}"
RESPONSES = Endpoint("direct", "openrouter", "openrouter.ai", "/api/v1/responses", "responses")
COMPLETIONS = Endpoint("direct", "openrouter", "openrouter.ai", "/api/v1/completions", "completions")


def chunk(reason: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}


TOOL = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"key":"' + KEY[:-3]}}


@pytest.mark.parametrize(
    "members",
    [
        {"ending": Ending.CLOSED, "body": stream_of(chunk(content=HALF)), "headers": STREAM},
        {"ending": Ending.CLOSED, "body": stream_of(chunk(reasoning=HALF)), "headers": STREAM},
        {"ending": Ending.CLOSED, "body": stream_of(chunk(tool_calls=[TOOL])), "headers": STREAM},
        {"ending": Ending.TIMEOUT, "body": stream_of(chunk(content=HALF)), "headers": STREAM},
        {"body": stream_of(chunk(content=HALF)), "headers": STREAM},
        {"body": stream_of(chunk(content=HALF), chunk("length"), "[DONE]"), "headers": STREAM},
        {"body": stream_of(chunk(content=HALF), {"error": {"code": 502, "message": "no"}}), "headers": STREAM},
        {
            "body": json.dumps({"choices": [{"message": {"content": HALF}, "finish_reason": "length"}]}).encode(),
            "headers": JSON,
        },
        {
            "body": json.dumps({"choices": [{"text": HALF, "finish_reason": "length"}]}).encode(),
            "headers": JSON,
            "endpoint": COMPLETIONS,
        },
        {
            "body": stream_of(
                {"type": "response.output_item.added", "output_index": 0, "item": {"type": "web_search_call"}},
                {"type": "response.output_text.delta", "output_index": 1, "content_index": 0, "delta": HALF},
            ),
            "headers": STREAM,
            "endpoint": RESPONSES,
            "ending": Ending.CLOSED,
        },
    ],
    ids=[
        "left", "left while it thought", "left in a tool's arguments", "out of time", "ended without a word",
        "cut for its length", "failed", "whole, cut for its length", "a completion", "a response with other items",
    ],
)  # fmt: skip
def test_no_beginning_of_a_key_is_left(members: dict[str, Any]) -> None:
    """What stands before it stays; of the key there is nothing."""
    call = completed(observed(**members))
    log = encode(call, (CREDENTIAL.api_key,)).decode()
    assert KEY[:8] not in log
    assert MASK in log


def test_a_whole_answer_stays_as_it_is() -> None:
    """Where nothing was cut, what looks like the beginning of a key is the model's own word."""
    call = completed(observed(stream_of(chunk(content=HALF), chunk("stop"), "[DONE]"), headers=STREAM))
    assert HALF == call.completions[0]["content"]


def test_an_error_as_plain_json_under_the_type_of_events() -> None:
    """Some servers announce events and then answer an error at once: it is told with its words."""
    call = completed(observed(b' {"error": {"code": 429, "message": "Slow down"}}', headers=STREAM))
    assert ("error", "429", "Slow down", False) == (call.outcome, call.error_code, call.error_message, call.stream)
