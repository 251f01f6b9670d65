"""What one unit of work (a request, a job) keeps for all that runs in it: its caller and its trace id."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from kwai_middleware._caller import Caller
from kwai_middleware._secret import Secret
from kwai_middleware._unsettled import NO_ORIGINS, Origins, Unsettled

__all__ = ["NOBODY", "Slot", "WeightedKey", "Withheld"]


class WeightedKey(NamedTuple):
    """One key of a list of keys.

    Attributes:
        key: The key.
        weight: How often it is chosen, in proportion to the others; above 0, and 1 where none is given.
    """

    key: Secret
    weight: float


Withheld = Mapping[str, Secret | tuple[WeightedKey, ...]]
"""Keys taken out of a request, by header in lower case: one key, or a list of them."""


class Slot(msgspec.Struct, eq=False, weakref=True):
    """The place of one unit of work for its caller.

    The context variable holds the slot, not the caller, so that an outer and an inner middleware,
    and everything below them, share one answer.

    Attributes:
        known: Who the work is for, as far as that was known when it began; None for nobody.
        withheld: What was taken out of the request. An inner middleware with `override=True` reads
            it as if it were still there.
        brought: Where what is known came from.
        unsettled: What is still to be learnt about the caller; None when nothing is.
        plan: What was found out for the latest call of this work, and for what; the next one is mostly like it.
    """

    known: Caller | None
    withheld: Withheld | None = None
    _trace: dict[str, str] = {}  # each slot gets a new one
    brought: Origins = NO_ORIGINS
    unsettled: Unsettled | None = None
    plan: Any = None

    @property
    def caller(self) -> Caller | None:
        """Who the work is for, found out now if need be; None for nobody."""
        return self.known if self.unsettled is None else self.unsettled.caller(self.known)

    @property
    def settled_caller(self) -> Caller | None:
        """Who the work is for as far as that is known: nothing is asked for it."""
        return self.known if self.unsettled is None else self.unsettled.settled(self.known)

    def settle(self) -> None:
        """Find out who the work is for, before it goes where that cannot be asked."""
        if self.unsettled is not None:
            self.unsettled.settle(self.known)

    @property
    def origins(self) -> Origins:
        """Where identity and keys came from, as far as they have been asked for."""
        return self.brought if self.unsettled is None else self.unsettled.origins(self.brought)

    @property
    def trace_id(self) -> str:
        """What all calls of this unit of work share; found or made when it is first asked for.

        Outside of any unit of work it is another one each time.
        """
        # No lock: a signal handler could wait for it in vain. Of several threads the first one's counts for all.
        return self._trace.get("id") or self._trace.setdefault("id", self._brought_id() or _new_id())

    @property
    def secrets(self) -> Iterator[Secret]:
        """Each key that is known of this work, also those taken out of the request."""
        caller = self.known if self.unsettled is None else self.unsettled.with_keys(self.known)
        if caller is not None:
            yield from (credential.api_key for credential in caller.credentials)
        for kept in (self.withheld or {}).values():
            if isinstance(kept, Secret):
                yield kept
            else:
                yield from (key for key, _ in kept)

    def part(
        self,
        caller: Caller | None,
        withheld: Withheld | None = None,
        brought: Origins = NO_ORIGINS,
        unsettled: Unsettled | None = None,
    ) -> Slot:
        """Return a slot for a part of this unit of work, with a caller of its own and the same trace id."""
        return Slot(caller, withheld, self._shared_trace(), brought=brought, unsettled=unsettled)

    def _shared_trace(self) -> dict[str, str]:
        return {"id": self.trace_id}

    def _brought_id(self) -> str | None:
        """Return the trace id that the unit of work came with."""
        return None

    def __repr__(self) -> str:
        return object.__repr__(self)  # what it was made of may hold more than an error report should


class _Outside(Slot):
    """No unit of work: what runs here does not belong together."""

    @property
    def trace_id(self) -> str:
        return _new_id()

    def _shared_trace(self) -> dict[str, str]:
        return {}


def _new_id() -> str:
    return os.urandom(16).hex()


NOBODY: Final[Slot] = _Outside(None)
"""What is bound outside of any unit of work."""
