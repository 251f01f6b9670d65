"""Texts that would write lines of their own into a log, or command a terminal: one call stays one plain line."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import unicodedata
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import structlog

import kwai_middleware as kwai
from kwai_middleware import structlog_processors
from kwai_middleware.httpx_transport import KwaiTransport
from tests.apps.doors import DOORS, Door
from tests.support.callers import OPENROUTER, caller, settings
from tests.support.logs_api import LogsAPI, answer
from tests.support.shipping import until

BREAKS = {
    "newline": "\n",
    "carriage return": "\r",
    "both": "\r\n",
    "vertical tab": "\x0b",
    "form feed": "\x0c",
    "file separator": "\x1c",
    "next line": "\x85",
    "line separator": "\u2028",
    "paragraph separator": "\u2029",
    "clear screen": "\x1b[2J",
    "window title": "\x1b]0;owned\x07",
    "command of 8 bits": "\x9b31m",
    "back space": "\x08" * 40,
    "override": "\u202e",
    "isolate": "\u2066",
}
FORGED = "2026-11-23 INFO billed_to=app customer_id=globex"
FIELDS = ["x-customer-id", "x-customer-name", "x-customer-email", "x-customer-group", "x-thread-id"]


def is_plain(text: str) -> bool:
    """Say whether a terminal and whoever splits lines take a text for one line."""
    return not any(unicodedata.category(each) in ("Cc", "Cf", "Zl", "Zp") for each in text)


class Log:
    """All that is logged, as one text."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def lines(self) -> list[str]:
        """Each event, as it was written, without the end of its line."""
        return self.stream.getvalue().removesuffix("\n").split("\n")


@contextlib.contextmanager
def standard() -> Iterator[Log]:
    """An app that has standard logging only."""
    log = Log()
    handler = logging.StreamHandler(log.stream)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))
    logger = logging.getLogger("kwai_middleware")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield log
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


@contextlib.contextmanager
def pipeline(renderer: Any) -> Iterator[Log]:
    """An app with structlog, and this library's processors in it."""
    log = Log()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog_processors.add_caller,
            structlog.processors.add_log_level,
            structlog_processors.mask_keys,
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(log.stream),
        cache_logger_on_first_use=False,
    )
    try:
        yield log
    finally:
        structlog.reset_defaults()


LOGS = {
    "standard": standard,
    "console": lambda: pipeline(structlog.dev.ConsoleRenderer(colors=False)),
    "json": lambda: pipeline(structlog.processors.JSONRenderer()),
    "key=value": lambda: pipeline(structlog.processors.KeyValueRenderer()),
    "logfmt": lambda: pipeline(structlog.processors.LogfmtRenderer()),
}


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
@pytest.mark.parametrize("header", FIELDS)
def test_a_header_writes_no_line(door: Door, header: str, caplog: pytest.LogCaptureFixture) -> None:
    """From a proven proxy it is a 400 that shows nothing of it; from a stranger it is ignored and not logged."""
    with caplog.at_level(logging.DEBUG), pipeline(structlog.processors.KeyValueRenderer()) as log:
        for hostile in BREAKS.values():
            value = f"acme{hostile}{FORGED}"
            refused = door.ask([(header, value)])
            assert (400, False) == (refused.status, refused.app_ran)
            assert is_plain(refused.body.decode())
            assert "globex" not in refused.body.decode()
            assert door.ask([(header, value)], peer=("203.0.113.9", 5)).caller is None
    assert "globex" not in caplog.text + log.stream.getvalue()
    assert all(is_plain(message) for message in caplog.messages)


def ask(delivery: Any, model: str, answered: Any, who: kwai.Caller, status: int = 200) -> None:
    """One call of `who` for `model`, which is answered so."""
    inner = httpx.MockTransport(lambda request: httpx.Response(status, json=answered))
    transport = KwaiTransport(inner, settings=settings(), deliver=delivery.submit)
    with httpx.Client(transport=transport) as client, kwai.bind_caller(who):
        client.post(OPENROUTER, json={"model": model, "messages": [{"role": "user", "content": model}]})


@pytest.fixture
def delivery(api: LogsAPI) -> Iterator[kwai.Delivery]:
    """Records go to a logs API that takes them."""
    made = kwai.Delivery(kwai.Settings(api_key="app-key", base_url=api.url, spool="memory:", exit_timeout=0.1))
    yield made
    made.close()


@pytest.mark.parametrize("kind", LOGS)
def test_a_call_is_one_line(delivery: kwai.Delivery, api: LogsAPI, kind: str) -> None:
    """Whatever a client's body and a vendor's answer write into model, ids, codes and reasons."""
    with LOGS[kind]() as log:
        for hostile in BREAKS.values():
            text = f"m{hostile}{FORGED}"
            choice = {"index": 0, "finish_reason": text, "message": {"role": "assistant", "content": text}}
            ask(delivery, text, {"id": text, "model": text, "choices": [choice]}, caller())
            ask(delivery, text, {"error": {"code": text, "type": text, "message": text}}, caller(), status=429)
        ask(delivery, "m", {}, kwai.Caller(identifier="acme billed_to=app", group="g\u200d", thread="t=\u202e1"))
        assert delivery.flush(30)
    events = [line for line in log.lines if "llm_call" in line]
    assert log.lines == events
    assert 2 * len(BREAKS) + 1 == len(events)
    assert all(is_plain(line) for line in events)
    if kind in ("standard", "json"):
        assert not any(line.startswith(("20", "INFO billed")) for line in events)
    # The record itself says what was said, as JSON.
    rows = [row for request in api.requests for row in request.rows]
    assert {f"m{hostile}{FORGED}" for hostile in BREAKS.values()} | {"m"} == {row["model"] for row in rows}


def test_no_value_brings_a_field_of_its_own(delivery: kwai.Delivery) -> None:
    """In standard logging a value with a blank or an equals sign stands in quotes."""
    with standard() as log:
        ask(delivery, 'm billed_to=app "x', {}, kwai.Caller(identifier="acme billed_to=app"))
        assert delivery.flush(30)
    [line] = log.lines
    assert ' customer_id="acme billed_to=app" ' in line
    assert ' model="m billed_to=app \\"x" ' in line
    assert 1 == line.replace('"acme billed_to=app"', "").replace('"m billed_to=app', "").count("billed_to=")


@pytest.mark.parametrize("status", [401, 422, 500])
def test_what_the_logs_api_answers_is_one_line(
    delivery: kwai.Delivery, api: LogsAPI, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """Its reasons are in warnings and in the stats of a delivery, and command no terminal there."""
    detail = "".join(f"{hostile}{FORGED[:4]}" for hostile in BREAKS.values())
    api.answer = lambda entry, times: answer(status, json.dumps({"detail": detail}).encode())
    with caplog.at_level(logging.DEBUG, "kwai_middleware"):
        ask(delivery, "m", {}, caller())
        api.wait(1)
        until(lambda: delivery.stats().last_error is not None)
    error = delivery.stats().last_error
    assert error is not None
    assert f"HTTP {status}: " in error
    assert is_plain(error)
    assert all(is_plain(message) for message in caplog.messages)
