"""A thread that is there when it is needed and comes back when it dies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kwai_middleware import _guard
from kwai_middleware import _native as native
from kwai_middleware._tally import Tally

__all__ = ["Worker"]

_PAUSE_AFTER_DEATH: Final = 0.1


class Worker:
    """Runs one function on at most one thread at a time.

    Args:
        name: Of the thread.
        run: What it does. When it returns, the thread ends; when it raises, it begins anew.
        ended: Called when the thread ends, or who was there in its place.
    """

    def __init__(self, name: str, run: Callable[[], None], ended: Callable[[], None]) -> None:
        self._name = name
        self._run = run
        self._ended = ended
        self._taken = native.flag()
        self._restarts = Tally()

    @property
    def running(self) -> bool:
        """Whether the function runs somewhere."""
        return bool(self._taken.locked())

    @property
    def restarts(self) -> int:
        """How often the function died of an error."""
        return self._restarts.value

    def ensure(self) -> bool:
        """Start the thread unless it runs. False when the system gives none; never waits."""
        if not self._taken.acquire(blocking=False):
            return True
        try:
            native.start_thread(self._live, self._name)
        except RuntimeError:
            self._taken.release()
            return False
        return True

    def borrow(self, function: Callable[[], None]) -> None:
        """Run `function` here, in place of the thread, unless the thread runs."""
        if not self._taken.acquire(blocking=False):
            return
        try:
            function()
        finally:
            self._taken.release()
            self._ended()

    def _live(self) -> None:
        try:
            while not self._survived():
                self._restarts.add()
                native.sleep(_PAUSE_AFTER_DEATH)
        finally:
            self._taken.release()
            self._ended()

    def _survived(self) -> bool:
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - a thread has nobody above it to take even a SystemExit
            _guard.report(error)
            return False
        return True
