"""The synchronous and the asynchronous transport, for any library that is like httpx."""

from __future__ import annotations

from types import TracebackType
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

from kwai_middleware import _notices
from kwai_middleware._context import Slot, current_caller, current_slot
from kwai_middleware._outbound.attempts import RETRY_COUNT, attempt_at
from kwai_middleware._outbound.attribution import Attribution, attribute, with_one_key_each
from kwai_middleware._outbound.changes import changes_to, looks_into_body
from kwai_middleware._outbound.departure import Departure
from kwai_middleware._outbound.exchange import Deliver, watching
from kwai_middleware._outbound.gathering import gathered, gathered_async
from kwai_middleware._outbound.headers import headers_of, key_headers
from kwai_middleware._outbound.hpack_log import hide_header_values
from kwai_middleware._outbound.library import Library, RequestLike, ResponseLike
from kwai_middleware._outbound.notes import note_anonymous, note_unconfirmed_payer, note_unrouted
from kwai_middleware._outbound.refusals import refusal_answer
from kwai_middleware._outbound.routes import Endpoint, RouteTable
from kwai_middleware._settings import Settings
from kwai_middleware.errors import ConfigurationError, OutboundRefused

__all__ = ["AsyncTransport", "Refuse", "Transport"]

RequestT = TypeVar("RequestT", bound=RequestLike)
ResponseT = TypeVar("ResponseT", bound=ResponseLike)

Refuse = Literal["raise", "response"]
"""How a refused call looks to the app: our exception, or a local answer with status 401."""


class _Wrapper(Generic[RequestT, ResponseT]):
    """What both transports share: everything but the word `await`."""

    library: ClassVar[Library]
    _handler: ClassVar[str]

    def __init__(
        self,
        inner: Any,
        *,
        settings: Settings | None = None,
        deliver: Deliver | None = None,
        refuse: Refuse = "raise",
    ) -> None:
        name = type(self).__name__
        if isinstance(inner, _Wrapper):
            raise ConfigurationError(f"{name}: the transport is wrapped already; a call would be recorded twice")
        if not hasattr(inner, self._handler):
            raise ConfigurationError(
                f"{name}: expected a {self.library.name} transport with {self._handler}(), got {type(inner).__name__};"
                " client() and async_client() make a whole client"
            )
        if refuse not in ("raise", "response"):
            raise ConfigurationError(f"{name}: refuse is 'raise' or 'response'")
        self._inner = inner
        self._settings = Settings.from_env() if settings is None else settings
        self._deliver: Deliver = self.library.deliver(self._settings) if deliver is None else deliver
        self._refuse = refuse
        self._inner_is_real = type(inner) in self.library.real_transports
        self._routes = RouteTable(self._settings)
        hide_header_values()

    def _endpoint(self, request: RequestT) -> Endpoint | None:
        url = request.url
        scheme, host, port = url.raw_scheme, url.raw_host, url.port
        # The extension `target` puts another path on the wire than the URL has.
        target = request.extensions.get("target", url.raw_path)
        if not isinstance(target, bytes):
            target = str(target).encode("ascii", "replace")
        if request.method == "POST" and not url.userinfo:
            endpoint = self._routes.find(scheme, host, port, target)
            if endpoint is not None:
                return endpoint
        if self._routes.resembles(scheme, host, port, target):
            note_unrouted(host, current_caller())
        return None

    def _depart(
        self,
        request: RequestT,
        endpoint: Endpoint,
        slot: Slot,
        attribution: Attribution,
        gathered_body: bytes | None = None,
    ) -> Departure:
        """Decide what goes to the wire.

        Args:
            request: The app's own.
            endpoint: Where it goes.
            slot: The unit of work that it is part of.
            attribution: Who it is for and who pays, as far as that does not hang on the request.
            gathered_body: What was read of a body that came in pieces.

        Raises:
            OutboundRefused: The call must not go out.
        """
        headers = headers_of(request)
        body = self._body(request) if gathered_body is None else gathered_body
        size = None if body is None else len(body)
        attempt = attempt_at(endpoint, request.stream, size, headers.get(RETRY_COUNT, b""), slot)
        attribution = with_one_key_each(attribution, attempt.call_id)
        changes = changes_to(endpoint, attribution, self._settings, body, headers)
        if changes.is_anonymous:
            note_anonymous(endpoint)
        if changes.sends_key and endpoint.place == "metadata":
            note_unconfirmed_payer(endpoint)
        exchange = watching(endpoint, changes.attribution, body, self._settings, self._deliver, attempt, slot.trace_id)
        return Departure(
            self.library,
            request,
            body,
            changes,
            key_headers(endpoint, changes.attribution, headers),
            exchange,
            is_gathered=gathered_body is not None,
            inner_is_real=self._inner_is_real,
        )

    def _body(self, request: RequestT) -> bytes | None:
        # Not `request.content`: on a redirect's second hop it says "not read" although the stream
        # is the same bytes.
        stream = request.stream
        return b"".join(stream) if type(stream) is self.library.byte_stream else None

    def _must_gather(self, request: RequestT, endpoint: Endpoint, attribution: Attribution) -> bool:
        """Say whether a body that comes in pieces has to be read before the gateway may get it."""
        is_held = type(request.stream) is self.library.byte_stream
        return not is_held and looks_into_body(endpoint, attribution, self._settings)

    def _refused(self, refusal: OutboundRefused, request: RequestT, endpoint: Endpoint) -> ResponseT:
        _notices.count(f"refused_{refusal.code}")
        if self._refuse == "raise":
            raise refusal
        response: ResponseT = self.library.response(**refusal_answer(refusal, endpoint), request=request)
        return response


