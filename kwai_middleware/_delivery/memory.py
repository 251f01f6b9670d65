"""The spool that lives in this process's memory, and dies with it."""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, cast

import msgspec

from kwai_middleware import _native as native
from kwai_middleware._delivery.spool import Handout, Outcome, Record, Row, SpoolCounters, most_at_once

__all__ = ["ROW_OVERHEAD", "MemorySpool"]

ROW_OVERHEAD: Final = 512
"""Bytes that a waiting record occupies beside its text; counted, so that many small ones are bounded too."""


class _Waiting(msgspec.Struct):
    row: Row
    customer: str | None
    since: float
    due: float = 0.0


class MemorySpool:
    """Bounded by bytes and by age.

    A full spool refuses the new record rather than forget an old one: a burst cannot erase the
    evidence of what began it.

    Args:
        max_bytes: For all waiting records together.
        max_age: Seconds after which a waiting record is given up.
        bulk_spacing: Seconds between two bulk requests.
        clock: Monotonic seconds.
    """

    poll: float | None = None

    def __init__(
        self,
        max_bytes: int,
        max_age: float,
        bulk_spacing: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._bulk_spacing = bulk_spacing
        self._clock = clock
        self._lock = native.lock()
        # Ordered dictionaries: a plain one becomes slow when its first entry is taken out again and again.
        self._waiting: OrderedDict[int, _Waiting] = OrderedDict()
        self._ready: OrderedDict[int, None] = OrderedDict()
        self._resting: dict[int, None] = {}
        self._bytes = 0
        self._last = 0
        self._bulk_at = 0.0
        self._is_closed = False
        self._appended = self._delivered = self._rejected = self._evicted = self._purged = 0

    def append(self, records: Sequence[Record]) -> int:
        """Take records in, as many as there is room for; returns how many, counted from the first."""
        taken = 0
        with self._lock:
            self._evict()
            for record in records:
                size = len(record.entry) + ROW_OVERHEAD
                if self._is_closed or self._bytes + size > self._max_bytes:
                    break
                taken += 1
                self._last += 1
                row = Row(self._last, record.record_id, record.entry)
                self._waiting[self._last] = _Waiting(row, record.customer, self._clock())
                self._ready[self._last] = None
                self._bytes += size
            self._appended += taken
        return taken

    def backlog(self) -> int:
        """How many records wait."""
        return len(self._waiting)

    def lease(self, rows: int, size: int, *, bulk: bool) -> Handout:
        """Hand out the records that are first in line."""
        with self._lock:
            self._evict()
            self._wake_the_rested()
            chosen: list[Row] = []
            for position in self._ready:
                row = self._waiting[position].row
                if chosen and (row.together != chosen[0].together or size < len(row.entry)):
                    break
                chosen.append(row)
                size -= len(row.entry)
                if len(chosen) >= rows or (bulk and len(chosen) >= most_at_once(row.together)):
                    break
            for row in chosen:
                del self._ready[row.position]
            if bulk and len(chosen) > 1 and chosen[0].together > 1:
                self._bulk_at = self._clock() + self._bulk_spacing
            return Handout(tuple(chosen), None if chosen else self._next_due())

    def settle(self, outcomes: Sequence[Outcome], error: str | None = None) -> None:
        """Say what became of rows; a lease that is no longer valid is ignored."""
        with self._lock:
            # From the last to the first: each that comes back goes to the front.
            for outcome in sorted(outcomes, key=_place, reverse=True):
                if self._is_leased(outcome.row):
                    self._settle(outcome)

    def bulk_wait(self) -> float:
        """Seconds until the next bulk request may be sent."""
        return max(0.0, self._bulk_at - self._clock())

    def renew(self) -> bool:
        """Say that nobody else is in a hurry: there is nobody else."""
        return False

    def make_way(self, seconds: float) -> None:
        """Do nothing: there is nobody else."""

    def hasten(self) -> None:
        """Let all records rest no longer."""
        with self._lock:
            for position in self._resting:
                self._waiting[position].due = 0.0

    def position(self) -> int:
        """Position of the record appended last."""
        with self._lock:
            return self._last

    def is_settled(self, position: object) -> bool:
        """Whether nothing up to `position` is pending."""
        with self._lock:
            return not self._waiting or next(iter(self._waiting)) > cast("int", position)

    def counters(self) -> SpoolCounters:
        """Return one consistent view of the ledger."""
        with self._lock:
            self._evict()
            oldest = next(iter(self._waiting.values()), None)
            return SpoolCounters(
                appended=self._appended,
                delivered=self._delivered,
                pending=len(self._waiting),
                rejected=self._rejected,
                evicted=self._evicted,
                purged=self._purged,
                pending_bytes=self._bytes,
                oldest_pending=None if oldest is None else self._clock() - oldest.since,
            )

    def hold(self, most: int) -> list[tuple[Row, Record]]:
        """Put up to `most` records on lease that are to go to another spool, those at rest too."""
        with self._lock:
            held = [
                self._waiting[position]
                for position in itertools.islice(itertools.chain(self._ready, self._resting), most)
            ]
            for waiting in held:
                self._ready.pop(waiting.row.position, None)
                self._resting.pop(waiting.row.position, None)
            return [(each.row, Record(each.row.record_id, each.row.entry, each.customer)) for each in held]

    def release(self, rows: Sequence[Row]) -> None:
        """Let go of records that are on hold: each is where it was before."""
        with self._lock:
            for row in reversed(rows):
                if self._is_leased(row):
                    self._put_back(row.position)

    def moved(self, rows: Sequence[Row]) -> None:
        """Forget records on hold that another spool has taken, as if they had never come in here."""
        with self._lock:
            for row in rows:
                if self._is_leased(row):
                    self._forget(row.position)
                    self._appended -= 1

    def end_by(self, until: float) -> None:
        """Do nothing: there is nobody to wait for."""

    def recall(self) -> None:
        """Take back what is on lease: whoever has it settles nothing with it any more."""
        with self._lock:
            # From the last to the first: each goes to the front.
            for position in reversed([each for each in self._waiting if each not in self._resting]):
                waiting = self._waiting[position]
                waiting.row = msgspec.structs.replace(waiting.row)
                self._put_back(position)

    def close(self, *, is_in_use: bool = False, is_appended_to: bool = False) -> int:
        """Throw away what waits, and take nothing in any more."""
        with self._lock:
            self._is_closed = True
            lost = len(self._waiting)
            self._purged += lost
            self._waiting.clear()
            self._ready.clear()
            self._resting.clear()
            self._bytes = 0
            return lost

    def _settle(self, outcome: Outcome) -> None:
        position = outcome.row.position
        if outcome.end == "delivered":
            self._delivered += 1
            self._forget(position)
        elif outcome.end == "rejected":
            self._rejected += 1
            self._forget(position)
        else:
            waiting = self._waiting[position]
            # A new row each time: whoever still holds the old lease can settle nothing with it.
            waiting.row = Row(position, outcome.row.record_id, outcome.row.entry, outcome.attempts, outcome.together)
            waiting.due = self._clock() + outcome.rest if outcome.rest else 0.0
            self._put_back(position)

    def _put_back(self, position: int) -> None:
        if self._waiting[position].due > self._clock():
            self._resting[position] = None
        else:
            self._ready[position] = None
            self._ready.move_to_end(position, last=False)

    def _is_leased(self, row: Row) -> bool:
        waiting = self._waiting.get(row.position)
        if waiting is None or waiting.row is not row:
            return False
        return row.position not in self._ready and row.position not in self._resting

    def _forget(self, position: int) -> None:
        self._bytes -= len(self._waiting.pop(position).row.entry) + ROW_OVERHEAD
        self._ready.pop(position, None)
        self._resting.pop(position, None)

    def _next_due(self) -> float | None:
        if not self._resting:
            return None
        return max(0.0, min(self._waiting[position].due for position in self._resting) - self._clock())

    def _wake_the_rested(self) -> None:
        if self._resting:
            now = self._clock()
            for position in sorted(each for each in self._resting if self._waiting[each].due <= now):
                del self._resting[position]
                self._ready[position] = None

    def _evict(self) -> None:
        """Give up what has waited too long; what is just being sent has its chance first."""
        too_old = self._clock() - self._max_age
        stale: list[int] = []
        for position, waiting in self._waiting.items():
            if waiting.since > too_old:
                break
            if position in self._ready or position in self._resting:
                stale.append(position)
        for position in stale:
            self._forget(position)
        self._evicted += len(stale)


def _place(outcome: Outcome) -> int:
    return outcome.row.position
