"""Which keys have failed lately, and how long each of them rests. Knows keys by their digest only."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from kwai_middleware._caller import Credential
from kwai_middleware._tally import Tally

__all__ = ["KeyRests", "KeyState", "key_state", "rests"]

_MOST: Final = 10_000
_REMEMBERED: Final = 3600.0
"""Seconds after its rest for which a key that nobody has used since is still told of."""


class KeyState(msgspec.Struct, frozen=True, kw_only=True):
    """A key that has failed, and has not paid for a call since.

    Attributes:
        provider: Whose key it is, as in `Credential.provider`.
        fingerprint: Tells keys apart, as `Secret.fingerprint` does.
        resting_for: Seconds for which another one is chosen in its place; 0 when its rest is over.
        reason: The status of the answer that it failed with last, such as `401`.
        failures: How often it has failed since it last paid.
    """

    provider: str
    fingerprint: str
    resting_for: float
    reason: str
    failures: int


class _Rest:
    """One key's. Each change is one step, so that it needs no lock."""

    __slots__ = ("failures", "reason", "until")

    def __init__(self) -> None:
        self.failures = Tally()
        self.reason = ""
        self.until = 0.0


class KeyRests:
    """The keys that rest, of all callers and of the app.

    Bounded: the key that has not failed for longest is forgotten. Without a lock, so that it may be asked from anywhere
    and survives a fork.

    Args:
        clock: Seconds that only rise.
        most: How many keys it knows.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, most: int = _MOST) -> None:
        self._clock = clock
        self._most = most
        self._rests: dict[tuple[str, bytes], _Rest] = {}

    def failed(self, credential: Credential, reason: str, seconds: float) -> None:
        """Let a key rest from now on."""
        place = _place(credential)
        rest = self._rests.get(place) or _Rest()
        self._rests.pop(place, None)
        self._rests[place] = rest
        rest.until, rest.reason = self._clock() + seconds, reason
        rest.failures.add()
        excess = len(self._rests) - self._most
        if excess > 0:
            for forgotten in tuple(self._rests)[:excess]:
                self._rests.pop(forgotten, None)

    def succeeded(self, credential: Credential) -> None:
        """Wake a key: it has paid."""
        if self._rests:
            self._rests.pop(_place(credential), None)

    def is_resting(self, credential: Credential) -> bool:
        """Say whether another key is to be chosen in its place."""
        return bool(self._rests) and self._until(credential) > self._clock()

    def first_awake(self, credentials: Iterable[Credential]) -> Credential:
        """Return the key whose rest is over first."""
        return min(credentials, key=self._until)

    def states(self) -> tuple[KeyState, ...]:
        """Return what there is to tell of each key, those that rest longest first."""
        now = self._clock()
        states = [
            KeyState(
                provider=provider,
                fingerprint=digest.hex()[:8],
                resting_for=max(0.0, rest.until - now),
                reason=rest.reason,
                failures=rest.failures.value,
            )
            for (provider, digest), rest in self._rests.copy().items()
            if rest.until + _REMEMBERED > now
        ]
        return tuple(sorted(states, key=lambda state: (-state.resting_for, state.provider, state.fingerprint)))

    def _until(self, credential: Credential) -> float:
        rest = self._rests.get(_place(credential))
        return 0.0 if rest is None else rest.until


def _place(credential: Credential) -> tuple[str, bytes]:
    return credential.provider, hashlib.sha256(credential.api_key.reveal().encode()).digest()


rests: Final = KeyRests()
"""Those of this process."""


def key_state() -> tuple[KeyState, ...]:
    """Return the keys that have failed and have not paid since: for a health page.

    Only keys that are one of several are watched: where there is but one, there is nothing to choose.
    There is neither a key in it nor what one could be found by, only fingerprints.

    Example:
        What a health page may show of them::

            for key in kwai_middleware.key_state():
                print(key.provider, key.fingerprint, key.reason, f"rests for {key.resting_for:.0f} s")
    """
    return rests.states()
