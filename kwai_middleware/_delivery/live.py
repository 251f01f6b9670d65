"""What is alive in this process: flushed after requests and when a server shuts down, closed at exit, renewed in forks.

All references are weak: to be listed here keeps nothing alive.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
import weakref
from typing import Any, Final, Protocol

from kwai_middleware import _guard, _open_calls

__all__ = [
    "aflush_all",
    "aflush_serverless",
    "close_all",
    "close_at_exit",
    "flush_after_requests",
    "flush_all",
    "flush_serverless",
    "has_event_loop",
    "renew_after_fork",
    "serverless",
]


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
serverless: Final[dict[int, weakref.ref[Closable]]] = {}
"""Those that are flushed after each request; empty almost everywhere, which is all that a request looks at."""

_MAIN_PROCESS: Final = "MainProcess"

_fork_hooks: Final = itertools.count()


def close_at_exit(engine: Closable) -> bool:
    """Close `engine` when this process ends, if it is still there; False when it ends already, and it is too late."""
    key = id(engine)
    _closables[key] = weakref.ref(engine, lambda _: _closables.pop(key, None))
    _close_in_pools()
    return _open_calls.afterwards(close_all)


def flush_after_requests(engine: Closable) -> None:
    """Flush `engine` whenever a request has ended, if it is still there."""
    key = id(engine)
    serverless[key] = weakref.ref(engine, lambda _: serverless.pop(key, None))


def renew_after_fork(owner: Forkable) -> None:
    """Call `owner.after_fork()` in each child that this process forks, as long as `owner` is there."""
    key = id(owner)
    _forkables[key] = weakref.ref(owner, lambda _: _forkables.pop(key, None))
    if next(_fork_hooks) == 0:
        os.register_at_fork(after_in_child=_renew_all)


def close_all() -> None:
    """Close all engines of this process, each within its time to exit, counted from now for all of them."""
    _open_calls.end_all()
    engines = _of_this_process(_closables)
    now = time.monotonic()
    _hurry(engines)
    for engine in engines:
        with _guard.never_raise:
            engine.close(now + engine.exit_timeout)


def flush_all() -> None:
    """Flush all deliveries of this process, each within its time to exit, counted from now. Never raises."""
    _flush(_of_this_process(_closables))


async def aflush_all() -> None:
    """Do as `flush_all` does, while the event loop (asyncio or trio) goes on."""
    await _aflush(_of_this_process(_closables))


def flush_serverless() -> None:
    """Flush what is to be flushed after a request that has ended on this thread. Never raises, stops no event loop."""
    engines = _of_this_process(serverless)
    if has_event_loop():
        # A WSGI app that runs on a loop: the work is begun, and others go on with it.
        _hurry(engines)
    else:
        _flush(engines)


async def aflush_serverless() -> None:
    """Flush what is to be flushed after a request, also one that was cancelled. Never raises but for a cancellation."""
    import anyio

    # A task that is being cancelled could wait for nothing otherwise.
    with anyio.CancelScope(shield=True):
        await _aflush(_of_this_process(serverless))


async def in_thread(function: Any, *args: Any) -> Any:
    """Run a blocking function away from the running event loop, asyncio's or trio's.

    With a limiter of its own: the loop's has a limited number of threads, and the app may hold all.
    """
    import anyio

    return await anyio.to_thread.run_sync(function, *args, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1))


def has_event_loop() -> bool:
    """Say whether an event loop, asyncio's or trio's, runs on this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        return True
    # trio tells sniffio that it runs; where sniffio was never imported, trio was not either.
    sniffio: Any = sys.modules.get("sniffio")
    if sniffio is None:
        return False
    try:
        sniffio.current_async_library()
    except sniffio.AsyncLibraryNotFoundError:
        return False
    return True


async def _aflush(engines: list[Closable]) -> None:
    if engines:
        with _guard.never_raise:
            await in_thread(_flush, engines)


def _flush(engines: list[Closable]) -> None:
    now = time.monotonic()
    _hurry(engines)
    for engine in engines:
        with _guard.never_raise:
            engine.flush(now + engine.exit_timeout)


def _hurry(engines: list[Closable]) -> None:
    for engine in engines:
        with _guard.never_raise:
            engine.hurry()


def _of_this_process(listed: dict[int, weakref.ref[Closable]]) -> list[Closable]:
    engines = [reference() for reference in listed.copy().values()]
    pid = os.getpid()
    return [engine for engine in engines if engine is not None and engine.pid == pid]


def _close_in_pools() -> None:
    """See to the end of processes that leave by os._exit, where the handlers of atexit do not run."""
    process: Any = sys.modules.get("multiprocessing.process")
    # billiard sets what is the current process, and leaves the parent out.
    if process is not None and (
        process.parent_process() is not None or process.current_process().name != _MAIN_PROCESS
    ):
        # A child of multiprocessing: its own finalizers run.
        from multiprocessing.util import Finalize

        Finalize(None, close_all, exitpriority=0)
    signals: Any = sys.modules.get("celery.signals")
    if signals is not None:
        # A child of Celery's pool runs no finalizers either, and tells only those who have asked to be told.
        with _guard.never_raise:
            signals.worker_process_shutdown.connect(_celery_child_ends, weak=False, dispatch_uid=__name__)


def _celery_child_ends(**_: object) -> None:
    close_all()


def _renew_all() -> None:
    owners = [reference() for reference in _forkables.copy().values()]
    for owner in filter(None, owners):
        owner.after_fork()
