"""What the vendor's log has no member for, as metadata."""

from __future__ import annotations

from typing import Any, Final

from kwai_middleware._delivery import vendor_types
from kwai_middleware._delivery.mending import encodable
from kwai_middleware._record import CompletedCall
from kwai_middleware._redaction import mask_text
from kwai_middleware._secret import Secret

__all__ = ["metadata_of"]

_MOST_PARAMETER_TEXT: Final = 1000


def metadata_of(
    call: CompletedCall,
    secrets: tuple[Secret, ...] = (),
    *,
    parameters: bool,
    caller_metadata: bool,
    shortened: bool,
) -> dict[str, str]:
    """Return what the vendor's log has no member for, as texts: its metadata keeps nothing else.

    Args:
        call: The record.
        secrets: The caller's keys: what is cut is masked before.
        parameters: Whether the request's parameters go along, those that are no member: `request.*`.
        caller_metadata: Whether the app's own metadata goes along. Names that are ours, and those with an
            underscore in front, which the vendor hides, become `caller.*`.
        shortened: Whether something of the call is missing in the log.
    """
    facts = _facts(call, shortened=shortened)
    found: dict[str, str] = {}
    if call.caller is not None and caller_metadata:
        for name, value in call.caller.metadata.items():
            # Ours are not to be overwritten, and the vendor hides what begins with an underscore.
            is_taken = name in facts or name.startswith(("_", "request."))
            found[encodable(f"caller.{name}" if is_taken else name)] = _text(value)
    if parameters:
        for name, raw in call.parameters.items():
            if not vendor_types.accepted_parameter(name, raw):
                found[encodable(f"request.{name}")] = _shortened(raw, secrets)
    for name, fact in facts.items():
        if fact is not None:
            found[name] = fact if type(fact) is str and fact.isascii() else _text(fact)
    return found


def _facts(call: CompletedCall, *, shortened: bool) -> dict[str, object]:
    """Return what the vendor has no member for, under the names it is found by."""
    return {
        "kwai_record_id": call.record_id,
        "call_id": call.call_id,
        "attempt": call.attempt,
        "outcome": call.outcome,
        "billed_to": call.billed_to,
        "key_fingerprint": call.key_fingerprint,
        "identity_from": call.identity_from,
        "key_from": call.key_from,
        "host": call.host,
        "requested_model": call.requested_model,
        "generation_id": call.generation_id,
        "gateway_log_id": call.gateway_log_id,
        "provider": call.provider,
        "finish_reason": call.finish_reason,
        "audio_seconds": _audio_seconds(call.usage or {}),
        "error_code": call.error_code,
        "error_type": call.error_type,
        "is_byok": call.is_byok,
        "reported_cost": call.reported_cost,
        "upstream_cost": call.upstream_cost,
        "truncated": shortened or None,
    }


def _audio_seconds(usage: dict[str, Any]) -> int | float | None:
    """Return how much sound a transcription was of, where it is paid by that."""
    seconds = usage.get("seconds")
    return seconds if type(seconds) in (int, float) else None


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    try:
        return encodable(str(value))
    except ValueError:
        # Python refuses to write numbers of thousands of digits.
        return "<int>"


def _shortened(raw: bytes, secrets: tuple[Secret, ...]) -> str:
    text = raw.decode(errors="replace")
    if len(text) > _MOST_PARAMETER_TEXT:
        text = mask_text(text, secrets)
    return text if len(text) <= _MOST_PARAMETER_TEXT else text[: _MOST_PARAMETER_TEXT - 1] + "…"
