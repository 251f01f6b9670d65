"""Callers' keys that were looked up, for a while, and who is being looked up right now."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Final, NamedTuple

from kwai_middleware._caller import Caller, Credential

__all__ = ["Flight", "Kept", "KeyCache"]

Name = tuple[str | None, str | None, str | None]


class Kept(NamedTuple):
    """An answer that is remembered.

    Attributes:
        credentials: The keys; none for a caller that has none.
        fresh_until: Until then nobody asks again, in seconds of the cache's clock.
        stale_until: Until then it is used where asking again fails.
    """

    credentials: tuple[Credential, ...]
    fresh_until: float
    stale_until: float


class Flight(Future[tuple[Credential, ...] | None]):
    """One look-up under way; None as its result says that whoever began it has given up."""

    def __init__(self) -> None:
        super().__init__()
        self.process: Final = os.getpid()
        self.set_running_or_notify_cancel()  # from now on none of those who wait can cancel it for the others


class KeyCache:
    """What is remembered of callers, by issuer, group and identifier: two issuers may each have a customer 42.

    It takes no lock, so that a forked child never inherits a held one: each step on the dictionaries is
    one step of the interpreter.

    Args:
        max_entries: Callers that are remembered; beyond that the one remembered longest is forgotten.
        clock: Tells seconds.
    """

    __slots__ = ("_clock", "_flights", "_kept", "_max_entries")

    def __init__(self, max_entries: int, clock: Callable[[], float]) -> None:
        self._max_entries: Final = max_entries
        self._clock: Final = clock
        self._kept: Final[dict[Name, Kept]] = {}
        self._flights: Final[dict[Name, Flight]] = {}

    def fresh(self, caller: Caller) -> tuple[Credential, ...] | None:
        """Return the keys of a caller, when nobody has to ask for them."""
        kept = self._kept.get(_name(caller))
        return kept.credentials if kept is not None and self._clock() < kept.fresh_until else None

    def stale(self, caller: Caller, rest: float) -> tuple[Credential, ...] | None:
        """Return keys that are too old, but better than none, and let nobody ask again for `rest` seconds."""
        name = _name(caller)
        kept = self._kept.get(name)
        now = self._clock()
        if kept is None or now >= kept.stale_until:
            return None
        self._kept[name] = kept._replace(fresh_until=min(now + rest, kept.stale_until))
        return kept.credentials

    def board(self, caller: Caller) -> tuple[Flight, bool]:
        """Return the look-up that is under way for a caller, and whether whoever asks has to do it."""
        name, mine = _name(caller), Flight()
        flight = self._flights.setdefault(name, mine)
        if flight.process != mine.process:  # who does it is not in this process, but in the one it was forked from
            flight = self._flights[name] = mine
        return flight, flight is mine

    def landed(
        self, caller: Caller, flight: Flight, credentials: tuple[Credential, ...], ttl: float, stale: float
    ) -> None:
        """A look-up has an answer: remember it, unless the caller has been forgotten meanwhile.

        Args:
            caller: Who was looked up.
            flight: The look-up.
            credentials: The answer.
            ttl: Seconds for which nobody asks again.
            stale: Seconds beyond that for which it is used where asking again fails.
        """
        name = _name(caller)
        is_current = self._flights.get(name) is flight
        if is_current:
            self._kept.pop(name, None)  # also when nothing follows: what was true before is not now
        if is_current and ttl > 0:
            fresh_until = self._clock() + ttl
            self._kept[name] = Kept(credentials, fresh_until, fresh_until + stale)
            # A copy, since another thread may change it meanwhile.
            for oldest in tuple(self._kept)[: max(len(self._kept) - self._max_entries, 0)]:
                self._kept.pop(oldest, None)
        self.ended(caller, flight)
        with contextlib.suppress(InvalidStateError):
            flight.set_result(credentials)

    def failed(self, caller: Caller, flight: Flight, error: Exception) -> None:
        """A look-up has failed, for all who wait for it."""
        self.ended(caller, flight)
        with contextlib.suppress(InvalidStateError):
            flight.set_exception(error)

    def abandoned(self, caller: Caller, flight: Flight) -> None:
        """Whoever looked it up was cancelled: one of those who wait begins anew."""
        self.ended(caller, flight)
        with contextlib.suppress(InvalidStateError):  # its answer was there already
            flight.set_result(None)

    def ended(self, caller: Caller, flight: Flight) -> None:
        """Let the next one who asks begin a look-up."""
        name = _name(caller)
        if self._flights.get(name) is flight:
            self._flights.pop(name, None)

    def forget(self, caller: Caller | None) -> None:
        """Forget a caller, or everybody: what is being looked up is not remembered either.

        Of a caller without issuer or group those of every issuer and group are forgotten: who has deleted a key need
        not know by which way its owner signs in.
        """
        if caller is None:
            self._flights.clear()
            self._kept.clear()
            return
        wanted = _name(caller)
        for known in (*self._flights, *self._kept):
            if all(asked in (None, has) for asked, has in zip(wanted, known, strict=True)):
                self._flights.pop(known, None)
                self._kept.pop(known, None)


def _name(caller: Caller) -> Name:
    return caller.issuer, caller.group, caller.identifier
