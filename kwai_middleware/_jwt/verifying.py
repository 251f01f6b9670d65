"""Whether a token holds: its form, its signature and its claims, and the tokens that have held before."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from kwai_middleware._jwt.claims import ClaimRules, Verified
from kwai_middleware._jwt.keys import KeySet
from kwai_middleware._jwt.reading import header_of, strict_json

__all__ = ["Verifier"]

_MALFORMED: Final = "The token is malformed."
# Not every use of the format lets somebody in: some tell of a logout, or prove a key. Those say so (RFC 8725, 3.11).
_TYPES: Final = frozenset({"jwt", "at+jwt", "jose"})


class Verifier:
    """Verifies tokens. Each that holds is remembered until it expires, by its digest.

    Args:
        rules: What is asked of the claims.
        algorithms: What tokens may be signed with.
        max_tokens: How many are remembered.
        clock: Tells the seconds since 1970.
    """

    __slots__ = ("_algorithms", "_clock", "_remembered", "_rules")

    def __init__(
        self, rules: ClaimRules, algorithms: frozenset[str], max_tokens: int, clock: Callable[[], float]
    ) -> None:
        self._rules: Final = rules
        self._algorithms: Final = algorithms
        self._remembered: Final = _Remembered(max_tokens)
        self._clock: Final = clock

    def verify(self, token: str, keys: KeySet) -> Verified | str | None:
        """Return whom a token speaks of.

        Returns:
            A text when the token is refused: a sentence that says why, without any value. None when none of
            the keys is the one it names, so that another set of keys may have it.
        """
        digest = hashlib.sha256(token.encode()).digest()
        remembered = self._remembered.get(digest)
        # A key that is gone vouches for nothing any more.
        if remembered is not None and remembered[0] is keys:
            return remembered[1] if self._clock() < remembered[1].valid_until else "The token has expired."
        verdict = self._verify(token, keys)
        if isinstance(verdict, Verified):
            self._remembered.add(digest, (keys, verdict))
        return verdict

    def _verify(self, token: str, keys: KeySet) -> Verified | str | None:
        try:
            header = header_of(token)
        except ValueError:
            return _MALFORMED
        algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            return "The token is not signed with an algorithm that is accepted here."
        if "crit" in header or "b64" in header:
            return "The token has an extension that must be understood (crit), and is not."
        if not isinstance(kid, str | None) or not isinstance(kind, str):
            return _MALFORMED
        if kind.lower().removeprefix("application/") not in _TYPES:
            return "The token is of a type (typ) that lets nobody in."
        candidates = keys.fitting(kid, algorithm)
        payload = next((found for key in candidates if (found := key.signed(token, algorithm)) is not None), None)
        if payload is None:
            is_named = kid is not None and any(key.kid == kid for key in candidates)
            return "The token's signature does not hold." if is_named else None
        try:
            claims = strict_json(payload)
        except ValueError:
            return _MALFORMED
        return self._rules.judge(claims, self._clock())


class _Remembered:
    """What was found lately, up to a number: the older half goes when the younger one is full.

    Without a lock, which a forked child could inherit while it is held. Two threads at once may at worst
    forget a half too early.
    """

    __slots__ = ("_half", "_older", "_younger")

    def __init__(self, at_most: int) -> None:
        self._half: Final = max(1, at_most // 2)
        self._younger: dict[bytes, tuple[KeySet, Verified]] = {}
        self._older: dict[bytes, tuple[KeySet, Verified]] = {}

    def get(self, digest: bytes) -> tuple[KeySet, Verified] | None:
        found = self._younger.get(digest)
        if found is None and (found := self._older.get(digest)) is not None:
            self.add(digest, found)
        return found

    def add(self, digest: bytes, found: tuple[KeySet, Verified]) -> None:
        if len(self._younger) >= self._half:
            self._older, self._younger = self._younger, {}
        self._younger[digest] = found

    def __len__(self) -> int:
        return len(self._younger) + len(self._older)
