"""Whose keys pay, looked up in the app's own vault or database."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, cast, final

import anyio

from kwai_middleware import _notices
from kwai_middleware._caller import Caller, Credential
from kwai_middleware._context import Binding, Slot
from kwai_middleware._inbound.first_of import origin_of
from kwai_middleware._key_cache import Flight, KeyCache
from kwai_middleware._look_ups import in_own_thread, is_async, landing, waited_for
from kwai_middleware._unsettled import KeySource, Origins, running_loop
from kwai_middleware.errors import ConfigurationError, KeysUnavailable

__all__ = ["KeyResolver", "LookUp"]

LookUp = Callable[[Caller], Sequence[Credential] | Awaitable[Sequence[Credential] | None] | None]
"""From a caller to its keys: none, as an empty sequence or None, for one who has not brought any."""

_REST: Final = 5.0
"""Seconds for which old keys are used without asking again, once asking has failed."""

_logger: Final = logging.getLogger("kwai_middleware")


@final
class KeyResolver(KeySource):
    """Looks up a caller's keys in the app's vault or database, at the first model call that needs them.

    For `credentials` of a middleware, also last in `first_of`, and of `bind_caller`. It is asked only for
    a caller that has an identifier and has brought no keys. However many calls of one caller begin at
    once, the function runs once for all of them. When it fails, those calls are refused with
    `KeysUnavailable`, whatever `byok` says (but for `off`, which needs no keys): a vault that is down never
    means that the app's own key pays. The function itself runs for that caller, without keys.

    Under an asynchronous client a plain function runs on a worker thread. Under a synchronous one it runs
    where the call is made; an async function then runs on the event loop of the request, which waits for
    nothing meanwhile. Where there is none, and for `bind_caller` on a thread without one, it runs on one of
    its own. A synchronous client that is used on the event loop itself cannot wait for an async function:
    that is refused with a message that says so.

    Args:
        function: From a `Caller` to a list of `Credential`, or None for no keys; plain or async.
        ttl: Seconds for which an answer counts; 0 to ask for each call.
        negative_ttl: Seconds for which the answer "no keys" counts; no longer than `ttl`.
        max_entries: Callers that are remembered, each with its keys.
        timeout: Seconds that a look-up may take. A plain function under a synchronous client has to keep to
            a time limit of its own.
        stale_for: Seconds beyond `ttl` for which the last answer is used where the function fails; a key
            that was taken away in your vault pays for so much longer while the vault is down.
        clock: Tells seconds; for tests.

    Raises:
        ConfigurationError: An argument is none of these.

    Example:
        >>> from kwai_middleware import Credential, Secret
        >>> def keys_of(caller):
        ...     return [Credential(api_key=Secret("sk-or-v1-" + caller.identifier))]
        >>> credentials = KeyResolver(keys_of, ttl=60)
    """

    __slots__ = ("_cache", "_function", "_negative_ttl", "_origin", "_stale_for", "_timeout", "_ttl")

    def __init__(
        self,
        function: LookUp,
        *,
        ttl: float = 300.0,
        negative_ttl: float = 10.0,
        max_entries: int = 10_000,
        timeout: float = 5.0,
        stale_for: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not callable(function) or isinstance(function, type):
            raise ConfigurationError("KeyResolver: a function that takes a Caller and returns its credentials")
        for name, value in (("ttl", ttl), ("negative_ttl", negative_ttl), ("stale_for", stale_for)):
            if not _is_number(value) or value < 0:
                raise ConfigurationError(f"KeyResolver.{name}: seconds, 0 or more")
        if not _is_number(timeout) or timeout <= 0:
            raise ConfigurationError("KeyResolver.timeout: seconds above 0")
        if type(max_entries) is not int or max_entries < 1:
            raise ConfigurationError("KeyResolver.max_entries: a whole number above 0")
        self._function: Final = function
        self._ttl: Final = ttl
        self._negative_ttl: Final = min(negative_ttl, ttl)
        self._timeout: Final = timeout
        self._stale_for: Final = stale_for
        self._origin: Final = f"key resolver {origin_of(function).removeprefix('callable ')}"
        self._cache: Final = KeyCache(max_entries, clock)

    @property
    def origin(self) -> str:
        """The function's name, for `explain` and the records."""
        return self._origin

    def forget(self, caller: Caller | None = None) -> None:
        """Forget what is remembered of a caller, so that the next call asks anew; of everybody without one.

        Call it where a customer's key was saved or deleted. A caller without issuer or group stands for those of
        every issuer and group. It is known in this process only; in others the old answer counts until it is too old.
        """
        self._cache.forget(caller)

    def keys_of(self, caller: Caller, loop: asyncio.AbstractEventLoop | None) -> tuple[Credential, ...]:
        """Return a caller's keys, for a synchronous client.

        Raises:
            KeysUnavailable: They could not be looked up.
        """
        deadline = time.monotonic() + self._timeout
        while True:
            fresh = self._cache.fresh(caller)
            if fresh is not None:
                return fresh
            flight, is_mine = self._cache.board(caller)
            if is_mine:
                return self._fly(flight, caller, loop)
            if running_loop() is not None:
                # What is waited for may need this very loop, so nobody may wait here.
                return self._fly(Flight(), caller, None)
            try:
                credentials = flight.result(max(deadline - time.monotonic(), 0))
            except Exception as error:  # noqa: BLE001 - too late, or the app's own function; the call is refused for it
                return self._stale_or_refused(caller, error)
            if credentials is not None:
                return credentials

    async def keys_of_async(self, caller: Caller) -> tuple[Credential, ...]:
        """Return a caller's keys, without blocking the event loop.

        Raises:
            KeysUnavailable: They could not be looked up.
        """
        deadline = time.monotonic() + self._timeout
        try:
            while True:
                fresh = self._cache.fresh(caller)
                if fresh is not None:
                    return fresh
                flight, is_mine = self._cache.board(caller)
                if is_mine:
                    return await self._fly_async(flight, caller)
                with anyio.fail_after(max(deadline - time.monotonic(), 0)):
                    credentials = await landing(flight)
                if credentials is not None:
                    return credentials
        except Exception as error:  # noqa: BLE001 - the app's own function; the call is refused for it
            return self._stale_or_refused(caller, error)

    def _fly(self, flight: Flight, caller: Caller, loop: asyncio.AbstractEventLoop | None) -> tuple[Credential, ...]:
        try:
            with Binding(Slot(caller, brought=_LOOKING_UP)):
                answer: object = self._function(caller)
                if inspect.isawaitable(answer):
                    answer = waited_for(answer, loop, self._timeout, self._origin)
            credentials = answer = self._judged(answer)
            if isinstance(credentials, TypeError):
                raise credentials
        except KeysUnavailable:
            self._cache.abandoned(caller, flight)  # on another thread it may be possible
            raise
        except Exception as error:  # noqa: BLE001 - the app's own function; the call is refused for it
            self._cache.failed(caller, flight, error)
            return self._stale_or_refused(caller, error)
        except BaseException:
            self._cache.abandoned(caller, flight)
            raise
        self._landed(flight, caller, credentials)
        return credentials

    async def _fly_async(self, flight: Flight, caller: Caller) -> tuple[Credential, ...]:
        def look_up() -> object:
            # The answer is handed to all who wait right here: a synchronous client may block the loop for it.
            answer = self._function(caller)
            if inspect.isawaitable(answer):
                return answer
            credentials = self._judged(answer)
            if isinstance(credentials, tuple):
                self._landed(flight, caller, credentials)
            return credentials

        try:
            with Binding(Slot(caller, brought=_LOOKING_UP)), anyio.fail_after(self._timeout):
                answer: object
                if is_async(self._function):
                    answer = self._function(caller)
                else:
                    answer = await in_own_thread(look_up)
                if inspect.isawaitable(answer):
                    answer = await answer
            credentials = answer = answer if isinstance(answer, TypeError) else self._judged(answer)
            if isinstance(credentials, TypeError):
                raise credentials
        except Exception as error:
            self._cache.failed(caller, flight, error)
            raise
        except BaseException:
            self._cache.abandoned(caller, flight)
            raise
        self._landed(flight, caller, credentials)
        return credentials

    def _landed(self, flight: Flight, caller: Caller, credentials: tuple[Credential, ...]) -> None:
        if not flight.done():
            # That there were no keys is never an answer for later: the app's own would pay where the vault is away.
            ttl, stale_for = (self._ttl, self._stale_for) if credentials else (self._negative_ttl, 0.0)
            self._cache.landed(caller, flight, credentials, ttl, stale_for)

    def _judged(self, answer: object) -> tuple[Credential, ...] | TypeError:
        """Return the credentials in an answer, or what is wrong with it; the caller raises that.

        Not raised here, so that no traceback ever leads to a frame that holds keys as plain texts.
        """
        if answer is None:
            return ()
        kind = type(answer).__name__
        given = cast("Sequence[Any]", answer) if isinstance(answer, list | tuple) else (None,)
        credentials: tuple[Any, ...] = tuple(given)
        if not all(isinstance(credential, Credential) for credential in credentials):
            return TypeError(f"{self._origin}: expected a list of Credential, or None, got {kind}")
        return credentials

    def _stale_or_refused(self, caller: Caller, error: Exception) -> tuple[Credential, ...]:
        kind = type(error).__name__
        _notices.count("keys_unavailable")
        stale = self._cache.stale(caller, _REST)
        what = "its last answer is used" if stale is not None else "the call is refused"
        _logger.warning("kwai_middleware: %s failed with %s; %s", self._origin, kind, what)
        if stale is not None:
            return stale
        raise KeysUnavailable(
            f"the caller's keys could not be looked up: {self._origin} failed with {kind}, and no other key may take"
            " their place; try again later"
        ) from error

    def __repr__(self) -> str:
        return f"KeyResolver({self._origin.removeprefix('key resolver ')})"


_LOOKING_UP: Final = Origins("key look-up")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
