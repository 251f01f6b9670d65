"""What went wrong, in the words of whoever said so: OpenRouter, the vendor, OpenAI's kin, a proxy."""

from __future__ import annotations

import re
from typing import Any, Final

from kwai_middleware._outbound.formats import tolerant
from kwai_middleware._outbound.formats.interface import Failure

__all__ = ["error_of", "failure_in", "failure_of_status", "provider_in"]

_MOST_BYTES: Final = 256 * 1024
_TITLE: Final = re.compile(r"<title[^>]{0,200}>([^<]+)", re.IGNORECASE)


def error_of(event: dict[str, Any]) -> object:
    """Return the error that an event tells of: its `error`, or what stands in the event itself."""
    return event.get("error") or {name: value for name, value in event.items() if name != "type"}


def failure_in(error: object) -> Failure:
    """Describe the value of an `error` member, whatever its shape."""
    items = tolerant.items_of(error)
    error = items[0] if items else error
    if isinstance(error, str):
        return Failure(None, error)
    members = tolerant.members_of(error)
    metadata = tolerant.members_of(members.get("metadata"))
    code = _first(members, "code", "error_code", "type", "status") or _first(metadata, "error_type")
    message = _first(members, "message", "msg", "detail")
    # OpenRouter's own message is mostly "Provider returned error"; then the provider's is in here.
    details = (_provider_words(metadata.get("raw")), _moderation_reasons(metadata.get("reasons")))
    kind = _first(metadata, "error_type") or _first(members, "error_type", "type")
    return Failure(code, ": ".join(filter(None, (message, *details))) or None, kind)


def provider_in(error: object) -> str | None:
    """Return whose failure it was, as OpenRouter names it; None when it was its own."""
    return _first(tolerant.members_of(tolerant.members_of(error).get("metadata")), "provider_name")


def _provider_words(raw: object) -> str | None:
    """Return what a provider said: its text, or the message in its JSON."""
    if isinstance(raw, str):
        return raw
    inner = tolerant.members_of(raw).get("error", raw)
    return inner if isinstance(inner, str) else _first(tolerant.members_of(inner), "message", "msg", "detail")


def _moderation_reasons(reasons: object) -> str:
    return ", ".join(reason for reason in tolerant.items_of(reasons) if isinstance(reason, str))


def failure_of_status(status: int, body: bytes) -> Failure:
    """Describe an answer with an HTTP status that is no success."""
    failure = _failure_in_body(body[:_MOST_BYTES])
    return Failure(failure.code or str(status), failure.message or f"HTTP status {status}", failure.type)


def _failure_in_body(body: bytes) -> Failure:
    value = tolerant.loads(body)
    items = tolerant.items_of(value)
    members = tolerant.members_of(items[0] if items else value)
    for name in ("error", "detail", "errors"):
        if members.get(name):
            failure = failure_in(members[name])
            code = failure.code or _first(members, "error_code", "code")
            return Failure(code, failure.message or _first(members, "message"), failure.type)
    if value is not None:
        return failure_in(members)
    text = body.decode(errors="replace").strip()
    if text.startswith("<"):
        title = _TITLE.search(text)
        return Failure(None, title[1].strip() if title else None)
    return Failure(None, text or None)


def _first(members: dict[str, Any], *names: str) -> str | None:
    for name in names:
        value = members.get(name)
        if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
            return str(value)
    return None
