"""The spool that lives in this process's memory, and dies with it."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kwai_middleware import _native as native
from kwai_middleware._delivery.spool import Row, SpoolCounters

__all__ = ["ROW_OVERHEAD", "MemorySpool"]

ROW_OVERHEAD: Final = 512
"""Bytes that a waiting record occupies beside its text; counted, so that many small ones are bounded too."""


@dataclass(slots=True)
class _Waiting:
    row: Row
    since: float
    due: float = 0.0


class MemorySpool:
    """Bounded by bytes and by age.

    A full spool refuses the new record rather than forget an old one: a burst cannot erase the
    evidence of what began it.

    Args:
        max_bytes: For all waiting records together.
        max_age: Seconds after which a waiting record is given up.
        clock: Monotonic seconds.
    """

    def __init__(self, max_bytes: int, max_age: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._clock = clock
        self._lock = native.lock()
        # Ordered dictionaries: a plain one becomes slow when its first entry is taken out again and again.
        self._waiting: OrderedDict[int, _Waiting] = OrderedDict()
        self._ready: OrderedDict[int, None] = OrderedDict()
        self._resting: dict[int, None] = {}
        self._bytes = 0
        self._is_closed = False
        self._appended = self._delivered = self._rejected = self._evicted = self._purged = 0

    def append(self, record_id: str, entry: bytes) -> bool:
        """Take a record in. False when it is full or closed."""
        with self._lock:
            self._evict()
            if self._is_closed or self._bytes + len(entry) + ROW_OVERHEAD > self._max_bytes:
                return False
            self._appended += 1
            self._waiting[self._appended] = _Waiting(Row(self._appended, record_id, entry, 0), self._clock())
            self._ready[self._appended] = None
            self._bytes += len(entry) + ROW_OVERHEAD
            return True

    def lease(self) -> Row | None:
        """Hand out the record that is first in line."""
        with self._lock:
            self._evict()
            self._wake_the_rested()
            if not self._ready:
                return None
            position, _ = self._ready.popitem(last=False)
            return self._waiting[position].row

    def delivered(self, row: Row) -> None:
        """Settle: the vendor has it. A lease that is no longer valid is ignored."""
        with self._lock:
            self._delivered += self._removed(row)

    def rejected(self, row: Row) -> None:
        """Settle: the vendor will never take it. A lease that is no longer valid is ignored."""
        with self._lock:
            self._rejected += self._removed(row)

    def returned(self, row: Row, rest: float | None) -> None:
        """Give it back, to its place or behind the others. A lease that is no longer valid is ignored."""
        with self._lock:
            if not self._is_leased(row):
                return
            waiting = self._waiting[row.position]
            # A new row each time: whoever still holds the old lease can settle nothing with it.
            waiting.row = Row(row.position, row.record_id, row.entry, row.attempts + (rest is not None))
            if rest:
                waiting.due = self._clock() + rest
                self._resting[row.position] = None
            else:
                self._ready[row.position] = None
                self._ready.move_to_end(row.position, last=False)

    def hasten(self) -> None:
        """Let all records rest no longer."""
        with self._lock:
            for position in self._resting:
                self._waiting[position].due = 0.0

    def next_due(self) -> float | None:
        """Seconds until `lease` has something; None when nothing waits that is not on lease."""
        with self._lock:
            if self._ready:
                return 0.0
            if not self._resting:
                return None
            return max(0.0, min(self._waiting[position].due for position in self._resting) - self._clock())

    def position(self) -> int:
        """Position of the record appended last."""
        with self._lock:
            return self._appended

    def is_settled(self, position: int) -> bool:
        """Whether nothing up to `position` is pending."""
        with self._lock:
            return not self._waiting or next(iter(self._waiting)) > position

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

    def close(self) -> int:
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

    def _is_leased(self, row: Row) -> bool:
        waiting = self._waiting.get(row.position)
        if waiting is None or waiting.row is not row:
            return False
        return row.position not in self._ready and row.position not in self._resting

    def _removed(self, row: Row) -> int:
        if not self._is_leased(row):
            return 0
        self._forget(row.position)
        return 1

    def _forget(self, position: int) -> None:
        self._bytes -= len(self._waiting.pop(position).row.entry) + ROW_OVERHEAD
        self._ready.pop(position, None)
        self._resting.pop(position, None)

    def _wake_the_rested(self) -> None:
        if self._resting:
            now = self._clock()
            for position in [each for each in self._resting if self._waiting[each].due <= now]:
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
