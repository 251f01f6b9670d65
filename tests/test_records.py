"""From what was seen of a call to its record: outcome, times, cost, and what never enters it."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._caller import Credential
from kwai_middleware._outbound.observation import Ending
from kwai_middleware._outbound.records import completed
from kwai_middleware._outbound.routes import Endpoint
from kwai_middleware._record import CompletedCall
from kwai_middleware._secret import Secret
from tests.support.observations import CALLER, CREDENTIAL, JSON, STREAM, observed, stream_of

USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "cost": 0.25, "is_byok": False}
MESSAGE = {"role": "assistant", "content": "Hello"}
ANSWER = {
    "id": "gen-body", "model": "openai/gpt-5-2025", "provider": "OpenAI", "usage": USAGE,
    "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}],
}  # fmt: skip
STARTS = {"id": "gen-body", "model": "openai/gpt-5-2025", "choices": [{"index": 0, "delta": {"role": "assistant"}}]}
CONTENT = {"choices": [{"index": 0, "delta": {"content": "Hello"}}]}
STOPS = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
COUNTS = {"choices": [{"index": 0, "delta": {"content": ""}, "finish_reason": None}], "usage": USAGE}
WAITING = b": OPENROUTER PROCESSING\n\n"
EVENTS = [WAITING, *(stream_of(chunk) for chunk in (STARTS, CONTENT, STOPS, COUNTS)), stream_of("[DONE]")]


def answered(body: Any = ANSWER, **members: Any) -> CompletedCall:
    return completed(observed(body if isinstance(body, bytes) else json.dumps(body).encode(), **members))


def streamed(events: list[bytes] = EVENTS, **members: Any) -> CompletedCall:
    return completed(observed(events, headers=members.pop("headers", STREAM), **members))


def test_a_unary_answer_makes_this_record() -> None:
    """All that was seen of an answer stands in its place, and no key anywhere."""
    request = {"model": "openai/gpt-5", "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.5}

    call = answered(request=request, headers=(*JSON, (b"X-Generation-Id", b"gen-head")))

    expected = CompletedCall(
        record_id=call.record_id,
        route="direct",
        host="openrouter.ai",
        endpoint="/api/v1/chat/completions",
        format="chat",
        caller=CALLER.with_credentials(()),
        billed_to="caller",
        key_fingerprint=CREDENTIAL.api_key.fingerprint,
        outcome="complete",
        capture="full",
        started_at=1_763_875_740.5,
        duration=0.01,
        status_code=200,
        model="openai/gpt-5-2025",
        requested_model="openai/gpt-5",
        messages=b'[{"role": "user", "content": "Hi"}]',
        parameters={"temperature": b"0.5"},
        completions=(MESSAGE,),
        finish_reason="stop",
        usage=USAGE,
        prompt_tokens=3,
        completion_tokens=2,
        total_tokens=5,
        cost=0.25,
        reported_cost=0.25,
        is_byok=False,
        generation_id="gen-head",
        provider="OpenAI",
        provider_id="openrouter",
        trace_id="trace-1",
        call_id="call-1",
        attempt=2,
    )
    assert expected == call


def test_a_stream_makes_the_same_record_with_a_first_token() -> None:
    """A streamed answer differs from a unary one by the time to its first content only."""
    call = streamed(ending=Ending.CLOSED)

    whole = answered()
    expected = msgspec.structs.replace(
        whole, record_id=call.record_id, stream=True, duration=0.05, time_to_first_token=0.03, provider=None
    )
    assert expected == call


def test_a_record_holds_no_key() -> None:
    """Neither the caller's keys nor a body's come along, wherever they stand in the request."""
    key = CREDENTIAL.api_key.reveal()
    request = {
        "model": "m",
        "customer_credentials": {"openrouter": {"api_key": key}},
        "respan_params": {"customer_credentials": {"openrouter": {"api_key": key}}},
        "credential_override": {"m": {"api_key": key}},
        "load_balance_models": [{"model": "m", "credentials": {"api_key": key}, "weight": 1}],
        "messages": [],
    }

    call = answered(request=request)

    assert key not in repr(call)
    assert () == call.caller.credentials if call.caller else None
    assert {} == call.parameters


@pytest.mark.parametrize("ending", Ending)
def test_content_decides_before_the_ending(ending: Ending) -> None:
    """An answer that says it is over is complete, whichever way the app leaves it."""
    error = ("ReadTimeout", "too late") if ending in (Ending.TIMEOUT, Ending.ERROR) else None

    assert ["complete", "complete", "complete"] == [
        answered(ending=ending, error=error).outcome,
        streamed(ending=ending, error=error).outcome,
        streamed(EVENTS[:-1], ending=ending, error=error).outcome,
    ]


@pytest.mark.parametrize(
    ("ending", "error", "expected"),
    [
        pytest.param(Ending.END, None, ("incomplete", None, None), id="end"),
        pytest.param(Ending.CLOSED, None, ("cancelled", None, None), id="closed"),
        pytest.param(Ending.CANCELLED, None, ("cancelled", None, None), id="cancelled"),
        pytest.param(Ending.ABANDONED, None, ("abandoned", None, None), id="abandoned"),
        pytest.param(
            Ending.TIMEOUT, ("ReadTimeout", "too late"), ("timeout", "ReadTimeout", "too late"), id="timeout"
        ),
        pytest.param(Ending.ERROR, ("ReadError", ""), ("error", "ReadError", "ReadError"), id="error without text"),
        pytest.param(Ending.ERROR, ("E" * 2000, "x\ud83d"), ("error", "E" * 99 + "…", "x?"), id="odd error"),
    ],
)  # fmt: skip
def test_without_its_end_a_stream_is_judged_by_the_ending(
    ending: Ending, error: tuple[str, str] | None, expected: tuple[str, str | None, str | None]
) -> None:
    """A stream that never said it was over is what its way of ending says; the text so far is kept."""
    call = streamed(EVENTS[:3], ending=ending, error=error)

    assert expected == (call.outcome, call.error_code, call.error_message)
    assert ("Hello", 1.0, None) == (call.completions[0]["content"], call.duration, call.usage)


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"id":"gen', b"[]"])
def test_a_unary_answer_that_is_no_answer_is_an_error(body: bytes) -> None:
    """A 200 that came to its end and is no JSON object is an error; cut off by the app, it is cancelled."""
    ended, closed = answered(body), answered(body, ending=Ending.CLOSED)

    assert ("error", "invalid_answer", "The answer is not a JSON object.") == (
        ended.outcome, ended.error_code, ended.error_message,
    )  # fmt: skip
    assert "cancelled" == closed.outcome


def test_a_call_without_an_answer_is_recorded() -> None:
    """A connection that failed leaves a record of the request and of the exception."""
    call = completed(
        observed((), headers=(), status=None, answered=None, ending=Ending.ERROR, error=("ConnectError", "refused"))
    )

    assert ("error", "ConnectError", "refused", None) == (
        call.outcome, call.error_code, call.error_message, call.status_code,
    )  # fmt: skip
    assert ("openai/gpt-5", 1.0, False) == (call.model, call.duration, call.stream)


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        pytest.param(401, b'{"error":{"code":401,"message":"No auth"}}', "401", "No auth", id="OpenRouter"),
        pytest.param(429, b'{"detail":"Slow down","retry_after":30}', "429", "Slow down", id="vendor"),
        pytest.param(429, b'{"error":"Slow down"}', "429", "Slow down", id="a text"),
        pytest.param(402, b'{"error":{"name":"E","message":"m"}}', "402", "m", id="without a code"),
        pytest.param(402, b'{"error":{"code":"broke"}}', "broke", "HTTP status 402", id="without words"),
        pytest.param(400, b'{"error":{"type":"t","metadata":{"error_type":"u"}}}', "t", "HTTP status 400", id="types"),
        pytest.param(502, b"<html><title>Bad Gateway</title></html>", "502", "Bad Gateway", id="HTML"),
        pytest.param(500, b"", "500", "HTTP status 500", id="empty"),
        pytest.param(503, b"\x00\xff", "503", "\x00\ufffd", id="junk"),
        pytest.param(307, b"", "307", "HTTP status 307", id="redirect to nowhere"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ending", [Ending.END, Ending.CLOSED])
def test_an_error_status_is_an_error(status: int, body: bytes, code: str, message: str, ending: Ending) -> None:
    """An answer with an error status is an error, of whatever shape, and wherever the app left it."""
    call = answered(body, status=status, ending=ending, request={"model": "m", "stream": True, "messages": []})

    assert ("error", status, code, message) == (call.outcome, call.status_code, call.error_code, call.error_message)
    assert ("m", True) == (call.model, call.stream)


def test_a_redirect_is_no_failure() -> None:
    """An answer that names another place is neither an error nor an answer of a model."""
    call = answered(b"", status=307, headers=((b"Location", b"/elsewhere"),))

    assert ("redirected", 307, None) == (call.outcome, call.status_code, call.error_message)


def test_an_error_inside_a_200_is_an_error() -> None:
    """A unary 200 with an error in it is an error, with what came beside it kept."""
    choice = {"finish_reason": "error", "error": {"code": 502, "message": "m"}, "message": MESSAGE}

    call = answered({"choices": [choice], "usage": USAGE})

    assert ("error", 200, "502", "m") == (call.outcome, call.status_code, call.error_code, call.error_message)
    assert ((MESSAGE,), 0.25) == (call.completions, call.cost)


@pytest.mark.parametrize("rest", [[], [stream_of("[DONE]")]], ids=["cut", "with a mark"])
def test_an_error_inside_a_stream_is_an_error(rest: list[bytes]) -> None:
    """A stream with an error is an error even when it goes on to say it is over; it lasted until the error."""
    failure = stream_of({"error": {"code": 400, "message": "Token limit reached"}, "usage": USAGE})

    call = streamed([*EVENTS[:3], failure, *rest], ending=Ending.CLOSED)

    assert ("error", "400", "Token limit reached") == (call.outcome, call.error_code, call.error_message)
    assert ("Hello", 3, 0.04) == (call.completions[0]["content"], call.prompt_tokens, call.duration)


def test_an_error_status_with_events_is_told_by_the_event() -> None:
    """An error status whose body is a stream is described by the error in it."""
    call = streamed([stream_of({"error": {"code": "overloaded", "message": "m"}})], status=529)

    assert ("error", "overloaded", "m") == (call.outcome, call.error_code, call.error_message)
    wordless = streamed([stream_of({"error": {"code": "overloaded"}})], status=529)
    assert ("overloaded", "HTTP status 529") == (wordless.error_code, wordless.error_message)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        pytest.param({"cost": 0.5}, (0.5, 0.5, None, None), id="cost"),
        pytest.param({"cost": 0}, (0.0, 0.0, None, None), id="free"),
        pytest.param({"cost": True}, (None, None, None, None), id="a boolean is no money"),
        pytest.param({"cost": "1"}, (None, None, None, None), id="a text is no money"),
        pytest.param({"cost": 10**400}, (None, None, None, None), id="nor is nonsense"),
        pytest.param({}, (None, None, None, None), id="nothing said"),
        pytest.param({"total_cost": 1}, (None, None, None, None), id="a gateway's own member"),
        pytest.param(
            {"cost": 0.5, "is_byok": False, "cost_details": {"upstream_inference_cost": 0.5}},
            (0.5, 0.5, 0.5, False), id="the upstream cost repeats it",
        ),
        pytest.param(
            {"cost": 0.5, "cost_details": {"upstream_inference_cost": 0.5}}, (0.5, 0.5, 0.5, None), id="byok unsaid"
        ),
        pytest.param(
            {"cost": 0.5, "is_byok": "true", "cost_details": {"upstream_inference_cost": 1}},
            (0.5, 0.5, 1.0, None), id="byok is no text",
        ),
        pytest.param(
            {"cost": 0.5, "is_byok": True, "cost_details": {"upstream_inference_cost": 2}},
            (2.5, 0.5, 2.0, True), id="the upstream cost comes on top",
        ),
        pytest.param(
            {"cost": 0, "is_byok": True, "cost_details": {"upstream_inference_cost": None}},
            (0.0, 0.0, None, True), id="upstream cost unknown",
        ),
        pytest.param(
            {"cost": None, "is_byok": True, "cost_details": {"upstream_inference_cost": 2}},
            (2.0, None, 2.0, True), id="only the upstream cost",
        ),
        pytest.param({"cost": 1, "is_byok": True, "cost_details": [2]}, (1.0, 1.0, None, True), id="odd details"),
    ],
)  # fmt: skip
def test_what_a_call_costs(usage: dict[str, Any], expected: tuple[Any, ...]) -> None:
    """The upstream cost is added only where a key stored at OpenRouter pays it; both are kept as sent."""
    call = answered({**ANSWER, "usage": usage})

    assert expected == (call.cost, call.reported_cost, call.upstream_cost, call.is_byok)


@pytest.mark.parametrize(
    ("headers", "stream", "body", "expected"),
    [
        pytest.param(STREAM, False, b"".join(EVENTS), True, id="said so"),
        pytest.param((), True, b"\n" + b"".join(EVENTS), True, id="not said, asked for, looks like one"),
        pytest.param((), False, json.dumps(ANSWER).encode(), False, id="not said, not asked for"),
        pytest.param((), True, json.dumps(ANSWER).encode(), False, id="asked for, does not look like one"),
        pytest.param(JSON, True, json.dumps(ANSWER).encode(), False, id="asked for, not given"),
    ],
)
def test_what_counts_as_a_stream(
    headers: tuple[tuple[bytes, bytes], ...], stream: bool, body: bytes, expected: bool
) -> None:
    """The content type says whether an answer is a stream; without one, its beginning does."""
    call = answered(body, headers=headers, request={"model": "m", "stream": stream, "messages": []})

    assert (expected, "complete", "Hello") == (call.stream, call.outcome, call.completions[0]["content"])


def test_gateway_calls_name_the_gateways_own_log() -> None:
    """A gateway's answer carries the id of its own log, and no provider of ours."""
    call = answered(
        endpoint=Endpoint("gateway", "openrouter", "api.keywordsai.co", "/api/chat/completions"),
        headers=(*JSON, (b"x-respan-log-id", b"log-7"), (b"x-generation-id", b"")),
    )

    assert ("gateway", "api.keywordsai.co", None, "log-7", "gen-body") == (
        call.route, call.host, call.provider_id, call.gateway_log_id, call.generation_id,
    )  # fmt: skip


