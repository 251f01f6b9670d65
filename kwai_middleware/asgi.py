"""The door for ASGI apps: FastAPI, Starlette, Quart, Django under ASGI."""

from __future__ import annotations

import sys
from typing import Final, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kwai_middleware._context import NOBODY, Slot, bind, log_variable, restore
from kwai_middleware._delivery import live
from kwai_middleware._inbound.arguments import Arguments
from kwai_middleware._inbound.asgi_request import ASGIRequest, HeaderNames
from kwai_middleware._inbound.callables import Credentials, Identify, Required
from kwai_middleware._inbound.refusing import answer_to
from kwai_middleware._inbound.resolver import Resolver
from kwai_middleware.credentials import HeaderCredentials
from kwai_middleware.errors import RequestRefused
from kwai_middleware.identity import HeaderIdentity

__all__ = ["ASGIMiddleware"]

_SCOPE_KEY: Final = "kwai_middleware"
_POLICY_VIOLATION: Final = 1008
_FROM_HEADERS: Final = HeaderIdentity()
_KEYS_FROM_HEADERS: Final = HeaderCredentials()


class ASGIMiddleware:
    """Makes the caller of each request current for everything that runs below it.

    Requests and websockets; the binding is always set, to nobody when there is no caller, and always
    restored. Tasks, threads of `asyncio.to_thread` and background tasks that a request starts keep
    its caller. When the server shuts the app down, records that wait for delivery are given the time
    that `Settings.exit_timeout` allows; with `Settings.serverless`, also when a request has ended,
    after the last byte of its answer has been handed to the server.

    The calls of a request share a trace id: that of its `traceparent`, else its `x-request-id`, else a
    new one. Neither header is believed to be more than that, and a malformed one is ignored.

    A browser's preflight request is nobody's; no callable is asked about it, and it always passes.

    Args:
        app: The app, or the next middleware.
        identify: Says who a request is for: a callable that takes an `InboundRequest` and returns a
            `Caller` or None for nobody, or raises a `RequestRefused`; or a `UserIdentity`; or several, in
            `first_of`. It may be async; one that is
            not runs on the event loop and must not wait. Any other exception of it passes through.
            None identifies nobody.
        credentials: Says whose keys pay: a callable of the same kind that returns a list of
            `Credential`, or a `KeyResolver`. Keys that `identify` gave the caller come first. None looks for
            no keys.
        required: Whether a request without an identifier is answered with 401: True, False, or a
            callable that takes the request and tells.
        required_key: The same for a request without a key.
        override: Whether this middleware decides anew inside another one of its kind, which it
            otherwise leaves everything to. It still finds the keys that the outer one has taken
            out of the request.
        bind_structlog: Whether `customer_id` is bound to structlog's context variables.
        max_age: Seconds after which a request's caller counts no more: its calls are refused then. None
            for never; a websocket's caller also ends when the token does that it was identified by.

    Raises:
        ConfigurationError: An argument is none of these.

    Example:
        >>> from starlette.applications import Starlette
        >>> app = Starlette()
        >>> app.add_middleware(ASGIMiddleware, required=lambda request: request.path.startswith("/api/"))
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        identify: Identify | None = _FROM_HEADERS,
        credentials: Credentials | None = _KEYS_FROM_HEADERS,
        required: Required = False,
        required_key: Required = False,
        override: bool = False,
        bind_structlog: bool = True,
        max_age: float | None = None,
    ) -> None:
        self.app = app
        self.arguments = Arguments(identify, credentials, required, required_key, override)
        self._resolver = Resolver(identify, credentials, required, required_key, max_age)
        self._names = HeaderNames(*self._resolver.interest)
        rules = self._resolver.plain
        self._plain = None if rules is None else self._names.plain_requests(rules)
        self._override = override
        self._logged_in = log_variable() if bind_structlog else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, websocket or lifespan."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, _flushing(send) if scope["type"] == "lifespan" else send)
            return
        outer: Slot | None = scope.get(_SCOPE_KEY)
        if outer is not None and not self._override:
            await self.app(scope, receive, send)
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        plain = self._plain
        slot: Slot | None = None
        # Another kind of list may be iterated in a way that tells no number.
        if outer is None and plain is not None and type(headers) is list:
            slot = plain.slot(scope, headers, headers, True)
        if slot is None:
            del headers  # where they are no list, the keys stay in these
            resolver = self._resolver
            request = ASGIRequest(scope, self._names.take(scope), resolver.interest, outer)
            try:
                slot = await self._ask(request, outer) if resolver.runs_foreign_code else resolver.resolve(request)
            except RequestRefused as refusal:
                await _refuse(refusal, scope, receive, send)
                return
        scope[_SCOPE_KEY] = slot
        app, logged_in = self.app, self._logged_in  # called as a method, the app takes 0.05 µs more to find
        bound = bind(slot, logged_in, True)
        try:
            await app(scope, receive, send)
        finally:
            restore(bound, logged_in)
            if slot.unsettled is not None:
                slot.unsettled.keep_user()
            # One that is closed, as the garbage collector does with a lost one, can wait for nothing.
            if live.serverless and outer is None and sys.exc_info()[0] is not GeneratorExit:
                await live.aflush_serverless()

    async def _ask(self, request: ASGIRequest, outer: Slot | None) -> Slot:
        # The app's callables must not run for the previous request of the connection either.
        bound = bind(outer or NOBODY, self._logged_in)
        try:
            steps = self._resolver.steps(request)
            answers: list[object] = [None]  # popped: what is sent may be keys, which no frame is to hold then
            while True:
                try:
                    awaitable = steps.send(answers.pop())
                except StopIteration as end:
                    return cast("Slot", end.value)
                answers.append(await awaitable)
        finally:
            restore(bound, self._logged_in)


async def _refuse(refusal: RequestRefused, scope: Scope, receive: Receive, send: Send) -> None:
    answer = answer_to(refusal)
    if scope["type"] == "http":
        prefix = "http"
    else:
        message = await receive()
        if message["type"] != "websocket.connect":
            return
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": refusal.title})
            return
        prefix = "websocket.http"
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    await send({"type": f"{prefix}.response.start", "status": answer.status, "headers": headers})
    body = b"" if scope.get("method") == "HEAD" else answer.body
    await send({"type": f"{prefix}.response.body", "body": body})


def _flushing(send: Send) -> Send:
    """Deliver what waits before the server is told that the app has shut down: it may end the process then."""

    async def send_after_flush(message: Message) -> None:
        if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
            await live.aflush_all()
        await send(message)

    return send_after_flush
