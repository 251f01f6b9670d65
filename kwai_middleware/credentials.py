"""Whose keys pay for a request, read from headers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Final, final

from kwai_middleware._caller import Credential, checked_credential
from kwai_middleware._inbound.callables import KeyReader
from kwai_middleware._inbound.key_lists import list_parser
from kwai_middleware._inbound.request import InboundRequest
from kwai_middleware._inbound.trace_ids import TRACE_HEADERS
from kwai_middleware._inbound.values import checked_name
from kwai_middleware._secret import Secret
from kwai_middleware.errors import ConfigurationError

__all__ = ["HeaderCredentials"]

_DEFAULT_HEADERS: Final[Mapping[str, str]] = MappingProxyType({"x-openrouter-key": "openrouter"})
_TRACE_NAMES: Final = tuple(name.decode() for name in TRACE_HEADERS)


@final
class HeaderCredentials(KeyReader):
    """Reads the caller's keys from headers.

    A key is a bearer secret: it is taken from anyone, and from a header that is there but holds no
    usable key the request is answered with 400. It never falls back to the app's own key in silence.

    Args:
        headers: Which provider's key each header carries. With `authorization` the form
            `Bearer <key>` is expected.
        strip: Whether the headers are taken out of the scope or environ, in place, so that no log
            and no error report shows them from then on.
        lists: Whether a header holds a list of keys, in one or several lines: True for all of them,
            False for none, or the names of those that do. A list (RFC 9651) has 1 to 16 keys, each a
            token, or a quoted string where it has characters that no token has, or begins with a
            digit. Beside a key stands its weight as `w` or `weight`, a number above 0, without which
            it is 1: `key-one;w=3, "2nd=key";w=0.5`. One key is a list of one. `authorization` holds
            no list. Needs the extra `keylists`.

    Raises:
        ConfigurationError: An argument is none of these, or the extra is not installed.

    Example:
        >>> HeaderCredentials({"x-openrouter-key": "openrouter", "x-openai-key": "openai"})
        HeaderCredentials({'x-openrouter-key': 'openrouter', 'x-openai-key': 'openai'})
    """

    __slots__ = ("_alike", "_is_simple", "_strip")

    def __init__(
        self,
        headers: Mapping[str, str] = _DEFAULT_HEADERS,
        *,
        strip: bool = True,
        lists: bool | Collection[str] = False,
    ) -> None:
        if not isinstance(headers, Mapping) or not headers:
            raise ConfigurationError(
                "HeaderCredentials: a mapping such as {'x-openrouter-key': 'openrouter'};"
                " to read no keys, pass credentials=None to the middleware"
            )
        self._alike: Final = {
            checked_name("HeaderCredentials", header): _of_provider(provider) for header, provider in headers.items()
        }
        if len(self._alike) < len(headers):
            raise ConfigurationError("HeaderCredentials: two of the headers have the same name")
        if not self._alike.keys().isdisjoint(_TRACE_NAMES):
            raise ConfigurationError(
                f"HeaderCredentials: {' and '.join(_TRACE_NAMES)} hold what calls are known by in logs, never a key"
            )
        self._strip: Final = strip
        super().__init__(
            self._alike,
            self._alike if strip else (),
            list_headers=_checked_lists(lists, self._alike),
            origin=f"header {' or '.join(self._alike)}",
        )
        self._is_simple: Final = strip and not self.list_headers

    @property
    def plain_keys(self) -> Mapping[str, Credential] | None:
        """What a credential is like whose key comes in each header; None with lists, and for headers that are kept."""
        return self._alike if self._is_simple and "authorization" not in self._alike else None

    def __call__(self, request: InboundRequest) -> tuple[Credential, ...]:
        """Return the keys of a request, in the order of the headers given.

        Raises:
            InvalidHeader: A header of these holds no usable key, or was sent twice and is no list.
        """
        credentials: list[Credential] = []
        for header, alike in self._alike.items():
            if header in self.list_headers:
                for listed, weight in request.secrets(header, strip=self._strip):
                    credentials.append(Credential(provider=alike.provider, api_key=listed, weight=weight))
                continue
            key = request.secret(header, strip=self._strip)
            if key is not None:
                credentials.append(checked_credential(alike, key))
        return tuple(credentials)

    def taken_keys(self, request: InboundRequest) -> tuple[Credential, ...]:
        """Do the same for a request whose door has looked for these headers.

        Raises:
            InvalidHeader: As above.
        """
        taken = request.taken
        if request.broken or not self._is_simple:
            return self(request)
        credentials: tuple[Credential, ...] = ()
        for header, alike in self._alike.items():
            if header in taken:
                key = taken[header]
                if isinstance(key, tuple):
                    return self(request)  # an outer middleware has read a list
                credentials += (checked_credential(alike, key),)
        return credentials

    def __repr__(self) -> str:
        shown = {header: alike.provider for header, alike in self._alike.items()}
        return f"HeaderCredentials({shown!r})"


def _checked_lists(lists: bool | Collection[str], headers: Collection[str]) -> frozenset[str]:
    if isinstance(lists, str) or not isinstance(lists, bool | Collection):
        raise ConfigurationError("HeaderCredentials.lists: True, False, or a tuple of the headers that hold lists")
    if isinstance(lists, bool):
        names = frozenset(headers if lists else ())
    else:
        names = frozenset(checked_name("HeaderCredentials.lists", name) for name in lists)
    if not names.issubset(headers):
        raise ConfigurationError("HeaderCredentials.lists: one of them is not a header that keys are read from")
    if "authorization" in names:
        raise ConfigurationError(
            "HeaderCredentials.lists: authorization holds one key, 'Bearer <key>'; name the headers that hold lists,"
            " as in lists=('x-openrouter-key',)"
        )
    if names:
        list_parser()  # what is missing is missing now, not at the first request
    return names


def _of_provider(provider: str) -> Credential:
    """Return what each credential of a provider is like."""
    try:
        return Credential(provider=provider, api_key=Secret("any"))
    except ValueError as error:
        raise ConfigurationError(f"HeaderCredentials: {error}") from None