def test_nobodys_call_is_recorded() -> None:
    """A call for nobody, on the app's own key, has no caller and no fingerprint."""
    call = answered(caller=None, credential=None, billed_to="app", capture="metadata")

    assert (None, None, "app", "metadata") == (call.caller, call.key_fingerprint, call.billed_to, call.capture)


def test_names_that_the_other_side_chooses_are_bounded() -> None:
    """A model, an id or a provider of any length is cut to what people read."""
    long = "x" * 5000

    call = answered({**ANSWER, "model": long, "id": long, "provider": long}, request={"model": long})

    assert {"x" * 299 + "…"} == {call.model, call.generation_id, call.provider, call.requested_model}


LONG_KEYS = [
    pytest.param("sk-or-v1-" + "0a" * 16, (), id="a shape"),
    pytest.param("Plain+Key/of=acme~0123456789", (Secret("Plain+Key/of=acme~0123456789"),), id="the caller's own"),
]


@pytest.mark.parametrize(("key", "secrets"), LONG_KEYS)
@pytest.mark.parametrize("place", ["status", "stream", "exception", "code"])
def test_no_head_of_a_key_is_left_where_an_error_is_cut(key: str, secrets: tuple[Secret, ...], place: str) -> None:
    """A key across the border at which an error text is cut is masked before it is cut, at every offset."""
    longest = 100 if place == "code" else 1000
    caller = CALLER.with_credentials(tuple(Credential(api_key=secret) for secret in secrets))
    for offset in range(longest - len(key) - 2, longest + 2):
        text = "é " * (offset // 2) + "-" * (offset % 2) + key + " tail" * longest
        error = {"error": {"code": "c", "message": text} if place != "code" else {"code": text}}
        if place == "stream":
            call = streamed([*EVENTS[:3], stream_of(error)], caller=caller)
        elif place == "exception":
            call = streamed(EVENTS[:3], ending=Ending.ERROR, error=("ReadError", text), caller=caller)
        else:
            call = answered(error, status=500, caller=caller)
        told = (call.error_code if place == "code" else call.error_message) or ""
        assert longest == len(told)
        assert key[:8] not in told


@pytest.mark.parametrize(("key", "secrets"), LONG_KEYS)
def test_no_head_of_a_key_is_left_where_a_name_is_cut(key: str, secrets: tuple[Secret, ...]) -> None:
    """A key across the border at which a name is cut is masked before it is cut, at every offset."""
    caller = CALLER.with_credentials(tuple(Credential(api_key=secret) for secret in secrets))
    for offset in range(300 - len(key) - 2, 302):
        name = "-" * offset + key + " tail" * 100
        call = answered(
            {**ANSWER, "model": name, "provider": name},
            request={"model": name},
            headers=(*JSON, (b"x-generation-id", name.encode())),
            caller=caller,
        )
        names = (call.model, call.requested_model, call.provider, call.generation_id)
        assert [300] * 4 == [len(each or "") for each in names]
        assert not [each for each in names if key[:8] in (each or "")]


@pytest.mark.parametrize(("key", "secrets"), LONG_KEYS)
@pytest.mark.parametrize("ending", [Ending.CLOSED, Ending.ERROR])
def test_no_head_of_a_key_is_left_where_an_error_breaks_off(
    key: str, secrets: tuple[Secret, ...], ending: Ending
) -> None:
    """Words of an error that did not come to their end do not end in the beginning of a key."""
    caller = CALLER.with_credentials(tuple(Credential(api_key=secret) for secret in secrets))

    call = answered(f"Wrong key: {key[:16]}".encode(), status=401, ending=ending, caller=caller)

    assert "Wrong key: ****" == call.error_message


def test_a_page_with_a_key_in_its_title_is_described_without_it() -> None:
    """The title of an error page is masked before it is cut, too."""
    key = "sk-or-v1-" + "0a" * 16
    call = answered(f"<html><title>{'-' * 990}{key}</title>".encode(), status=502)
    assert key[:8] not in (call.error_message or key)


def test_a_request_that_was_not_kept_says_so() -> None:
    """Without the request's body the answer still makes a record, marked as shortened."""
    call = completed(observed(json.dumps(ANSWER).encode(), request=b"", request_kept=False))

    assert (None, None, True) == (call.messages, call.requested_model, call.truncated)
    assert ("openai/gpt-5-2025", "complete") == (call.model, call.outcome)


class TestShortenedAnswers:
    def test_the_end_behind_a_gap_is_read(self) -> None:
        """Of a stream whose middle was not kept, usage, cost and the end are still known."""
        call = streamed([*EVENTS[:3], EVENTS[2][:20], EVENTS[2][30:], *EVENTS[3:]], gap_after=4)

        assert ("complete", 0.25, "stop", True) == (call.outcome, call.cost, call.finish_reason, call.truncated)
        assert ("Hello [...] ", 0.07) == (call.completions[0]["content"], call.duration)

    def test_only_the_end_was_kept(self) -> None:
        """With no beginning at all, the end still tells outcome and cost."""
        call = streamed(EVENTS[3:], gap_after=0)

        assert ("complete", 0.25, True) == (call.outcome, call.cost, call.truncated)

    @pytest.mark.parametrize(("ending", "outcome"), [(Ending.END, "complete"), (Ending.CLOSED, "cancelled")])
    def test_a_unary_answer_with_a_gap(self, ending: Ending, outcome: str) -> None:
        """A unary answer with a gap is complete when HTTP says that all of it came; its usage is found."""
        body = json.dumps({"choices": [{"message": MESSAGE}] * 9, "usage": USAGE}).encode()

        call = completed(observed([body[:40], body[-120:]], gap_after=1, ending=ending))

        assert (outcome, 0.25, True, 1.0) == (call.outcome, call.cost, call.truncated, call.duration)

    @pytest.mark.parametrize(("ending", "outcome"), [(Ending.END, "complete"), (Ending.CLOSED, "cancelled")])
    def test_behind_a_gap_nothing_can_be_decompressed(self, ending: Ending, outcome: str) -> None:
        """Of a compressed stream with a gap the beginning is read."""
        body = gzip.compress(b"".join(EVENTS[:3]) + bytes(range(256)) * 40)

        call = completed(
            observed(
                [body[:-60], body[-9:]], headers=(*STREAM, (b"content-encoding", b"gzip")), gap_after=1, ending=ending
            )
        )

        assert (outcome, "Hello [...] ", True) == (call.outcome, call.completions[0]["content"], call.truncated)

    @pytest.mark.parametrize(
        "piece",
        [
            pytest.param(lambda text: {"content": text}, id="content"),
            pytest.param(lambda text: {"reasoning": text}, id="reasoning"),
            pytest.param(lambda text: {"reasoning_content": text}, id="reasoning content"),
            pytest.param(lambda text: {"refusal": text}, id="refusal"),
            pytest.param(lambda text: {"audio": {"transcript": text}}, id="audio"),
            pytest.param(lambda text: {"reasoning_details": [{"index": 0, "text": text}]}, id="reasoning details"),
            pytest.param(
                lambda text: {"tool_calls": [{"index": 0, "function": {"arguments": text}}]}, id="tool arguments"
            ),
        ],
    )
    @pytest.mark.parametrize("whole_beginning", [True, False])
    def test_no_half_of_a_key_is_left_at_a_gap(self, piece: Any, whole_beginning: bool) -> None:
        """A key that a gap has cut in two is masked on either side, and the text around the gap stays."""
        key = "Plain+Key/of=acme~0123456789"
        caller = CALLER.with_credentials((Credential(api_key=Secret(key)),))
        for place in range(len(key) + 1):
            head = [STARTS, {"choices": [{"index": 0, "delta": piece("Said ")}]}] if whole_beginning else []
            head += [{"choices": [{"index": 0, "delta": piece(key[:place])}]}] if whole_beginning else []
            tail = [{"choices": [{"index": 0, "delta": piece(key[place:])}]}]
            tail += [{"choices": [{"index": 0, "delta": piece(" it was")}]}, STOPS, COUNTS]
            events = [stream_of(chunk) for chunk in (*head, *tail)]
            call = streamed(events, gap_after=len(head), caller=caller)
            said = json.dumps(call.completions[0], ensure_ascii=False)
            assert [] == [key[at : at + 8] for at in range(len(key) - 7) if key[at : at + 8] in said]
            assert " [...] " in said
            assert " it was" in said

    def test_the_beginning_of_a_shape_is_masked_at_a_gap(self) -> None:
        """What begins like a key of a known shape is masked where a gap cuts it; ordinary words are not."""
        texts = ["the sk-or-v1-0a", "AIzaSyAbCdEf", "a task-force", "sk-or"]
        said = [
            streamed([stream_of({"choices": [{"delta": {"content": text}}]}), *EVENTS[3:]], gap_after=1).completions[0][
                "content"
            ]
            for text in texts
        ]
        assert ["the **** [...] ", "**** [...] ", "a task-force [...] ", "sk-or [...] "] == said

    def test_a_tool_call_that_begins_behind_a_gap_is_whole(self) -> None:
        """A piece with an id begins a call; nothing of it is missing."""
        calls = [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}]
        call = streamed([EVENTS[1], stream_of({"choices": [{"delta": {"tool_calls": calls}}]})], gap_after=1)
        assert [{"id": "c", "function": {"name": "f", "arguments": "{}"}}] == call.completions[0]["tool_calls"]

    def test_an_error_page_that_was_cut_has_no_half_of_a_key(self) -> None:
        """What is left of a page with an error status is masked where it was cut."""
        key = CREDENTIAL.api_key.reveal()
        call = completed(observed([f"refused {key[:14]}".encode(), b"..."], gap_after=1, status=502))
        assert "refused ****" == call.error_message

    def test_an_unknown_coding_leaves_the_rest_of_the_record(self) -> None:
        """An answer that cannot be decoded is recorded without its content."""
        call = answered(headers=(*JSON, (b"content-encoding", b"compress")))

        assert ("complete", "openai/gpt-5", (), True) == (call.outcome, call.model, call.completions, call.truncated)

    def test_an_error_answer_that_cannot_be_decoded_is_an_error(self) -> None:
        """The status of an answer needs no decoding."""
        call = answered(status=502, headers=(*JSON, (b"content-encoding", b"compress")))

        assert ("error", "502", "HTTP status 502") == (call.outcome, call.error_code, call.error_message)


