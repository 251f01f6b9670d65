"""From a request to its slot: who it is for, whose keys pay, and whether it may go on."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Generator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, cast

from kwai_middleware._caller import Caller, Credential, checked_caller
from kwai_middleware._inbound.callables import Credentials, HeaderReader, Identify, IdentityReader, KeyReader, Required
from kwai_middleware._inbound.request import InboundRequest, Interest
from kwai_middleware._slot import Slot
from kwai_middleware.errors import ConfigurationError, Unauthenticated

__all__ = ["Resolver"]

_NO_TEXTS: Final[Mapping[str, str]] = MappingProxyType({})


class Resolver:
    """What both doors know about their callables. It waits for nothing itself: the doors do.

    Args:
        identify: Says who a request is for; None when nothing does.
        credentials: Says whose keys pay; None when nothing does.
        required: Whether a request without an identifier is refused.
        required_key: Whether a request without a key is refused.

    Raises:
        ConfigurationError: One of them is of another kind, or both read the same header.
    """

    def __init__(
        self, identify: Identify | None, credentials: Credentials | None, required: Required, required_key: Required
    ) -> None:
        for label, callable_ in (("identify", identify), ("credentials", credentials)):
            if callable_ is not None and (not callable(callable_) or isinstance(callable_, type)):
                raise ConfigurationError(f"{label}: a callable that takes the request, or None")
        for label, condition in (("required", required), ("required_key", required_key)):
            if not isinstance(condition, bool) and not callable(condition):
                raise ConfigurationError(f"{label}: True, False, or a callable that takes the request")
        self._identify: Final = identify
        self._credentials: Final = credentials
        self._required: Final = required
        self._required_key: Final = required_key

        if isinstance(identify, KeyReader) or isinstance(credentials, IdentityReader):
            raise ConfigurationError("identify and credentials have changed places")
        self._identity_reader: Final = identify if isinstance(identify, IdentityReader) else None
        self._key_reader: Final = credentials if isinstance(credentials, KeyReader) else None
        self._keys_sent_in: Final = () if self._key_reader is None else tuple(sorted(self._key_reader.headers))

        readers: list[HeaderReader] = [
            reader for reader in (self._identity_reader, self._key_reader) if reader is not None
        ]
        self._headers: Final = frozenset[str]().union(*(reader.headers for reader in readers))
        self.interest: Final = Interest(
            known=self._headers.union(*(reader.other_headers for reader in readers)),
            secret=frozenset[str]().union(*(reader.secret_headers for reader in readers)),
            lists=frozenset[str]().union(*(reader.list_headers for reader in readers)),
        )
        if len(self._headers) < sum(len(reader.headers) for reader in readers):
            raise ConfigurationError("identify and credentials read the same header; each needs one of its own")

        self.runs_foreign_code: Final = not (
            identify is self._identity_reader
            and credentials is self._key_reader
            and isinstance(required, bool)
            and isinstance(required_key, bool)
        )
        """Whether anything but our own code decides, so that `steps` is needed."""
        self._lets_nobody_in: Final = not (self.runs_foreign_code or required or required_key)

    def is_nobodys(self, sent: Mapping[str, object]) -> bool:
        """Return whether the headers that were sent say so already, with nothing else to look at."""
        return self._lets_nobody_in and (not sent or self._headers.isdisjoint(sent))

    def resolve(self, request: InboundRequest) -> Slot:
        """Return the slot of a request, when no foreign code has a say in it.

        Raises:
            RequestRefused: The request is to be answered with an error.
        """
        if request.is_preflight:
            return request.slot(None)
        texts = _NO_TEXTS if self._identity_reader is None else self._identity_reader.texts(request)
        keys = () if self._key_reader is None else self._key_reader(request)
        caller = checked_caller(texts, keys) if texts or keys else None
        if self._required and not _has_identity(caller):
            raise _identity_missing()
        if self._required_key and not keys:
            raise self._key_missing()
        return request.slot(caller)

    def steps(self, request: InboundRequest) -> Generator[Awaitable[object], Any, Slot]:
        """Do the same as `resolve` with callables of the app, sync or async.

        Yields what has to be awaited, and is sent what came of it.

        Raises:
            RequestRefused: The request is to be answered with an error.
            TypeError: A callable gave an answer of the wrong type.
        """
        request.seal()
        if request.is_preflight:
            return request.slot(None)
        if self._identify is not None:
            answer = self._identify(request)
            request.caller = _checked_caller((yield answer) if inspect.isawaitable(answer) else answer)
        credentials: Sequence[Credential] = ()
        if self._credentials is not None:
            found = self._credentials(request)
            credentials = _checked_credentials((yield found) if inspect.isawaitable(found) else found)
        request.caller = caller = _with_keys(request.caller, credentials)
        if not _has_identity(caller) and (yield from _holds("required", self._required, request)):
            raise _identity_missing()
        if not _has_key(caller) and (yield from _holds("required_key", self._required_key, request)):
            raise self._key_missing()
        return request.slot(caller)

    def _key_missing(self) -> Unauthenticated:
        if not self._keys_sent_in:
            return Unauthenticated("An API key is required.")
        names = " or ".join(self._keys_sent_in)
        return Unauthenticated(f"An API key is required, in the header {names}.", header=self._keys_sent_in[0])


def _holds(label: str, condition: Required, request: InboundRequest) -> Generator[Awaitable[object], Any, bool]:
    if isinstance(condition, bool):
        return condition
    answer = condition(request)
    if inspect.isawaitable(answer):
        answer = yield answer
    if not isinstance(answer, bool):
        # Nothing else is taken for True or False: a forgotten `return` must not let everyone in.
        raise TypeError(f"{label}: expected True or False, got {type(answer).__name__}")
    return answer


def _checked_caller(answer: object) -> Caller | None:
    if answer is not None and not isinstance(answer, Caller):
        raise TypeError(f"identify: expected a Caller or None, got {type(answer).__name__}")
    return answer


def _checked_credentials(answer: object) -> Sequence[Credential]:
    if not isinstance(answer, tuple | list):
        raise TypeError(f"credentials: expected a list or tuple of Credential, got {type(answer).__name__}")
    credentials = cast("Sequence[Credential]", answer)
    for credential in credentials:
        if not isinstance(credential, Credential):
            raise TypeError(f"credentials: expected Credential objects, got {type(credential).__name__}")
    return credentials


def _with_keys(caller: Caller | None, credentials: Sequence[Credential]) -> Caller | None:
    """Give a caller these keys, after those that `identify` gave it."""
    if not credentials:
        return caller
    if caller is None:
        return Caller(credentials=tuple(credentials))
    return caller.with_credentials((*caller.credentials, *credentials))


def _has_identity(caller: Caller | None) -> bool:
    return caller is not None and caller.identifier is not None


def _has_key(caller: Caller | None) -> bool:
    return caller is not None and len(caller.credentials) > 0


def _identity_missing() -> Unauthenticated:
    return Unauthenticated("This request must come with an identity that the app believes, and it has none.")
