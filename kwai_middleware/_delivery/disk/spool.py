"""The spool in a SQLite file, for one destination."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar, cast

from kwai_middleware import _native as native
from kwai_middleware._delivery.destination import Destination
from kwai_middleware._delivery.disk import owners, renewal, schema, tables, upkeep
from kwai_middleware._delivery.disk.database import Database
from kwai_middleware._delivery.disk.errors import SpoolCorrupt, SpoolGone, SpoolUnavailable
from kwai_middleware._delivery.spool import Handout, Outcome, Record, SpoolCounters

__all__ = ["Bounds", "DiskSpool"]

_T = TypeVar("_T")

_IDLE_POLL: Final = 1.0
_BUSY_POLL: Final = 0.15
"""Seconds after which whoever ships looks for what others have appended: a first record is to be seen at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much, how long, how often.

    Attributes:
        max_bytes: Of the file and its log.
        max_pending_age: Seconds for a record to wait.
        max_rejected_age: Seconds that a rejected record is kept for an operator to look at.
        lease_time: Seconds after which what is on lease counts as abandoned.
        bulk_spacing: Seconds between two bulk requests.
    """

    max_bytes: int
    max_pending_age: float
    max_rejected_age: float = 24 * 3600.0
    lease_time: float = 60.0
    bulk_spacing: float = 0.0


class DiskSpool:
    """Shared with the other processes of this host that have the same file.

    Every method may raise `SpoolUnavailable`; then nothing has happened.

    Args:
        path: Absolute.
        destination: Of the records: no other ones are seen.
        bounds: How much, how long, how often.
        rescue: Gets records of a file that is gone, when a new one does not take them.
        clock: Seconds since 1970, for ages.
        ticks: Monotonic seconds, the same for all processes of the host, for leases.
        steps: The schema, see `schema.STEPS`.
        connection_type: What runs the statements.
    """

    poll: float | None = _IDLE_POLL

    def __init__(
        self,
        path: str,
        destination: Destination,
        bounds: Bounds,
        *,
        rescue: Callable[[Sequence[Record]], object] = len,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
        steps: Sequence[str] = schema.STEPS,
        connection_type: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        self.path = path
        self._destination = destination
        self._bounds = bounds
        self._rescue = rescue
        self._clock = clock
        self._ticks = ticks
        # One for each who waits for another: the recording thread, the shipping thread, and whoever only looks.
        self._appending, self._shipping, self._reading = (Database(path, steps, connection_type) for _ in range(3))
        self._renewing = native.lock()
        self._generation = 0
        self._owner = owners.new_owner()
        self._last_position = 0
        self._settled_up_to = 0
        self._hurries: int | None = None
        self._on_lease = 0
        self._unsettled: list[Outcome] = []
        self._last_error: str | None = None
        self._upkeep = upkeep.Upkeep(bounds.max_bytes, ticks)
        self._last_counters = SpoolCounters()

    def append(self, records: Sequence[Record]) -> int:
        """Take records in, as many as there is room for; returns how many, counted from the first."""

        def appended() -> int:
            self._upkeep.before_append(self._appending)
            with self._appending.transaction() as connection:
                room = self._upkeep.room(connection, self.path)
                fitting = _fitting(records, room)
                if fitting:
                    number = tables.destination_id(connection, self._destination)
                    position = tables.append(connection, number, fitting, self._owner, self._clock())
                else:
                    position = self._last_position
            self._last_position = position
            return len(fitting)

        return self._attempt(appended)

    def backlog(self) -> int:
        """How many records wait, those on lease included."""
        claim = self._attempt(self._claim)
        return 0 if claim is None else claim.pending

    def lease(self, rows: int, size: int, *, bulk: bool) -> Handout:
        """Hand out the next records whose time has come, unless another process does."""
        return self._attempt(lambda: self._lease(rows, size, bulk=bulk))

    def settle(self, outcomes: Sequence[Outcome], error: str | None = None) -> None:
        """Say what became of rows. When the file cannot be written, that is said as soon as it can."""
        self._on_lease = max(0, self._on_lease - len(outcomes))
        self._unsettled.extend(outcomes)
        self._last_error = error
        self._attempt(self._settle)

    def bulk_wait(self) -> float:
        """Seconds until the next bulk request may be sent."""
        claim = self._attempt(self._claim)
        if claim is None:
            return 0.0
        wait = claim.bulk_at - self._ticks()
        # A time too far ahead was measured before the machine was started anew.
        return wait if 0.0 < wait <= self._bounds.bulk_spacing else 0.0

    def renew(self) -> bool:
        """Keep the claim while nothing is sent; whether another process is in a hurry."""

        def renewed() -> bool:
            claim = self._claim()
            if claim is None or claim.owner != self._owner:
                return False
            if claim.until - self._ticks() < self._bounds.lease_time / 2:
                with self._shipping.transaction() as connection:
                    number = tables.destination_id(connection, self._destination)
                    until = self._ticks() + self._bounds.lease_time
                    tables.take(connection, number, claim, self._owner, until)
            return self._others_hurry(claim)

        return self._attempt(renewed)

    def hasten(self) -> None:
        """Let no record rest any longer, whichever process ships."""

        def hastened() -> None:
            if self._claim() is None:
                return
            with self._shipping.transaction() as connection:
                number = tables.destination_id(connection, self._destination)
                tables.hasten(connection, number)
                self._hurries = self._claim_in(connection).hurries

        self._attempt(hastened)

    def position(self) -> tuple[int, int]:
        """Return a mark behind what this process appended last, for `is_settled`."""
        return self._generation, self._last_position

    def is_settled(self, position: object) -> bool:
        """Whether nothing that this process appended before the mark is pending."""
        generation, last = cast("tuple[int, int]", position)
        if generation != self._generation:
            last = self._last_position

        def settled() -> bool:
            ((first,),) = self._reading.read(
                "SELECT min(position) FROM records WHERE destination ="
                " (SELECT id FROM destinations WHERE base_url = ? AND digest = ?)"
                " AND is_rejected = 0 AND position > ? AND writer = ?",
                (self._destination.base_url, self._destination.digest, self._settled_up_to, self._owner),
            )
            if first is None:
                return True
            self._settled_up_to = first - 1
            return bool(first > last)

        return self._attempt(settled)

    def counters(self) -> SpoolCounters:
        """Return one consistent view of the ledger; the last one, when the file cannot be read."""
        with contextlib.suppress(SpoolUnavailable):
            self._last_counters = self._attempt(self._counters)
        return self._last_counters

    def close(self) -> int:
        """Let go of the file. Nothing is lost: what waits is shipped by another process, or the next one."""
        self.counters()
        if not self._on_lease:
            with contextlib.suppress(SpoolUnavailable), self._shipping.transaction() as connection:
                tables.free(connection, tables.destination_id(connection, self._destination), self._owner)
        for database in (self._appending, self._shipping, self._reading):
            database.close()
        return 0

    def _lease(self, rows: int, size: int, *, bulk: bool) -> Handout:
        self._settle()
        self._upkeep.before_lease(self._shipping)
        claim = self._claim()
        if claim is None:
            return Handout()
        self._upkeep.now_and_then(
            self._shipping,
            pending_before=self._clock() - self._bounds.max_pending_age,
            rejected_before=self._clock() - self._bounds.max_rejected_age,
            is_idle=not claim.pending,
        )
        if not claim.pending and claim.owner != self._owner:
            return Handout()
        if self._is_held_elsewhere(claim):
            return Handout(wait=_IDLE_POLL, is_elsewhere=True)
        now = self._ticks()
        with self._shipping.transaction() as connection:
            number = tables.destination_id(connection, self._destination)
            claim = self._claim_in(connection)
            if self._is_held_elsewhere(claim):
                return Handout(wait=_IDLE_POLL, is_elsewhere=True)
            if not claim.pending:
                tables.free(connection, number, self._owner)
                return Handout()
            until = now + self._bounds.lease_time
            epoch = tables.take(connection, number, claim, self._owner, until)
            mark = tables.Lease(self._owner, epoch, until)
            chosen, due = tables.lease(connection, number, mark, now, rows, size, bulk=bulk)
            if bulk and len(chosen) > 1 and chosen[0].together > 1:
                connection.execute(
                    "UPDATE destinations SET bulk_at = ? WHERE id = ?", (now + self._bounds.bulk_spacing, number)
                )
        self._on_lease += len(chosen)
        if chosen:
            return Handout(tuple(chosen))
        return Handout(wait=_BUSY_POLL if due is None else min(max(0.0, due - now), _BUSY_POLL))

    def _settle(self) -> None:
        if not self._unsettled:
            return
        # What was on lease in a file that is gone has no place in this one.
        outcomes = [each for each in self._unsettled if _owner_of(each) == self._owner]
        with self._shipping.transaction() as connection:
            number = tables.destination_id(connection, self._destination)
            tables.settle(connection, number, outcomes, self._last_error, now=self._clock(), tick=self._ticks())
        self._unsettled.clear()

    def _claim(self) -> tables.Claim | None:
        found = self._shipping.read(tables.CLAIM, (self._destination.base_url, self._destination.digest))
        return tables.Claim(*found[0]) if found else None

    def _claim_in(self, connection: sqlite3.Connection) -> tables.Claim:
        values = (self._destination.base_url, self._destination.digest)
        return tables.Claim(*connection.execute(tables.CLAIM, values).fetchone())

    def _is_held_elsewhere(self, claim: tables.Claim) -> bool:
        if claim.owner is None or claim.owner == self._owner:
            return False
        left = claim.until - self._ticks()
        # A time too far ahead was measured before the machine was started anew.
        return 0.0 < left <= _LONGEST_LEASE and not owners.is_dead(claim.owner)

    def _others_hurry(self, claim: tables.Claim) -> bool:
        before, self._hurries = self._hurries, claim.hurries
        return before is not None and before != claim.hurries

    def _counters(self) -> SpoolCounters:
        values = (self._destination.base_url, self._destination.digest)
        found = self._reading.read(
            "SELECT appended, delivered, pending, rejected, evicted, purged, pending_bytes, (SELECT appended_at FROM"
            " records WHERE destination = id AND is_rejected = 0 ORDER BY position LIMIT 1)"
            " FROM destinations WHERE base_url = ? AND digest = ?",
            values,
        )
        if not found:
            return SpoolCounters()
        appended, delivered, pending, rejected, evicted, purged, pending_bytes, oldest = found[0]
        return SpoolCounters(
            appended=appended,
            delivered=delivered,
            pending=pending,
            rejected=rejected,
            evicted=evicted,
            purged=purged,
            pending_bytes=pending_bytes,
            oldest_pending=None if oldest is None else max(0.0, self._clock() - oldest),
        )

    def _attempt(self, operation: Callable[[], _T]) -> _T:
        """Do something with the file; when it turns out to be gone or damaged, once more with a new one."""
        generation = self._generation
        try:
            return operation()
        except (SpoolGone, SpoolCorrupt) as error:
            with self._renewing:
                if generation == self._generation:
                    self._renew(error)
        return operation()

    def _renew(self, error: SpoolUnavailable) -> None:
        databases = (self._appending, self._shipping, self._reading)
        writer, self._owner = self._owner, owners.new_owner()
        self._generation += 1
        self._last_position = self._settled_up_to = self._on_lease = 0
        self._hurries = None
        for records in renewal.begin_anew(databases, error, self._destination, writer):
            try:
                taken = self.append(records)
            except SpoolUnavailable:
                taken = 0
            self._rescue(records[taken:])


_LONGEST_LEASE: Final = 7200.0


def _fitting(records: Sequence[Record], room: int) -> Sequence[Record]:
    for number, record in enumerate(records):
        room -= len(record.entry) + upkeep.ROW_OVERHEAD
        if room < 0:
            return records[:number]
    return records


def _owner_of(outcome: Outcome) -> str | None:
    lease = outcome.row.lease
    return lease.owner if isinstance(lease, tables.Lease) else None
