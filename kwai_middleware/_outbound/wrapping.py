"""The synchronous and the asynchronous transport, for any library that is like httpx."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Any, ClassVar, Final, Generic, Self, TypeVar

from kwai_middleware._caller import Credential
from kwai_middleware._context import Slot, current_slot
from kwai_middleware._outbound.deciding import Decider, Decision, Refuse
from kwai_middleware._outbound.exchange import Deliver
from kwai_middleware._outbound.gathering import gathered, gathered_async
from kwai_middleware._outbound.headers import headers_in, headers_of
from kwai_middleware._outbound.httpx_departure import HttpxDeparture
from kwai_middleware._outbound.library import Library, RequestLike, ResponseLike
from kwai_middleware._outbound.routes import Endpoint
from kwai_middleware._settings import Settings
from kwai_middleware.errors import ConfigurationError, OutboundRefused

__all__ = ["AsyncTransport", "Transport"]

_MOST_URLS: Final = 100
"""Of which the endpoint is kept: 1 µs less for the next call to it. Apps have a few."""

RequestT = TypeVar("RequestT", bound=RequestLike)
ResponseT = TypeVar("ResponseT", bound=ResponseLike)


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
        self._inner = inner
        self._inner_is_real = type(inner) in self.library.real_transports
        settings = Settings.from_env() if settings is None else settings
        deliver = self.library.deliver(settings) if deliver is None else deliver
        self._decider = Decider(name, settings, deliver, refuse)
        self._endpoints: dict[object, Endpoint] = {}

    def _endpoint(self, request: RequestT) -> Endpoint | None:
        url, extensions = request.url, request.extensions
        parsed = None if "target" in extensions or request.method != "POST" else self.library.parsed(url)
        known = self._endpoints.get(parsed)
        if known is not None:
            return known
        # The extension `target` puts another path on the wire than the URL has.
        target = extensions.get("target", url.raw_path)
        if not isinstance(target, bytes):
            target = str(target).encode("ascii", "replace")
        endpoint = self._decider.endpoint(
            request.method, url.raw_scheme, url.raw_host, url.port, target, has_userinfo=bool(url.userinfo)
        )
        # What stands in a query may be a secret, and there is no end of them.
        if endpoint is not None and parsed is not None and b"?" not in target and len(self._endpoints) < _MOST_URLS:
            self._endpoints[parsed] = endpoint
        return endpoint

    def _depart_again(
        self, request: RequestT, endpoint: Endpoint, slot: Slot, decision: Decision, credential: Credential
    ) -> HttpxDeparture:
        """Decide again what goes to the wire, for a request that has gone out already: with another key."""
        decision = self._decider.decide_again(endpoint, slot, decision, request.stream, credential)
        return HttpxDeparture(self.library, request, decision, self._inner_is_real)

    def _headers(self, request: RequestT) -> dict[str, bytes]:
        entries, headers = self.library.entries, request.headers
        return headers_of(headers.raw) if entries is None else headers_in(entries(headers))

    def _held(self, request: RequestT) -> bytes | None:
        """Return a body that is held in memory; None for one that has to be read."""
        # Not `request.content`: on a redirect's second hop it says "not read" although the stream
        # is the same bytes.
        stream = request.stream
        return b"".join(stream) if type(stream) is self.library.byte_stream else None

    def _refused(self, refusal: OutboundRefused, request: RequestT, endpoint: Endpoint) -> ResponseT:
        response: ResponseT = self.library.response(**self._decider.refused(refusal, endpoint), request=request)
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
            caller = slot.known if slot.unsettled is None else self._decider.caller(slot)
            plan = self._decider.plan(endpoint, slot, caller)
            body, is_gathered = self._held(request), False
            if body is None and self._decider.must_gather(plan):
                body, is_gathered = gathered(request.stream, self._decider.settings), True
            headers = self._headers(request)
            decision = self._decider.decide(plan, slot, body, headers, request.stream, is_gathered)
            departure = HttpxDeparture(self.library, request, decision, self._inner_is_real)
        except OutboundRefused as refusal:
            return self._refused(refusal, request, endpoint)
        while True:
            try:
                response: ResponseT = self._inner.handle_request(departure.wire())
            except BaseException as error:
                departure.failed(error)
                raise
            if not departure.may_give_way(response.status_code):
                break
            credential = self._next_key(departure, response)
            if credential is None:
                break
            departure = self._depart_again(request, endpoint, slot, departure.decision, credential)
            del response  # it knows the request that it answers, and an exception would carry it along
        departure.arrived(response, self.library.stream)
        return response

    def _next_key(self, departure: HttpxDeparture, response: ResponseT) -> Credential | None:
        """Look into an answer that may be about the key. If it is, it is closed, and another one is to pay."""
        try:
            replay = departure.replay(response)
            seen = replay.look()
            credential = departure.next_key(response.status_code, tuple(response.headers.raw), seen)
            if credential is not None:
                with contextlib.suppress(Exception):
                    replay.close()
        except BaseException as error:
            departure.failed(error)
            raise
        return credential

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
            caller = slot.known if slot.unsettled is None else await self._decider.caller_async(slot)
            plan = self._decider.plan(endpoint, slot, caller)
            body, is_gathered, mentions = self._held(request), False, None
            if body is None and self._decider.must_gather(plan):
                body, is_gathered = await gathered_async(request.stream, self._decider.settings), True
                mentions = await self._decider.mentions_door_async(plan, body)
            headers = self._headers(request)
            decision = self._decider.decide(plan, slot, body, headers, request.stream, is_gathered, mentions)
            departure = HttpxDeparture(self.library, request, decision, self._inner_is_real)
        except OutboundRefused as refusal:
            return self._refused(refusal, request, endpoint)
        while True:
            try:
                response: ResponseT = await self._inner.handle_async_request(departure.wire())
            except BaseException as error:
                departure.failed(error)
                raise
            if not departure.may_give_way(response.status_code):
                break
            credential = await self._next_key(departure, response)
            if credential is None:
                break
            departure = self._depart_again(request, endpoint, slot, departure.decision, credential)
            del response  # it knows the request that it answers, and an exception would carry it along
        departure.arrived(response, self.library.async_stream)
        return response

    async def _next_key(self, departure: HttpxDeparture, response: ResponseT) -> Credential | None:
        """Look into an answer that may be about the key. If it is, it is closed, and another one is to pay."""
        try:
            replay = departure.replay(response)
            seen = await replay.look_async()
            credential = departure.next_key(response.status_code, tuple(response.headers.raw), seen)
            if credential is not None:
                with contextlib.suppress(Exception):
                    await replay.aclose()
        except BaseException as error:
            departure.failed(error)
            raise
        return credential

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
