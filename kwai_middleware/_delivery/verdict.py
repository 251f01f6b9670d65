"""What an answer of the logs API means for the record that was sent."""

from __future__ import annotations

import email.utils
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import msgspec

from kwai_middleware._redaction import mask_text
from kwai_middleware._secret import Secret

__all__ = ["Fate", "Verdict", "clipped", "judge"]

_LONGEST_DELAY: Final = 3600.0
_LONGEST_REASON: Final = 200


class Fate(Enum):
    """What becomes of a record."""

    DELIVERED = "delivered"
    """The vendor has it."""
    REJECTED = "rejected"
    """The vendor will never take this record."""
    BUSY = "busy"
    """The vendor asks for patience; the record is blameless."""
    FAILED = "failed"
    """It did not work, by the vendor's fault, the network's or the record's: try again."""
    REFUSED = "refused"
    """The vendor takes nothing from this app as it is set up: no use in hurrying."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to one request.

    Attributes:
        fate: What becomes of the record.
        reason: What was answered, masked and short; empty for a success.
        after: Seconds that the vendor asks to wait; None when it asks for nothing.
    """

    fate: Fate
    reason: str = ""
    after: float | None = None


_BUSY: Final = (408, 425, 429)
_SET_UP_WRONG: Final = (401, 403, 404, 405, 410)


def judge(status: int, retry_after: str | None, body: bytes, *, now: float, secrets: Sequence[Secret] = ()) -> Verdict:
    """Read one answer.

    Args:
        status: Of the HTTP answer.
        retry_after: The header of that name: seconds, or an HTTP date.
        body: As much of the answer as was read; need not be whole, nor JSON.
        now: Seconds since 1970, to measure an HTTP date against.
        secrets: Keys to be masked in the reason.
    """
    if 200 <= status < 300:
        return Verdict(Fate.DELIVERED)
    answer = _object(body)
    detail = answer.get("detail")
    reason = clipped(f"HTTP {status}: {detail}" if isinstance(detail, str) and detail else f"HTTP {status}", secrets)
    if status in _SET_UP_WRONG or 300 <= status < 400:
        return Verdict(Fate.REFUSED, reason)
    after = _header_delay(retry_after, now)
    if after is None:
        after = _seconds(answer.get("retry_after"))
    if status in _BUSY:
        return Verdict(Fate.BUSY, reason, after)
    if 400 <= status < 500:
        return Verdict(Fate.REJECTED, reason)
    return Verdict(Fate.FAILED, reason, after)


def clipped(text: str, secrets: Sequence[Secret] = ()) -> str:
    """Return `text` without keys, line ends and length, as it may be shown to an operator."""
    words = " ".join(mask_text(text, secrets).split())
    return words if len(words) <= _LONGEST_REASON else words[: _LONGEST_REASON - 1] + "…"


def _object(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _header_delay(text: str | None, now: float) -> float | None:
    if text is None:
        return None
    try:
        return _seconds(float(text))
    except ValueError:
        pass
    try:
        return _seconds(email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def _seconds(value: Any) -> float | None:
    # A boolean is an int, and NaN compares false with everything.
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        return None
    if value <= 0:
        return 0.0
    # Compared before it is converted: a whole number may be too large for a float.
    return _LONGEST_DELAY if value >= _LONGEST_DELAY else float(value)
