"""The process's account of calls: what came in, and what became of each."""

from __future__ import annotations

from _queue import Empty, SimpleQueue
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from kwai_middleware import _native as native
from kwai_middleware._record import CompletedCall, PendingCall
from kwai_middleware._tally import Tally

__all__ = [
    "CLOSED",
    "NOT_CONFIGURED",
    "NOT_RECORDED",
    "OBSERVED",
    "QUEUE_FULL",
    "REASONS",
    "SPOOLED",
    "SPOOL_FAILED",
    "SPOOL_FULL",
    "UNREADABLE",
    "Account",
    "Call",
    "Ledger",
]

Call = PendingCall | CompletedCall

SPOOLED: Final = "spooled"
OBSERVED: Final = "observed"

CLOSED: Final = "closed"
QUEUE_FULL: Final = "queue full"
SPOOL_FULL: Final = "spool full"
SPOOL_FAILED: Final = "spool failed"
UNREADABLE: Final = "unreadable"
NOT_CONFIGURED: Final = "not configured"
NOT_RECORDED: Final = "not recorded in time"


_LOST: Final = (SPOOL_FULL, SPOOL_FAILED, UNREADABLE, NOT_CONFIGURED, NOT_RECORDED)

REASONS: Final = (CLOSED, QUEUE_FULL, *_LOST)
"""Why calls are dropped."""


class Account(msgspec.Struct, frozen=True):
    """One consistent view: `accepted = spooled + observed + in_memory + dropped`."""

    accepted: int
    spooled: int
    observed: int
    in_memory: int
    dropped_by_reason: dict[str, int]


class Ledger:
    """Counts calls, and hands them from the app's threads to the recording thread.

    The two belong together: a call is taken out of the queue and counted as taken in one step, so
    that a view of the account never misses one.
    """

    def __init__(self) -> None:
        self._queue: SimpleQueue[Call] = SimpleQueue()
        self._lock = native.lock()
        self.has_overflowed = False
        """Calls were refused for want of room, which nobody has been told of yet."""
        self._taken = 0
        self._in_hand: set[int] = set()
        self._outcomes: dict[str, int] = dict.fromkeys((SPOOLED, OBSERVED, *_LOST), 0)
        self._refusals = {CLOSED: Tally(), QUEUE_FULL: Tally()}

    # The three that the app's threads call: no lock, whoever interrupts whom.

    def put(self, call: Call) -> None:
        """Let a call wait for the recording thread."""
        self._queue.put(call)

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return self._queue.qsize()

    def refuse(self, reason: Literal["closed", "queue full"]) -> None:
        """Count a call that is not even queued."""
        self._refusals[reason].add()

    def withdraw(self) -> Call | None:
        """Take back a call that nobody will look at any more, uncounted."""
        try:
            return self._queue.get_nowait()
        except Empty:
            return None

    def take(self) -> tuple[int, Call] | None:
        """Hand out the call that has waited longest with its number, None when none waits. Each is to be finished."""
        with self._lock:
            call = self.withdraw()
            if call is None:
                return None
            self._taken += 1
            self._in_hand.add(self._taken)
            return self._taken, call

    def finish(self, numbers: Sequence[int], outcome: str) -> None:
        """Say what became of calls that were taken."""
        with self._lock:
            # Each once, whoever else has said it: at the end two threads may give up the same calls.
            finished = self._in_hand.intersection(numbers)
            self._outcomes[outcome] += len(finished)
            self._in_hand -= finished

    def position(self) -> int:
        """How many calls were put so far."""
        with self._lock:
            return self._taken + self._queue.qsize()

    def is_finished(self, position: int) -> bool:
        """Whether the first `position` calls that were put are finished."""
        with self._lock:
            return self._taken >= position and min(self._in_hand, default=position + 1) > position

    def account(self) -> Account:
        """Return one consistent view."""
        with self._lock:
            waiting = self._queue.qsize()
            refused = {reason: tally.value for reason, tally in self._refusals.items()}
            outcomes = dict(self._outcomes)
            taken, in_hand = self._taken, len(self._in_hand)
        dropped = refused | {reason: n for reason, n in outcomes.items() if reason not in (SPOOLED, OBSERVED)}
        return Account(
            accepted=taken + waiting + sum(refused.values()),
            spooled=outcomes[SPOOLED],
            observed=outcomes[OBSERVED],
            in_memory=waiting + in_hand,
            dropped_by_reason={reason: n for reason, n in dropped.items() if n},
        )
