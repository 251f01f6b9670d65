"""Whose keys pay for a request, read from headers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, final

from kwai_middleware._caller import Credential
from kwai_middleware._inbound.callables import KeyReader
from kwai_middleware._inbound.request import InboundRequest
from kwai_middleware._inbound.values import checked_name
from kwai_middleware._secret import Secret
from kwai_middleware.errors import ConfigurationError

__all__ = ["HeaderCredentials"]

_DEFAULT_HEADERS: Final[Mapping[str, str]] = MappingProxyType({"x-openrouter-key": "openrouter"})


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
        lists: Several weighted keys in one header. Not available in this version.

    Raises:
        ConfigurationError: An argument is none of these.

    Example:
        >>> HeaderCredentials({"x-openrouter-key": "openrouter", "x-openai-key": "openai"})
        HeaderCredentials({'x-openrouter-key': 'openrouter', 'x-openai-key': 'openai'})
    """

    __slots__ = ("_providers", "_strip")

    def __init__(
        self, headers: Mapping[str, str] = _DEFAULT_HEADERS, *, strip: bool = True, lists: bool = False
    ) -> None:
        if not isinstance(headers, Mapping) or not headers:
            raise ConfigurationError(
                "HeaderCredentials: a mapping such as {'x-openrouter-key': 'openrouter'};"
                " to read no keys, pass credentials=None to the middleware"
            )
        if lists:
            raise ConfigurationError("HeaderCredentials.lists: not available in this version; leave it False")
        self._providers: Final = {
            checked_name("HeaderCredentials", header): _checked_provider(provider)
            for header, provider in headers.items()
        }
        if len(self._providers) < len(headers):
            raise ConfigurationError("HeaderCredentials: two of the headers have the same name")
        self._strip: Final = strip
        super().__init__(self._providers, self._providers if strip else ())

    def __call__(self, request: InboundRequest) -> tuple[Credential, ...]:
        """Return the keys of a request, in the order of the headers given.

        Raises:
            InvalidHeader: A header of these was sent twice, or holds no usable key.
        """
        credentials: list[Credential] = []
        for header, provider in self._providers.items():
            key = request.secret(header, strip=self._strip)
            if key is not None:
                credentials.append(Credential(provider=provider, api_key=key))
        return tuple(credentials)

    def __repr__(self) -> str:
        return f"HeaderCredentials({self._providers!r})"


def _checked_provider(provider: str) -> str:
    try:
        Credential(provider=provider, api_key=Secret("any"))
    except ValueError as error:
        raise ConfigurationError(f"HeaderCredentials: {error}") from None
    return provider
