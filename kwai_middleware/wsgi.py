"""The door for WSGI apps: Flask, Django under WSGI, Bottle, Pyramid."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING, Any, Final, cast

from kwai_middleware._context import NOBODY, Slot, bind, log_variable, served_slot
from kwai_middleware._delivery import live
from kwai_middleware._inbound.arguments import Arguments
from kwai_middleware._inbound.body import BodyInContext
from kwai_middleware._inbound.callables import Credentials, Identify, Required
from kwai_middleware._inbound.refusing import answer_to
from kwai_middleware._inbound.resolver import Resolver
from kwai_middleware._inbound.wsgi_request import WSGIRequest, environ_key, plain_requests, plain_slot, sent_headers
from kwai_middleware._unsettled import Unsettled
from kwai_middleware.credentials import HeaderCredentials
from kwai_middleware.errors import BlockingCall, RequestRefused
from kwai_middleware.identity import HeaderIdentity

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["WSGIMiddleware"]

_ENVIRON_KEY: Final = "kwai_middleware.caller"
_FROM_HEADERS: Final = HeaderIdentity()
_KEYS_FROM_HEADERS: Final = HeaderCredentials()


class WSGIMiddleware:
    """Makes the caller of each request current for the app and for the body that it streams.

    The app, each step of its body and the body's `close` run in one context of the request's own,
    whatever thread the server takes them on; the thread itself never holds a caller. Lists, tuples
    and the server's own file wrappers are handed on untouched. With `Settings.serverless`, records
    that wait for delivery are given the time that `Settings.exit_timeout` allows when the server
    closes the body; so that it does, all bodies get a `close` then.

    The calls of a request share a trace id: that of its `traceparent`, else its `x-request-id`, else a
    new one. Neither header is believed to be more than that, and a malformed one is ignored.

    A browser's preflight request is nobody's; no callable is asked about it, and it always passes.
    A WSGI app that a bridge (a2wsgi, say) serves below an `ASGIMiddleware` needs none of these: wrap
    the outer one. If it has one, that leaves everything to the outer one, as it does inside another
    `WSGIMiddleware`; the bridge must run it in the request's context.

    Args:
        app: The app, or the next middleware. For Flask: `app.wsgi_app = WSGIMiddleware(app.wsgi_app)`.
        identify: Says who a request is for: a callable that takes an `InboundRequest` and returns a
            `Caller` or None for nobody, or raises a `RequestRefused`; or a `UserIdentity`; or several, in
            `first_of`. It may be async; that runs to its end on an event loop of its own, on the request's
            thread, of which gevent's greenlets have one in common: there it must be plain. Any other exception
            of it passes through. None identifies nobody.
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
            for never.

    Raises:
        ConfigurationError: An argument is none of these.
    """

    def __init__(
        self,
        app: WSGIApplication,
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
        self._keys = {environ_key(name): name for name in self._resolver.interest.known}
        rules = self._resolver.plain
        self._plain = None if rules is None else plain_requests(rules, self._keys)
        self._override = override
        self._logged_in = log_variable() if bind_structlog else None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        outer: Slot | None = environ.get(_ENVIRON_KEY)
        if outer is None:
            outer = served_slot()
        if outer is not None and not self._override:
            return self.app(environ, start_response)
        context = contextvars.copy_context()
        try:
            body = context.run(self._serve, environ, start_response, outer)
        except BaseException:
            if live.serverless and outer is None:
                live.flush_serverless()
            raise
        is_list = type(body) in (list, tuple)
        if (is_list or _is_file(body, environ)) and (outer is not None or not live.serverless):
            return body
        if outer is not None:
            return BodyInContext(body, context)
        return _ListThenFlush(body) if is_list else _BodyThenFlush(body, context)

    def _serve(self, environ: WSGIEnvironment, start_response: StartResponse, outer: Slot | None) -> Iterable[bytes]:
        """Bind in this context, which is the request's own, and run the app in it."""
        slot: Slot | None = None
        if outer is None and self._plain is not None:
            slot = plain_slot(environ, self._keys, self._plain)
        if slot is None:
            resolver = self._resolver
            sent = sent_headers(environ, self._keys, resolver.interest.secret)
            request = WSGIRequest(environ, sent, resolver.interest, outer)
            try:
                slot = self._ask(request, outer) if resolver.runs_foreign_code else resolver.resolve(request)
            except RequestRefused as refusal:
                return _refuse(refusal, environ, start_response)
        environ[_ENVIRON_KEY] = slot
        bind(slot, self._logged_in)
        if slot.unsettled is not None and slot.unsettled.user is not None:
            start_response = _keeping_the_user(slot.unsettled, start_response)
        app = self.app  # called as a method, it takes 0.05 µs more to find
        return app(environ, start_response)

    def _ask(self, request: WSGIRequest, outer: Slot | None) -> Slot:
        # The app's callables must not run for whoever this thread works for otherwise.
        bind(outer or NOBODY, self._logged_in)
        steps = self._resolver.steps(request)
        answers: list[object] = [None]  # popped: what is sent may be keys, which no frame is to hold then
        while True:
            try:
                awaitable = steps.send(answers.pop())
            except StopIteration as end:
                return cast("Slot", end.value)
            answers.append(_run(awaitable))


def _is_file(body: Iterable[bytes], environ: WSGIEnvironment) -> bool:
    """A server sends its own wrapper's file without reading it here, and only when it gets it bare."""
    file_wrapper = environ.get("wsgi.file_wrapper")
    return isinstance(file_wrapper, type) and isinstance(body, file_wrapper)


def _keeping_the_user(unsettled: Unsettled, start_response: StartResponse) -> StartResponse:
    """Have the framework's user kept when the app begins its answer: the body may be made when the framework forgot."""

    def start(*args: Any) -> Any:
        unsettled.keep_user()
        return start_response(*args)

    return start


class _BodyThenFlush(BodyInContext):
    """A body after which serverless deliveries are flushed: one may have been made while it was read."""

    __slots__ = ()

    def close(self) -> None:
        """Close the body; the server has sent all of it."""
        try:
            BodyInContext.close(self)
        finally:
            if live.serverless:
                live.flush_serverless()

    def __del__(self) -> None:
        # Whatever a finalizer interrupts must not wait for a network.
        BodyInContext.close(self)


class _ListThenFlush(list[bytes]):
    """The same for a list, with the length that servers look at."""

    __slots__ = ()

    def close(self) -> None:
        """Deliver what waits; the server has sent all of it."""
        live.flush_serverless()


def _run(awaitable: Awaitable[object]) -> object:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_wait_for(awaitable))
    if asyncio.iscoroutine(awaitable):
        awaitable.close()
    raise BlockingCall(
        "WSGIMiddleware: an async callable cannot be waited for on a thread that runs an event loop"
        " (under gevent, that of another request); make it a plain function"
    )


async def _wait_for(awaitable: Awaitable[object]) -> object:
    return await awaitable


def _refuse(refusal: RequestRefused, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    answer = answer_to(refusal)
    start_response(f"{answer.status} {answer.reason}", list(answer.headers))
    return [] if environ.get("REQUEST_METHOD") == "HEAD" else [answer.body]
