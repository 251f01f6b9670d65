"""The synchronous and the asynchronous transport, for any library that is like httpx."""

from __future__ import annotations

from types import TracebackType
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

from kwai_middleware import _notices
from kwai_middleware._context import current_caller
from kwai_middleware._outbound.attribution import attribute, gateway_changes, refuse_parameter_headers
from kwai_middleware._outbound.departure import Departure
from kwai_middleware._outbound.exchange import Deliver, watching
from kwai_middleware._outbound.hpack_log import hide_header_values
from kwai_middleware._outbound.library import Library, RequestLike, ResponseLike
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
        if request.method == "POST" and not url.userinfo:
            endpoint = self._routes.find(scheme, host, port, url.raw_path)
            if endpoint is not None:
                return endpoint
        if self._routes.resembles(scheme, host, port):
            _note_unrouted(host)
        return None

    def _depart(self, request: RequestT, endpoint: Endpoint) -> Departure:
        """Decide what goes to the wire for the caller of this moment.

        Raises:
            OutboundRefused: The call must not go out.
        """
        attribution = attribute(endpoint, current_caller(), self._settings)
        body = self._body(request)
        is_gateway = endpoint.kind == "gateway"
        changes = gateway_changes(attribution, self._settings, body) if is_gateway else None
        refuse_parameter_headers(attribution, request.headers)
        if is_gateway and changes is None and attribution.caller is not None:
            _notices.count("unattributed")
            _notices.warn_once(
                "unattributed",
                endpoint.host,
                f"a call to {endpoint.host} went out without its customer: the body is not one JSON object held in"
                " memory; send it as json= or as bytes",
            )
        exchange = watching(endpoint, attribution, body, self._settings, self._deliver)
        return Departure(
            self.library,
            request,
            attribution,
            body,
            changes,
            exchange,
            key_in_header=not is_gateway and attribution.credential is not None,
            inner_is_real=self._inner_is_real,
        )

    def _body(self, request: RequestT) -> bytes | None:
        # Not `request.content`: on a redirect's second hop it says "not read" although the stream
        # is the same bytes.
        stream = request.stream
        return b"".join(stream) if type(stream) is self.library.byte_stream else None

    def _refused(self, refusal: OutboundRefused, request: RequestT) -> ResponseT:
        _notices.count(f"refused_{refusal.code}")
        if self._refuse == "raise":
            raise refusal
        response: ResponseT = self.library.response(**refusal_answer(refusal), request=request)
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
        try:
            departure = self._depart(request, endpoint)
        except OutboundRefused as refusal:
            return self._refused(refusal, request)
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
        try:
            departure = self._depart(request, endpoint)
        except OutboundRefused as refusal:
            return self._refused(refusal, request)
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


def _note_unrouted(host: bytes) -> None:
    """A caller's key is bound, and the call goes to a host that only looks like the vendor's."""
    caller = current_caller()
    if caller is None or not caller.credentials:
        return
    name = host.decode("ascii", "replace")
    _notices.count("unrouted")
    _notices.warn_once(
        "unrouted",
        name,
        f"a call to {name!r} was not touched although a caller's key is bound: the host looks like a vendor's"
        " but is not on the list; if it is yours, add a Route for it",
    )
