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
    """Keeps references to an answer's chunks and the time of each; copies nothing that fits.

    Args:
        limit: Bytes kept of this answer.
        reservation: Where the memory is accounted for; when it says no, only the tail is kept.
        room: Bytes that it holds for this answer already.

    Attributes:
        chunks: Those kept so far, but for the tail.
        arrivals: The time of each.
        left: Bytes for which there is room before more has to be asked for; below 0 once there is none.
    """

    __slots__ = ("_limit", "_reservation", "_room", "_skipped", "_tail", "_tail_size", "arrivals", "chunks", "left")

    def __init__(self, limit: int, reservation: Reservation, room: int = 0) -> None:
        self.chunks: list[bytes] = []
        self.arrivals: list[int] = []
        self._limit = limit - TAIL
        self._reservation = reservation
        self._room = self.left = room
        self._tail: deque[tuple[bytes, int]] | None = None  # there is none before the head is full
        self._tail_size = 0
        self._skipped = False

    def add(self, chunk: bytes, now: int) -> None:
        """Keep one chunk that arrived at `now`."""
        self.left -= len(chunk) + OVERHEAD
        if self.left < 0:
            self.add_beyond(chunk, now)
        else:
            self.chunks.append(chunk)
            self.arrivals.append(now)

    def add_beyond(self, chunk: bytes, now: int) -> None:
        """Keep a chunk for which there was nothing left: in new room, or among the last ones."""
        if self._found_room():
            self.chunks.append(chunk)
            self.arrivals.append(now)
        else:
            self._tail = self._tail or deque()
            self._add_to_tail(self._tail, chunk, now)

    def kept(self) -> tuple[tuple[bytes, ...], tuple[int, ...], int | None]:
        """Return the chunks, their times, and how many of them come before a gap (None: there is none)."""
        if self._tail is None:
            return tuple(self.chunks), tuple(self.arrivals), None
        chunks = (*self.chunks, *(chunk for chunk, _ in self._tail))
        arrivals = (*self.arrivals, *(arrival for _, arrival in self._tail))
        return chunks, arrivals, len(self.chunks) if self._skipped else None

    def _found_room(self) -> bool:
        if self._tail is not None:
            return False
        missing = -self.left
        step = min(max(self._room, FIRST_ROOM), _STEP)
        if missing > step:
            step = -(-missing // _STEP) * _STEP
        if self._room + missing <= self._limit and self._reservation.grow(step):
            self._room += step
            self.left += step
            return True
        return False

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
