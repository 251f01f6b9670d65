"""One record as the body of `POST /api/request-logs/create/`, and as one row of a bulk of them.

The vendor gives no error back for a log that fails its validation later: it is lost. So members go
where its types take them whole, and everything else travels as text (`input`, `output`, `metadata`).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec

from kwai_middleware._caller import Caller
from kwai_middleware._delivery import vendor_types
from kwai_middleware._delivery.capture import bounded
from kwai_middleware._delivery.log_content import answer_of, prompt_of
from kwai_middleware._delivery.log_metadata import metadata_of
from kwai_middleware._delivery.mending import mended
from kwai_middleware._pace import breathe
from kwai_middleware._pieces import encoded_object
from kwai_middleware._record import CompletedCall, Outcome
from kwai_middleware._redaction import mask_json
from kwai_middleware._secret import Secret

__all__ = ["MOST_BYTES", "encode"]

MOST_BYTES: Final = 20_000_000
"""Larger logs are refused by the vendor ("20 MB per span")."""

_PLAIN_TYPES: Final = (int, float, bool)


class _Carried(NamedTuple):
    """How much of a record goes along; `extras` are the caller's metadata and the details of usage."""

    parameters: bool = True
    prompt: bool = True
    answer: bool = True
    extras: bool = True


_METADATA_ONLY: Final = _Carried(parameters=False, prompt=False, answer=False)
_BARE: Final = _Carried(parameters=False, prompt=False, answer=False, extras=False)
# From the record as it is to what always fits; the prompt is nearly always the heavy part.
_SHRINKING: Final = {
    "full": (
        _Carried(),
        _Carried(prompt=False),
        _Carried(answer=False),
        _Carried(parameters=False),
        _METADATA_ONLY,
    ),
    "metadata": (_METADATA_ONLY,),
    "none": (),
}


def encode(call: CompletedCall, secrets: tuple[Secret, ...] = ()) -> bytes:
    """Return a record as the request-logs API takes it: UTF-8 JSON of at most `MOST_BYTES`, without keys.

    A record that would be larger loses its prompt, or its answer, or its parameters, or all three,
    and says so.
    With `capture` "metadata" neither prompt nor answer nor tools are in it, nor words of an error.

    Values that JSON has no room for, as an app's own record may have, are left out or become text.

    Durations are seconds, `timestamp` is the end of the call, as the vendor documents them.

    Args:
        call: The record.
        secrets: The caller's keys, which are masked as well as all that looks like a key. Who the
            caller is stays whole, whatever it looks like, or customers would be merged.
    """
    try:
        return _encoded(bounded(call), secrets)
    except Exception:  # noqa: BLE001 - an app's own record may hold anything, and fail in as many ways
        return _encoded(bounded(mended(call)), secrets)


def _encoded(call: CompletedCall, secrets: tuple[Secret, ...]) -> bytes:
    shortened = call.truncated
    for carried in _SHRINKING[call.capture]:
        body = _masked(call, secrets, carried, shortened=shortened)
        if len(body) <= MOST_BYTES:
            return body
        shortened = True
    return _masked(call, secrets, _BARE, shortened=shortened)


def _masked(call: CompletedCall, secrets: tuple[Secret, ...], carried: _Carried, *, shortened: bool) -> bytes:
    # What is made on the way is kept in no variable: it may be megabytes, and masking takes as many again.
    return mask_json(_document(call, secrets, carried, shortened=shortened), secrets, call.names)


def _document(call: CompletedCall, secrets: tuple[Secret, ...], carried: _Carried, *, shortened: bool) -> bytes:
    members = _members(call, secrets, carried, shortened=shortened)
    breathe()
    return encoded_object(members)


