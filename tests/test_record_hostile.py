"""Answers made to do harm: recording them never raises, never loops, and never takes more than linear work."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kwai_middleware._delivery.call_event import emit
from kwai_middleware._delivery.log_entry import encode
from kwai_middleware._outbound.observation import Ending
from kwai_middleware._outbound.records import completed
from tests.support.observations import JSON, STREAM, observed
from tests.support.vendor_logs import taken_whole

# Pieces that mean something, so that random bodies are nearly streams, and nearly answers.
PIECES = [
    b"\n", b"\n\n", b"\r", b"\r\n", b"data:", b"data: ", b": OPENROUTER PROCESSING\n\n", b"event: x\n", b"id: 7\n",
    b"[DONE]", b"\xef\xbb\xbf", b"\xff", b"\\", b"\\ud83d", b'"', b"{", b"}", b"[", b"]", b",", b":", b"null", b"7",
    b"1e999", b"sk-or-v1-0a0a0a0a",
    b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n',
    b'data: {"choices":[{"index":1,"delta":{"reasoning":"b","reasoning_details":[{"type":"reasoning.text"}]}}]}\n\n',
    b'data: {"choices":[{"index":7,"delta":{"tool_calls":[{"id":"c","function":{"name":"f","arguments":"{"}}]}}]}\n\n',
    b'data: {"choices":[{"delta":{"audio":{"id":"a","data":"AA==","transcript":"x"}},"finish_reason":"stop"}]}\n\n',
    b'data: {"choices":[{"delta":{"images":[{}],"annotations":[{}],"refusal":"no"}}]}\n\n',
    b'data: {"choices":[],"usage":{"cost":0.1,"prompt_tokens":3}}\n\n',
    b'data: {"error":{"code":502,"message":"m","metadata":{"raw":{"error":"x"}}}}\n\n',
    b'{"choices":[{"message":{"content":"', b'"usage":{"cost":1}', b'"finish_reason":"stop"', b'{"a":',
]  # fmt: skip
BODIES = st.lists(st.sampled_from(PIECES) | st.binary(max_size=8), max_size=12).map(b"".join)
HEADERS = st.sampled_from([STREAM, JSON, (), (*STREAM, (b"content-encoding", b"deflate"))])
MOST_CALLS_A_BYTE = 4
"""Of blocks of seven bytes, and of arrays of nothing; what models send needs less than one."""
FIXED_CALLS = 5_000


class TooMuch(BaseException):
    """More work than any body of this size is worth."""


def counted(work: Callable[[], object], at_most: int) -> int:
    """How many functions are called, or resumed, during `work`; what is endless is ended."""
    calls = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")
        if calls > at_most:
            raise TooMuch

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def record(body: bytes | list[bytes], headers: Any = STREAM, **members: Any) -> bytes:
    """Do all that is done with an answer before its log is sent."""
    call = completed(observed(body, headers=headers, **members))
    emit(call)
    return encode(call)


@given(
    body=BODIES,
    places=st.lists(st.integers(0, 800), max_size=6),
    headers=HEADERS,
    status=st.sampled_from([200, 200, 200, 429]),
    ending=st.sampled_from(Ending),
    gap=st.none() | st.integers(0, 7),
)
def test_no_answer_keeps_its_log_from_being_made(
    body: bytes, places: list[int], headers: Any, status: int, ending: Ending, gap: int | None
) -> None:
    """Whatever comes, in whichever chunks, with or without a gap: a log that the vendor takes whole comes of it."""
    borders = [0, *sorted(min(place, len(body)) for place in places), len(body)]
    chunks = [body[start:end] for start, end in pairwise(borders)]
    gap = None if gap is None else min(gap, len(chunks))

    log = taken_whole(record(chunks, headers, status=status, ending=ending, gap_after=gap))

    assert log["metadata"]["outcome"] in ("complete", "incomplete", "error", "timeout", "cancelled", "abandoned")


@given(unit=BODIES.filter(bool), headers=HEADERS, gap=st.sampled_from([None, 1]))
@example(unit=b"data:\n\n", headers=STREAM, gap=None)
@example(unit=b"data: {}\n\n", headers=STREAM, gap=1)
@example(unit=b'data: {"id":7}\n\n', headers=STREAM, gap=None)
@example(unit=b'data: {"choices":[{"index":"0"}]}\n\n', headers=STREAM, gap=None)
@example(unit=b'{"a":', headers=JSON, gap=None)
@example(unit=b'{"a":[', headers=JSON, gap=1)
@example(unit=b'"usage":{"a":', headers=JSON, gap=1)
def test_twice_as_much_is_at_most_twice_the_work(unit: bytes, headers: Any, gap: int | None) -> None:
    """The work grows with the size of an answer and no faster, whatever is repeated in it."""
    times = -(-4_000 // len(unit))
    bodies = [[unit * times * number, unit] for number in (1, 2)]
    limit = MOST_CALLS_A_BYTE * len(unit) * (2 * times + 1) + FIXED_CALLS

    once, twice = (counted(partial(record, body, headers, gap_after=gap), limit) for body in bodies)

    assert twice <= 2 * once + FIXED_CALLS


@pytest.mark.parametrize("depth", [10, 200, 400, 600, 800, 900, 950, 980, 1000, 1100, 20_000])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param('"usage":', "", id="usage"),
        pytest.param('"error":', "", id="error"),
        pytest.param('"choices":[{"delta":{"content":"a","audio":', "}}]", id="audio"),
        pytest.param('"choices":[{"delta":{"content":"a","tool_calls":[', "]}}]", id="a tool call"),
        pytest.param('"choices":[{"delta":{"content":"a","images":[', "]}}]", id="an image"),
        pytest.param('"choices":[{"message":', "}]", id="a message"),
        pytest.param('"choices":[{"delta":{"content":"\\ud83d","annotations":[', "]}}]", id="a broken one"),
    ],
)
def test_nesting_to_any_depth_leaves_a_log(before: str, after: str, depth: int) -> None:
    """What is too deep for any part of the way costs itself and perhaps its chunk, and never the log."""
    nested = '{"a":' * depth + "1" + "}" * depth
    body = f'{{"id":"gen-1",{before}{nested}{after}}}'

    for answer, headers in ((f"data: {body}\n\n", STREAM), (body, JSON)):
        log = json.loads(record(answer.encode(), headers))
        assert "openai/gpt-5" == log["model"]
        assert log["metadata"]["kwai_record_id"]
