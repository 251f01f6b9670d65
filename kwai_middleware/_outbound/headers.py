"""Which headers of a request have a say in what becomes of it, and which carry a key."""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable, Iterator
from typing import Final

from kwai_middleware._outbound.attempts import RETRY_COUNT
from kwai_middleware._outbound.attribution import Attribution
from kwai_middleware._outbound.changes import READ_HEADERS, ROUTE_PROVIDER
from kwai_middleware._outbound.parameter_header import PARAMETER_HEADERS
from kwai_middleware._outbound.routes import Endpoint

__all__ = ["LENGTH", "Entry", "headers_in", "headers_of", "key_headers"]

LENGTH: Final = "content-length"

_AUTHORIZATION: Final = "authorization"
_API_KEYS: Final = ("x-api-key", "api-key", "x-goog-api-key")
"""Where Anthropic's, Azure's and Google's own APIs take the key."""
_RELAYED_KEY: Final = "x-openrouter-api-key"


def _with_underscores(name: str) -> Iterator[str]:
    """Each spelling of a name with underscores in place of dashes: CGI and WSGI servers read them all alike."""
    for marks in itertools.product("-_", repeat=name.count("-")):
        words = zip(name.split("-"), (*marks, ""), strict=True)
        if "_" in marks:
            yield "".join(itertools.chain.from_iterable(words))


_OURS: Final = (*PARAMETER_HEADERS, ROUTE_PROVIDER, _RELAYED_KEY, *_API_KEYS)
_MISSPELLED: Final = tuple(each for name in _OURS for each in _with_underscores(name))
_BY_NAME_ONLY: Final = frozenset((_AUTHORIZATION, *_API_KEYS, *_MISSPELLED))
_OF_INTEREST: Final = {name.encode(): name for name in (*READ_HEADERS, RETRY_COUNT, LENGTH, *_BY_NAME_ONLY)}


Entry = tuple[bytes, bytes, bytes]
"""One header: its name as it was written, the same in lower case, and its value."""


def headers_of(raw_headers: Iterable[tuple[bytes, bytes]]) -> dict[str, bytes]:
    """Return the headers that have a say in what becomes of a request, without the keys in them.

    One of the vendor's with an underscore in its name is there under that name.
    """
    return headers_in([(name, name.lower(), value) for name, value in raw_headers])


def headers_in(entries: Iterable[Entry]) -> dict[str, bytes]:
    """Return the same of headers whose names are known in lower case."""
    found: dict[str, bytes] = {}
    for _, lower, value in entries:
        name = _OF_INTEREST.get(lower)
        if name is None:
            continue
        if name in _BY_NAME_ONLY:
            found[name] = b""
        else:
            found[name] = found[name] + b", " + value if name in found else value
    return found


def key_headers(endpoint: Endpoint, attribution: Attribution, headers: Container[str]) -> tuple[str, ...]:
    """Return the headers in which the caller's key takes the place of the app's."""
    if endpoint.kind == "gateway" or attribution.credential is None:
        return ()
    if endpoint.kind == "relay":
        return (_RELAYED_KEY,)
    # Anthropic's SDK has the key in another header, and some send both: none of them may be the app's.
    found = tuple(name for name in _API_KEYS if name in headers)
    return (_AUTHORIZATION, *found) if _AUTHORIZATION in headers or not found else found
