"""Where keys come from: given once, or fetched, kept, and fetched again by one thread for all who wait."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final, Protocol
from urllib.parse import urlsplit

import anyio.to_thread

from kwai_middleware import _notices
from kwai_middleware._guard import never_raise
from kwai_middleware._jwt.fetching import KeysNotFetched, fetched_members, prepared_tls
from kwai_middleware._jwt.keys import KeySet

__all__ = ["FetchedKeys", "Flight", "GivenKeys", "KeySource"]

_LOST: Final = 3
"""After so many times what a fetch may take, it is taken for lost."""


class Flight:
    """A fetch under way, which any number of requests may wait for. None of them can end it.

    Args:
        begun: When, by the source's clock.
        timeout: How long one waits for it.
    """

    __slots__ = ("_landed", "_pid", "_timeout", "begun")

    def __init__(self, begun: float, timeout: float) -> None:
        self.begun: Final = begun
        self._timeout: Final = timeout
        self._pid: Final = os.getpid()
        self._landed: Final[Future[None]] = Future()
        # One that runs cannot be cancelled, as who stops waiting would else do for all others.
        self._landed.set_running_or_notify_cancel()

    @property
    def is_ours(self) -> bool:
        """Whether it was begun in this process: of its parent's, a forked child would never hear again."""
        return self._pid == os.getpid()

    def is_under_way(self, now: float) -> bool:
        """Return whether it is worth waiting for."""
        return not self._landed.done() and _is_within(now, self.begun, self._timeout * _LOST)

    def land(self) -> None:
        """Let everybody go on."""
        self._landed.set_result(None)

    def wait(self) -> None:
        """Wait until it has landed, or for as long as it may take. Stops the thread."""
        with contextlib.suppress(TimeoutError):
            self._landed.result(self._timeout)

    async def wait_async(self) -> None:
        """Do the same on an event loop, which goes on meanwhile."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # the loop of another library
            await anyio.to_thread.run_sync(self.wait, abandon_on_cancel=True)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                await asyncio.wrap_future(self._landed)


class KeySource(Protocol):
    """Has keys, or can get them."""

    def usable(self) -> KeySet | None:
        """Return the keys that can be used now, without waiting; None when they must be fetched first."""
        ...

    def fetch(self) -> Flight | None:
        """Return the fetch under way, or one that begins now; None when there can be none now."""
        ...


class GivenKeys:
    """Keys that stay as they are.

    Args:
        keys: These.
    """

    __slots__ = ("_keys",)

    def __init__(self, keys: KeySet) -> None:
        self._keys: Final = keys

    def usable(self) -> KeySet:
        """Return the keys."""
        return self._keys

    def fetch(self) -> None:
        """There is nothing to fetch."""


class FetchedKeys:
    """The keys that an issuer publishes. Nothing is fetched before the first token comes.

    Args:
        url: Where.
        timeout: Seconds that a fetch may take.
        refresh_after: Age in seconds from which on keys are fetched anew, while those at hand are used.
        retry_after: Seconds from the beginning of a fetch to that of the next, whatever came of it: strangers
            can name keys that do not exist, and an issuer that is down stays so for a while.
        stale_for: Age in seconds up to which keys are used when they cannot be fetched anew.
        clock: Tells the seconds since 1970.
    """

    __slots__ = (
        "_clock", "_fetched", "_flight", "_locks", "_refresh_after", "_retry_after", "_stale_for", "_timeout", "_tls",
        "_url",
    )  # fmt: skip

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        refresh_after: float,
        retry_after: float,
        stale_for: float,
        clock: Callable[[], float],
    ) -> None:
        self._url: Final = url
        self._timeout: Final = timeout
        self._refresh_after: Final = refresh_after
        self._retry_after: Final = retry_after
        self._stale_for: Final = stale_for
        self._clock: Final = clock
        self._tls: Final = prepared_tls()
        self._fetched: tuple[KeySet, float] | None = None
        self._flight: Flight | None = None
        # By process: a forked child may inherit one that is held, by a thread that it has not.
        self._locks: Final[dict[int, threading.Lock]] = {}

    def usable(self) -> KeySet | None:
        """Return the keys at hand, unless they are too old; they are fetched anew in time, for which nobody waits."""
        if self._fetched is None:
            return None
        keys, fetched_at = self._fetched
        now = self._clock()
        if not _is_within(now, fetched_at, self._refresh_after):
            self.fetch()
        return keys if _is_within(now, fetched_at, self._stale_for) else None

    def fetch(self) -> Flight | None:
        """Return the fetch under way, or one that begins now; None when the last one began a moment ago."""
        with self._locks.setdefault(os.getpid(), threading.Lock()):
            last, now = self._flight, self._clock()
            if last is not None and last.is_ours:
                if last.is_under_way(now):
                    return last
                if _is_within(now, last.begun, self._retry_after):
                    return None
            self._flight = flight = Flight(now, self._timeout)
            try:
                # Not a real thread at any price: under gevent this is a greenlet, and waits as such.
                threading.Thread(target=self._fly, args=(flight,), name="kwai-jwks", daemon=True).start()
            except RuntimeError:  # the system has no more threads
                flight.land()
        return flight

    def _fly(self, flight: Flight) -> None:
        try:
            with never_raise:
                self._take(flight)
        finally:
            flight.land()

    def _take(self, flight: Flight) -> None:
        try:
            keys = KeySet.of(fetched_members(self._url, self._timeout, self._tls))
        except KeysNotFetched as failure:
            self._warn(str(failure))
        except ValueError:
            self._warn("the answer has no key that could be used")
        else:
            # A lost one that comes back brings what is older than what its successor has brought.
            if self._flight is flight:
                same = self._fetched is not None and self._fetched[0].is_like(keys)
                self._fetched = (self._fetched[0] if self._fetched is not None and same else keys, self._clock())

    def _warn(self, reason: str) -> None:
        parts = urlsplit(self._url)
        where = f"{parts.netloc}{parts.path}"
        _notices.count("jwks_not_fetched")
        _notices.warn_once(
            "jwks_not_fetched",
            where,
            f"the keys that tokens are verified with could not be fetched from {where} ({reason}). Those fetched before"
            f" are used for {self._stale_for:g} s; without any, requests with a token are answered with 503.",
        )


def _is_within(now: float, then: float, seconds: float) -> bool:
    """Return whether `then` is less than so many seconds ago. A clock that was set back makes all things long ago."""
    return 0 <= now - then < seconds
