"""One request that is about to leave: its wire copy, and what becomes of the answer."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, cast

from kwai_middleware import _guard
from kwai_middleware._outbound.changes import Changes
from kwai_middleware._outbound.exchange import Exchange, Unwatched
from kwai_middleware._outbound.library import Library, RequestLike, ResponseLike
from kwai_middleware._outbound.observation import Ending
from kwai_middleware._outbound.parameter_header import PARAMETER_HEADER
from kwai_middleware._outbound.tracebacks import drop_inner_frames
from kwai_middleware._outbound.wire import wire_header, wire_parts

__all__ = ["Departure"]


class Departure:
    """Connects the app's request, its copy on the wire, and the exchange that watches both.

    Args:
        library: Whose classes to make.
        request: The app's own request; it is never changed.
        body: The app's bytes; None when the body is a stream that was not read.
        is_gathered: The stream has been read: only these bytes are left of it.
        changes: What becomes of the request.
        key_headers: Headers in which the caller's key takes the place of what is there.
        exchange: Is told what happens.
        inner_is_real: The transport inside opens connections and is of the library itself.
    """

    __slots__ = (
        "_body", "_changes", "_copies", "_copy", "_exchange", "_inner_is_real", "_is_gathered", "_key_headers",
        "_library", "_request", "received",
    )  # fmt: skip

    def __init__(
        self,
        library: Library,
        request: RequestLike,
        body: bytes | None,
        changes: Changes,
        key_headers: tuple[str, ...],
        exchange: Exchange | Unwatched,
        *,
        is_gathered: bool,
        inner_is_real: bool,
    ) -> None:
        self._library = library
        self._request = request
        self._body = body
        self._is_gathered = is_gathered
        self._changes = changes
        self._key_headers = key_headers
        self._inner_is_real = inner_is_real
        self._copies = False
        self._copy: weakref.ref[Any] | None = None
        self._exchange = exchange
        self.received: Callable[[bytes], None] = exchange.received

    def wire(self) -> Any:
        """Return what goes to the wire: a copy with the caller's key, or the request itself when nothing changes.

        Call it where its value is used, and keep the value in no variable: exceptions carry the
        variables of every frame they pass.
        """
        request, changes = self._request, self._changes
        changes_body = changes.touches_body or self._is_gathered
        if not (changes_body or changes.headers or changes.in_header is not None or self._key_headers):
            return request
        self._copies = True
        headers = request.headers.copy()
        stream = request.stream
        if changes_body and self._body is not None:
            stream = self._library.wire_body(wire_parts(changes, self._body, whole=not self._inner_is_real))
            # A length that was wrong stays so, and is found out: the body may have been cut on its way here.
            if headers.get("content-length") == str(len(self._body)):
                headers["Content-Length"] = str(stream.size)
        self._write_headers(headers)
        copy = self._library.request(
            request.method, request.url, headers=headers, stream=stream, extensions=request.extensions
        )
        if self._body is not None and not self._inner_is_real:
            # Layers that sign, cache or imitate look at a request's content, which a real transport never does.
            copy.read()
        self._copy = weakref.ref(copy)
        return copy

    def _write_headers(self, headers: Any) -> None:
        for name, value in self._changes.headers.items():
            headers.pop(name, None)
            if value is not None:
                headers[name] = value
        parameters = wire_header(self._changes)
        if parameters is not None:
            headers[PARAMETER_HEADER] = parameters
        for name in self._key_headers:
            key = self._changes.attribution.credentials[0].api_key
            headers[name] = f"Bearer {key.reveal()}" if name == "authorization" else key.reveal()

    def arrived(self, response: ResponseLike, make_stream: Callable[[Any, Departure], Any]) -> None:
        """The response's head is there: watch its body from now on."""
        with _guard.never_raise:
            self._show_the_apps_request(response)
        with _guard.never_raise:
            self._exchange.answered(response.status_code, tuple(response.headers.raw))
            if response.is_closed or response.is_stream_consumed:
                # Caches, mocks and retry layers hand over answers that are read already: such a
                # stream is never iterated and never closed.
                self._exchange.read_already(_content(response))
            else:
                response.stream = make_stream(response.stream, self)

    def finished(self, ending: Ending) -> None:
        """The answer is over without an exception."""
        self._exchange.finished(ending)

    def failed(self, error: BaseException) -> None:
        """The request or the answer ended with `error`, which the app will get."""
        self._exchange.finished(self._ending(error), error if isinstance(error, Exception) else None)
        if self._copies:
            # Also when the copy could not be made: an interrupt finds the key in the frames that make it.
            with _guard.never_raise:
                drop_inner_frames(error)
            with _guard.never_raise:
                self._disguise()
            with _guard.never_raise:
                self._show_the_apps_request(error)

    def _ending(self, error: BaseException) -> Ending:
        if isinstance(error, self._library.timeout):
            return Ending.TIMEOUT
        if isinstance(error, GeneratorExit):
            return Ending.CLOSED
        return Ending.ERROR if isinstance(error, Exception) else Ending.CANCELLED

    def _disguise(self) -> None:
        """Make the wire copy a twin of the app's own request: exceptions of layers inside may hold on to it."""
        copy: Any = None if self._copy is None else self._copy()
        if copy is not None:
            attributes = cast("dict[str, Any]", vars(copy))
            attributes.clear()
            attributes.update(vars(self._request))

    def _show_the_apps_request(self, thing: Any) -> None:
        """A response or an exception that names the wire copy names the app's own request instead."""
        copy = None if self._copy is None else self._copy()
        try:
            if copy is not None and thing.request is copy:
                thing.request = self._request
        except (AttributeError, RuntimeError):
            # It names none, or cannot be told another; then it names the copy, which is a twin by now.
            return


def _content(response: ResponseLike) -> bytes:
    try:
        return response.content
    except RuntimeError:  # closed without ever having been read
        return b""
