"""What is kept of one answer: all of it, or its head and its last 64 KiB."""

from __future__ import annotations

from collections import deque
from typing import Final

from kwai_middleware._outbound.budget import Reservation

__all__ = ["FIRST_ROOM", "OVERHEAD", "TAIL", "KeptChunks"]

TAIL: Final = 64 * 1024
"""Usage and cost stand at the end of an answer: this much of the end is kept whatever its size."""

FIRST_ROOM: Final = 4 * 1024
"""Most answers need no more than a few kilobytes."""

_STEP: Final = 64 * 1024
"""Memory is reserved in steps that double up to this, so that most chunks cost one comparison."""

OVERHEAD: Final = 96
"""What one kept chunk costs beside its bytes: the object, its place, its time."""


class KeptChunks:
    """Goes on keeping an answer's chunks where its first room is full; copies nothing that fits.

    Args:
        limit: Bytes kept of this answer, its tail aside.
        reservation: Where the memory is accounted for; when it says no, only the tail is kept.
        room: Bytes that it holds for this answer already.
        chunks: What was kept so far.
        arrivals: The time of each.
    """

    __slots__ = ("_arrivals", "_chunks", "_limit", "_reservation", "_room", "_skipped", "_tail", "_tail_size")

    def __init__(
        self, limit: int, reservation: Reservation, room: int, chunks: list[bytes], arrivals: list[int]
    ) -> None:
        self._chunks = chunks
        self._arrivals = arrivals
        self._limit = limit
        self._reservation = reservation
        self._room = room
        self._tail: deque[tuple[bytes, int]] | None = None  # there is none before the head is full
        self._tail_size = 0
        self._skipped = False

    def add(self, chunk: bytes, now: int, missing: int) -> int:
        """Keep one chunk, in new room or among the last ones.

        Args:
            chunk: What has come.
            now: When it came.
            missing: Bytes that it needs beyond the room that there is.

        Returns:
            Bytes for which there is room now, without asking for more; below 0 once there is none.
        """
        step = self._found_room(missing)
        if step:
            self._chunks.append(chunk)
            self._arrivals.append(now)
        else:
            self._tail = self._tail or deque()
            self._add_to_tail(self._tail, chunk, now)
        return step - missing

    def kept(self) -> tuple[tuple[bytes, ...], tuple[int, ...], int | None]:
        """Return the chunks, their times, and how many of them come before a gap (None: there is none)."""
        if self._tail is None:
            return tuple(self._chunks), tuple(self._arrivals), None
        chunks = (*self._chunks, *(chunk for chunk, _ in self._tail))
        arrivals = (*self._arrivals, *(arrival for _, arrival in self._tail))
        return chunks, arrivals, len(self._chunks) if self._skipped else None

    def _found_room(self, missing: int) -> int:
        if self._tail is not None:
            return 0
        step = min(max(self._room, FIRST_ROOM), _STEP)
        if missing > step:
            step = -(-missing // _STEP) * _STEP
        if self._room + missing <= self._limit and self._reservation.grow(step):
            self._room += step
            return step
        return 0

    def _add_to_tail(self, tail: deque[tuple[bytes, int]], chunk: bytes, now: int) -> None:
        if len(chunk) > TAIL:
            # A slice, so that a huge chunk does not stay alive for its end.
            chunk = chunk[-TAIL:]
            self._skipped = True
        tail.append((chunk, now))
        self._tail_size += len(chunk) + OVERHEAD
        while self._tail_size - len(tail[0][0]) - OVERHEAD >= TAIL:
            dropped, _ = tail.popleft()
            self._tail_size -= len(dropped) + OVERHEAD
            self._skipped = True
