"""What went wrong, in the words of whoever said so: OpenRouter, the vendor, OpenAI's kin, a proxy."""

from __future__ import annotations

import re
from typing import Any, Final

from kwai_middleware._outbound.formats import tolerant
from kwai_middleware._outbound.formats.interface import Failure

__all__ = ["failure_in", "failure_of_status"]

_MOST_BYTES: Final = 256 * 1024
_TITLE: Final = re.compile(r"<title[^>]{0,200}>([^<]+)", re.IGNORECASE)


def failure_in(error: object) -> Failure:
    """Describe the value of an `error` member, whatever its shape."""
    items = tolerant.items_of(error)
    error = items[0] if items else error
    if isinstance(error, str):
        return Failure(None, error)
    members = tolerant.members_of(error)
    code = _first(members, "code", "error_code", "type", "status")
    message = _first(members, "message", "msg", "detail")
    raw = tolerant.members_of(members.get("metadata")).get("raw")
    if isinstance(raw, str) and raw:
        # OpenRouter's own message is then "Provider returned error", and the provider's is in here.
        message = f"{message}: {raw}" if message else raw
    return Failure(code, message)


def failure_of_status(status: int, body: bytes) -> Failure:
    """Describe an answer with an HTTP status that is no success."""
    failure = _failure_in_body(body[:_MOST_BYTES])
    return Failure(failure.code or str(status), failure.message or f"HTTP status {status}")


def _failure_in_body(body: bytes) -> Failure:
    value = tolerant.loads(body)
    items = tolerant.items_of(value)
    members = tolerant.members_of(items[0] if items else value)
    for name in ("error", "detail", "errors"):
        if members.get(name):
            failure = failure_in(members[name])
            code = failure.code or _first(members, "error_code", "code")
            return Failure(code, failure.message or _first(members, "message"))
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
