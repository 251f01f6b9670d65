"""What an app sees of a call: the answer or the error with all that is on it, without what differs between any two."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

__all__ = ["outcome", "shown"]

_OWN = re.compile(
    r"0x[0-9a-f]{6,}|\b[0-9a-f]{8,}(?:-[0-9a-f]{4,})*\b|\b(?:gen|chatcmpl|msg|req|user)[-_]\w+|:\d{4,5}\b|\b1\d{9}\b"
    r"|\w{3}, \d\d \w{3} \d{4} [\d:]+ GMT|\btime taken=[\d.]+"
)
"""Addresses, ids, ports, times and durations."""
_DEPTH = 6


def outcome(call: Callable[[], Any]) -> tuple[str, Any]:
    """What a call ends with."""
    try:
        return "answer", call()
    except Exception as error:  # noqa: BLE001 - whatever the app would see
        return "error", _chain(error)


def _chain(error: BaseException | None) -> list[Any]:
    chain = []
    while error is not None and len(chain) < _DEPTH:
        chain.append((type(error), _masked(str(error)), _attributes(vars(error))))
        error = error.__cause__
    return chain


def _attributes(attributes: dict[str, Any]) -> dict[str, str]:
    return {name: shown(value) for name, value in sorted(attributes.items()) if not name.startswith("__")}


def shown(value: Any) -> str:
    """A value as text."""
    headers = getattr(value, "headers", None)
    if headers is None:
        return _masked(repr(value))
    # A response, a request, or headers: all of it that does not tell the time or the key.
    return _masked(repr(value)) + str(sorted(name.lower() for name in headers))


def _masked(text: str) -> str:
    return _OWN.sub("…", text)
