"""The keys that may pay for one call, in turn: one fails and rests, and the next one is tried."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

from kwai_middleware import _guard, _notices
from kwai_middleware._caller import Credential
from kwai_middleware._outbound.draws import drawn
from kwai_middleware._outbound.key_faults import SUSPICIOUS, fault_of_key
from kwai_middleware._outbound.key_rest import KeyRests, rests

__all__ = ["Failover", "Seen"]


class Seen(NamedTuple):
    """What was seen of an answer's body.

    Attributes:
        body: All of it, or its beginning.
        is_whole: It is all of it.
        is_decoded: It is not as on the wire any more.
    """

    body: bytes
    is_whole: bool
    is_decoded: bool = False


class Failover:
    """Chooses among several keys of one provider, for one call.

    Args:
        credentials: The keys, all of the caller or all of the app.
        draw: From what it is chosen, at least 0 and below 1.
        relayed: A gateway stands between.
        can_resend: The request's body is held, so that it can go out again.
        resting: Which keys have failed lately.
        wall_clock: Seconds since 1970.

    Attributes:
        credential: The one that is to pay now.
    """

    __slots__ = ("_can_resend", "_credentials", "_draw", "_relayed", "_resting", "_tried", "_wall_clock", "credential")

    def __init__(
        self,
        credentials: tuple[Credential, ...],
        draw: float,
        *,
        relayed: bool,
        can_resend: bool,
        resting: KeyRests = rests,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._credentials = credentials
        self._draw = draw
        self._relayed = relayed
        self._can_resend = can_resend
        self._resting = resting
        self._wall_clock = wall_clock
        # When all rest, one of them pays all the same: never another's key, and never none.
        self.credential = drawn(credentials, draw, resting.is_resting) or resting.first_awake(credentials)
        self._tried = {self.credential.api_key}

    def is_in_doubt(self, status: int) -> bool:
        """Say whether an answer has to be looked into before the app gets it; one that went well wakes the key."""
        if status < 300:
            with _guard.never_raise:
                self._resting.succeeded(self.credential)
        return status in SUSPICIOUS

    def next_key(self, status: int, headers: Iterable[tuple[bytes, bytes]], seen: Seen) -> Credential | None:
        """Return with which key the call is to be sent again; None when the app gets this answer.

        Args:
            status: Of the answer.
            headers: Of the answer.
            seen: Of the answer's body.
        """
        with _guard.never_raise:
            now = self._wall_clock()
            fault = fault_of_key(status, headers, seen.body, now, relayed=self._relayed, is_decoded=seen.is_decoded)
            if fault is None:
                return None
            self._resting.failed(self.credential, *fault)
            following = drawn(self._credentials, self._draw, self._is_out) if self._can_resend else None
            if following is not None:
                _notices.count("failed_over")
                self._tried.add(following.api_key)
                self.credential = following
            return following
        return None

    def _is_out(self, credential: Credential) -> bool:
        return credential.api_key in self._tried or self._resting.is_resting(credential)
