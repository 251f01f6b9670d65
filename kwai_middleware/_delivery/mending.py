"""A record that an app made by hand, with values that JSON has no room for, as one that can be encoded."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec

from kwai_middleware._pace import breathe
from kwai_middleware._record import CompletedCall

__all__ = ["encodable", "mended"]

_TEXTS: Final = (
    "record_id", "trace_id", "call_id", "host", "endpoint", "key_fingerprint", "error_code", "error_type",
    "error_message", "model", "requested_model", "finish_reason", "generation_id", "provider", "provider_id",
    "gateway_log_id",
)  # fmt: skip
_COUNTS: Final = (
    "status_code", "prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "cache_write_tokens",
    "reasoning_tokens", "attempt",
)  # fmt: skip
_NUMBERS: Final = ("duration", "time_to_first_token", "cost", "reported_cost", "upstream_cost")
_MOST: Final = 2**53
_MOST_SECONDS: Final = 1e9
_FIRST_START: Final = -6e10
"""The same, far back: Python's dates begin with the year 1."""

_LAST_START: Final = 2e11
"""Seconds since 1970: far ahead, and still a date that Python has, also `_MOST_SECONDS` later."""

_DEEPEST: Final = 64


def mended(call: CompletedCall) -> CompletedCall:
    """Return a record with everything in it that can be encoded; what cannot is None, or text."""
    changes: dict[str, Any] = {name: _text(getattr(call, name)) for name in _TEXTS}
    changes |= {name: _count(getattr(call, name)) for name in _COUNTS}
    changes |= {name: _number(getattr(call, name), _MOST) for name in _NUMBERS}
    changes["duration"] = _number(call.duration, _MOST_SECONDS)
    started_at = _number(call.started_at, _LAST_START)
    changes["started_at"] = 0.0 if started_at is None or started_at < _FIRST_START else started_at
    changes["usage"] = None if call.usage is None else _plain(call.usage, 0)
    changes["completions"] = tuple(_plain(completion, 0) for completion in call.completions)
    return msgspec.structs.replace(call, **changes)


def encodable(text: str) -> str:
    """Replace lone surrogates: they have no UTF-8."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def _text(value: object) -> str | None:
    return None if value is None else encodable(_shown(value))


def _shown(value: object) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - an object of the app's, which may raise anything; Python itself refuses long numbers
        return f"<{type(value).__name__}>"


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _MOST else None


def _number(value: object, bound: float) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not -bound < value < bound:
        return None
    return float(value)


def _plain(value: object, depth: int) -> Any:
    breathe()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -_MOST < value < _MOST else _shown(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if depth < _DEEPEST and isinstance(value, Mapping):
        members = cast("Mapping[object, object]", value)
        return {encodable(_shown(name)): _plain(each, depth + 1) for name, each in members.items()}
    if depth < _DEEPEST and isinstance(value, list | tuple):
        return [_plain(each, depth + 1) for each in cast("list[object]", value)]
    return encodable(value if isinstance(value, str) else f"<{type(value).__name__}>")
