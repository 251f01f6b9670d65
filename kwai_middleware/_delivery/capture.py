"""How much of a call may be recorded."""

from __future__ import annotations

import re
from typing import Any, Final, cast

import msgspec

from kwai_middleware._caller import Capture
from kwai_middleware._record import CompletedCall

__all__ = ["bounded"]

_STRICTNESS: Final[dict[Capture, int]] = {"full": 0, "metadata": 1, "none": 2}
_WORD: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


def bounded(call: CompletedCall, most: Capture = "full") -> CompletedCall:
    """Return a record with no more in it than `most` and its own `capture` allow.

    Less than "full" means: no prompt, no answer, and no words of whoever failed, since they may
    quote either: a code stands for them, if it is a word. Numbers stay, and so do the names that
    say who, where and which model; `log_entry` leaves out the parameters that are texts.
    """
    capture = most if _STRICTNESS[most] > _STRICTNESS[call.capture] else call.capture
    if capture == "full":
        return call
    code = _word(call.error_code)
    return msgspec.structs.replace(
        call,
        capture=capture,
        messages=None,
        input=None,
        completions=(),
        output=None,
        error_code=code,
        error_type=_word(call.error_type),
        error_message=None if call.error_message is None else code,
        finish_reason=_word(call.finish_reason),
        usage=None if call.usage is None else _numbers(call.usage),
    )


def _word(text: str | None) -> str | None:
    return text if isinstance(text, str) and _WORD.fullmatch(text) else None


def _numbers(usage: dict[str, Any]) -> dict[str, Any]:
    """Return what is a number in an answer's `usage` and in its details."""
    kept: dict[str, Any] = {}
    for name, value in usage.items():
        if isinstance(value, int | float):
            kept[name] = value
        elif isinstance(value, dict):
            details = cast("dict[str, Any]", value)
            kept[name] = {each: count for each, count in details.items() if isinstance(count, int | float)}
    return kept
