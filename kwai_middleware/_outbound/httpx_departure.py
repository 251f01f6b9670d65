"""How a request of a library that is like httpx is copied, and its answer watched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kwai_middleware import _guard
from kwai_middleware._outbound.deciding import Decision
from kwai_middleware._outbound.departure import Departure
from kwai_middleware._outbound.library import Library, RequestLike, ResponseLike
from kwai_middleware._outbound.observation import Ending
from kwai_middleware._outbound.replays import Replay
from kwai_middleware._outbound.wire import wire_parts

__all__ = ["HttpxDeparture"]


class HttpxDeparture(Departure):
    """One request of a library that is like httpx.

    Args:
        library: Whose classes to make.
        request: The app's own request; it is never changed.
        decision: What becomes of it.
        inner_is_real: The transport inside opens connections and is of the library itself.
    """

    __slots__ = ("_inner_is_real", "_library")

    def __init__(self, library: Library, request: RequestLike, decision: Decision, inner_is_real: bool) -> None:
        # What `Departure` does, without the way there and back.
        self._request = request
        self.decision = decision
        self._copies = False
        self._copy = None
        self.exchange = exchange = decision.exchange
        self.received = exchange.received
        self._library = library
        self._inner_is_real = inner_is_real

    def _copied(self) -> Any:
        request, library, decision = self._request, self._library, self.decision
        body = decision.body
        headers = library.headers(request.headers)
        stream = request.stream
        if body is not None and decision.changes_body:
            # Layers that sign, cache or imitate look into a body, which a real transport never does.
            stream = library.wire_body(wire_parts(decision.changes, body), not self._inner_is_real)
            # A length that was wrong stays so, and is found out: the body may have been cut on its way here.
            if decision.has_true_length:
                self._put(headers, "content-length", str(stream.size))
        elif self._watches_body():
            stream = library.sent_stream(stream, self.exchange)
        self._write_headers(headers)
        return library.request(request, headers, stream, body is not None)

    def _put(self, headers: Any, name: str, value: str) -> None:
        entries = [] if self._library.entries is None else self._library.entries(headers)
        lower = name.encode()
        places = [place for place, entry in enumerate(entries) if entry[1] == lower]
        if len(places) == 1:
            place = places[0]
            entries[place] = (entries[place][0], lower, value.encode())
        else:
            headers[name] = value

    def arrived(self, response: ResponseLike, make_stream: Callable[[Any, Departure], Any]) -> None:
        """The response's head is there: watch its body from now on."""
        try:
            # To ask a response for a request that it does not have is an exception each time: 1 µs.
            if getattr(response, "_request", response) is not None:
                with _guard.never_raise:
                    self._show_the_apps_request(response)
            self.exchange.head_arrived(response.status_code, response.headers.raw)
            if response.is_closed or response.is_stream_consumed:
                # Caches, mocks and retry layers hand over answers that are read already: such a
                # stream is never iterated and never closed.
                self.exchange.read_already(_content(response))
            else:
                response.stream = make_stream(response.stream, self)
        except Exception as error:  # noqa: BLE001 - as in `Exchange.received`
            self.cannot_watch(error)

    def replay(self, response: ResponseLike) -> Replay:
        """Return what stands for an answer's stream from now on, and can be looked into."""
        if response.is_closed or response.is_stream_consumed:
            return Replay(response.stream, _content(response))
        response.stream = replay = Replay(response.stream)
        return replay

    def _ending(self, error: BaseException) -> Ending:
        return Ending.TIMEOUT if isinstance(error, self._library.timeout) else super()._ending(error)


def _content(response: ResponseLike) -> bytes:
    try:
        return response.content
    except RuntimeError:  # closed without ever having been read
        return b""
