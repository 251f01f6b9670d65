"""The encoded records that go into the spool together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from kwai_middleware._delivery.spool import Record

__all__ = ["Batch"]

_MOST: Final = 100
_MOST_BYTES: Final = 1024 * 1024


class Batch:
    """Records in the order of their calls, until the spool has answered. Used by one thread at a time.

    Args:
        longest: Seconds that a record waits for others.
        clock: Monotonic seconds.
    """

    def __init__(self, longest: float, clock: Callable[[], float]) -> None:
        self._longest = longest
        self._clock = clock
        self._records: list[tuple[int, Record]] = []
        self._bytes = 0
        self._since = 0.0

    def __len__(self) -> int:
        return len(self._records)

    def add(self, number: int, record: Record) -> None:
        """Let a record wait for the next commit, with the number of its call."""
        if not self._records:
            self._since = self._clock()
        self._records.append((number, record))
        self._bytes += len(record.entry)

    @property
    def is_due(self) -> bool:
        """Whether to wait for more would take too much memory, or too long."""
        if not self._records:
            return False
        if len(self._records) >= _MOST or self._bytes >= _MOST_BYTES:
            return True
        return self._clock() - self._since >= self._longest

    def first(self, count: int) -> list[Record]:
        """Return the records that have waited longest."""
        return [record for _, record in self._records[:count]]

    def remove(self, count: int) -> Sequence[int]:
        """Take out the records that have waited longest; returns the numbers of their calls."""
        removed = self._records[:count]
        del self._records[:count]
        self._bytes -= sum(len(record.entry) for _, record in removed)
        return [number for number, _ in removed]
