"""Calls that have begun and are not over: when the process ends they are recorded as far as they came."""

from __future__ import annotations

import atexit
import itertools
import os
import threading
from collections.abc import Callable
from typing import Final, Protocol

from kwai_middleware import _guard

__all__ = ["afterwards", "begin", "end", "end_all"]


class OpenCall(Protocol):
    """A call that is being watched."""

    def abandon(self) -> None:
        """It is over: nobody will read on."""
        ...


# A dictionary of integers: adding, removing and copying are one step each, without a lock.
_open: Final[dict[int, tuple[int, OpenCall]]] = {}
_NOTHING: Final = (0, None)
_afterwards: Final[list[Callable[[], None]]] = []
_exit_hooks: Final = itertools.count()
_ended: Final[list[bool]] = []
"""Not empty once the end has come: nobody is called any more."""


def begin(call: OpenCall) -> None:
    """Note that `call` is open, until it ends."""
    # A forked child has a copy of this, and the call stays its parent's.
    _open[id(call)] = os.getpid(), call
    if next(_exit_hooks) == 0:
        # An SDK may leave a stream open behind its last event, and the app hold on to it until the end.
        _expect_exit()


def end(call: OpenCall) -> bool:
    """Note that `call` is over; False when that is known, or the call another process's.

    Of several threads, finalizers and signal handlers that say so, one is told that it was the first: removing is
    one step.
    """
    owner, _ = _open.pop(id(call), _NOTHING)
    return owner == os.getpid()


def end_all() -> None:
    """End all calls of this process that are still open."""
    pid = os.getpid()
    for owner, call in list(_open.copy().values()):
        if owner == pid:
            with _guard.never_raise:
                call.abandon()


def afterwards(function: Callable[[], None]) -> bool:
    """Call `function` when the process ends and all calls are over; once, however often that is asked for.

    Returns:
        False when the process ends already, and it is too late.
    """
    if function not in _afterwards:
        _afterwards.append(function)
    if next(_exit_hooks) == 0:
        _expect_exit()
    return not _ended


def _expect_exit() -> None:
    atexit.register(_at_exit)
    if not threading.main_thread().is_alive():
        # The handlers of the exit are being called, and those that are added meanwhile are not.
        _ended.append(True)


def _at_exit() -> None:
    end_all()
    # What ends last may have been the first to ask for what is done afterwards.
    _ended.append(True)
    for function in _afterwards:
        function()
