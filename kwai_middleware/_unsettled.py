"""What is not known of a unit of work when it begins: a framework's user, keys in a vault, until when it all holds."""

from __future__ import annotations

import asyncio
import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, TypeGuard

import msgspec

from kwai_middleware import _guard, _notices
from kwai_middleware._caller import Caller, Credential
from kwai_middleware._user_source import Unreadable, UserSource, is_reading, reading
from kwai_middleware.errors import CallerExpired, CannotAttribute

__all__ = ["NO_ORIGINS", "KeySource", "Origins", "Unsettled", "running_loop"]


class Origins(NamedTuple):
    """Where an identity and keys came from: a few words, never a value.

    Attributes:
        identity: `jwt`, `header via proxy secret`, `callable app.auth.who`; None for nobody.
        keys: `header x-openrouter-key`, `key resolver app.vault.keys_of`; None without keys.
    """

    identity: str | None = None
    keys: str | None = None


NO_ORIGINS: Final = Origins()


class KeySource(ABC):
    """Looks up a caller's keys, when a call needs them."""

    __slots__ = ()

    @property
    @abstractmethod
    def origin(self) -> str:
        """Where the keys come from, in a few words."""

    @abstractmethod
    def keys_of(self, caller: Caller, loop: asyncio.AbstractEventLoop | None) -> tuple[Credential, ...]:
        """Return a caller's keys; blocks, up to a deadline of its own.

        Args:
            caller: With an identifier.
            loop: The event loop that the unit of work belongs to.

        Raises:
            KeysUnavailable: They could not be looked up.
        """

    @abstractmethod
    def keys_of_async(self, caller: Caller) -> Awaitable[tuple[Credential, ...]]:
        """Do the same without blocking an event loop."""


class Unsettled:
    """What one unit of work is still to learn. Each answer is kept, the first one of several threads.

    Args:
        user: Its user, where a framework finds that out; None otherwise.
        keys: Where the keys of a caller without any are looked up; None when nowhere.
        loop: The event loop that it belongs to.
        valid_until: Seconds since 1970 after which its caller counts no more; None for never.
        clock: Tells seconds since 1970.
    """

    __slots__ = ("_answers", "_clock", "_loop", "_valid_until", "keys", "user")

    def __init__(
        self,
        *,
        user: UserSource | None = None,
        keys: KeySource | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
        valid_until: float | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.user: Final = user
        self.keys: Final = keys
        self._loop: Final = loop
        self._valid_until: Final = valid_until
        self._clock: Final = clock
        # No lock: a signal handler could wait for it in vain. Of several threads the first one's answer counts.
        self._answers: Final[dict[str, Caller]] = {}

    def settled(self, known: Caller | None) -> Caller | None:
        """Return who it is for, as far as that is known without looking; nobody when that has expired.

        Args:
            known: What was known when it began: a caller, or only keys.
        """
        if self._has_expired:
            return None
        return self._answers.get("user", known)

    def with_keys(self, known: Caller | None) -> Caller | None:
        """Return the same with the keys that were looked up last: what must not be shown."""
        return self._answers.get("paying") or self._answers.get("user", known)

    def caller(self, known: Caller | None) -> Caller | None:
        """Return who it is for, and look when that is not known yet. What cannot be read is nobody."""
        try:
            return None if self._has_expired else self._read(known)
        except Exception as error:  # noqa: BLE001 - the app's own code; asking who is logged in must not break a log line
            self._warn_unread(error)
            return known

    def settle(self, known: Caller | None) -> None:
        """Look for the user while that is possible; whatever is wrong with it is told to who asks again."""
        if not self._has_expired:
            with contextlib.suppress(Exception):
                self._read(known)

    def keep_user(self) -> None:
        """Keep the user whom the framework has found, since it forgets with the request."""
        if self.user is not None:
            with _guard.never_raise:
                self.user.keep()

    def paying_caller(self, known: Caller | None, *, with_keys: bool) -> Caller | None:
        """Return who an outbound call is for, with the keys that may pay.

        Args:
            known: What was known when it began.
            with_keys: Whether keys are looked up for a caller that has none.

        Raises:
            OutboundRefused: Nobody can say who it is, or where the keys are; or it was known, and holds no more.
        """
        self._refuse_expired()
        try:
            caller = self._read(known)
        except Exception as error:
            raise self._unread(error) from error
        if self.keys is None or not with_keys or not _lacks_keys(caller):
            return caller
        return self._paying(caller, self.keys.keys_of(caller, self._loop))

    async def paying_caller_async(self, known: Caller | None, *, with_keys: bool) -> Caller | None:
        """Do the same without blocking an event loop."""
        self._refuse_expired()
        caller = self._answers.get("user", known)
        if self.user is not None and "user" not in self._answers and not is_reading(self.user):
            try:
                with reading(self.user):
                    caller = self._merged(await self.user.read_async(), known)
            except Exception as error:
                raise self._unread(error) from error
        if self.keys is None or not with_keys or not _lacks_keys(caller):
            return caller
        return self._paying(caller, await self.keys.keys_of_async(caller))

    def origins(self, known: Origins) -> Origins:
        """Return where identity and keys came from, as far as they have been asked for."""
        if self.user is not None and "user" in self._answers:
            known = known._replace(identity=self.user.origin)
        if self.keys is not None and "paying" in self._answers:
            known = known._replace(keys=self.keys.origin)
        return known

    @property
    def _has_expired(self) -> bool:
        return self._valid_until is not None and self._clock() >= self._valid_until

    def _refuse_expired(self) -> None:
        if self._has_expired:
            raise CallerExpired(
                "the caller's sign-in has expired since this request or websocket began, and no other may pay for its"
                " calls; let the client connect again with a new token"
            )

    def _read(self, known: Caller | None) -> Caller | None:
        settled = self._answers.get("user")
        if settled is not None or self.user is None or is_reading(self.user):
            return settled or known
        with reading(self.user):
            return self._merged(self.user.read(), known)

    def _merged(self, user: Caller | None, known: Caller | None) -> Caller | None:
        """Keep the answer; nobody is no answer, since somebody may log in yet."""
        if user is None:
            return known
        if known is not None:
            user = msgspec.structs.replace(
                user,
                metadata=user.metadata or known.metadata,
                credentials=(*user.credentials, *known.credentials),
                byok=user.byok or known.byok,
                capture=user.capture or known.capture,
            )
        return self._answers.setdefault("user", user)

    def _paying(self, caller: Caller, credentials: tuple[Credential, ...]) -> Caller:
        if not credentials:
            self._answers.pop("paying", None)
            return caller
        latest = self._answers.get("paying")
        if latest is None or latest.credentials is not credentials:
            latest = self._answers["paying"] = caller.with_credentials(credentials)
        return latest

    def _unread(self, error: Exception) -> CannotAttribute:
        self._warn_unread(error)
        return CannotAttribute(
            f"nobody can say whose call this is: the user of this request could not be read. {_reason(error)}"
        )

    def _warn_unread(self, error: Exception) -> None:
        reason = _reason(error)
        _notices.count("user_unreadable")
        _notices.warn_once(
            "user_unreadable",
            reason,
            f"the user of a request could not be read, and model calls are refused while that is so. {reason}",
        )


def _reason(error: Exception) -> str:
    if isinstance(error, Unreadable):
        return str(error)
    return f"The code that looks for it raised {type(error).__name__}; see the arguments of UserIdentity"


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs on this thread; None without one, and for one that is not asyncio's."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _lacks_keys(caller: Caller | None) -> TypeGuard[Caller]:
    return caller is not None and caller.identifier is not None and not caller.credentials
