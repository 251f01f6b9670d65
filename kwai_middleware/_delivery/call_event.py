"""The `llm_call` event: one line of the app's log for each completed call."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

import structlog

from kwai_middleware._delivery.one_line import quoted, shown
from kwai_middleware._record import CompletedCall
from kwai_middleware._redaction import Keys, mask_text
from kwai_middleware._secret import Secret

__all__ = ["emit"]

_logger: Final = logging.getLogger("kwai_middleware.calls")


def emit(call: CompletedCall, secrets: tuple[Secret, ...] = ()) -> None:
    """Log `call`: at `info` when it is complete, else at `warning`. No prompt, no answer, no key.

    Through structlog where the app has configured it. Elsewhere structlog would print on standard
    output, so standard logging has it: logger `kwai_middleware.calls`, fields also as the record's
    attribute `llm_call`.
    """
    is_complete = call.outcome == "complete"
    if structlog.is_configured():
        logger = structlog.get_logger("kwai_middleware")
        (logger.info if is_complete else logger.warning)("llm_call", **_fields(call, secrets))
        return
    level = logging.INFO if is_complete else logging.WARNING
    if _logger.isEnabledFor(level):
        fields = _fields(call, secrets)
        _logger.log(level, "llm_call %s", _Words(fields), extra={"llm_call": fields})


class _Words:
    """Formats fields when, and only when, a handler asks."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = fields

    def __str__(self) -> str:
        return " ".join(f"{name}={quoted(value)}" for name, value in self._fields.items())


def _fields(call: CompletedCall, secrets: tuple[Secret, ...]) -> dict[str, Any]:
    caller = call.caller
    fields = {
        "customer_id": None if caller is None else caller.identifier,
        "group": None if caller is None else caller.group,
        "thread": None if caller is None else caller.thread,
        "route": call.route,
        "host": call.host,
        "model": call.model,
        "outcome": call.outcome,
        "status_code": call.status_code,
        "error_code": call.error_code,
        "error_type": call.error_type,
        "stream": call.stream,
        "billed_to": call.billed_to,
        "key_fingerprint": call.key_fingerprint,
        "identity_from": call.identity_from,
        "key_from": call.key_from,
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": call.completion_tokens,
        "cost": call.cost,
        "time_to_first_token": call.time_to_first_token,
        "duration": call.duration,
        "finish_reason": call.finish_reason,
        "generation_id": call.generation_id,
        "record_id": call.record_id,
        "trace_id": call.trace_id,
        "call_id": call.call_id,
        "attempt": call.attempt if call.attempt > 1 else None,
        "truncated": call.truncated,
    }
    known = {name: value for name, value in fields.items() if value is not None}
    texts = {name: value for name, value in known.items() if isinstance(value, str)}
    # Model, ids and codes are what the client or the vendor has written: none of them begins a line of its own.
    return known | {name: shown(value) for name, value in _masked(texts, Keys(secrets), call.names).items()}


def _masked(texts: dict[str, str], keys: Keys, names: tuple[str, ...]) -> dict[str, str]:
    """Return texts without keys. Nearly always there is none in all of them, which one look tells, not twenty."""
    together = "\n".join(texts.values())
    if mask_text(together, keys, names) == together:
        return texts
    return {name: mask_text(text, keys, names) for name, text in texts.items()}
