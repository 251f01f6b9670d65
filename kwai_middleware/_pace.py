"""The pace of a thread that works in the background of an event loop: short slices, and real sleep between them.

A thread that only computes keeps the interpreter for milliseconds at a time, and one call into C for
as long as it takes. So long loops of ours call `breathe` between their pieces, and split what is huge.
"""

from __future__ import annotations

import os
from _thread import get_ident
from collections.abc import Callable, Iterator
from time import perf_counter_ns
from types import TracebackType
from typing import Final

from kwai_middleware import _guard
from kwai_middleware import _native as native

__all__ = ["LONG_SLICE", "SLICE", "WINDOW", "Pace", "breathe", "rest", "windows"]

WINDOW: Final = 16 * 1024
"""Characters or bytes of a huge text that are looked at in one go."""

SLICE: Final = 100_000
"""Nanoseconds of work after which it is time to sleep."""

LONG_SLICE: Final = 250_000
"""The same for work that is soon done: it has no long steps to come on top, and a sleep costs as much as half of it."""

_BREATH: Final = 50e-6
"""Seconds of real sleep. A shorter one ends before whoever waits for the interpreter has woken up."""

_paces: Final[dict[int, Pace]] = {}
"""By thread. Each thread touches its own place only, so that no lock is needed."""


def breathe() -> None:
    """Sleep for a moment if this thread has a pace, and has worked for a while; else do nothing, and that quickly.

    To be called between the pieces of all that may be long. Never while a lock is held that the app's calls need.
    """
    if _paces and (pace := _paces.get(get_ident())) is not None and perf_counter_ns() >= pace.due:
        pace.rest()


def rest() -> None:
    """Sleep for a moment if this thread has a pace, however little it has worked: others work on what it gave them."""
    if _paces and (pace := _paces.get(get_ident())) is not None:
        pace.rest()


class Pace:
    """Gives the thread that enters it a pace, until it is left: `with Pace(): ...`.

    Args:
        meanwhile: Called before each sleep, in the middle of whatever is being done: small work need
            not wait for the end of huge work. It may breathe, and is not called again until it returns.

    Attributes:
        due: When it is time to sleep, as `perf_counter_ns` tells it.
        slice: Nanoseconds of work between two sleeps.
    """

    __slots__ = ("_is_away", "_is_hurried", "_meanwhile", "_pid", "due", "slice")

    def __init__(self, meanwhile: Callable[[], object] | None = None) -> None:
        self.due = 0
        self.slice = SLICE
        self._meanwhile = meanwhile
        self._is_away = False
        self._is_hurried = False
        self._pid = os.getpid()

    def hurry(self) -> None:
        """Sleep no more. For any thread to call."""
        self._is_hurried = True

    def rest(self) -> None:
        """Do what else there is to do, and sleep for a moment."""
        if self._pid != os.getpid():
            # A forked child, whose threads may go by the numbers of those that the parent had.
            _paces.clear()
            return
        if self._meanwhile is not None and not self._is_away:
            self._is_away = True
            with _guard.never_raise:
                self._meanwhile()
            self._is_away = False
        if not self._is_hurried:
            native.sleep(_BREATH)
        self.rested()

    def rested(self) -> None:
        """Begin a slice: this thread has just slept, for a reason of its own."""
        self.due = perf_counter_ns() + self.slice

    def __enter__(self) -> Pace:
        self._pid = os.getpid()
        self.rested()
        _paces[get_ident()] = self
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _paces.pop(get_ident(), None)


def windows(size: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """Yield the borders of pieces that make up a text of `size`, with room to breathe between any two."""
    while start < size:
        end = min(start + WINDOW, size)
        yield start, end
        start = end
        breathe()
