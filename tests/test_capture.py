"""Where less than all may be recorded, nothing of the conversation is in the record or in the event."""

from __future__ import annotations

import io
import itertools
import json
import logging
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._caller import Caller, Capture
from kwai_middleware._context import bind_caller
from kwai_middleware._delivery.call_event import emit
from kwai_middleware._delivery.capture import bounded
from kwai_middleware._delivery.delivery import Delivery
from kwai_middleware._delivery.log_entry import encode
from kwai_middleware._record import CompletedCall
from tests.support.flavours import Flavour
from tests.support.logs_api import logs_api, taken
from tests.support.processes import DEADLINE
from tests.support.vendor_logs import call_with, logged

MARK = "Confidential plot!"
"""It has a blank, as sentences do and codes do not."""

SENTENCES = st.text(st.characters(codec="utf-8"), max_size=12).map(lambda text: f"{text}{MARK}{text}")
VALUES = st.recursive(
    SENTENCES | st.integers(0, 9) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
CALLS = st.fixed_dictionaries(
    {},
    optional={
        "messages": VALUES.map(lambda value: json.dumps(value).encode()) | SENTENCES.map(str.encode),
        "completions": st.lists(
            st.fixed_dictionaries(
                {"role": st.just("assistant")},
                optional={
                    "content": SENTENCES,
                    "reasoning": SENTENCES,
                    "refusal": SENTENCES,
                    "tool_calls": st.lists(
                        st.builds(
                            lambda name, arguments: {
                                "id": "c", "type": "function",
                                "function": {"name": name, "arguments": json.dumps({"a": arguments})},
                            },
                            SENTENCES,
                            SENTENCES,
                        ),
                        max_size=2,
                    ),
                    "other": VALUES,
                },
            ),
            max_size=2,
        ).map(tuple),
        "parameters": st.dictionaries(
            st.sampled_from(
                [
                    "temperature", "max_tokens", "n", "logprobs", "stop", "tools", "tool_choice", "response_format",
                    "metadata", "user", "reasoning_effort", "logit_bias", "prediction", "thinking", "stream_options",
                ]
            ),
            VALUES.map(lambda value: json.dumps(value).encode()),
        ),
        "outcome": st.sampled_from(["error", "complete", "timeout"]),
        "error_message": SENTENCES,
        "error_code": SENTENCES | st.just("invalid_prompt"),
        "finish_reason": SENTENCES,
        "usage": st.dictionaries(
            st.sampled_from(["prompt_tokens", "completion_tokens", "prompt_tokens_details", "x"]), VALUES
        ),
    },
)  # fmt: skip


@given(members=CALLS, capture=st.sampled_from(["metadata", "none"]))
def test_no_word_of_the_conversation_is_in_a_record(members: dict[str, Any], capture: str) -> None:
    """Prompt, answer, arguments of tools, parameters and the words of an error are in no byte of it."""
    call = call_with(**(members | {"capture": capture}))
    assert MARK not in json.dumps(logged(call), ensure_ascii=False)
    assert MARK.encode() not in encode(call)


@given(members=CALLS, capture=st.sampled_from(["metadata", "none"]))
def test_no_word_of_the_conversation_is_in_the_event(members: dict[str, Any], capture: Capture) -> None:
    """The event of a call has not even the words of an error, through structlog and through standard logging."""
    call = bounded(call_with(**members), capture)
    lines, output = io.StringIO(), io.StringIO()
    logger, handler = logging.getLogger("kwai_middleware.calls"), logging.StreamHandler(lines)
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        emit(call)
        structlog.configure(
            processors=[structlog.processors.JSONRenderer()], logger_factory=structlog.PrintLoggerFactory(output)
        )
        emit(call)
    finally:
        structlog.reset_defaults()
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert "llm_call" in lines.getvalue()
    assert "llm_call" in output.getvalue()
    assert MARK not in lines.getvalue() + output.getvalue()


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        (*pair, max(pair, key=["full", "metadata", "none"].index))
        for pair in itertools.product(["full", "metadata", "none"], repeat=2)
    ],
)
def test_the_stricter_word_counts(mine: Capture, theirs: Capture, expected: Capture) -> None:
    """Neither a record nor the settings loosen what the other asks for."""
    assert expected == bounded(CompletedCall(capture=mine), theirs).capture


