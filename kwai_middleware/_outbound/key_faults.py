"""What an answer says about the key that it was asked with. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple

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

_OF_THE_REQUEST: Final = re.compile(r"\bfewer max_tokens\b|\bcan only afford\b", re.IGNORECASE)
"""OpenRouter's 402 for a request that is larger than what is left: the key pays for smaller ones."""
_MOST_PLAIN: Final = 64 * 1024
_LONGEST_MESSAGE: Final = 4096

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
    if status == 401 and not relayed:
        return KeyFault(str(status), _rest(status, headers, now))
    error = _error(body if is_decoded else _plain(body, headers))
    if error is None and (relayed or status != 402):
        return None
    if error is not None and status in (403, 429) and not _is_about_key(status, error):
        return None
    if error is not None and status == 402 and _OF_THE_REQUEST.search(_message(error)):
        return KeyFault(str(status), _SHORTEST)
    return KeyFault(str(status), _rest(status, headers, now))


def _plain(body: bytes, headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    codings = codings_of(headers)
    return b"".join(decoded([body], codings, _MOST_PLAIN).pieces) if codings else body


class _Metadata(msgspec.Struct):
    provider_name: msgspec.Raw = msgspec.Raw(b"")


class _Error(msgspec.Struct):
    message: msgspec.Raw = msgspec.Raw(b'""')
    code: msgspec.Raw = msgspec.Raw(b"null")
    type: msgspec.Raw = msgspec.Raw(b"null")
    metadata: msgspec.Raw = msgspec.Raw(b"null")


class _Answer(msgspec.Struct):
    error: _Error


def _error(body: bytes) -> _Error | None:
    """Read what an error says; of all else in the answer nothing is made."""
    try:
        return msgspec.json.decode(body, type=_Answer).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _message(error: _Error) -> str:
    return _text(error.message)[:_LONGEST_MESSAGE]


def _text(raw: msgspec.Raw) -> str:
    try:
        return msgspec.json.decode(raw, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


def _names_a_provider(error: _Error) -> bool:
    try:
        return msgspec.json.decode(error.metadata, type=_Metadata).provider_name != msgspec.Raw(b"")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def _is_about_key(status: int, error: _Error) -> bool:
    if _names_a_provider(error):
        return False  # whatever a provider behind it says of a key, it is not this one
    message = _message(error)
    if _NAMES_KEY.search(message):
        return True
    if status != 429:
        return False
    return _NO_MONEY in (_text(error.code), _text(error.type)) or _NAMES_ACCOUNT.search(message) is not None


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
