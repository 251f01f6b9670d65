"""What tells of one request's user later, and the mark by which it is not asked while it is looking."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextvars import ContextVar
from typing import Final

from kwai_middleware._caller import Caller

__all__ = ["Unreadable", "UserSource", "is_reading", "reading"]


class Unreadable(Exception):
    """Why the user cannot be read from here, in words that show nothing of the user."""


class UserSource(ABC):
    """One request's user, whom a framework finds out about later."""

    __slots__ = ()

    @property
    @abstractmethod
    def origin(self) -> str:
        """Where the user comes from, in a few words."""

    @abstractmethod
    def read(self) -> Caller | None:
        """Return who the user is; None while nobody has logged in, or as long as nobody has looked.

        Raises:
            Exception: Whatever the app's own code raises, and what forbids to look from here.
        """

    @abstractmethod
    async def read_async(self) -> Caller | None:
        """Do the same on an event loop, where the framework has a way of its own for that."""

    @abstractmethod
    def keep(self) -> None:
        """Keep the user whom the framework has found, before it forgets; looks for nobody."""


class _Reading:
    """Marks the context of what is done to find out about a user."""

    __slots__ = ("around", "is_over", "source")

    def __init__(self, source: UserSource, around: _Reading | None) -> None:
        self.source: Final = source
        self.around: Final = around
        self.is_over = False


# A context variable: the framework may look on another thread, or in a task. It may also start what outlives the
# look, so the mark itself says when that is over.
_reading: Final[ContextVar[_Reading | None]] = ContextVar("kwai_middleware_reading", default=None)


@contextlib.contextmanager
def reading(source: UserSource) -> Generator[None]:
    """Mark the running code, and all that it starts, as what finds out about a user."""
    around = _reading.get()
    mark = _Reading(source, None if around is None or around.is_over else around)
    _reading.set(mark)
    try:
        yield
    finally:
        mark.is_over = True
        _reading.set(around)


def is_reading(source: UserSource) -> bool:
    """Return whether the running code is what finds out about that very user."""
    mark = _reading.get()
    while mark is not None:
        if mark.source is source and not mark.is_over:
            return True
        mark = mark.around
    return False
