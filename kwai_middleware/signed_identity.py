"""Who a request is for, as another service of yours has signed it."""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, final
from urllib.parse import unquote_to_bytes

import msgspec

from kwai_middleware import _notices
from kwai_middleware._caller import IDENTITY, Caller, caller_of, stated
from kwai_middleware._inbound.callables import HeaderReader
from kwai_middleware._inbound.request import InboundRequest
from kwai_middleware._inbound.values import MAX_HEADER, checked_name
from kwai_middleware._secret import Secret
from kwai_middleware._signing import Secrets, Signer, checked_age, checked_secrets
from kwai_middleware.errors import ConfigurationError, IdentityUnavailable, Unauthenticated

__all__ = ["ReplayStore", "SignedIdentity"]

_KIND: Final = "kwai-identity-1"
_MOST_AHEAD: Final = 30.0
"""Seconds that the clock of the service that signs may be ahead."""


class ReplayStore(Protocol):
    """What remembers the signed headers that were used, for all processes that take them."""

    def add(self, nonce: str, expires_at: float, /) -> bool | Awaitable[bool]:
        """Remember a header; may be async.

        Looking and remembering must be one step, as Redis' `SET ... NX` and SQL's `INSERT` under a unique key are.

        Args:
            nonce: What the header is known by: 32 hexadecimal digits.
            expires_at: When it may be forgotten, in seconds since 1970.

        Returns:
            True the first time, False when it is there already.
        """
        ...


class _Content(msgspec.Struct, forbid_unknown_fields=True):
    caller: dict[str, Any]
    at: float
    nonce: str


