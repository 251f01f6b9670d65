"""What is alive in this process: flushed when a server shuts down, closed when the process ends, renewed in a fork.

All references are weak: to be listed here keeps nothing alive.
"""

from __future__ import annotations

import atexit
import itertools
import os
import sys
import time
import weakref
from typing import Any, Final, Protocol

from kwai_middleware import _guard

__all__ = ["aflush_all", "close_all", "close_at_exit", "renew_after_fork"]


class Closable(Protocol):
    """What is closed at exit: an engine."""

    pid: int
    exit_timeout: float

    def hurry(self) -> None:
        """Begin what the other two wait for."""
        ...

    def flush(self, deadline: float) -> bool:
        """Deliver what is there, until the monotonic clock shows `deadline`."""
        ...

    def close(self, deadline: float) -> bool:
        """Deliver what is there and end, until the monotonic clock shows `deadline`."""
        ...


class Forkable(Protocol):
    """What is renewed in a forked child."""

    def after_fork(self) -> None:
        """Begin anew. Other threads are gone, and their locks may be held for ever: touch none, log nothing."""
        ...


# Dictionaries of integers: adding, removing and copying are one step each, without a lock.
_closables: Final[dict[int, weakref.ref[Closable]]] = {}
_forkables: Final[dict[int, weakref.ref[Forkable]]] = {}
_exit_hooks: Final = itertools.count()
_fork_hooks: Final = itertools.count()


def close_at_exit(engine: Closable) -> None:
    """Close `engine` when this process ends, if it is still there."""
    key = id(engine)
    _closables[key] = weakref.ref(engine, lambda _: _closables.pop(key, None))
    if next(_exit_hooks) == 0:
        atexit.register(close_all)
    process: Any = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        # A child of multiprocessing leaves by os._exit: its own finalizers run, those of atexit do not.
        from multiprocessing.util import Finalize

        Finalize(None, close_all, exitpriority=0)


def renew_after_fork(owner: Forkable) -> None:
    """Call `owner.after_fork()` in each child that this process forks, as long as `owner` is there."""
    key = id(owner)
    _forkables[key] = weakref.ref(owner, lambda _: _forkables.pop(key, None))
    if next(_fork_hooks) == 0:
        os.register_at_fork(after_in_child=_renew_all)


def close_all() -> None:
    """Close all engines of this process, each within its time to exit, counted from now for all of them."""
    engines = _of_this_process()
    now = time.monotonic()
    for engine in engines:
        engine.hurry()
    for engine in engines:
        with _guard.never_raise:
            engine.close(now + engine.exit_timeout)


async def aflush_all() -> None:
    """Flush all deliveries of this process, each within its time to exit. Never raises."""
    engines = _of_this_process()
    if not engines:
        return
    with _guard.never_raise:
        await in_thread(_flush_all, engines)


async def in_thread(function: Any, *args: Any) -> Any:
    """Run a blocking function away from the running event loop, asyncio's or trio's.

    With a limiter of its own: the loop's has a limited number of threads, and the app may hold all.
    """
    import anyio

    return await anyio.to_thread.run_sync(function, *args, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))


def _flush_all(engines: list[Closable]) -> None:
    now = time.monotonic()
    for engine in engines:
        engine.hurry()
    for engine in engines:
        with _guard.never_raise:
            engine.flush(now + engine.exit_timeout)


def _of_this_process() -> list[Closable]:
    engines = [reference() for reference in _closables.copy().values()]
    pid = os.getpid()
    return [engine for engine in engines if engine is not None and engine.pid == pid]


def _renew_all() -> None:
    owners = [reference() for reference in _forkables.copy().values()]
    for owner in filter(None, owners):
        owner.after_fork()
