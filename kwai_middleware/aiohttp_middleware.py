"""The outbound door for aiohttp: `ClientSession(middlewares=(KwaiMiddleware(),))`."""

from __future__ import annotations

try:
    import aiohttp
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "kwai_middleware.aiohttp_middleware needs aiohttp: pip install 'kwai-middleware[aiohttp]'", name=missing.name
    ) from missing

import asyncio
from collections.abc import Callable
from typing import Any, cast

from aiohttp.hdrs import ACCEPT_ENCODING

from kwai_middleware import _guard
from kwai_middleware._aiohttp_answers import answer
from kwai_middleware._aiohttp_content import ObservedContent, beginning
from kwai_middleware._aiohttp_requests import AppsTrace, SentTrace, WirePayload, gathered_payload, held
from kwai_middleware._caller import Credential
from kwai_middleware._context import Slot, current_slot
from kwai_middleware._outbound.deciding import Decider, Decision, Refuse
from kwai_middleware._outbound.departure import Departure
from kwai_middleware._outbound.exchange import Deliver
from kwai_middleware._outbound.failover import Seen
from kwai_middleware._outbound.headers import headers_of
from kwai_middleware._outbound.observation import Ending
from kwai_middleware._outbound.routes import Endpoint
from kwai_middleware._outbound.wire import WireBody, wire_parts
from kwai_middleware._settings import Settings
from kwai_middleware._submit import default_submit
from kwai_middleware.errors import OutboundRefused

__all__ = ["KwaiMiddleware", "session"]


class _Departure(Departure):
    """One request of aiohttp.

    Args:
        request: The app's own request; it is never changed.
        decision: What becomes of it.
        with_key: Departs for it again, with another key.
    """

    timeouts = (TimeoutError,)

    __slots__ = ("_headers", "with_key")

    def __init__(
        self, request: aiohttp.ClientRequest, decision: Decision, with_key: Callable[[Credential], _Departure]
    ) -> None:
        super().__init__(request, decision)
        self._headers: Any = None
        self.with_key = with_key

    def _copied(self) -> Any:
        copy = self._twin()
        attributes = cast("dict[str, Any]", vars(copy))
        if self._copies:
            self._change(attributes)
        if self._watches_body():
            attributes["_traces"] = [*attributes["_traces"], SentTrace(self)]
        return copy

    def _change(self, attributes: dict[str, Any]) -> None:
        """Write what was decided into a copy, of which nothing may be the app's any more that shows it."""
        decision = self.decision
        body = decision.body
        self._headers = headers = attributes["headers"] = attributes["headers"].copy()
        if body is not None and decision.changes_body:
            wire_body = WireBody(wire_parts(decision.changes, body))
            # Not by update_body(), which closes the body that was there: it is the app's.
            attributes["_body"] = WirePayload(wire_body)
            if headers.get("Content-Length") == str(len(body)):
                headers["Content-Length"] = str(wire_body.size)
        self._write_headers(headers)
        told = body if decision.changes_body else None
        attributes["_traces"] = [AppsTrace(trace, self._request, told) for trace in attributes["_traces"]]

    def arrived(self, response: aiohttp.ClientResponse) -> None:
        """The response's head is there: watch its body from now on."""
        with _guard.never_raise:
            self._disguise_headers()
        try:
            self.exchange.head_arrived(response.status, tuple(response.raw_headers))
            body = cast("bytes | None", getattr(response, "_body", None))
            if body is not None:
                self.exchange.read_already(body)  # a middleware inside has read it
                return
            if _is_decoded(response, self._request.session):
                self.arrives_decoded()
            response.content = ObservedContent(response.content, self)
        except Exception as error:  # noqa: BLE001 - as in `Exchange.received`
            self.cannot_watch(error)

    async def look(self, response: aiohttp.ClientResponse) -> Seen:
        """Look into an answer that nobody has read yet, and leave it as it is."""
        body = cast("bytes | None", getattr(response, "_body", None))
        if body is not None:
            return Seen(body, is_whole=True, is_decoded=True)
        is_decoded = _is_decoded(response, self._request.session)
        return Seen(await beginning(response.content), response.content.is_eof(), is_decoded)

    def _ending(self, error: BaseException) -> Ending:
        # The time limit for the whole call cancels, and is told from a cancellation further out only.
        if isinstance(error, asyncio.CancelledError) and getattr(self._request._timer, "_cancelled", False):
            return Ending.TIMEOUT
        return super()._ending(error)

    def _disguise(self) -> None:
        self._disguise_headers()
        super()._disguise()

    def _disguise_headers(self) -> None:
        """Responses and exceptions show the headers of the copy as they are now: they become the app's own."""
        if self._headers is not None:
            self._headers.clear()
            self._headers.extend(self._request.headers)
            self._headers = None