def test_a_body_that_arrived_decoded_is_not_decoded_again() -> None:
    """An answer that was already read is plain, whatever its header still says."""
    call = answered(headers=(*JSON, (b"content-encoding", b"gzip")), decoded=True)

    assert ("Hello", False) == (call.completions[0]["content"], call.truncated)


def test_times_of_a_compressed_stream_are_those_of_its_chunks() -> None:
    """The first token of a compressed stream is dated by the chunk that brought it."""
    compressor = zstandard.ZstdCompressor().compressobj()
    chunks = [compressor.compress(event) + compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) for event in EVENTS]

    call = streamed(chunks, headers=(*STREAM, (b"content-encoding", b"zstd")), ending=Ending.CLOSED)

    assert ("complete", 0.03, 0.05) == (call.outcome, call.time_to_first_token, call.duration)


ENCODED = {
    "plain": (b"".join(EVENTS), STREAM),
    "CRLF": (b"".join(EVENTS).replace(b"\n", b"\r\n"), STREAM),
    "gzip": (gzip.compress(b"".join(EVENTS)), (*STREAM, (b"content-encoding", b"gzip"))),
    "zstd": (zstandard.compress(b"".join(EVENTS)), (*STREAM, (b"content-encoding", b"zstd"))),
    "unary": (json.dumps(ANSWER).encode(), JSON),
    "unary gzip": (gzip.compress(json.dumps(ANSWER).encode()), (*JSON, (b"content-encoding", b"gzip"))),
    "stream error": (b"".join([*EVENTS[:3], stream_of({"error": {"code": 502}}), EVENTS[-1]]), STREAM),
}


