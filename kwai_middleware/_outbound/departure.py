"""One request that is about to leave: its wire copy, and what becomes of the answer."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, cast

from kwai_middleware import _guard
from kwai_middleware._outbound.attribution import Attribution, BodyChanges, credentials_member, pinned_provider
from kwai_middleware._outbound.exchange import Exchange, Unwatched
from kwai_middleware._outbound.json_members import spliced
from kwai_middleware._outbound.library import Library, RequestLike, ResponseLike
from kwai_middleware._outbound.observation import Ending
from kwai_middleware._outbound.tracebacks import drop_inner_frames

__all__ = ["Departure"]

_ROUTE_PROVIDER = "x-respan-route-provider"


class Departure:
    """Connects the app's request, its copy on the wire, and the exchange that watches both.

    Args:
        library: Whose classes to make.
        request: The app's own request; it is never changed.
        attribution: Who the call is for and who pays.
        body: The app's bytes; None when the body is a stream.
        changes: What becomes of a gateway request's body; None when it stays as it is.
        key_in_header: The caller's key takes the place of the `Authorization` header.
        inner_is_real: The transport inside opens connections and is of the library itself.
        exchange: Is told what happens.
    """

    __slots__ = (
        "_attribution", "_body", "_changes", "_copy", "_exchange", "_inner_is_real", "_key_in_header", "_library",
        "_request", "received",
    )  # fmt: skip

    def __init__(
        self,
        library: Library,
        request: RequestLike,
        attribution: Attribution,
        body: bytes | None,
        changes: BodyChanges | None,
        exchange: Exchange | Unwatched,
        *,
        key_in_header: bool,
        inner_is_real: bool,
    ) -> None:
        self._library = library
        self._request = request
        self._attribution = attribution
        self._body = body
        self._changes = changes if changes is not None and (changes.changes or changes.sends_key) else None
        self._key_in_header = key_in_header
        self._inner_is_real = inner_is_real
        self._copy: weakref.ref[Any] | None = None
        self._exchange = exchange
        self.received: Callable[[bytes], None] = exchange.received

    def wire(self) -> Any:
        """Return what goes to the wire: a copy with the caller's key, or the request itself when nothing changes.

        Call it where its value is used, and keep the value in no variable: exceptions carry the
        variables of every frame they pass.
        """
        request = self._request
        if self._changes is None and not self._key_in_header:
            return request
        headers = request.headers.copy()
        stream = request.stream
        if self._changes is not None:
            stream = self._library.wire_body(self._wire_parts(self._changes))
            if "content-length" in headers:
                headers["content-length"] = str(stream.size)
        if self._key_in_header and self._attribution.credential is not None:
            headers["authorization"] = f"Bearer {self._attribution.credential.api_key.reveal()}"
        provider = pinned_provider(self._attribution)
        if provider is not None:
            headers[_ROUTE_PROVIDER] = provider
        copy = self._library.request(
            request.method, request.url, headers=headers, stream=stream, extensions=request.extensions
        )
        if self._body is not None and not self._inner_is_real:
            # Layers that sign, cache or imitate look at a request's content, which a real transport never does.
            copy.read()
        self._copy = weakref.ref(copy)
        return copy

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
        if self._copy is not None:
            with _guard.never_raise:
                drop_inner_frames(error)
            with _guard.never_raise:
                self._disguise()
            with _guard.never_raise:
                self._show_the_apps_request(error)

    def _wire_parts(self, body: BodyChanges) -> tuple[bytes | memoryview, ...]:
        changes = {"customer_credentials": credentials_member(self._attribution)} if body.sends_key else {}
        return spliced(body.body, body.members, changes | body.changes, whole=not self._inner_is_real)

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
