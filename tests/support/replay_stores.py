"""What remembers the signed headers that were used: in memory, in a file for several processes, and one that fails."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

__all__ = ["AsyncMemory", "Broken", "Memory", "SQLite"]


class Memory:
    """Remembers for one process, and shows what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []

    def add(self, nonce: str, expires_at: float) -> bool:
        """Remember a nonce; True the first time."""
        is_new = all(nonce != each for each, _ in self.asked)
        self.asked.append((nonce, expires_at))
        return is_new


class AsyncMemory(Memory):
    """The same for an event loop."""

    async def add(self, nonce: str, expires_at: float) -> bool:  # type: ignore[override]  # a store is one or the other
        """Remember a nonce; True the first time."""
        await asyncio.sleep(0)
        return Memory.add(self, nonce, expires_at)


class SQLite:
    """Remembers in a file."""

    def __init__(self, file: Path) -> None:
        self._database = sqlite3.connect(file, timeout=30, isolation_level=None, check_same_thread=False)
        self._database.execute("CREATE TABLE IF NOT EXISTS used (nonce TEXT PRIMARY KEY, expires_at REAL)")

    def add(self, nonce: str, expires_at: float) -> bool:
        """Remember a nonce; True the first time."""
        return self._database.execute("INSERT OR IGNORE INTO used VALUES (?, ?)", (nonce, expires_at)).rowcount == 1

    def close(self) -> None:
        """Close the file."""
        self._database.close()


class Broken:
    """Fails, or answers what no store should.

    Args:
        answer: What it answers; an exception is raised.
        is_async: Whether one has to wait for that.
    """

    def __init__(self, answer: object, *, is_async: bool = False) -> None:
        self._answer = answer
        self._is_async = is_async

    def add(self, nonce: str, expires_at: float) -> object:
        """Fail."""
        return self._later() if self._is_async else self._now()

    async def _later(self) -> object:
        await asyncio.sleep(0)
        return self._now()

    def _now(self) -> object:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer
