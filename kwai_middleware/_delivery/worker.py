"""A thread that is there when it is needed and comes back when it dies."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from kwai_middleware import _guard
from kwai_middleware import _native as native
from kwai_middleware._tally import Tally

__all__ = ["Worker"]

_SHORTEST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 30.0
"""Seconds between two deaths: what fails each time anew costs little by then, and is seen to have begun again."""


class Worker:
    """Runs one function on at most one thread at a time.

    Args:
        name: Of the thread.
        run: What it does. When it returns, the thread ends; when it raises, it begins anew, after a
            pause that grows from death to death.
        ended: Called when the thread ends, or who was there in its place.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        name: str,
        run: Callable[[], None],
        ended: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._run = run
        self._ended = ended
        self._clock = clock
        self._taken = native.flag()
        self._restarts = Tally()
        self._pause = 0.0
        self._bell = native.Doorbell()
        self._stopped = False

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

    def hasten(self) -> None:
        """Let a thread that has died begin anew at once: somebody waits for it."""
        self._bell.ring()

    def stop(self) -> None:
        """Let a thread that dies stay dead; one that has died before has a last try, at once."""
        self._stopped = True
        self._bell.ring()

    def borrow(self, function: Callable[[], None]) -> bool:
        """Run `function` here, in place of the thread, unless the thread runs; False when it fails."""
        if not self._taken.acquire(blocking=False):
            return True
        has_failed = True
        try:
            with _guard.never_raise:
                function()
                has_failed = False
        finally:
            self._taken.release()
            self._ended()
        return not has_failed

    def _live(self) -> None:
        try:
            while not self._survived():
                self._restarts.add()
                if self._stopped:
                    return
                self._bell.wait(self._pause)
        finally:
            self._taken.release()
            self._ended()

    def _survived(self) -> bool:
        began = self._clock()
        # What was rung before is answered by what begins now.
        self._bell.wait(0)
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001 - a thread has nobody above it to take even a SystemExit
            _guard.report(error)
            has_lived = self._clock() - began > _LONGEST_PAUSE
            self._pause = _SHORTEST_PAUSE if has_lived else min(max(2 * self._pause, _SHORTEST_PAUSE), _LONGEST_PAUSE)
            return False
        return True