def _members(call: CompletedCall, secrets: tuple[Secret, ...], carried: _Carried, *, shortened: bool) -> dict[str, Any]:
    ended_at = call.started_at + (call.duration or 0.0)
    status_code = _status_code(call)
    members: dict[str, Any] = {
        # The reference calls it required, and a failed call may name none.
        "model": call.model or call.requested_model or "unknown",
        "log_type": _LOG_TYPES.get(call.format),
        "provider_id": call.provider_id,
        "trace_unique_id": call.trace_id,
        "span_unique_id": call.record_id if call.trace_id else None,
        "stream": call.stream,
        "start_time": _moment(call.started_at),
        "timestamp": _moment(ended_at),
        # The documented name; the vendor's types turn it into `latency`.
        "generation_time": call.duration,
        "time_to_first_token": call.time_to_first_token,
        "status_code": status_code,
        # The vendor derives one from the other; a log in which they disagree would be read either way.
        "status": "error" if status_code >= _FIRST_ERROR else "success",
        "error_message": call.error_message,
        "warnings": _warnings(call.outcome, shortened=shortened),
        "cost": call.cost,
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": call.completion_tokens,
        "prompt_cache_hit_tokens": call.cached_tokens,
        "prompt_cache_creation_tokens": call.cache_write_tokens,
        "reasoning_tokens": call.reasoning_tokens,
        "usage": vendor_types.kept_usage(call) if carried.extras else None,
        **_customer(call.caller),
        **_parameters(call.parameters, all_of_them=carried.parameters),
    }
    if carried.prompt:
        members |= prompt_of(call.messages, call.input)
    if carried.answer:
        members |= answer_of(call.completions, call.output)
    members["metadata"] = metadata_of(
        call, secrets, parameters=carried.parameters, caller_metadata=carried.extras, shortened=shortened
    )
    return {name: value for name, value in members.items() if value is not None}


# The words that both the vendor's reference and its types have; what is none of these has its default.
_LOG_TYPES: Final = {
    "chat": "chat",
    "messages": "chat",
    "responses": "response",
    "completions": "completion",
    "embeddings": "embedding",
    "speech": "speech",
    "transcription": "transcription",
}


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


_STATUS_WITHOUT_ANSWER: Final[dict[Outcome, int]] = {
    "timeout": 504,
    "cancelled": 499,
    "abandoned": 499,
    "complete": 200,
}
_FIRST_ERROR: Final = 400
_BAD_GATEWAY: Final = 502
_ERROR_STATUS: Final = re.compile("[45][0-9][0-9]")


def _status_code(call: CompletedCall) -> int:
    """Return the HTTP status, or what it would have been: the vendor reads a missing one as 200.

    A failure inside a 200 counts as the code it carries; a failure without any as 502. A timeout is
    504, and 499 is what the field calls a client that went away before the answer.
    """
    status = call.status_code
    if status is None:
        return _STATUS_WITHOUT_ANSWER.get(call.outcome, _BAD_GATEWAY)
    if call.outcome == "timeout":
        return 504
    if call.outcome == "error" and status < _FIRST_ERROR:
        code = call.error_code or ""
        return int(code) if _ERROR_STATUS.fullmatch(code) else _BAD_GATEWAY
    return status


_OUTCOME_WARNINGS: Final[dict[Outcome, str]] = {
    "redirected": "The destination named another one; no model answered.",
    "incomplete": "The answer stopped without saying that it was whole.",
    "cancelled": "The app ended the call before the answer was whole.",
    "abandoned": "The app left the answer unread.",
}


def _warnings(outcome: Outcome, *, shortened: bool) -> str | None:
    warning = _OUTCOME_WARNINGS.get(outcome)
    if not shortened:
        return warning
    return " ".join(filter(None, (warning, "A part was not kept, for its size.")))


def _customer(caller: Caller | None) -> dict[str, Any]:
    if caller is None:
        return {}
    customer = {"customer_identifier": caller.identifier, "name": caller.name, "email": caller.email}
    return {
        # The vendor drops a customer_params without an identifier, name and email with it.
        "customer_params": {name: value for name, value in customer.items() if value is not None}
        if caller.identifier is not None
        else None,
        "customer_identifier": caller.identifier,
        "customer_name": caller.name,
        "customer_email": caller.email,
        "group_identifier": caller.group,
        "thread_identifier": caller.thread,
    }


def _parameters(parameters: dict[str, bytes], *, all_of_them: bool) -> dict[str, Any]:
    """Return the parameters that the vendor's types have; without content only numbers and switches."""
    return {
        name: msgspec.Raw(parameters[name])
        for name, type_ in vendor_types.PARAMETERS.items()
        if name in parameters
        and (all_of_them or type_ in _PLAIN_TYPES)
        and vendor_types.accepted_parameter(name, parameters[name])
    }
