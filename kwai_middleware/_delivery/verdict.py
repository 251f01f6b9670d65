"""What an answer of the logs API means for the records that were sent."""

from __future__ import annotations

import email.utils
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any, Final

import msgspec

from kwai_middleware._delivery.one_line import shown
from kwai_middleware._redaction import Keys, mask_text
from kwai_middleware._secret import Secret

__all__ = ["BulkVerdict", "Fate", "Verdict", "clipped", "judge", "judge_bulk"]

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
    UNCLEAR = "unclear"
    """Of many records some were taken, all or none, and nobody can tell which."""


class Verdict(msgspec.Struct, frozen=True):
    """The answer to one request.

    Attributes:
        fate: What becomes of the record.
        reason: What was answered, masked and short; empty for a success.
        after: Seconds that the vendor asks to wait; None when it asks for nothing.
        is_connected: Whether anybody was there to send to. When nobody was, no record can be to blame.
    """

    fate: Fate
    reason: str = ""
    after: float | None = None
    is_connected: bool = True


class BulkVerdict(msgspec.Struct, frozen=True):
    """The answer to one request that carried many records.

    Attributes:
        fate: What becomes of the records, those in `refused` aside.
        reason: What was answered about the request as a whole, masked and short; empty for a success.
        after: Seconds that the vendor asks to wait; None when it asks for nothing.
        refused: The records that the vendor will never take, by their index in the request, and what it
            has against each, masked and short.
        is_connected: As for a `Verdict`.
    """

    fate: Fate
    reason: str = ""
    after: float | None = None
    refused: Mapping[int, str] = msgspec.field(default_factory=dict[int, str])
    is_connected: bool = True


class _BulkAnswer(msgspec.Struct):
    success_count: int
    error_count: int = 0
    # Only `index` is documented; whatever else there is tells the reason.
    errors: list[dict[str, msgspec.Raw]] | None = None


_BUSY: Final = (408, 425, 429)
_SET_UP_WRONG: Final = (401, 402, 403, 404, 405, 407, 410, 423, 426, 451)
"""What is said about the app, its account or the way, and never about one record: none is given up for it."""


def judge(
    status: int, retry_after: str | None, body: bytes, *, now: float, secrets: Iterable[Secret] | Keys = ()
) -> Verdict:
    """Read the answer to one record.

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


def judge_bulk(
    status: int,
    retry_after: str | None,
    body: bytes,
    rows: int,
    *,
    now: float,
    secrets: Iterable[Secret] | Keys = (),
) -> BulkVerdict:
    """Read the answer to many records.

    Args:
        status: Of the HTTP answer.
        retry_after: The header of that name: seconds, or an HTTP date.
        body: As much of the answer as was read; need not be whole, nor JSON.
        rows: How many records were sent.
        now: Seconds since 1970, to measure an HTTP date against.
        secrets: Keys to be masked in the reasons.
    """
    keys = Keys.of(secrets)
    if 200 <= status < 300:
        refused = _refused_rows(body, rows, keys)
        if refused is None:
            return BulkVerdict(Fate.UNCLEAR, f"HTTP {status}, and no account of which records were taken")
        return BulkVerdict(Fate.DELIVERED, refused=refused)
    verdict = judge(status, retry_after, body, now=now, secrets=keys)
    refused = _refused_rows(body, rows, keys) if verdict.fate is Fate.REJECTED else None
    if refused is None or len(refused) < rows:
        # Not each of them has been looked at: what is refused is the request.
        refused = {}
    return BulkVerdict(verdict.fate, verdict.reason, verdict.after, refused)


def clipped(text: str, secrets: Iterable[Secret] | Keys = ()) -> str:
    """Return `text` without keys, line ends, commands to a terminal and length, as it may be shown to an operator."""
    words = shown(" ".join(mask_text(text, secrets).split()))
    return words if len(words) <= _LONGEST_REASON else words[: _LONGEST_REASON - 1] + "…"


def _refused_rows(body: bytes, rows: int, keys: Keys) -> dict[int, str] | None:
    """Return which rows the vendor did not take, and why; None where its account does not add up."""
    refused: dict[int, str] = {}
    try:
        answer = msgspec.json.decode(body, type=_BulkAnswer)
        for error in answer.errors or ():
            index = msgspec.json.decode(error.pop("index"), type=int)
            if index in refused or not 0 <= index < rows:
                return None
            told = (f"{name}: {bytes(value).decode('utf-8', 'replace')}" for name, value in error.items())
            refused[index] = clipped("; ".join(told) or "no reason given", keys)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError):
        return None
    is_whole = answer.error_count == len(refused) and answer.success_count + answer.error_count == rows
    return refused if is_whole else None


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
