"""A prepared request of requests, seen as it will go to the wire."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple, cast
from urllib.parse import urlsplit
from weakref import ref

from requests import PreparedRequest
from requests.utils import get_environ_proxies, select_proxy

from kwai_middleware._outbound.departure import Departure
from kwai_middleware._outbound.proxies import is_elsewhere
from kwai_middleware._route import is_loopback

__all__ = ["Destination", "SentRequests", "destination", "held", "pieces", "raw_headers", "unproxied", "watched"]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_PIECE: Final = 64 * 1024


class Destination(NamedTuple):
    """Where a request goes."""

    scheme: bytes
    host: bytes
    port: int | None
    target: bytes
    has_userinfo: bool


def destination(request: PreparedRequest) -> Destination | None:
    """Return where a request goes, or None when nobody could say.

    It is read as `HTTPAdapter` reads it, so that no spelling is one host here and another one there.
    """
    if not isinstance(request.url, str):
        return None
    try:
        parts = urlsplit(request.url)
        port = parts.port
    except ValueError:
        return None
    port = None if port == _DEFAULT_PORTS.get(parts.scheme) else port
    host, target = (parts.hostname or "").encode(), request.path_url.encode()
    return Destination(parts.scheme.encode(), host, port, target, "@" in parts.netloc)


def unproxied(request: PreparedRequest, options: dict[str, Any]) -> dict[str, Any]:
    """Return what to send with; of it the environment's proxy on another machine is gone, for plain HTTP to this one.

    That proxy would get the keys in clear over the network, for a server that it cannot reach.
    """
    url = request.url or ""
    if urlsplit(url).scheme != "http" or not is_loopback(urlsplit(url).hostname or ""):
        return options
    proxy = select_proxy(url, options.get("proxies"))
    if proxy is None or proxy != select_proxy(url, get_environ_proxies(url)):
        return options
    return {**options, "proxies": {}} if is_elsewhere(proxy if "://" in proxy else f"http://{proxy}") else options


def raw_headers(headers: Iterable[tuple[Any, Any]]) -> tuple[tuple[bytes, bytes], ...]:
    """Return headers as bytes; requests has them as text, and takes bytes as well."""
    return tuple((_encoded(name), _encoded(value)) for name, value in headers)


def held(body: Any) -> bytes | None:
    """Return a body that is held in memory; None for one that has to be read."""
    if type(body) is bytes:
        return body
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    if hasattr(body, "read"):
        return None
    try:
        return memoryview(cast("bytes", body)).tobytes()
    except TypeError:
        return None


def pieces(body: Any) -> Iterator[bytes]:
    """Read a file or whatever can be iterated, as urllib3 would."""
    if hasattr(body, "read"):
        while piece := body.read(_PIECE):
            yield piece.encode() if isinstance(piece, str) else piece
    else:
        for piece in body:
            yield piece.encode() if isinstance(piece, str) else piece


def watched(body: Any, departure: Departure) -> Any:
    """Return what stands in for a body that has to be read, and tells what is read of it."""
    if isinstance(body, io.TextIOBase):
        return body  # urllib3 encodes those, and knows them by their type; a form with a file is none
    return _SentFile(body, departure) if hasattr(body, "read") else _SentPieces(body, departure)


class _SentPieces:
    """A body that can be iterated."""

    def __init__(self, body: Any, departure: Departure) -> None:
        self._body = body
        self._departure = departure

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)

    def __iter__(self) -> Iterator[Any]:
        self._departure.sending()
        for piece in self._body:
            self._note(piece)
            yield piece

    def _note(self, piece: Any) -> None:
        self._departure.sent(piece.encode(errors="replace") if isinstance(piece, str) else piece)


class _SentFile(_SentPieces):
    """A body that can be read."""

    def read(self, *arguments: Any) -> Any:
        """Read as the file does."""
        piece = self._body.read(*arguments)
        if piece:
            self._note(piece)
        return piece

    @property
    def seek(self) -> Any:
        """Whoever asks for it is about to send from the beginning again; a file may have none."""
        self._departure.sending()
        return self._body.seek


class _Mark:
    """Stands for one request, however often it is sent."""

    __slots__ = ("__weakref__",)


class SentRequests:
    """Knows a request again that is sent a second time: by hand, after a redirect or after a challenge.

    The latter two send a copy, and what a copy shares with its original and with nothing else is
    the object in `hooks`.
    """

    def __init__(self) -> None:
        self._marks: dict[int, tuple[ref[PreparedRequest], _Mark]] = {}

    def mark(self, request: PreparedRequest) -> object:
        """Return what stands for a request; lives as long as the latest one that was sent for it."""
        place = id(request.hooks)
        known = self._marks.get(place)
        earlier = None if known is None else known[0]()
        is_again = earlier is not None and earlier.hooks is request.hooks and earlier.body is request.body
        mark = known[1] if known is not None and is_again else _Mark()
        self._marks[place] = (ref(request, lambda _: self._marks.pop(place, None)), mark)
        return mark


def _encoded(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1", "replace")