class KwaiMiddleware:
    """Bills and attributes model calls to the current caller, and records them.

    It belongs at the end of `middlewares`: those after it are given the copy that has the caller's
    key in it.

    Args:
        settings: The environment's when not given.
        deliver: Takes each finished call; `default_delivery(settings).submit` when not given.
        refuse: Whether a call that must not go out raises (`raise`) or is answered locally with
            status 401 (`response`).
    """

    def __init__(
        self, *, settings: Settings | None = None, deliver: Deliver | None = None, refuse: Refuse = "raise"
    ) -> None:
        settings = Settings.from_env() if settings is None else settings
        deliver = default_submit(settings) if deliver is None else deliver
        self._decider = Decider("KwaiMiddleware", settings, deliver, refuse)

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send one request; what is not a model call on a route passes byte for byte."""
        endpoint = self._endpoint(request)
        if endpoint is None:
            return await handler(request)
        try:
            departure = await self._depart(request, endpoint)
        except OutboundRefused as refusal:
            return await answer(request, self._decider.refused(refusal, endpoint))
        response = await _sent(departure, handler)
        while departure.may_give_way(response.status):
            credential = await _next_key(departure, response)
            if credential is None:
                break
            departure = departure.with_key(credential)
            del response  # it knows the request that it answers, and an exception would carry it along
            response = await _sent(departure, handler)
        departure.arrived(response)
        return response

    def _endpoint(self, request: aiohttp.ClientRequest) -> Endpoint | None:
        url = request.url
        return self._decider.endpoint(
            request.method,
            url.scheme.encode(),
            (url.raw_host or "").encode(),
            None if url.is_default_port() else url.port,
            url.raw_path_qs.encode(),
            has_userinfo=url.raw_user is not None or url.raw_password is not None,
        )

    async def _depart(self, request: aiohttp.ClientRequest, endpoint: Endpoint) -> _Departure:
        decider, slot = self._decider, current_slot()
        plan = decider.plan(endpoint, slot, await decider.caller_async(slot))
        declared = _declared_length(request)
        body, is_gathered, mentions = await held(request.body, declared), False, None
        if body is None and decider.must_gather(plan):
            body = await gathered_payload(cast("aiohttp.Payload", request.body), declared, decider.settings)
            is_gathered, mentions = True, await decider.mentions_door_async(plan, body)
        headers = headers_of((name.encode(), value.encode()) for name, value in request.headers.items())
        if request.compress:
            headers.pop("content-encoding", None)  # it is done on the way out: what is seen here is plain
        decision = decider.decide(plan, slot, body, headers, request.body, is_gathered, mentions)
        return self._departure(request, endpoint, slot, decision)

    def _departure(
        self, request: aiohttp.ClientRequest, endpoint: Endpoint, slot: Slot, decision: Decision
    ) -> _Departure:
        def with_key(credential: Credential) -> _Departure:
            again = self._decider.decide_again(endpoint, slot, decision, request.body, credential)
            return self._departure(request, endpoint, slot, again)

        return _Departure(request, decision, with_key)


async def _sent(departure: _Departure, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    try:
        return await handler(departure.wire())
    except BaseException as error:
        departure.failed(error)
        raise


async def _next_key(departure: _Departure, response: aiohttp.ClientResponse) -> Credential | None:
    """Look into an answer that may be about the key. If it is, it is closed, and another one is to pay."""
    try:
        credential = departure.next_key(response.status, tuple(response.raw_headers), await departure.look(response))
        if credential is not None:
            response.release()
    except BaseException as error:
        response.close()
        departure.failed(error)
        raise
    return credential


def session(
    *,
    settings: Settings | None = None,
    deliver: Deliver | None = None,
    refuse: Refuse = "raise",
    **session_options: Any,
) -> aiohttp.ClientSession:
    """Return a session with a `KwaiMiddleware` in it. Call it where an event loop runs.

    Args:
        settings: The environment's when not given.
        deliver: Takes each finished call; `default_delivery(settings).submit` when not given.
        refuse: A call that must not go out raises ours (`raise`), since nothing here hides it;
            `response` answers it locally with status 401.
        **session_options: What `ClientSession` takes. At most 1000 connections, unless `connector`
            is given; your own `middlewares` come before ours.
    """
    ours = KwaiMiddleware(settings=settings, deliver=deliver, refuse=refuse)
    middlewares = (*session_options.pop("middlewares", ()), ours)
    if session_options.get("connector") is None:
        session_options["connector"] = aiohttp.TCPConnector(limit=1000)
    return aiohttp.ClientSession(middlewares=middlewares, **session_options)


def _declared_length(request: aiohttp.ClientRequest) -> int | None:
    declared = request.headers.get("Content-Length", "")
    return int(declared) if declared.isascii() and declared.isdigit() else None


def _is_decoded(response: aiohttp.ClientResponse, session: aiohttp.ClientSession) -> bool:
    """Say whether aiohttp undoes the coding of a response's body, so that what is read is plain."""
    if hasattr(response.content, "total_compressed_bytes"):
        return response.content.total_compressed_bytes is not None
    # Earlier versions do not tell; they undo what they ask for.
    coding = response.headers.get("Content-Encoding", "").lower()
    asked_for = aiohttp.ClientRequest.DEFAULT_HEADERS[ACCEPT_ENCODING]
    return session.auto_decompress and coding in asked_for.split(", ")
