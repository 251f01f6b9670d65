"""What we need of an HTTP library: httpx and httpx2 each give one declaration."""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from kwai_middleware._outbound.exchange import Deliver
from kwai_middleware._outbound.headers import Entry
from kwai_middleware._settings import Settings

__all__ = ["Library", "RequestLike", "ResponseLike", "copier", "entries_by", "parsed_by"]


class UrlLike(Protocol):
    """A parsed URL."""

    @property
    def raw_scheme(self) -> bytes: ...
    @property
    def raw_host(self) -> bytes: ...
    @property
    def port(self) -> int | None: ...
    @property
    def raw_path(self) -> bytes: ...
    @property
    def userinfo(self) -> bytes: ...


class HeadersLike(Protocol):
    """Headers of a request or a response."""

    @property
    def raw(self) -> list[tuple[bytes, bytes]]: ...
    def __contains__(self, name: Any, /) -> bool: ...
    def __setitem__(self, name: str, value: str, /) -> None: ...


class RequestLike(Protocol):
    """An outbound request of an HTTP library."""

    @property
    def method(self) -> str: ...
    @property
    def url(self) -> UrlLike: ...
    @property
    def headers(self) -> HeadersLike: ...
    @property
    def stream(self) -> Any: ...
    @property
    def extensions(self) -> Any: ...


class ResponseLike(Protocol):
    """A response of an HTTP library."""

    stream: Any

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> HeadersLike: ...
    @property
    def is_closed(self) -> bool: ...
    @property
    def is_stream_consumed(self) -> bool: ...
    @property
    def content(self) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """The classes of one HTTP library that a transport has to hand out.

    A client asserts that a stream inherits from its own library's type, so each library gets its
    own small classes; everything they do is in `streams` and `wire`.

    Attributes:
        name: How the library is imported.
        parsed: Returns the parts of a URL; `parsed_by` makes it.
        request: Copies a request, but for its headers and its stream; `copier` makes it.
        headers: Makes headers, also of others.
        entries: Returns the list in which headers are kept; `entries_by` makes it.
        response: Makes a response.
        real_transports: Those of its own that open connections.
        byte_stream: The type of a body that is held in memory.
        wire_body: A `WireBody` of the library's stream type.
        sent_stream: A `SentStream` of the library's stream type.
        stream: An `ObservedStream` of the library's stream type.
        async_stream: An `AsyncObservedStream` of the library's stream type.
        timeout: The base of its time-out exceptions.
        deliver: Where calls go when a transport is not told.
    """

    name: str
    parsed: Callable[[Any], tuple[Any, ...] | None]
    request: Callable[..., Any]
    headers: Callable[..., Any]
    entries: Callable[[Any], list[Entry]] | None
    response: Callable[..., Any]
    real_transports: tuple[type[Any], ...]
    byte_stream: type[Any]
    wire_body: Callable[..., Any]
    sent_stream: Callable[..., Any]
    stream: Callable[..., Any]
    async_stream: Callable[..., Any]
    timeout: type[Exception]
    deliver: Callable[[Settings], Deliver]


def parsed_by(url: Callable[[str], Any]) -> Callable[[Any], tuple[Any, ...] | None]:
    """Return what returns the parts of a URL, in one tuple that tells it from every other one.

    The library has that tuple, but does not say so: where it has it no more, there is None for every URL.

    Args:
        url: The library's class of URLs.
    """
    parts = operator.attrgetter("_uri_reference")
    try:
        one, same, other = [parts(url(f"https://{host}/path")) for host in ("a.example", "a.example", "b.example")]
    except AttributeError:
        return lambda url: None
    return parts if isinstance(one, tuple) and one == same != other else lambda url: None


def entries_by(headers: Callable[[Any], Any]) -> Callable[[Any], list[Entry]] | None:
    """Return what returns the list in which headers are kept, to be read and changed: 2 µs less for a call.

    The library has that list, but does not say so: there is None where it has it no more, or something beside it, or
    where a copy shares it with the app's own headers.

    Args:
        headers: The library's class of headers.
    """
    entries = operator.attrgetter("_list")
    own = headers([("A-b", "c"), ("D", "e")])
    copy = headers(own)
    try:
        is_list = entries(copy) == [(b"A-b", b"a-b", b"c"), (b"D", b"d", b"e")]
        entries(copy)[0] = (b"A-b", b"a-b", b"f")
    except (AttributeError, IndexError, TypeError):
        return None
    is_all = copy.raw == [(b"A-b", b"f"), (b"D", b"e")] and copy["a-b"] == "f"
    return entries if is_list and is_all and own.raw == [(b"A-b", b"c"), (b"D", b"e")] else None


def copier(plain: type[Any], held: type[Any]) -> Callable[..., Any]:
    """Return what copies requests, given other headers and another stream.

    Args:
        plain: The library's class of requests.
        held: The one for bodies that are held in memory, a `WireRequest`.
    """

    def copied(request: RequestLike, headers: Any, stream: Any, is_held: bool) -> Any:
        # All that the constructor would set. It would read headers and URL once more: 3 µs.
        copy = object.__new__(held if is_held else plain)
        copy.method, copy.url, copy.headers, copy.stream = request.method, request.url, headers, stream
        copy.extensions = dict(request.extensions)
        return copy

    return copied
