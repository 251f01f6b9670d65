"""One attempt at a model call, watched from outside. It is told what happens and says nothing back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter_ns, time

from kwai_middleware import _guard, _open_calls
from kwai_middleware._outbound.attempts import Attempt
from kwai_middleware._outbound.attribution import Attribution
from kwai_middleware._outbound.budget import Reservation
from kwai_middleware._outbound.kept_chunks import FIRST_ROOM, OVERHEAD, TAIL, KeptChunks
from kwai_middleware._outbound.observation import Ending, Observation
from kwai_middleware._outbound.routes import Endpoint
from kwai_middleware._outbound.sent_bodies import SentBody
from kwai_middleware._record import PendingCall
from kwai_middleware._settings import Settings

__all__ = ["Deliver", "Exchange", "Unwatched", "begun", "unwatched"]

Deliver = Callable[[PendingCall], object]
"""Takes a finished call without waiting; `Delivery.submit` is one."""


class Exchange(Observation, eq=False, kw_only=True):
    """From the first byte of a request to the last of its answer; hands itself over exactly once, when it is over.

    Nothing here does I/O or parses anything, and nothing here raises: what goes wrong is reported
    to the guard, and the app's call goes on. What comes after the end changes nothing.
    """

    _deliver: Deliver
    _clock: Callable[[], int]
    _sent: SentBody | None
    _limit: int
    _room: int
    _left: int
    _chunks: list[bytes]
    _arrivals: list[int]
    _kept: KeptChunks | None = None
    has_ended: bool = False

    @property
    def watches_body(self) -> bool:
        """Whether it is to be told of the request's body while that goes out, if nobody has read it before."""
        return self._sent is not None

    def sending(self) -> None:
        """The request's body goes out, from its beginning: for the first time, or again. Only if it `watches_body`."""
        if self._sent is not None:
            self._sent.begin()

    def sent(self, chunk: bytes) -> None:
        """A part of the request's body goes out."""
        try:
            if self._sent is not None and not self.has_ended:
                self._sent.add(chunk)
        except Exception as error:  # noqa: BLE001 - as in `received`
            _guard.report(error)

    def head_arrived(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """The response's head has come."""
        if not self.has_ended:
            self.answered = self._clock()
            self.status = status
            self.response_headers = headers

    def received(self, chunk: bytes) -> None:
        """A part of the response's body has come, as it is on the wire or decoded."""
        try:
            self._left = left = self._left - len(chunk) - OVERHEAD
            if left < 0:
                self._keep_beyond(chunk)
            else:
                clock = self._clock
                self._chunks.append(chunk)
                self._arrivals.append(clock())
        except Exception as error:  # noqa: BLE001 - the guard's `with` would cost as much as the work itself
            _guard.report(error)

    def _keep_beyond(self, chunk: bytes) -> None:
        """Keep a chunk for which there is no room left; most answers have none. After the end there is none for any."""
        if self.has_ended:
            return
        if self._kept is None:
            self._kept = KeptChunks(self._limit, self.reservation, self._room, self._chunks, self._arrivals)
        self._left = self._kept.add(chunk, self._clock(), -self._left)

    def arrives_decoded(self) -> None:
        """What comes is not as on the wire any more: the HTTP library has undone the body's coding."""
        if not self.has_ended:
            self.decoded = True

    def read_already(self, content: bytes) -> None:
        """The response came whole and decoded, as caches and mocks hand it over; it will not be iterated."""
        self.arrives_decoded()
        self.received(content)
        self.finished(Ending.END)

    def abandon(self) -> None:
        """Nobody will read on: the process ends."""
        self.finished(Ending.ABANDONED)

    def finished(self, ending: Ending, error: BaseException | None = None) -> None:
        """It is over, in whichever way. Only the first call counts."""
        # Most exchanges are finished three times: read, closed and collected. Who takes it from the open calls counts.
        if self.has_ended or not _open_calls.end(self):
            return
        self.has_ended = True
        self._left = -1
        try:
            self.ended = self._clock()
            self.ending = ending
            if error is not None:
                self.error = type(error).__name__, str(error)
            if self._kept is None:
                self.chunks, self.arrivals = tuple(self._chunks), tuple(self._arrivals)
            else:
                self.chunks, self.arrivals, self.gap_after = self._kept.kept()
            if self._sent is not None:
                self.request_sent = self._sent.seen()
                self.request_kept = self.request_sent.is_kept
            self._deliver(self)
        except Exception as failure:  # noqa: BLE001 - as in `received`
            _guard.report(failure)


class Unwatched:
    """Stands in for an exchange that could not be made: the call goes out all the same, and is not recorded."""

    __slots__ = ()
    watches_body = False
    has_ended = True

    def sending(self) -> None:
        """Nothing is forgotten."""

    def sent(self, chunk: bytes) -> None:
        """Nothing is noted."""

    def head_arrived(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Nothing is noted."""

    def received(self, chunk: bytes) -> None:
        """Nothing is kept."""

    def arrives_decoded(self) -> None:
        """Nothing is noted."""

    def read_already(self, content: bytes) -> None:
        """Nothing is kept."""

    def finished(self, ending: Ending, error: BaseException | None = None) -> None:
        """Nothing is handed over."""


def unwatched(error: Exception) -> Unwatched:
    """Report a fault of ours; it never keeps an attempt from being made."""
    _guard.report(error)
    return Unwatched()


def begun(
    endpoint: Endpoint,
    attribution: Attribution,
    body: bytes | None,
    settings: Settings,
    deliver: Deliver,
    attempt: Attempt,
    trace_id: str,
    clock: Callable[[], int] = perf_counter_ns,
    wall_clock: Callable[[], float] = time,
) -> Exchange:
    """Begin to watch.

    Args:
        endpoint: Where the call goes.
        attribution: Who it is for and who pays.
        body: The app's own bytes; None when the body is a stream.
        settings: The bounds on what is kept.
        deliver: Where the exchange goes when it is over.
        attempt: Which call it belongs to.
        trace_id: Of the unit of work that the call is part of.
        clock: Nanoseconds that only rise.
        wall_clock: Seconds since 1970.
    """
    # Of a body that has not been read nobody knows whether it is a form.
    is_form = (body is None or body.startswith(b"--")) and endpoint.takes_forms
    size = 0 if body is None or is_form else len(body)
    # In one step for the body and the first of the answer: nearly every call gets one.
    reservation = Reservation(settings.max_open_bytes, size + FIRST_ROOM)
    room = FIRST_ROOM if reservation.held else 0
    sent: SentBody | None = None
    if is_form:
        sent = SentBody(reservation)
        if body is not None:
            sent.add(body)
        body = None
    elif not room and not reservation.grow(size):
        body = None
    exchange = Exchange(
        # In the order of the fields: by name it is 0.6 µs more.
        endpoint,
        attribution.caller,
        attribution.known_credential,
        attribution.billed_to,
        attribution.capture,
        attribution.origins,
        settings.credentials,
        trace_id,
        attempt,
        body,
        body is not None,
        reservation,
        wall_clock(),
        clock(),
        _deliver=deliver,
        _clock=clock,
        _sent=sent,
        _limit=settings.max_call_bytes - TAIL,
        _room=room,
        _left=room,
        _chunks=[],
        _arrivals=[],
    )
    _open_calls.begin(exchange)
    return exchange
