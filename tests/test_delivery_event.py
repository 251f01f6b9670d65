"""The `llm_call` event: every completed call is one line of the app's log, without prompt, answer or key."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from kwai_middleware._caller import Caller
from kwai_middleware._delivery.call_event import emit
from kwai_middleware._secret import Secret
from tests.support.finished_calls import completed

CALL = completed(
    record_id="record-1",
    route="direct",
    host="openrouter.ai",
    endpoint="/api/v1/chat/completions",
    caller=Caller(identifier="acme", name="Acme Inc.", email="a@acme.example", group="wholesale", thread="t-1"),
    billed_to="caller",
    key_fingerprint="0123abcd",
    status_code=200,
    model="openai/gpt-5",
    stream=True,
    completions=({"role": "assistant", "content": "an answer"},),
    prompt_tokens=3,
    completion_tokens=4,
    cost=0.25,
    time_to_first_token=0.5,
    duration=1.5,
    finish_reason="stop",
    generation_id="gen-1",
)
FIELDS = {
    "customer_id": "acme",
    "group": "wholesale",
    "thread": "t-1",
    "route": "direct",
    "host": "openrouter.ai",
    "model": "openai/gpt-5",
    "outcome": "complete",
    "status_code": 200,
    "stream": True,
    "billed_to": "caller",
    "key_fingerprint": "0123abcd",
    "prompt_tokens": 3,
    "completion_tokens": 4,
    "cost": 0.25,
    "time_to_first_token": 0.5,
    "duration": 1.5,
    "finish_reason": "stop",
    "generation_id": "gen-1",
    "record_id": "record-1",
    "truncated": False,
}


@pytest.fixture
def events() -> Iterator[list[dict[str, Any]]]:
    """An app that has configured structlog, and what it logged."""
    logged: list[dict[str, Any]] = []

    def keep(logger: Any, method: str, event: Any) -> Any:
        logged.append({"level": method, **event})
        raise structlog.DropEvent

    structlog.configure(processors=[keep])
    yield logged
    structlog.reset_defaults()


def test_through_structlog_where_it_is_configured(events: list[dict[str, Any]]) -> None:
    """The event has the fields that say who, where, how it went and what it cost, and nothing else."""
    emit(CALL)
    assert [{"level": "info", "event": "llm_call", **FIELDS}] == events


def test_what_is_not_known_is_left_out(events: list[dict[str, Any]]) -> None:
    """A call of nobody that failed on the network is a warning with the few fields that it has."""
    emit(completed(record_id="r", host="h", model=None, outcome="error", error_code="ConnectError"))
    [event] = events
    assert {
        "level": "warning",
        "event": "llm_call",
        "route": "direct",
        "host": "h",
        "outcome": "error",
        "error_code": "ConnectError",
        "stream": False,
        "billed_to": "unknown",
        "record_id": "r",
        "truncated": False,
    } == event


def test_a_key_in_a_field_is_masked(events: list[dict[str, Any]]) -> None:
    """Whatever a vendor or a customer writes into a field, no key is logged."""
    emit(completed(model="sk-or-v1-0123456789abcdef", error_code="bad key: my-own-key"), (Secret("my-own-key"),))
    assert ("****", "bad key: ****") == (events[0]["model"], events[0]["error_code"])


def test_standard_logging_where_structlog_is_not_configured(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """An app that never set structlog up gets no lines on its output, and the same fields in its log."""
    assert not structlog.is_configured()
    with caplog.at_level(logging.INFO, "kwai_middleware.calls"):
        emit(CALL)
        emit(completed(outcome="timeout"))
    assert ["INFO", "WARNING"] == [record.levelname for record in caplog.records]
    assert FIELDS == caplog.records[0].__dict__["llm_call"]
    assert caplog.messages[0].startswith("llm_call customer_id=acme group=wholesale thread=t-1 route=direct host=")
    assert "" == capsys.readouterr().out


def test_a_level_that_nobody_listens_to_costs_no_fields(caplog: pytest.LogCaptureFixture) -> None:
    """Below the logger's level nothing is made."""
    with caplog.at_level(logging.ERROR, "kwai_middleware.calls"):
        emit(CALL)
    assert [] == caplog.records


def test_every_structlog_set_up_can_take_it() -> None:
    """A real pipeline renders it as JSON, also through a logger factory that takes no name."""
    output = io.StringIO()
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(output),
    )
    try:
        emit(CALL)
    finally:
        structlog.reset_defaults()
    assert {"event": "llm_call", "level": "info", **FIELDS} == json.loads(output.getvalue())


def test_customers_are_never_merged(caplog: pytest.LogCaptureFixture) -> None:
    """Who a call was for is told whole, though it may look like a key; only the caller's own keys are masked in it."""
    caplog.set_level(logging.INFO)
    caller = Caller(identifier="sk-slovakia-logistics-gmbh", thread="x tenant-key-7")
    emit(completed(caller=caller, error_code="sk-or-v1-0123456789abcdef"), (Secret("tenant-key-7"),))
    [record] = caplog.records
    fields = record.llm_call  # type: ignore[attr-defined]  # where the event's fields are documented to be
    assert ("sk-slovakia-logistics-gmbh", "x ****", "****") == tuple(
        fields[name] for name in ("customer_id", "thread", "error_code")
    )
