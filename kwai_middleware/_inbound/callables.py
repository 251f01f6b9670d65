"""What an app may hand to the doors to say who a request is for, and whose keys pay."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

from kwai_middleware._caller import Caller, Credential
from kwai_middleware._inbound.plain import PlainFields
from kwai_middleware._inbound.request import InboundRequest
from kwai_middleware._unsettled import KeySource
from kwai_middleware._user_source import UserSource

__all__ = ["Credentials", "HeaderReader", "Identify", "IdentityReader", "KeyReader", "LazyIdentity", "Required"]


class LazyIdentity(ABC):
    """Says who a request is for when somebody asks: it is not known yet when the request comes in."""

    __slots__ = ()

    @abstractmethod
    def user_of(self, request: InboundRequest) -> UserSource:
        """Return what tells the request's user later."""


Identify = Callable[[InboundRequest], Caller | Awaitable[Caller | None] | None] | LazyIdentity
Credentials = Callable[[InboundRequest], Sequence[Credential] | Awaitable[Sequence[Credential]]] | KeySource
Required = bool | Callable[[InboundRequest], bool | Awaitable[bool]]


class HeaderReader:
    """Base of the callables that never wait and look at nothing but the headers they name.

    Without one of these headers such a callable need not be asked: the answer is nobody, or no key.

    Attributes:
        header_names: What it answers by, in lower case.
        secret_headers: Those of them that are taken out of the request before anything else runs.
        other_headers: What else it looks at when one of the others was sent.
        list_headers: Those that may be sent several times, and are one list then.
        origin: Where its answers come from, in a few words.
    """

    __slots__ = ("header_names", "list_headers", "origin", "other_headers", "secret_headers")

    def __init__(
        self,
        header_names: Iterable[str],
        secret_headers: Iterable[str] = (),
        other_headers: Iterable[str] = (),
        list_headers: Iterable[str] = (),
        *,
        origin: str,
    ) -> None:
        self.header_names: Final = frozenset(header_names)
        self.secret_headers: Final = frozenset(secret_headers)
        self.other_headers: Final = frozenset(other_headers)
        self.list_headers: Final = frozenset(list_headers)
        self.origin: Final = origin


class IdentityReader(HeaderReader, ABC):
    """Says who a request is for."""

    __slots__ = ()

    @property
    @abstractmethod
    def plain_fields(self) -> PlainFields:
        """Which header holds which field, and whom that is believed from."""

    @abstractmethod
    def __call__(self, request: InboundRequest) -> Caller | None:
        """Return who the request is for; None for nobody."""

    @abstractmethod
    def new_caller(self, request: InboundRequest) -> Caller | None:
        """Do the same for a request whose door has looked for the headers of this reader.

        Nobody else has seen that caller yet, so that it may be completed.
        """


class KeyReader(HeaderReader, ABC):
    """Says whose keys pay for a request."""

    __slots__ = ()

    @property
    @abstractmethod
    def plain_keys(self) -> Mapping[str, Credential] | None:
        """What a credential is like whose key comes in each header; None when a header may hold several, or is kept."""

    @abstractmethod
    def __call__(self, request: InboundRequest) -> tuple[Credential, ...]:
        """Return the keys."""

    @abstractmethod
    def taken_keys(self, request: InboundRequest) -> tuple[Credential, ...]:
        """Do the same for a request whose door has looked for the headers of this reader."""
