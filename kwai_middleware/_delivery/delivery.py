"""The delivery as an app sees it."""

from __future__ import annotations

import dataclasses
import os
import time
from types import TracebackType
from typing import Final, Self

from kwai_middleware import _native as native
from kwai_middleware._delivery import live
from kwai_middleware._delivery.engine import Engine
from kwai_middleware._delivery.stats import Stats
from kwai_middleware._record import CompletedCall, PendingCall
from kwai_middleware._settings import Settings
from kwai_middleware.errors import BlockingCall

__all__ = ["Delivery", "default_delivery"]


class Delivery:
    """Takes completed calls and posts their records to the vendor's request-logs API, behind the app's back.

    Two threads do the work. They begin with the first call, are no hindrance to the end of the
    process, and are there again in a forked child, which begins with nothing: what was submitted
    before the fork is delivered by the parent. When the process ends, what is left is delivered
    within `Settings.exit_timeout`, or stays on disk for the next one.

    As a context manager, plain or `async`, it closes itself.

    Args:
        settings: By default those of the environment, read now.

    Example:
        >>> from kwai_middleware._settings import Settings
        >>> with Delivery(Settings()) as delivery:
        ...     delivery.submit(CompletedCall(route="gateway"))
        True
        >>> delivery.stats().observed
        1
    """

    __slots__ = ("__weakref__", "_engines", "_inherited", "_is_closed", "_settings")

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = Settings.from_env() if settings is None else settings
        self._is_closed = False
        self._inherited: tuple[dict[int, Engine], ...] = ()
        self._engines = {os.getpid(): Engine(self._settings)}
        live.renew_after_fork(self)

    def submit(self, call: PendingCall | CompletedCall) -> bool:
        """Hand over a finished call. Never blocks, takes no lock, does no I/O, never raises.

        May be called anywhere, in finalizers and signal handlers too.

        Returns:
            False when the call was dropped at once: the delivery is closed, or more calls wait
            than `Settings.max_waiting_calls`, or it was made by `Settings.mask`. `stats` counts it.
        """
        engine = self._engines.get(os.getpid())
        return (self._engine if engine is None else engine).submit(call)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was submitted before is delivered, rejected or dropped.

        What waits for a vendor that was away is tried again at once. When the vendor refuses the
        app as such (a wrong API key, say), there is nothing to wait for.

        Args:
            timeout: Seconds, for everything together; by default `Settings.exit_timeout`.

        Returns:
            Whether nothing of it is left.

        Raises:
            BlockingCall: An event loop runs on this thread, and this would stop it; use `aflush`.
        """
        _refuse_on_event_loop("flush", "aflush")
        return self._engine.flush(self._deadline(timeout))

    # The time-outs of the two async twins bound the work on a thread; leaving it earlier is the task's own affair.
    async def aflush(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - see above
        """Do as `flush` does, while the event loop (asyncio or trio) goes on."""
        flushed: bool = await live.in_thread(self._engine.flush, self._deadline(timeout))
        return flushed

    def close(self, timeout: float | None = None) -> bool:
        """Refuse further calls, flush, and end the threads.

        What is left after that waits on disk for the next process; where there is no disk it is lost, counted
        and warned of. May be called again.

        Args:
            timeout: Seconds, for everything together; by default `Settings.exit_timeout`.

        Returns:
            Whether nothing was lost by it.

        Raises:
            BlockingCall: An event loop runs on this thread, and this would stop it; use `aclose`.
        """
        _refuse_on_event_loop("close", "aclose")
        self._is_closed = True
        return self._engine.close(self._deadline(timeout))

    async def aclose(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - see aflush
        """Do as `close` does, while the event loop (asyncio or trio) goes on."""
        self._is_closed = True
        closed: bool = await live.in_thread(self._engine.close, self._deadline(timeout))
        return closed

    def stats(self) -> Stats:
        """Return what became of the calls so far, in this process. `print` shows it as a table."""
        return self._engine.stats()

    @property
    def is_closed(self) -> bool:
        """Whether it refuses further calls."""
        return self._is_closed or self._engine.is_closed

    def after_fork(self) -> None:
        """Begin with nothing in a forked child. Called by the interpreter."""
        # Kept, not dropped: the parent's connections and budgets are not ours to close or to pay back.
        self._inherited = (*self._inherited, self._engines)
        self._engines = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # Missing when the constructor failed.
        engine = getattr(self, "_engines", {}).get(os.getpid())
        if engine is not None:
            engine.abandon()

    @property
    def _engine(self) -> Engine:
        pid = os.getpid()
        engine = self._engines.get(pid)
        if engine is None:
            # A child, also of a fork that told nobody. Of several threads that get here, all get the same one.
            engine = self._engines.setdefault(pid, Engine(self._settings, is_closed=self._is_closed))
        return engine

    def _deadline(self, timeout: float | None) -> float:
        return time.monotonic() + (self._settings.exit_timeout if timeout is None else timeout)


def default_delivery(settings: Settings | None = None) -> Delivery:
    """Return the delivery that everything with equal settings shares in this process; made on first use.

    Args:
        settings: By default those of the environment, read now.
    """
    return _defaults.get(Settings.from_env() if settings is None else settings)


class _Defaults:
    def __init__(self) -> None:
        self._lock = native.lock()
        self._deliveries: dict[Settings, Delivery] = {}

    def get(self, settings: Settings) -> Delivery:
        # Nothing of a delivery hangs on the app's keys: who changes them goes on with the one there is.
        settings = dataclasses.replace(settings, credentials=())
        with self._lock:
            delivery = self._deliveries.get(settings)
            if delivery is None or delivery.is_closed:
                live.renew_after_fork(self)
                delivery = self._deliveries[settings] = Delivery(settings)
            return delivery

    def after_fork(self) -> None:
        self._lock = native.lock()


_defaults: Final = _Defaults()


def _refuse_on_event_loop(method: str, twin: str) -> None:
    if live.has_event_loop():
        raise BlockingCall(
            f"Delivery.{method}() would stop the event loop that runs on this thread; await Delivery.{twin}() instead"
        )