@final
class SignedIdentity(HeaderReader):
    """Reads the caller from a header that another service has signed, and makes that header for it.

    For calls from service to service, where no proxy of yours vouches for headers. The calling service makes the
    header with `headers`, the called one has this as its `identify`; both know the secrets. The signature is over
    the identity, the time, the method and the path, so the header is good for one endpoint and a short while. It
    is not over the query and the body.

    Within that while the same request can be sent again by whoever has seen the header, and it passes, unless
    there is a `replay_store`: then each header passes once. The header is taken out of the request.

    A request without the header is nobody's. One whose header does not hold is answered with 401, and with 503
    when the store cannot tell.

    To change a secret without refusing anyone, add the new one at the end everywhere, then move it to the front
    everywhere, then take the old one away.

    Args:
        secrets: The first one signs, each of them verifies: 32 or more characters each.
        max_age: For how many seconds a header is good. The clock of the service that signs may be ahead by as
            much, and by half a minute at most.
        header: The header it comes in. In `authorization` it has the form `Bearer <text>`.
        replay_store: Remembers the headers that were used; see `ReplayStore`. A sync one runs on the event loop
            under ASGI, and must not wait there.
        clock: Seconds since 1970.

    Raises:
        ConfigurationError: An argument is none of these.

    Example:
        >>> identity = SignedIdentity(secrets=["an-example-of-a-secret-0123456789"])
        >>> identity
        SignedIdentity(header='x-kwai-identity', max_age=60.0)
        >>> list(identity.headers(Caller(identifier="acme"), "POST", "/summaries"))
        ['x-kwai-identity']
    """

    __slots__ = ("_ahead", "_clock", "_header", "_max_age", "_replay_store", "_signer")

    def __init__(
        self,
        *,
        secrets: Secrets,
        max_age: float = 60.0,
        header: str = "x-kwai-identity",
        replay_store: ReplayStore | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._signer: Final = Signer(_KIND, checked_secrets("SignedIdentity.secrets", secrets))
        self._max_age: Final = checked_age("SignedIdentity.max_age", max_age)
        self._ahead: Final = min(max_age, _MOST_AHEAD)
        self._header: Final = checked_name("SignedIdentity.header", header)
        if replay_store is not None and not callable(getattr(replay_store, "add", None)):
            raise ConfigurationError("SignedIdentity.replay_store: an object with a method add(nonce, expires_at)")
        self._replay_store: Final = replay_store
        self._clock: Final = clock
        super().__init__((self._header,), (self._header,), origin="signed header")

    def headers(self, caller: Caller | None, method: str, path: str) -> dict[str, str]:
        """Return what to send with one request to another service; none for nobody.

        The caller's keys are not in it, nor `byok` and `capture`, which are each service's own to decide.

        Args:
            caller: Who the request is for, such as `current_caller()`.
            method: Of the request, in any case.
            path: Of the request as it stands in its URL: from the first `/` after the host up to the query,
                percent-encoded as there (`%20`, and `%25` for a percent sign; other characters than ASCII may
                stand as they are). In httpx that is `request.url.raw_path.decode().partition("?")[0]`, and not
                `request.url.path`, which is decoded. Where a proxy between the two changes the path, it is the
                path that arrives. The called service compares it, decoded, with `InboundRequest.path`, exactly:
                another case or a doubled `/` is another path.

        Raises:
            ValueError: The path is none, or what is to be said of the caller does not fit into a header.
        """
        if caller is None:
            return {}
        if not path.startswith("/") or "?" in path or "#" in path:
            raise ValueError("SignedIdentity.headers: the path as it stands in the URL, from its '/' up to the query")
        content = _Content(stated(caller, IDENTITY), self._clock(), os.urandom(16).hex())
        value = self._signer.signed(content, method.upper(), unquote_to_bytes(path).decode(errors="replace"))
        if self._header == "authorization":
            value = f"Bearer {value}"
        if len(value) > MAX_HEADER:
            raise ValueError(
                f"SignedIdentity.headers: with its signature the caller is longer than {MAX_HEADER} bytes, the longest"
                " header; say less in its name, email or metadata"
            )
        return {self._header: value}

    def __call__(self, request: InboundRequest) -> Caller | Awaitable[Caller] | None:
        """Return who the request is for; None for nobody.

        Raises:
            Unauthenticated: The header does not hold: it is forged or damaged, for another request, too old, or
                was used before.
            InvalidHeader: It was sent twice, is too long, or is not one word of visible ASCII.
            IdentityUnavailable: The replay store could not tell.
        """
        presented = request.secret(self._header)
        if presented is None:
            return None
        content, caller = self._opened(presented, request)
        age = self._clock() - content.at
        if age > self._max_age:
            raise self._refusal("is too old")
        if not age >= -self._ahead:
            raise self._refusal("is of a time that has not come yet: compare the clocks")
        request.valid_until = content.at + self._max_age
        if self._replay_store is None:
            return caller
        try:
            # A process whose clock is behind takes the header for longer.
            answer = self._replay_store.add(content.nonce, content.at + self._max_age + self._ahead)
        except Exception as error:
            raise self._unavailable(f"raised {type(error).__name__}") from error
        if inspect.isawaitable(answer):
            return self._when_answered(answer, caller)
        return self._first_time(answer, caller)

    def _opened(self, presented: Secret, request: InboundRequest) -> tuple[_Content, Caller]:
        content = self._signer.verified(presented.reveal(), _Content, request.method, request.path)
        caller = None if content is None else caller_of(content.caller, IDENTITY)
        if content is None or caller is None:
            raise self._refusal("is forged or damaged, or was signed for another method or path")
        return content, caller

    async def _when_answered(self, answer: Awaitable[object], caller: Caller) -> Caller:
        try:
            answered = await answer
        except Exception as error:
            raise self._unavailable(f"raised {type(error).__name__}") from error
        return self._first_time(answered, caller)

    def _first_time(self, answer: object, caller: Caller) -> Caller:
        # A store that says nothing, or something else, has not said that it is the first time.
        if not isinstance(answer, bool):
            raise self._unavailable(f"returned {type(answer).__name__}")
        if not answer:
            raise self._refusal("was used before")
        return caller

    def _refusal(self, reason: str) -> Unauthenticated:
        return Unauthenticated(f"The signed identity in the header {self._header} {reason}.", header=self._header)

    def _unavailable(self, what_it_did: str) -> IdentityUnavailable:
        _notices.count("replay_store_failures")
        _notices.warn_once(
            "replay_store_failures",
            what_it_did,
            f"a request with a signed identity is refused, since the replay store cannot tell: it {what_it_did}. Its"
            " method add(nonce, expires_at) returns True the first time and False after that.",
        )
        return IdentityUnavailable(
            f"It cannot be known now whether the signed identity in the header {self._header} was used before."
        )

    def __repr__(self) -> str:
        return f"SignedIdentity(header={self._header!r}, max_age={self._max_age!r})"
