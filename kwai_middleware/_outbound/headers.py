"""Which headers of a request have a say in what becomes of it, and which carry a key."""

from __future__ import annotations

from collections.abc import Container
from typing import Final

from kwai_middleware._outbound.attempts import RETRY_COUNT
from kwai_middleware._outbound.attribution import Attribution
from kwai_middleware._outbound.changes import READ_HEADERS
from kwai_middleware._outbound.library import RequestLike
from kwai_middleware._outbound.routes import Endpoint

__all__ = ["headers_of", "key_headers"]

_AUTHORIZATION: Final = "authorization"
_API_KEY: Final = "x-api-key"
_RELAYED_KEY: Final = "x-openrouter-api-key"
_OF_INTEREST: Final = {name.encode(): name for name in (*READ_HEADERS, RETRY_COUNT)}
_OF_INTEREST_BY_NAME_ONLY: Final = {name.encode(): name for name in (_AUTHORIZATION, _API_KEY)}


def headers_of(request: RequestLike) -> dict[str, bytes]:
    """Return the headers that have a say in what becomes of a request, without the keys in them."""
    found: dict[str, bytes] = {}
    for raw_name, value in request.headers.raw:
        raw_name = raw_name.lower()
        if raw_name in _OF_INTEREST:
            name = _OF_INTEREST[raw_name]
            found[name] = found[name] + b", " + value if name in found else value
        elif raw_name in _OF_INTEREST_BY_NAME_ONLY:
            found[_OF_INTEREST_BY_NAME_ONLY[raw_name]] = b""
    return found


def key_headers(endpoint: Endpoint, attribution: Attribution, headers: Container[str]) -> tuple[str, ...]:
    """Return the headers in which the caller's key takes the place of the app's."""
    if endpoint.kind == "gateway" or attribution.credential is None:
        return ()
    if endpoint.kind == "relay":
        return (_RELAYED_KEY,)
    if _API_KEY not in headers:
        return (_AUTHORIZATION,)
    # Anthropic's SDK has the key here, and some send both: neither may be the app's.
    return (_AUTHORIZATION, _API_KEY) if _AUTHORIZATION in headers else (_API_KEY,)
