"""A spool on disk with one in memory beside it, for as long as the disk fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar, cast

from kwai_middleware import _native as native
from kwai_middleware import _notices
from kwai_middleware._delivery.disk.errors import SpoolShort, SpoolUnavailable
from kwai_middleware._delivery.disk.spool import DiskSpool
from kwai_middleware._delivery.memory import MemorySpool
from kwai_middleware._delivery.spool import Handout, Outcome, Record, SpoolCounters

__all__ = ["FallbackSpool"]

_T = TypeVar("_T")
_logger: Final = logging.getLogger("kwai_middleware")

_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 30.0
_MOVED_AT_ONCE: Final = 100
_MOMENT: Final = 0.005


class FallbackSpool:
    """Keeps records on disk; in bounded memory while the disk cannot be written, and then moves them there.

    Args:
        disk: Where they belong.
        memory: Where they go meanwhile.
        is_asked_for: Somebody has named the place on disk: that it fails is an error then, and
            else a warning.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        disk: DiskSpool,
        memory: MemorySpool,
        *,
        is_asked_for: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.poll = disk.poll
        self._disk = disk
        self._memory = memory
        self._level = logging.ERROR if is_asked_for else logging.WARNING
        self._clock = clock
        self._lock = native.lock()
        self._is_failing = self._is_short = False
        self._reason = ""
        self._pause = _FIRST_PAUSE
        self._try_at = 0.0
        self._moved_up_to: object = None
        self._rescued_up_to = 0
        self._last_counters = SpoolCounters(place=disk.path)
        disk.rescue = self._rescued
        self._is_closed = False

    def append(self, records: Sequence[Record]) -> int:
        """Take records in, on disk if it can be; returns how many, counted from the first."""
        taken = self._appended(records) if self._moved_back() else None
        return self._memory.append(records) if taken is None else taken

    def backlog(self) -> int:
        """How many records wait."""
        return (self._on_disk(self._disk.backlog) or 0) + self._memory.backlog()

    def lease(self, rows: int, size: int, *, bulk: bool) -> Handout:
        """Hand out records of memory first: they are the ones that a crash would lose."""
        self._moved_back()
        handout = self._memory.lease(rows, size, bulk=bulk)
        if handout.rows:
            return handout
        on_disk = self._on_disk(lambda: self._disk.lease(rows, size, bulk=bulk))
        if on_disk is None:
            return Handout(wait=_FIRST_PAUSE if handout.wait is None else min(handout.wait, _FIRST_PAUSE))
        if on_disk.rows or handout.wait is None:
            return on_disk
        return Handout(wait=handout.wait if on_disk.wait is None else min(handout.wait, on_disk.wait))

    def settle(self, outcomes: Sequence[Outcome], error: str | None = None) -> None:
        """Say what became of rows, each to the spool it came from."""
        of_memory = [outcome for outcome in outcomes if outcome.row.lease is None]
        of_disk = [outcome for outcome in outcomes if outcome.row.lease is not None]
        if of_memory:
            self._memory.settle(of_memory, error)
        if of_disk:
            self._guarded(lambda: self._disk.settle(of_disk, error))

    def bulk_wait(self) -> float:
        """Seconds until the next bulk request may be sent."""
        return max(self._on_disk(self._disk.bulk_wait) or 0.0, self._memory.bulk_wait())

    def renew(self) -> bool:
        """Keep what is on lease while nothing is sent; whether another process is in a hurry."""
        return bool(self._on_disk(self._disk.renew))

    def make_way(self, seconds: float) -> None:
        """Let another process try what is on disk."""
        self._on_disk(lambda: self._disk.make_way(seconds))

    def hasten(self) -> None:
        """Let no record rest any longer, and look whether the disk works again."""
        self._try_at = 0.0
        self._memory.hasten()
        self._on_disk(self._disk.hasten)

    def position(self) -> tuple[object, object]:
        """Return a mark behind what this process appended last, for `is_settled`."""
        return self._disk.position(), self._memory.position()

    def is_settled(self, position: object) -> bool:
        """Whether nothing that this process appended before the mark is pending."""
        on_disk, in_memory = cast("tuple[object, int]", position)
        if not self._is_settled_in_memory(in_memory):
            return False
        # What was in memory when the mark was made may lie on disk by now,
        marks = (on_disk, self._moved_up_to)
        if not all(mark is None or self._is_settled_on_disk(mark) for mark in marks):
            return False
        # and what was on disk may lie in memory.
        return self._is_settled_in_memory(in_memory)

    def counters(self) -> SpoolCounters:
        """Return one view of both ledgers together; the last one, when it cannot be had at once."""
        # Not while some are moved, and are in both.
        if self._lock.acquire(timeout=_MOMENT):
            try:
                self._last_counters = self._counters()
            finally:
                self._lock.release()
        return self._last_counters

    def _counters(self) -> SpoolCounters:
        disk, memory = self._disk.counters(), self._memory.counters()
        ages = [age for age in (disk.oldest_pending, memory.oldest_pending) if age is not None]
        return SpoolCounters(
            appended=disk.appended + memory.appended,
            delivered=disk.delivered + memory.delivered,
            pending=disk.pending + memory.pending,
            rejected=disk.rejected + memory.rejected,
            evicted=disk.evicted + memory.evicted,
            purged=disk.purged + memory.purged,
            pending_bytes=disk.pending_bytes + memory.pending_bytes,
            oldest_pending=max(ages, default=None),
            last_success=disk.last_success,
            last_error=disk.last_error,
            place=memory.place if self._is_failing else disk.place,
            disk_error=self._reason if self._is_failing else None,
        )

    def end_by(self, until: float) -> None:
        """Wait for a disk that others use until then, and for moments only after that."""
        self._disk.end_by(until)

    def close(self, *, is_in_use: bool = False, is_appended_to: bool = False) -> int:
        """Let go of the disk; what is still in memory is moved there, or lost."""
        # The lock may be held by a thread that waits for the disk.
        if self._lock.acquire(timeout=_MOMENT if is_in_use else -1):
            try:
                if not is_appended_to:
                    # Whoever is late with a request may not be here any more to say what became of it.
                    self._memory.recall()
                    self._try_at = 0.0
                    self._moved_back()
            finally:
                self._lock.release()
        self._is_closed = True
        lost = self._memory.close()
        return lost if is_in_use else lost + self._disk.close()

    def _is_settled_in_memory(self, mark: int) -> bool:
        return self._memory.is_settled(max(mark, self._rescued_up_to))

    def _is_settled_on_disk(self, mark: object) -> bool:
        return bool(self._guarded(lambda: self._disk.is_settled(mark)))

    def _moved_back(self) -> bool:
        """Bring what is in memory to the disk; whether that is where new records belong."""
        while not self._is_paused():
            if not self._memory.backlog():
                return True
            # A few at a time: somebody may want to see the counters.
            with self._lock:
                held, taken = self._move_some()
            if not held:
                # What is in memory still is under way to the vendor.
                return True
            if taken < held:
                return False
        return False

    def _move_some(self) -> tuple[int, int]:
        # On lease, so that nobody sends them meanwhile.
        held = self._memory.hold(_MOVED_AT_ONCE)
        taken = 0
        try:
            if held:
                taken = self._appended([record for _, record in held]) or 0
            if taken:
                self._moved_up_to = self._disk.position()
        finally:
            rows = [row for row, _ in held]
            self._memory.moved(rows[:taken])
            self._memory.release(rows[taken:])
        return len(held), taken

    def _rescued(self, records: Sequence[Record]) -> int:
        """Keep records of a file that is gone, if the new one does not take them."""
        taken = self._memory.append(records)
        self._rescued_up_to = self._memory.position()
        return taken

    def _appended(self, records: Sequence[Record]) -> int | None:
        taken = self._on_disk(lambda: self._disk.append(records))
        if taken is not None and self._is_failing:
            self._is_failing = False
            _logger.warning("kwai_middleware: records are kept on disk again")
        return taken

    def _is_paused(self) -> bool:
        return self._is_failing and self._clock() < self._try_at

    def _on_disk(self, operation: Callable[[], _T]) -> _T | None:
        """Do something with the disk; None when it fails, or has failed a moment ago."""
        return None if self._is_paused() and not self._is_short else self._guarded(operation)

    def _guarded(self, operation: Callable[[], _T]) -> _T | None:
        try:
            return operation()
        except SpoolUnavailable as error:
            self._failed(error)
            return None

    def _failed(self, error: SpoolUnavailable) -> None:
        if self._is_closed:
            return
        with self._lock:
            is_news, self._is_failing = not self._is_failing, True
            # What is there goes on to be sent: that makes room.
            self._is_short = isinstance(error, SpoolShort)
            self._reason = str(error)
            self._pause = _FIRST_PAUSE if is_news else min(2 * self._pause, _LONGEST_PAUSE)
            self._try_at = self._clock() + self._pause
        if is_news:
            # Not repeated for each attempt that fails, nor for each record.
            _notices.count("spool_unavailable")
            _logger.log(
                self._level,
                "kwai_middleware: records cannot be kept on disk (%s); they wait in memory meanwhile, and what does not"
                " fit there (max_memory_bytes) or is there when the process dies is lost. KWAI_SPOOL names another"
                " place; memory: asks for this one.",
                error,
            )
