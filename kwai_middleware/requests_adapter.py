"""The outbound door for requests: `session.mount("https://", KwaiAdapter())`."""

from __future__ import annotations

try:
    import requests
    import urllib3
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        "kwai_middleware.requests_adapter needs requests: pip install 'kwai-middleware[requests]'", name=missing.name
    ) from missing

from collections.abc import Callable
from typing import Any, Final, cast

from requests.adapters import BaseAdapter, HTTPAdapter

from kwai_middleware import _guard
from kwai_middleware._caller import Credential
from kwai_middleware._context import Slot, current_slot
from kwai_middleware._outbound.deciding import Decider, Decision, Refuse
from kwai_middleware._outbound.departure import Departure
from kwai_middleware._outbound.exchange import Deliver, Exchange, Unwatched
from kwai_middleware._outbound.gathering import gathered
from kwai_middleware._outbound.headers import headers_of
from kwai_middleware._outbound.observation import Ending
from kwai_middleware._outbound.routes import Endpoint
from kwai_middleware._outbound.tracebacks import drop_inner_frames
from kwai_middleware._outbound.wire import WireBody, wire_parts
from kwai_middleware._requests_replays import dismiss, look
from kwai_middleware._requests_requests import SentRequests, destination, held, pieces, raw_headers, unproxied, watched
from kwai_middleware._requests_responses import answer, observed, retries_are_told_to, with_attempts_told
from kwai_middleware._settings import Settings
from kwai_middleware._submit import default_submit
from kwai_middleware.errors import ConfigurationError, OutboundRefused

__all__ = ["KwaiAdapter", "session"]

_MOST_OF_A_RETRIED_ANSWER: Final = 64 * 1024


class _Departure(Departure):
    """One prepared request.

    Args:
        adapter: What the app's session sends with.
        inner: What really sends.
        request: The app's own request; it is never changed.
        decision: What becomes of it.
        watch_again: Begins to watch the next attempt at the same call.
        with_key: Departs for it with another key.
    """

    timeouts = (requests.Timeout, urllib3.exceptions.TimeoutError)

    __slots__ = ("_adapter", "_inner", "_watch_again", "with_key")

    def __init__(
        self,
        adapter: KwaiAdapter,
        inner: BaseAdapter,
        request: requests.PreparedRequest,
        decision: Decision,
        watch_again: Callable[[], Exchange | Unwatched],
        with_key: Callable[[Credential], _Departure],
    ) -> None:
        super().__init__(request, decision)
        self._adapter = adapter
        self._inner = inner
        self._watch_again = watch_again
        self.with_key = with_key

    def _watches_body(self) -> bool:
        # Nobody knows what adapters that are no connection want of a body.
        return isinstance(self._inner, HTTPAdapter) and super()._watches_body()

    def _copied(self) -> Any:
        decision = self.decision
        body = decision.body
        copy = self._twin()
        headers = copy.headers = copy.headers.copy()
        if body is not None and decision.changes_body:
            # Layers that sign, cache or imitate look at a request's body, and want bytes.
            is_real = type(self._inner) is HTTPAdapter
            parts = wire_parts(decision.changes, body, whole=not is_real or "Content-Length" not in headers)
            copy.body = WireBody(parts) if is_real else parts[0]
            if headers.get("Content-Length") in (str(len(body)), b"%d" % len(body)):
                headers["Content-Length"] = str(sum(map(len, parts)))
        elif self._watches_body():
            copy.body = watched(copy.body, self)
        self._write_headers(headers)
        return copy

    def arrived(self, response: requests.Response) -> None:
        """The response's head is there: watch its body from now on."""
        with _guard.never_raise:
            self._show_the_apps_request(response)
        with _guard.never_raise:
            self._drop_frames_of_attempts(response.raw)
        try:
            if getattr(response, "connection", None) is self._inner:
                # Who answers a challenge sends again by this: through us, or the call would be the app's.
                response.connection = cast("HTTPAdapter", self._adapter)
            self.exchange.head_arrived(
                response.status_code, raw_headers(getattr(response.raw, "headers", response.headers).items())
            )
            if getattr(response, "_content_consumed", False) or response.raw is None:
                self.exchange.read_already(response.content or b"")
            else:
                response.raw = observed(response.raw, self)
        except Exception as error:  # noqa: BLE001 - as in `Exchange.received`
            self.cannot_watch(error)

    def drained(self, response: urllib3.HTTPResponse) -> Exception | None:
        """An answer is about to be read by urllib3 and thrown away: here it still says why."""
        with _guard.never_raise:
            self.exchange.head_arrived(response.status, raw_headers(response.headers.items()))
        try:
            self.exchange.received(response.read(_MOST_OF_A_RETRIED_ANSWER, decode_content=False))
        except Exception as broken:  # noqa: BLE001 - urllib3 passes over it as well
            return broken
        return None

    def tried(self, response: urllib3.HTTPResponse | None, error: Exception | None) -> None:
        """An attempt is over, and urllib3 makes another one."""
        if response is not None:
            error = self.drained(response)
        if error is None:
            self.finished(Ending.END)
        else:
            self.exchange.finished(self._ending(error), error)
        self.exchange = self._watch_again()
        self.received = self.exchange.received

    def _drop_frames_of_attempts(self, raw: Any) -> None:
        """An answer remembers the errors of the attempts before it; their frames held what went out."""
        for attempt in getattr(getattr(raw, "retries", None), "history", ()):
            if attempt.error is not None:
                drop_inner_frames(attempt.error)


