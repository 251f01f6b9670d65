"""What arrived: bounded, numbered, filtered, and waited for without polling."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import ClassVar, Final, Generic, Protocol, TypeVar

from kwai_middleware.sandbox.keys import KeyRing

__all__ = ["Entry", "Journal"]

_MOST_ENTRIES: Final = 20_000
_MOST_BYTES: Final = 128 * 1024 * 1024
_MANY: Final = 250
_BREATH: Final = 0.005
"""Seconds between two looks at many entries, so that waiting for thousands costs little."""


class Entry(Protocol):
    """One thing that arrived."""

    filters: ClassVar[tuple[str, ...]]
    number: int

    @property
    def size(self) -> int:
        """Bytes it holds."""
        ...

    def shown(self, keys: KeyRing) -> dict[str, object]:
        """What the journal shows of it: everything but keys."""
        ...


EntryT = TypeVar("EntryT", bound=Entry)


class Journal(Generic[EntryT]):
    """The latest entries of one kind, at most 20,000 and 128 MiB of them; belongs to one event loop."""

    def __init__(self) -> None:
        self._entries: deque[EntryT] = deque()
        self._bytes = 0
        self._last_number = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self.evicted = 0

    def append(self, entry: EntryT) -> None:
        """Keep `entry`, number it, and let go of the oldest when there are too many."""
        self._last_number += 1
        entry.number = self._last_number
        self._entries.append(entry)
        self._bytes += entry.size
        while len(self._entries) > 1 and (len(self._entries) > _MOST_ENTRIES or self._bytes > _MOST_BYTES):
            self._bytes -= self._entries.popleft().size
            self.evicted += 1
        self.wake()

    def clear(self) -> None:
        """Forget everything; numbers begin at 1 again."""
        self._entries.clear()
        self._bytes = self._last_number = self.evicted = 0
        self.wake()

    def matching(self, filters: Mapping[str, str]) -> list[EntryT]:
        """Return the entries whose attributes, as text, equal all `filters`."""
        return [
            entry for entry in self._entries if all(str(getattr(entry, name)) == text for name, text in filters.items())
        ]

    async def wait(self, filters: Mapping[str, str], at_least: int, seconds: float) -> None:
        """Wait until `at_least` entries match, or until `seconds` have passed."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while len(self.matching(filters)) < at_least and (left := until - loop.time()) > 0:
            waiting = loop.create_future()
            self._waiting.add(waiting)
            try:
                await asyncio.wait((waiting,), timeout=left)
            finally:
                self._waiting.discard(waiting)
            if len(self._entries) > _MANY:
                await asyncio.sleep(_BREATH)

    def wake(self) -> None:
        """Have everyone who waits look again: an entry has come or changed."""
        everyone, self._waiting = self._waiting, set()
        for waiting in everyone:
            waiting.set_result(None)