def timeless(call: CompletedCall) -> CompletedCall:
    has_first_token = call.time_to_first_token is not None
    return msgspec.structs.replace(call, record_id="", duration=None, time_to_first_token=has_first_token or None)


@pytest.mark.parametrize(("body", "headers"), ENCODED.values(), ids=ENCODED.keys())
@given(places=st.lists(st.integers(0, 1200), max_size=15), ending=st.sampled_from(Ending))
def test_any_chunks_make_the_same_record(
    body: bytes, headers: tuple[tuple[bytes, bytes], ...], places: list[int], ending: Ending
) -> None:
    """However the bytes of an answer are cut into chunks, the record is the same but for its times."""
    borders = [0, *sorted(min(place, len(body)) for place in places), len(body)]
    chunks = [body[start:end] for start, end in pairwise(borders)]

    assert timeless(completed(observed(body, headers=headers, ending=ending))) == timeless(
        completed(observed(chunks, headers=headers, ending=ending))
    )


@given(
    body=st.binary(max_size=200),
    request=st.binary(max_size=100),
    headers=st.lists(
        st.tuples(
            st.sampled_from([b"content-type", b"content-encoding", b"x-generation-id"]),
            st.sampled_from([b"gzip", b"br", b"zstd", b"deflate", b"text/event-stream", b"application/json", b"\xff"]),
        ),
        max_size=3,
    ),
    status=st.sampled_from([None, 200, 204, 404]),
    ending=st.sampled_from(Ending),
    gap=st.sampled_from([None, 0, 1]),
)
def test_anything_makes_a_record(
    body: bytes, request: bytes, headers: list[tuple[bytes, bytes]], status: int | None, ending: Ending, gap: int | None
) -> None:
    """Whatever was seen of a call, a record comes out of it."""
    call = completed(
        observed([body, body], request=request, headers=tuple(headers), status=status, ending=ending, gap_after=gap)
    )

    assert isinstance(call, CompletedCall)
    assert call.duration is not None
    assert call.duration >= 0


def test_an_observation_builds_its_record_and_gives_its_memory_back() -> None:
    """The pending call that a transport delivers makes the record, and holds no memory after."""
    observation = observed(json.dumps(ANSWER).encode())
    observation.reservation.grow(100)

    assert timeless(completed(observation)) == timeless(observation.build())
    observation.release()
    assert 0 == observation.reservation.held