class KwaiAdapter(BaseAdapter):
    """Bills and attributes model calls to the current caller, and records them.

    Args:
        inner: The adapter that really sends; `HTTPAdapter()` when not given.
        settings: The environment's when not given.
        deliver: Takes each finished call; `default_delivery(settings).submit` when not given.
        refuse: Whether a call that must not go out raises (`raise`) or is answered locally with
            status 401 (`response`).

    Raises:
        ConfigurationError: `inner` is no adapter, or is wrapped already.
    """

    def __init__(
        self,
        inner: BaseAdapter | None = None,
        *,
        settings: Settings | None = None,
        deliver: Deliver | None = None,
        refuse: Refuse = "raise",
    ) -> None:
        super().__init__()
        if isinstance(inner, KwaiAdapter):
            raise ConfigurationError("KwaiAdapter: the adapter is wrapped already; a call would be recorded twice")
        if inner is None:
            inner = HTTPAdapter()
        if not hasattr(inner, "send"):
            raise ConfigurationError(
                f"KwaiAdapter: expected an adapter of requests with send(), got {type(inner).__name__};"
                " session() makes a whole session"
            )
        settings = Settings.from_env() if settings is None else settings
        deliver = default_submit(settings) if deliver is None else deliver
        self._decider = Decider("KwaiAdapter", settings, deliver, refuse)
        self._inner = inner
        self._sent = SentRequests()
        if isinstance(inner, HTTPAdapter):
            inner.max_retries = with_attempts_told(inner.max_retries)

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        """Send one request; what is not a model call on a route passes byte for byte."""
        endpoint = self._endpoint(request)
        if endpoint is None:
            # A body that is read while it goes out may send this: its retries are none of that call.
            token = retries_are_told_to.set(None)
            try:
                return self._inner.send(request, *arguments, **options)
            finally:
                retries_are_told_to.reset(token)
        try:
            departure = self._depart(request, endpoint)
        except OutboundRefused as refusal:
            return answer(request, self, self._decider.refused(refusal, endpoint))
        options = unproxied(request, options)
        response = self._answer_to(departure, arguments, options)
        while departure.may_give_way(response.status_code):
            credential = _next_key(departure, response)
            if credential is None:
                break
            departure = departure.with_key(credential)
            del response  # it knows the request that it answers, and an exception would carry it along
            response = self._answer_to(departure, arguments, options)
        departure.arrived(response)
        return response

    def _answer_to(
        self, departure: _Departure, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> requests.Response:
        token = retries_are_told_to.set(departure)
        try:
            return self._inner.send(departure.wire(), *arguments, **options)
        except BaseException as error:
            departure.failed(error)
            raise
        finally:
            retries_are_told_to.reset(token)

    def close(self) -> None:
        """Close the adapter inside."""
        self._inner.close()

    def _endpoint(self, request: requests.PreparedRequest) -> Endpoint | None:
        where = destination(request)
        if where is None:
            return None  # the adapter inside says so
        scheme, host, port, target, has_userinfo = where
        return self._decider.endpoint(request.method, scheme, host, port, target, has_userinfo=has_userinfo)

    def _depart(self, request: requests.PreparedRequest, endpoint: Endpoint) -> _Departure:
        decider, slot = self._decider, current_slot()
        plan = decider.plan(endpoint, slot, decider.caller(slot))
        body, is_gathered = held(request.body), False
        if body is None and decider.must_gather(plan):
            body, is_gathered = gathered(pieces(request.body), decider.settings), True
        headers = headers_of(raw_headers(request.headers.items()))
        sent_with = self._sent.mark(request)
        decision = decider.decide(plan, slot, body, headers, sent_with, is_gathered=is_gathered)
        return self._departure(request, endpoint, slot, decision, sent_with)

    def _departure(
        self, request: requests.PreparedRequest, endpoint: Endpoint, slot: Slot, decision: Decision, sent_with: object
    ) -> _Departure:
        decider = self._decider

        def watch_again() -> Exchange | Unwatched:
            return decider.watch_again(endpoint, slot, decision, sent_with)

        def with_key(credential: Credential) -> _Departure:
            again = decider.decide_again(endpoint, slot, decision, sent_with, credential)
            return self._departure(request, endpoint, slot, again, sent_with)

        return _Departure(self, self._inner, request, decision, watch_again, with_key)


def _next_key(departure: _Departure, response: requests.Response) -> Credential | None:
    """Look into an answer that may be about the key. If it is, it is closed, and another one is to pay."""
    try:
        seen = look(response)
        headers = raw_headers(getattr(response.raw, "headers", response.headers).items())
        credential = departure.next_key(response.status_code, headers, seen)
        if credential is not None:
            dismiss(response, seen)
    except BaseException as error:
        departure.failed(error)
        raise
    return credential


def session(
    *,
    settings: Settings | None = None,
    deliver: Deliver | None = None,
    refuse: Refuse = "raise",
    **adapter_options: Any,
) -> requests.Session:
    """Return a session whose calls over https and http go through a `KwaiAdapter`.

    Args:
        settings: The environment's when not given.
        deliver: Takes each finished call; `default_delivery(settings).submit` when not given.
        refuse: A call that must not go out raises ours (`raise`), since nothing here hides it;
            `response` answers it locally with status 401.
        **adapter_options: What `HTTPAdapter` takes. Up to 100 connections to a host are kept, unless
            `pool_maxsize` is given.
    """
    made = requests.Session()
    options: dict[str, Any] = {"pool_maxsize": 100, **adapter_options}
    adapter = KwaiAdapter(HTTPAdapter(**options), settings=settings, deliver=deliver, refuse=refuse)
    made.mount("https://", adapter)
    made.mount("http://", adapter)
    return made