class Transport(_Wrapper[RequestT, ResponseT]):
    """Sends requests through another transport, attributed and observed where they go to a route."""

    _handler = "handle_request"

    def handle_request(self, request: RequestT) -> ResponseT:
        """Send one request; what is not a model call on a route passes byte for byte."""
        endpoint = self._endpoint(request)
        if endpoint is None:
            untouched: ResponseT = self._inner.handle_request(request)
            return untouched
        slot = current_slot()
        try:
            attribution = attribute(endpoint, slot.caller, self._settings)
            gathers = self._must_gather(request, endpoint, attribution)
            body = gathered(request.stream, self._settings) if gathers else None
            departure = self._depart(request, endpoint, slot, attribution, body)
        except OutboundRefused as refusal:
            return self._refused(refusal, request, endpoint)
        try:
            response: ResponseT = self._inner.handle_request(departure.wire())
        except BaseException as error:
            departure.failed(error)
            raise
        departure.arrived(response, self.library.stream)
        return response

    def close(self) -> None:
        """Close the transport inside."""
        self._inner.close()

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._inner.__exit__(exc_type, exc_value, traceback)


class AsyncTransport(_Wrapper[RequestT, ResponseT]):
    """The same for asynchronous requests."""

    _handler = "handle_async_request"

    async def handle_async_request(self, request: RequestT) -> ResponseT:
        """Send one request; what is not a model call on a route passes byte for byte."""
        endpoint = self._endpoint(request)
        if endpoint is None:
            untouched: ResponseT = await self._inner.handle_async_request(request)
            return untouched
        slot = current_slot()
        try:
            attribution = attribute(endpoint, slot.caller, self._settings)
            gathers = self._must_gather(request, endpoint, attribution)
            body = await gathered_async(request.stream, self._settings) if gathers else None
            departure = self._depart(request, endpoint, slot, attribution, body)
        except OutboundRefused as refusal:
            return self._refused(refusal, request, endpoint)
        try:
            response: ResponseT = await self._inner.handle_async_request(departure.wire())
        except BaseException as error:
            departure.failed(error)
            raise
        departure.arrived(response, self.library.async_stream)
        return response

    async def aclose(self) -> None:
        """Close the transport inside."""
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._inner.__aexit__(exc_type, exc_value, traceback)
