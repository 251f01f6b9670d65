"""However the network cuts an answer into chunks, what is watched of it makes the same record."""

from __future__ import annotations

import gzip
from itertools import pairwise

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._outbound.attempts import Attempt
from kwai_middleware._outbound.attribution import attribute
from kwai_middleware._outbound.exchange import begun
from kwai_middleware._outbound.observation import Ending
from kwai_middleware._outbound.routes import Endpoint
from kwai_middleware._record import CompletedCall, PendingCall
from tests.support.callers import caller, settings
from tests.support.observations import stream_of

ENDPOINT = Endpoint("direct", "openrouter", "openrouter.ai", "/api/v1/chat/completions")
REQUEST = b'{"model":"openai/gpt-5","stream":true,"messages":[{"role":"user","content":"Gr\xc3\xbc\xc3\x9fe"}]}'
BODY = b": OPENROUTER PROCESSING\n\n" + stream_of(
    {"id": "gen-1", "model": "openai/gpt-5-2025", "choices": [{"index": 0, "delta": {"role": "assistant"}}]},
    {"choices": [{"index": 0, "delta": {"reasoning": "Hm 🤔"}}]},
    *({"choices": [{"index": 0, "delta": {"content": word}}]} for word in ("Grüße", " and", " 日本", " and 🦊")),
    {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f"}}]}}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"a":1}'}}]}}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
    {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "cost": 0.25}},
    "[DONE]",
)
CODINGS = {
    "plain": (BODY, ()),
    "gzip": (gzip.compress(BODY), ((b"Content-Encoding", b"gzip"),)),
    "zstd": (zstandard.compress(BODY), ((b"Content-Encoding", b"zstd"),)),
    "gzip of zstd": (gzip.compress(zstandard.compress(BODY)), ((b"Content-Encoding", b"zstd, gzip"),)),
}
Headers = tuple[tuple[bytes, bytes], ...]


def watched(chunks: list[bytes], headers: Headers, ending: Ending) -> CompletedCall:
    """Have a real exchange watch these chunks, and return the record of what it hands over."""
    delivered: list[PendingCall] = []
    moments = iter(range(0, 10**9, 1000))
    exchange = begun(
        ENDPOINT, attribute(ENDPOINT, caller(), settings()), REQUEST, settings(), delivered.append,
        Attempt("call-1", 1), "trace-1", moments.__next__, lambda: 1_763_875_740.5,
    )  # fmt: skip
    exchange.head_arrived(200, ((b"content-type", b"text/event-stream"), *headers))
    for chunk in chunks:
        exchange.received(chunk)
    exchange.finished(ending)
    [call] = delivered
    try:
        return call.build()
    finally:
        call.release()


def timeless(call: CompletedCall) -> CompletedCall:
    """The record without its id and without what depends on when things came."""
    return msgspec.structs.replace(call, record_id="", duration=None, time_to_first_token=None)


@pytest.mark.parametrize(("body", "headers"), CODINGS.values(), ids=CODINGS.keys())
@given(places=st.lists(st.integers(0, len(BODY)), max_size=40), ending=st.sampled_from(Ending))
def test_any_chunks_of_an_answer_make_the_same_record(
    body: bytes, headers: Headers, places: list[int], ending: Ending
) -> None:
    """Wherever a chunk ends, within a character, an event or a block, the record is the same but for times."""
    borders = [0, *sorted(min(place, len(body)) for place in places), len(body)]
    call = watched([body[start:end] for start, end in pairwise(borders)], headers, ending)

    assert timeless(watched([BODY], (), Ending.END)) == timeless(call)
    assert call.time_to_first_token is not None
    assert call.duration is not None
    assert 0 < call.time_to_first_token <= call.duration


@pytest.mark.parametrize(("body", "headers"), CODINGS.values(), ids=CODINGS.keys())
def test_an_answer_byte_by_byte_makes_the_same_record(body: bytes, headers: Headers) -> None:
    """The most chunks that an answer can have change nothing, and the record holds all of it."""
    call = watched([body[place : place + 1] for place in range(len(body))], headers, Ending.CLOSED)

    assert timeless(watched([body], headers, Ending.END)) == timeless(call)
    [message] = call.completions
    assert ("complete", "Grüße and 日本 and 🦊", "Hm 🤔", 0.25, "tool_calls") == (
        call.outcome, message["content"], message["reasoning"], call.cost, call.finish_reason,
    )  # fmt: skip
    assert [{"id": "c", "function": {"name": "f", "arguments": '{"a":1}'}}] == message["tool_calls"]
