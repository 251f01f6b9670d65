"""What an answer says about the key that it was asked with. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple, cast

import msgspec

from kwai_middleware._outbound.decoding import codings_of, decoded

__all__ = ["SUSPICIOUS", "KeyFault", "fault_of_key"]

SUSPICIOUS: Final = frozenset((401, 402, 403, 429))
"""The statuses of answers that may be about the key."""

_DEFAULT: Final = 60.0
_OF_A_BAD_KEY: Final = 600.0
_SHORTEST: Final = 1.0
_LONGEST: Final = 3600.0

# As OpenRouter, OpenAI and Anthropic write them: "Key limit exceeded (monthly limit)", "Your API key does not have
# permission ...", "This API key has expired". Not: "... or add your own key to accumulate your rate limits".
_NAMES_KEY: Final = re.compile(
    r"\bkey limit exceeded\b|\b(?:this|your|the provided) (?:api[ -]?)?key\b|\bapi[ -]?key (?:is|has|was|does|limit)\b",
    re.IGNORECASE,
)
# OpenRouter's limit of the account that a key belongs to, and OpenAI's word for what is 402 elsewhere.
_NAMES_ACCOUNT: Final = re.compile(r"\bfree-models-per-", re.IGNORECASE)
_NO_MONEY: Final = "insufficient_quota"

_MILLISECONDS_FROM: Final = 1e11
_SINCE_1970_FROM: Final = 1e8


class KeyFault(NamedTuple):
    """Why a key did not pay.

    Attributes:
        reason: The status.
        seconds: How long it is to rest.
    """

    reason: str
    seconds: float


def fault_of_key(
    status: int,
    headers: Iterable[tuple[bytes, bytes]],
    body: bytes,
    now: float,
    *,
    relayed: bool = False,
    is_decoded: bool = False,
) -> KeyFault | None:
    """Return why the key did not pay, or None when the answer is about something else, or does not tell.

    401 and 402 are about the key. 403 and 429 are only if their words name it: a refused prompt, a busy model and a
    provider's own limits are the same for every key.

    Args:
        status: Of the answer.
        headers: Of the answer.
        body: Of the answer, as it came.
        now: Seconds since 1970.
        relayed: A gateway stands between, which answers 401 for its own key too: what it says itself has no `error`.
        is_decoded: The body's coding has been undone.
    """
    if status not in SUSPICIOUS:
        return None
    headers = tuple(headers)
    if status in (401, 402) and not relayed:
        return KeyFault(str(status), _rest(status, headers, now))
    error = _error(body if is_decoded else _plain(body, headers))
    if error is None or (status in (403, 429) and not _is_about_key(status, error)):
        return None
    return KeyFault(str(status), _rest(status, headers, now))


def _plain(body: bytes, headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    codings = codings_of(headers)
    return b"".join(decoded([body], codings).pieces) if codings else body


def _error(body: bytes) -> Mapping[str, Any] | None:
    try:
        answer: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    error = cast("dict[str, object]", answer).get("error") if isinstance(answer, dict) else None
    return cast("dict[str, Any]", error) if isinstance(error, dict) else None


def _is_about_key(status: int, error: Mapping[str, Any]) -> bool:
    metadata = error.get("metadata")
    if isinstance(metadata, dict) and "provider_name" in metadata:
        return False  # whatever a provider behind it says of a key, it is not this one
    message = error.get("message")
    if isinstance(message, str) and _NAMES_KEY.search(message):
        return True
    if status != 429:
        return False
    is_spent = _NO_MONEY in (error.get("code"), error.get("type"))
    return is_spent or (isinstance(message, str) and _NAMES_ACCOUNT.search(message) is not None)


def _rest(status: int, headers: tuple[tuple[bytes, bytes], ...], now: float) -> float:
    if status in (403, 429):
        said = {name.lower(): value.decode("latin-1").strip() for name, value in headers}
        for seconds in (_retry_after(said.get(b"retry-after"), now), _reset(said.get(b"x-ratelimit-reset"), now)):
            if seconds is not None:
                return min(max(seconds, _SHORTEST), _LONGEST)
    return _OF_A_BAD_KEY if status == 401 else _DEFAULT


def _retry_after(value: str | None, now: float) -> float | None:
    if value is None:
        return None
    try:
        return _number(value) if value[:1].isdigit() else parsedate_to_datetime(value).timestamp() - now
    except (ValueError, OverflowError):
        return None


def _reset(value: str | None, now: float) -> float | None:
    """OpenRouter tells milliseconds since 1970, others seconds since then or from now on."""
    number = _number(value or "")
    if number is None or number < _SINCE_1970_FROM:
        return number
    return (number / 1000 if number >= _MILLISECONDS_FROM else number) - now


def _number(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d{1,15}(?:\.\d{1,9})?", text, re.ASCII) else None
