"""What a verified token has to say before it is believed, and whom it speaks of."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from kwai_middleware._caller import Caller

__all__ = ["ClaimRules", "Verified"]

_LATEST: Final = 253402300799  # the last second of the year 9999
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class Verified:
    """Whom a token speaks of, and until when, in seconds since 1970."""

    caller: Caller
    valid_until: float


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """What is asked of the claims of a token.

    Attributes:
        issuers: Who may have issued it; None for anyone whose key it is.
        audiences: For whom it may be meant, one of which is enough; None for anyone.
        leeway: By how many seconds clocks may differ.
        paths: Where the claims have the fields of a `Caller`.
    """

    issuers: frozenset[str] | None
    audiences: frozenset[str] | None
    leeway: float
    paths: Mapping[str, tuple[str, ...]]

    def judge(self, claims: Mapping[str, object], now: float) -> Verified | str:
        """Return whom these claims speak of, or a sentence with what is wrong, which holds none of their values."""
        expires = _seconds(claims.get("exp"))
        if expires is None:
            return "The token does not say when it expires (exp), or not as a number of seconds since 1970."
        if now >= expires + self.leeway:
            return "The token has expired."
        for name in ("nbf", "iat"):
            if name in claims:
                begins = _seconds(claims[name])
                if begins is None:
                    return f"The token has a time ({name}) that is no number of seconds since 1970."
                if begins > now + self.leeway:
                    return f"The token is not valid yet ({name})."
        issuer = claims.get("iss")
        if self.issuers is not None and not (isinstance(issuer, str) and issuer in self.issuers):
            return "The token is not from an issuer that is believed here (iss)."
        if self.audiences is not None and not self._is_meant_for_us(claims.get("aud")):
            return "The token is not meant for this audience (aud)."
        caller = self._caller(claims)
        return caller if isinstance(caller, str) else Verified(caller, expires + self.leeway)

    def _is_meant_for_us(self, audience: object) -> bool:
        named = cast("list[object]", audience) if isinstance(audience, list) else [audience]
        texts = {each for each in named if isinstance(each, str)}
        return len(texts) > 0 and not texts.isdisjoint(self.audiences or ())

    def _caller(self, claims: Mapping[str, object]) -> Caller | str:
        texts: dict[str, Any] = {}
        for field, path in self.paths.items():
            text = _text(_claim(claims, path))
            if text is None:
                return f"The token's claim for the {field} is neither text nor a whole number."
            if text:
                texts[field] = text
        if "identifier" not in texts:
            return "The token has no claim for the identifier."
        try:
            return Caller(**texts, issuer=cast("Any", claims.get("iss")))
        except (TypeError, ValueError) as error:
            # It names the field and the rule.
            return f"The token has a claim that does not fit: {str(error).removeprefix('Caller.')}."


def _seconds(value: object) -> float | None:
    """Return a time as a number; None when it is something else, or no time that a calendar has."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        return None
    return value


def _claim(claims: object, path: tuple[str, ...]) -> object:
    for name in path:
        if not isinstance(claims, Mapping):
            return None
        claims = cast("Mapping[str, object]", claims).get(name)
    return claims


def _text(value: object) -> str | None:
    """Return a claim as text in the form that values of headers get; empty for none, None for what is no text."""
    if value is None:
        return ""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        return None
    text = value.strip(" \t")
    # One with a control character stays as it is, and the caller refuses it.
    return text if _CONTROL.search(text) else unicodedata.normalize("NFC", text).strip()
