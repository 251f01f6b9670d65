"""Requests as they go over the wire: where the key belongs in them, and where else it is."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, Protocol, cast
from urllib.parse import urlsplit

from kwai_middleware._outbound.routes import Endpoint, RouteTable
from kwai_middleware._secret import Secret
from kwai_middleware._settings import Settings

__all__ = ["OutboundRequest", "WireReport", "wire_report"]


class OutboundRequest(Protocol):
    """What httpx, httpx2 and requests call a request that is about to be sent."""

    @property
    def method(self) -> Any:
        """Such as `POST`."""

    @property
    def url(self) -> Any:
        """Where it goes to."""

    @property
    def headers(self) -> Any:
        """Names and values."""


class WireReport(NamedTuple):
    """What was found in one request.

    Attributes:
        paid_with: How often the key stands where the destination reads the customer's key.
        elsewhere: All other texts of the request, and where each one was.
    """

    paid_with: int
    elsewhere: list[tuple[str, str]]


_PARAMETER_HEADERS: Final = ("x-data-respan-params", "x-data-keywordsai-params")
_NESTED: Final = ("respan_params", "keywordsai_params")


def wire_report(request: OutboundRequest, key: Secret, settings: Settings) -> WireReport:
    """Take a request apart: the key where it belongs is counted, all else is returned to be searched.

    The key belongs into `customer_credentials` of a gateway call, into `Authorization` of a call to
    OpenRouter, and into `x-openrouter-api-key` of a call to the gateway's relay. It belongs into no
    other request, whatever the host.

    Args:
        request: Of httpx, httpx2 or requests.
        key: The customer's.
        settings: Whose routes say which destination is what.
    """
    url = str(request.url)
    where = f"request to {urlsplit(url).hostname}"
    endpoint = _endpoint(str(request.method), url, settings)
    paid_with = 0
    elsewhere = [(f"{where}: URL", url)]
    for name, value in _header_lines(request.headers):
        lowered = name.lower()
        if endpoint is not None and lowered in _PARAMETER_HEADERS and endpoint.kind == "gateway":
            texts = list(_leaves(_decoded(value), ()))
        else:
            texts = [((), value)]
        for path, text in texts:
            if endpoint is not None and _is_payment(endpoint, lowered, path, text, key):
                paid_with += 1
            else:
                elsewhere += [(f"{where}: header {name}", text), (f"{where}: header {name}", name)]
    body = _body(request)
    for path, text in _leaves(_parsed(body), ()):
        if endpoint is not None and _is_credential(endpoint, path, text, key):
            paid_with += 1
        else:
            elsewhere.append((f"{where}: body {'.'.join(path)}", text))
    return WireReport(paid_with, elsewhere)


def _endpoint(method: str, url: str, settings: Settings) -> Endpoint | None:
    parts = urlsplit(url)
    port = None if parts.port == {"http": 80, "https": 443}.get(parts.scheme) else parts.port
    if method != "POST":
        return None
    return RouteTable(settings).find(parts.scheme.encode(), (parts.hostname or "").encode(), port, parts.path.encode())


def _header_lines(headers: Any) -> Iterable[tuple[str, str]]:
    pairs: Iterable[tuple[Any, Any]] = headers.raw if hasattr(headers, "raw") else headers.items()
    return [(_as_text(name), _as_text(value)) for name, value in pairs]


def _as_text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _body(request: Any) -> str:
    """The body, read if it has not been; httpx keeps what it has read."""
    content = request.read() if hasattr(request, "read") else request.body
    return _as_text(content or b"")


def _parsed(body: str) -> object:
    """What JSON the body is, with every one of doubled members; the body itself when it is none."""
    try:
        return json.loads(body.encode("latin-1", "replace"), object_pairs_hook=_Pairs)
    except ValueError:
        return body


class _Pairs(list[tuple[str, object]]):
    """The members of a JSON object."""


def _leaves(value: object, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(value, _Pairs):
        for name, part in value:
            yield (*path, "a name"), name
            yield from _leaves(part, (*path, name))
    elif isinstance(value, list):
        for part in cast("list[object]", value):
            yield from _leaves(part, path)
    elif isinstance(value, str) and path and path[-1] in _NESTED:
        yield from _leaves(_parsed(value), path)
    else:
        yield path, str(value)


def _decoded(header: str) -> object:
    try:
        return _parsed(base64.b64decode(header, validate=True).decode("latin-1"))
    except (binascii.Error, ValueError):
        return header


def _is_payment(endpoint: Endpoint, header: str, path: tuple[str, ...], text: str, key: Secret) -> bool:
    if header in _PARAMETER_HEADERS:
        return _is_credential(endpoint, path, text, key)
    if endpoint.kind == "direct":
        return header == "authorization" and text == f"Bearer {key.reveal()}"
    return endpoint.kind == "relay" and header == "x-openrouter-api-key" and text == key.reveal()


def _is_credential(endpoint: Endpoint, path: tuple[str, ...], text: str, key: Secret) -> bool:
    return endpoint.kind == "gateway" and bool(_CREDENTIAL.fullmatch(".".join(path))) and text == key.reveal()


_CREDENTIAL: Final = re.compile(
    r"(?:(?:metadata\.)?(?:respan_params|keywordsai_params)\.)?customer_credentials\.[a-z0-9_.-]+\.api_key"
)
