"""The half of a spool's file that ships: the claim, leases, what became of them."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from typing import Final

from kwai_middleware._delivery.disk import claims, tables
from kwai_middleware._delivery.disk.attachment import Attachment
from kwai_middleware._delivery.disk.bounds import Bounds
from kwai_middleware._delivery.disk.claims import Claim
from kwai_middleware._delivery.disk.errors import SpoolUnavailable
from kwai_middleware._delivery.disk.upkeep import Upkeep
from kwai_middleware._delivery.spool import Handout, Outcome

__all__ = ["IDLE_POLL", "Shipping"]

IDLE_POLL: Final = 1.0
_BUSY_POLL: Final = 0.15
"""Seconds after which whoever ships looks for what others have appended: a first record is to be seen at once."""
_NOT_WORTH_IT: Final = 0.05
"""Part of a lease's time: to extend the claim by less is not worth a write."""
_HEAD_START: Final = 2 * IDLE_POLL
"""Seconds for which whoever has made way leaves it to the others: each of them has looked by then."""


class Shipping:
    """Used by one thread at a time. Every method may raise `SpoolUnavailable`.

    Args:
        attached: To the file.
        bounds: How long, how often.
        clock: Seconds since 1970.
        ticks: Monotonic seconds.
        upkeep: Of the file.
    """

    def __init__(
        self,
        attached: Attachment,
        bounds: Bounds,
        clock: Callable[[], float],
        ticks: Callable[[], float],
        upkeep: Upkeep,
    ) -> None:
        self._attached = attached
        self._bounds = bounds
        self._clock = clock
        self._ticks = ticks
        self._upkeep = upkeep
        self._hurries: int | None = None
        self._seen: Claim | None = None
        """What the last look at the backlog found: it need not be looked up once more where this process ships."""
        self._stands_back_until = 0.0
        self._unsettled: list[Outcome] = []
        self._last_error: str | None = None

    def backlog(self) -> int:
        """How many records wait, those on lease included."""
        self._seen = self._claim()
        return 0 if self._seen is None else self._seen.pending

    def lease(self, rows: int, size: int, *, bulk: bool) -> Handout:
        """Hand out the next records whose time has come, unless another process does."""
        self.settle()
        self._upkeep.before_lease(self._attached)
        claim, self._seen = self._seen, None
        if claim is None or not claim.pending or claim.owner != self._attached.owner:
            claim = self._claim()
        if claim is None:
            return Handout()
        self._upkeep.now_and_then(self._attached, is_idle=not claim.pending)
        if not claim.pending and claim.owner != self._attached.owner:
            return Handout()
        if claim.is_of_another(self._attached.owner, self._ticks()):
            return Handout(wait=IDLE_POLL, is_elsewhere=True)
        with self._attached.writing.transaction() as connection:
            return self._lease_in(connection, rows, size, bulk=bulk)

    def add_unsettled(self, outcomes: Sequence[Outcome], error: str | None) -> None:
        """Keep in mind what became of rows, until it is said."""
        self._unsettled.extend(outcomes)
        self._last_error = error

    def settle(self) -> None:
        """Say what became of rows."""
        if not self._unsettled:
            return
        outcomes, self._unsettled = self._unsettled, []
        try:
            with self._attached.writing.transaction() as connection:
                # What was on lease in a file that is gone has no place in this one.
                of_this_file = [each for each in outcomes if _generation_of(each) == self._attached.generation]
                where, error = self._attached.destination, self._last_error
                tables.settle(connection, where, of_this_file, error, now=self._clock(), tick=self._ticks())
        except BaseException:
            self._unsettled = outcomes + self._unsettled
            raise

    def bulk_wait(self) -> float:
        """Seconds until the next bulk request may be sent."""
        claim = self._claim()
        if claim is None:
            return 0.0
        wait = claim.bulk_at - self._ticks()
        # A time too far ahead was measured before the machine was started anew.
        return wait if 0.0 < wait <= self._bounds.bulk_spacing else 0.0

    def renew(self) -> bool:
        """Keep the claim while nothing is sent; whether another process is in a hurry."""
        self._upkeep.now_and_then(self._attached, is_idle=False)
        claim = self._claim()
        if claim is None or claim.owner != self._attached.owner:
            return False
        if claim.until - self._ticks() < self._bounds.lease_time / 2:
            with self._attached.writing.transaction() as connection:
                number = tables.destination_id(connection, self._attached.destination)
                now = self._ticks()
                claims.extend(connection, number, self._attached.owner, now, now + self._bounds.lease_time)
        before, self._hurries = self._hurries, claim.hurries
        return before is not None and before != claim.hurries

    def make_way(self, seconds: float) -> None:
        """Let another process ship after so many seconds; this one only if none does."""
        now = self._ticks()
        with self._attached.writing.transaction() as connection:
            number = tables.destination_id(connection, self._attached.destination)
            if claims.free(connection, number, self._attached.owner, now, now + seconds):
                self._stands_back_until = now + seconds + _HEAD_START

    def hasten(self) -> None:
        """Let no record rest any longer, whichever process ships."""
        if self._claim() is None:
            return
        self._stands_back_until = 0.0
        with self._attached.writing.transaction() as connection:
            number = tables.destination_id(connection, self._attached.destination)
            claims.hasten(connection, number)
            tables.hasten(connection, number)
            claim = self._claim_in(connection)
            self._hurries = None if claim is None else claim.hurries

    def let_go(self) -> None:
        """Say what is not said yet, and let others ship, unless something is on lease."""
        with contextlib.suppress(SpoolUnavailable):
            self.settle()
            claim = self._claim()
            if claim is not None and claim.owner == self._attached.owner:
                with self._attached.writing.transaction() as connection:
                    number = tables.destination_id(connection, self._attached.destination)
                    now = self._ticks()
                    claims.free(connection, number, self._attached.owner, now, now)

    def _lease_in(self, connection: sqlite3.Connection, rows: int, size: int, *, bulk: bool) -> Handout:
        owner = self._attached.owner
        # Another may have been faster.
        claim = self._claim_in(connection)
        now = self._ticks()
        if claim is None:
            return Handout()
        if claim.is_of_another(owner, now):
            return Handout(wait=IDLE_POLL, is_elsewhere=True)
        if (wait := self._pause_of(claim, now)) > 0:
            return Handout(wait=min(wait, IDLE_POLL))
        if not claim.pending:
            claims.free(connection, claim.destination, owner, now, now)
            return Handout()
        self._hurries = claim.hurries
        until = now + self._bounds.lease_time
        epoch = claim.epoch if claim.owner == owner else claims.take(connection, claim, owner, now, until)
        if 0.0 <= until - claim.until <= self._bounds.lease_time * _NOT_WORTH_IT:
            # The leases end with the claim, never later; and it is not written for each record.
            until = claim.until
        mark = tables.Lease(owner, epoch, until, self._attached.generation)
        if claim.has_ended(now):
            tables.forget_ended(connection, claim.destination, now)
        chosen, due = tables.lease(connection, claim.destination, mark, rows, size, bulk=bulk)
        if until != claim.until and (chosen or claim.until - now < self._bounds.lease_time / 2):
            # Nor each time that somebody looks.
            claims.extend(connection, claim.destination, owner, now, until)
        if not chosen:
            return Handout(wait=_BUSY_POLL if due is None else min(max(0.0, due - now), _BUSY_POLL))
        if bulk and len(chosen) > 1 and chosen[0].together > 1:
            claims.space_bulk(connection, claim.destination, now + self._bounds.bulk_spacing)
        return Handout(tuple(chosen), pause=claim.pause)

    def _pause_of(self, claim: Claim, now: float) -> float:
        """Seconds for which this process is not to ship, after one has made way; the longer ones if it was itself."""
        if claim.owner is not None or not claim.since <= now < claim.until + _HEAD_START:
            # One that begins in the future was made before the machine was started anew.
            return 0.0
        return max(claim.until, self._stands_back_until) - now

    def _claim(self) -> Claim | None:
        found = self._attached.writing.read(claims.QUESTION, self._attached.key)
        return Claim(*found[0]) if found else None

    def _claim_in(self, connection: sqlite3.Connection) -> Claim | None:
        found = connection.execute(claims.QUESTION, self._attached.key).fetchone()
        return None if found is None else Claim(*found)


def _generation_of(outcome: Outcome) -> int | None:
    lease = outcome.row.lease
    return lease.generation if isinstance(lease, tables.Lease) else None