def test_all_that_may_be_recorded_is_left_alone() -> None:
    """A record of which everything may be kept is the same record."""
    call = call_with(outcome="error", error_message=MARK)
    assert call is bounded(call, "full")
    assert MARK == logged(call)["error_message"]


@pytest.mark.parametrize(
    ("code", "shown"), [("invalid_prompt", "invalid_prompt"), ("429", "429"), (MARK, None), (None, None), ("", None)]
)
def test_a_code_stands_for_the_words_of_an_error(code: str | None, shown: str | None) -> None:
    """A failure is still told from a success, and one from another, by what is no sentence."""
    call = call_with(capture="metadata", outcome="error", error_code=code, error_message=f"you said: {MARK}")
    entry = logged(call)
    assert ("error", shown) == (entry["status"], entry.get("error_message"))
    assert shown == entry["metadata"].get("error_code")
    assert "error_message" not in logged(call_with(capture="metadata", error_code="x"))


def test_numbers_stay() -> None:
    """What a call cost and how long it took is recorded without its words."""
    usage = {
        "prompt_tokens": 3, "completion_tokens": 4, "note": MARK,
        "prompt_tokens_details": {"cached_tokens": 1, "x": MARK},
    }  # fmt: skip
    call = call_with(
        capture="metadata", usage=usage, prompt_tokens=3, completion_tokens=4, cost=0.5, finish_reason="stop",
        parameters={"temperature": b"0.5", "stop": b'"x"'},
    )  # fmt: skip
    entry = logged(call)
    assert (3, 4, 0.5, 0.5) == tuple(
        entry[name] for name in ("prompt_tokens", "completion_tokens", "cost", "temperature")
    )
    assert {"prompt_tokens": 3, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 1}} == entry["usage"]
    assert ("stop", "gold") == (entry["metadata"]["finish_reason"], entry["metadata"]["plan"])


@pytest.mark.parametrize("whose", ["the settings'", "the caller's"])
@pytest.mark.parametrize("capture", ["metadata", "none"])
@pytest.mark.parametrize("status", [200, 400])
def test_nothing_of_a_conversation_leaves(
    flavour: Flavour, status: int, capture: Capture, whose: str, caplog: pytest.LogCaptureFixture
) -> None:
    """From the client to the logs API: an answer or an error that quotes the prompt is in no byte that is sent."""
    caplog.set_level(logging.DEBUG, "kwai_middleware")
    sent: list[str] = []

    def keep(entry: dict[str, Any], times: int) -> bytes:
        sent.append(json.dumps(entry, ensure_ascii=False))
        return taken(entry, times)

    def quote(request: Any) -> Any:
        message = {"role": "assistant", "content": MARK, "reasoning": MARK}
        error = {"code": 400, "message": f"flagged: {MARK}", "metadata": {"raw": MARK, "reasons": [MARK]}}
        answer = {"model": "m", "choices": [{"message": message, "finish_reason": "stop"}], "usage": {"cost": 0.5}}
        return flavour.library.Response(status, json=answer if status == 200 else {"error": error})

    with logs_api(keep) as api:
        settings = api.settings(**({"capture": capture} if whose == "the settings'" else {}))
        caller = Caller(identifier="acme", capture=capture if whose == "the caller's" else None)
        with Delivery(settings) as delivery, bind_caller(caller):
            client = flavour.answering(quote, settings=settings, deliver=delivery.submit)
            body = {"model": "m", "messages": [{"role": "user", "content": MARK}], "stop": MARK, "temperature": 0.5}
            flavour.post(client, "https://openrouter.ai/api/v1/chat/completions", json=body)
            flavour.close(client)
            assert delivery.flush(DEADLINE)
    assert (1 if capture == "metadata" else 0) == len(sent)
    assert MARK not in "".join(sent) + caplog.text
    assert "llm_call" in caplog.text
