"""From a request to its slot: who it is for, whose keys pay, and whether it may go on."""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Generator, Sequence
from typing import Any, Final, cast

from kwai_middleware._caller import Caller, Credential, new_caller, set_checked
from kwai_middleware._inbound.arguments import check_age, check_callables, check_places, check_required
from kwai_middleware._inbound.callables import (
    Credentials,
    HeaderReader,
    Identify,
    IdentityReader,
    KeyReader,
    LazyIdentity,
    Required,
)
from kwai_middleware._inbound.first_of import FirstOf, early, early_sources, late, origin_of
from kwai_middleware._inbound.plain import PlainRules
from kwai_middleware._inbound.request import PREFLIGHT_HEADER, InboundRequest, Interest
from kwai_middleware._slot import Slot
from kwai_middleware._unsettled import NO_ORIGINS, KeySource, Origins, Unsettled, running_loop
from kwai_middleware.errors import ConfigurationError, Unauthenticated

__all__ = ["Resolver"]


class Resolver:
    """What both doors know about their callables. It waits for nothing itself: the doors do.

    Args:
        identify: Says who a request is for; None when nothing does.
        credentials: Says whose keys pay; None when nothing does.
        required: Whether a request without an identifier is refused.
        required_key: Whether a request without a key is refused.
        max_age: Seconds after which the caller of a request counts no more; None for never.

    Raises:
        ConfigurationError: One of them is of another kind, or both read the same header.
    """

    def __init__(
        self,
        identify: Identify | None,
        credentials: Credentials | None,
        required: Required,
        required_key: Required,
        max_age: float | None = None,
    ) -> None:
        identities, keys = tuple(early_sources(identify)), tuple(early_sources(credentials))
        late_identity, late_keys = late(identify), late(credentials)
        check_places(identities, keys, late_identity, late_keys)
        check_callables(identify, credentials, required, required_key)
        check_age(max_age)
        check_required(required, required_key, late_identity, late_keys)
        self._identify: Final = early(identify, identities)
        self._credentials: Final = early(credentials, keys)
        # A callable by itself says that there are no keys, and does not forget to; of several, one may have none.
        self._is_combined: Final = isinstance(credentials, FirstOf)
        self._late_identity: Final = late_identity if isinstance(late_identity, LazyIdentity) else None
        self._late_keys: Final = late_keys if isinstance(late_keys, KeySource) else None
        self._required: Final = required
        self._required_key: Final = required_key
        self._max_age: Final = max_age

        self._identity_reader: Final = self._identify if isinstance(self._identify, IdentityReader) else None
        self._key_reader: Final = self._credentials if isinstance(self._credentials, KeyReader) else None
        origin = None if self._identity_reader is None else self._identity_reader.origin
        keys_origin = None if self._key_reader is None else self._key_reader.origin
        self._with_identity: Final = Origins(origin, None)
        self._with_key: Final = Origins(None, keys_origin)
        self._with_both: Final = Origins(origin, keys_origin)
        identity_headers = _headers(identities)
        key_headers = _headers(keys)
        self._keys_sent_in: Final = tuple(sorted(key_headers))
        readers = [source for source in (*identities, *keys) if isinstance(source, HeaderReader)]
        self.interest: Final = Interest(
            known=identity_headers.union(
                key_headers, (PREFLIGHT_HEADER,), *(reader.other_headers for reader in readers)
            ),
            secret=frozenset[str]().union(*(reader.secret_headers for reader in readers)),
            lists=frozenset[str]().union(*(reader.list_headers for reader in readers)),
        )
        also_read = frozenset[str]().union(*(getattr(source, "header_names", ()) for source in identities))
        if not also_read.isdisjoint(key_headers):
            raise ConfigurationError("identify and credentials read the same header; each needs one of its own")

        self.runs_foreign_code: Final = not (
            self._identify is self._identity_reader
            and self._credentials is self._key_reader
            and isinstance(required, bool)
            and isinstance(required_key, bool)
        )
        """Whether anything but our own code decides, so that `steps` is needed."""
        self._is_settled: Final = self._late_identity is None and self._late_keys is None and max_age is None
        self.plain: Final = self._plain_rules()
        """What decides about nearly all requests at once; None when somebody else has to be asked about each."""

    def _plain_rules(self) -> PlainRules | None:
        if self.runs_foreign_code or self._late_identity is not None:
            return None
        fields = keys = None
        if self._is_settled:
            fields = None if self._identity_reader is None else self._identity_reader.plain_fields
            keys = None if self._key_reader is None else self._key_reader.plain_keys
        origins = (self._with_identity, self._with_key, self._with_both)
        return PlainRules(fields, keys or {}, origins, self._required is True, self._required_key is True)

    def resolve(self, request: InboundRequest) -> Slot:
        """Return the slot of a request, when no foreign code has a say in it.

        Raises:
            RequestRefused: The request is to be answered with an error.
        """
        if PREFLIGHT_HEADER in request.sent and request.is_preflight:
            return request.slot(None)
        caller = None
        if self._identity_reader is not None:
            caller = self._identity_reader.new_caller(request)
        keys = () if self._key_reader is None else self._key_reader.taken_keys(request)
        if self._required and not _has_identity(caller):
            raise _identity_missing()
        if self._required_key and not keys:
            raise self._key_missing()
        brought = NO_ORIGINS if caller is None else self._with_identity
        if keys:
            brought = self._with_key if caller is None else self._with_both
            caller = caller or new_caller()
            set_checked(caller, "credentials", keys)
        return request.slot(caller, brought, None if self._is_settled else self._unsettled(request, caller))

    def steps(self, request: InboundRequest) -> Generator[Awaitable[object], Any, Slot]:
        """Do the same as `resolve` with callables of the app, sync or async.

        Yields what has to be awaited, and is sent what came of it.

        Raises:
            RequestRefused: The request is to be answered with an error.
            TypeError: A callable gave an answer of the wrong type.
        """
        if request.is_preflight:
            return request.slot(None)
        brought = NO_ORIGINS
        if self._identify is not None:
            answer = self._identify(request)
            request.caller = caller = _checked_caller((yield answer) if inspect.isawaitable(answer) else answer)
            if caller is not None:
                origin = origin_of(request.answered_by or self._identify)
                brought = Origins(None if caller.identifier is None else origin, origin if caller.credentials else None)
        request.answered_by = None
        credentials: Sequence[Credential] = ()
        if self._credentials is not None:
            found = self._credentials(request)
            if inspect.isawaitable(found):
                found = _judged((yield found), may_be_none=self._is_combined)
            else:
                found = _judged(found, may_be_none=self._is_combined)
            if isinstance(found, TypeError):
                raise found
            credentials = found
            if credentials and brought.keys is None:
                brought = brought._replace(keys=origin_of(request.answered_by or self._credentials))
        request.caller = caller = _with_keys(request.caller, credentials)
        if not _has_identity(caller) and (yield from _holds("required", self._required, request)):
            raise _identity_missing()
        if not _has_key(caller) and (yield from _holds("required_key", self._required_key, request)):
            raise self._key_missing()
        unsettled = None
        if not self._is_settled or (request.is_websocket and request.valid_until is not None):
            unsettled = self._unsettled(request, caller)
        return request.slot(caller, brought, unsettled)

    def _unsettled(self, request: InboundRequest, caller: Caller | None) -> Unsettled | None:
        """Return what is still to be learnt about the caller of a request; None when nothing is."""
        late_identity = None if _has_identity(caller) else self._late_identity
        if caller is None and late_identity is None:
            return None
        late_keys = None if _has_key(caller) else self._late_keys
        deadlines = [] if self._max_age is None else [time.time() + self._max_age]
        if request.is_websocket and request.valid_until is not None:
            deadlines.append(request.valid_until)
        if late_identity is None and late_keys is None and not deadlines:
            return None
        return Unsettled(
            user=None if late_identity is None else late_identity.user_of(request),
            keys=late_keys,
            loop=None if late_keys is None else running_loop(),
            valid_until=min(deadlines, default=None),
        )

    def _key_missing(self) -> Unauthenticated:
        if not self._keys_sent_in:
            return Unauthenticated("An API key is required.")
        names = " or ".join(self._keys_sent_in)
        return Unauthenticated(f"An API key is required, in the header {names}.", header=self._keys_sent_in[0])


def _headers(sources: tuple[Any, ...]) -> frozenset[str]:
    return frozenset[str]().union(*(source.header_names for source in sources if isinstance(source, HeaderReader)))


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


def _judged(answer: object, *, may_be_none: bool) -> Sequence[Credential] | TypeError:
    """Return the credentials in an answer, or what is wrong with it; the caller raises that.

    Not raised here, so that no traceback ever leads to a frame that holds keys as plain texts.
    """
    if answer is None and may_be_none:
        return ()
    if not isinstance(answer, tuple | list):
        return TypeError(f"credentials: expected a list or tuple of Credential, got {type(answer).__name__}")
    for credential in cast("Sequence[object]", answer):
        if not isinstance(credential, Credential):
            return TypeError(f"credentials: expected Credential objects, got {type(credential).__name__}")
    return cast("Sequence[Credential]", answer)


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
