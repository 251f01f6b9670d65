"""One attempt at a model call, watched from outside. It is told what happens and says nothing back."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns, time

from kwai_middleware import _guard, _open_calls
from kwai_middleware._outbound.attempts import Attempt
from kwai_middleware._outbound.attribution import Attribution
from kwai_middleware._outbound.budget import Reservation
from kwai_middleware._outbound.kept_chunks import KeptChunks
from kwai_middleware._outbound.observation import Ending, Observation
from kwai_middleware._outbound.routes import Endpoint
from kwai_middleware._outbound.sent_bodies import SentBody, may_be_form
from kwai_middleware._record import PendingCall
from kwai_middleware._settings import Settings

__all__ = ["Deliver", "Exchange", "Unwatched", "watching"]

Deliver = Callable[[PendingCall], object]
"""Takes a finished call without waiting; `Delivery.submit` is one."""


class Exchange:
    """From the first byte of a request to the last of its answer; hands over exactly one observation.

    Nothing here does I/O or parses anything, and nothing here raises: what goes wrong is reported
    to the guard, and the app's call goes on.

    Args:
        endpoint: Where the call goes.
        attribution: Who it is for and who pays.
        body: The app's own bytes; None when the body is a stream.
        settings: The bounds on what is kept.
        deliver: Where the observation goes.
        attempt: Which call it belongs to.
        trace_id: Of the unit of work that the call is part of.
        clock: Nanoseconds that only rise.
        wall_clock: Seconds since 1970.
    """

    __slots__ = (
        "_answered", "_app_credentials", "_attempt", "_attribution", "_body", "_clock", "_decoded", "_deliver",
        "_endpoint", "_has_ended", "_headers", "_kept", "_reservation", "_sent", "_started", "_started_at", "_status",
        "_trace_id", "_whole_body",
    )  # fmt: skip

    def __init__(
        self,
        endpoint: Endpoint,
        attribution: Attribution,
        body: bytes | None,
        settings: Settings,
        deliver: Deliver,
        attempt: Attempt,
        trace_id: str,
        clock: Callable[[], int] = perf_counter_ns,
        wall_clock: Callable[[], float] = time,
    ) -> None:
        self._endpoint = endpoint
        self._app_credentials = settings.credentials
        self._attribution = attribution
        self._deliver = deliver
        self._attempt = attempt
        self._trace_id = trace_id
        self._clock = clock
        self._reservation = Reservation(settings.max_open_bytes)
        self._sent: SentBody | None = None
        if endpoint.takes_forms and may_be_form(body):
            self._sent = SentBody(self._reservation)
            if body is not None:
                self._sent.add(body)
            body = None
        self._whole_body = body is not None and self._reservation.grow(len(body))
        self._body = body if self._whole_body else None
        self._kept = KeptChunks(settings.max_call_bytes, self._reservation)
        self._answered: int | None = None
        self._status: int | None = None
        self._headers: tuple[tuple[bytes, bytes], ...] = ()
        self._decoded = self._has_ended = False
        self._started_at = wall_clock()
        _open_calls.begin(self)
        self._started = clock()

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
            if self._sent is not None:
                self._sent.add(chunk)
        except Exception as error:  # noqa: BLE001 - as in `received`
            _guard.report(error)

    def answered(self, status: int, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        """The response's head has come."""
        self._answered = self._clock()
        self._status = status
        self._headers = headers

    def received(self, chunk: bytes) -> None:
        """A part of the response's body has come, as it is on the wire or decoded."""
        try:
            self._kept.add(chunk, self._clock())
        except Exception as error:  # noqa: BLE001 - the guard's `with` would cost as much as the work itself
            _guard.report(error)

    def arrives_decoded(self) -> None:
        """What comes is not as on the wire any more: the HTTP library has undone the body's coding."""
        self._decoded = True

    def read_already(self, content: bytes) -> None:
        """The response came whole and decoded, as caches and mocks hand it over; it will not be iterated."""
        self._decoded = True
        self.received(content)
        self.finished(Ending.END)

    def abandon(self) -> None:
        """Nobody will read on: the process ends."""
        self.finished(Ending.ABANDONED)

    def finished(self, ending: Ending, error: BaseException | None = None) -> None:
        """It is over, in whichever way. Only the first call counts."""
        # Most exchanges are finished three times: read, closed and collected. Who takes it from the open calls counts.
        if self._has_ended or not _open_calls.end(self):
            return
        self._has_ended = True
        try:
            ended = self._clock()
            chunks, arrivals, gap_after = self._kept.kept()
            sent = None if self._sent is None else self._sent.seen()
            attribution = self._attribution
            # By position: by name it would take 0.9 µs.
            observation = Observation(
                self._endpoint,
                attribution.caller,
                attribution.known_credential,
                attribution.billed_to,
                attribution.capture,
                self._trace_id,
                self._attempt,
                self._body,
                self._whole_body if sent is None else sent.is_kept,
                self._started_at,
                self._started,
                self._answered,
                ended,
                self._status,
                self._headers,
                chunks,
                arrivals,
                gap_after,
                self._decoded,
                ending,
                None if error is None else (type(error).__name__, str(error)),
                self._reservation,
                sent,
                attribution.origins,
                self._app_credentials,
            )
            self._deliver(observation)
        except Exception as failure:  # noqa: BLE001 - as in `received`
            _guard.report(failure)


class Unwatched:
    """Stands in for an exchange that could not be made: the call goes out all the same, and is not recorded."""

    __slots__ = ()
    watches_body = False

    def sending(self) -> None:
        """Nothing is forgotten."""

    def sent(self, chunk: bytes) -> None:
        """Nothing is noted."""

    def answered(self, status: int, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        """Nothing is noted."""

    def received(self, chunk: bytes) -> None:
        """Nothing is kept."""

    def arrives_decoded(self) -> None:
        """Nothing is noted."""

    def read_already(self, content: bytes) -> None:
        """Nothing is kept."""

    def finished(self, ending: Ending, error: BaseException | None = None) -> None:
        """Nothing is handed over."""


def watching(
    endpoint: Endpoint,
    attribution: Attribution,
    body: bytes | None,
    settings: Settings,
    deliver: Deliver,
    attempt: Attempt,
    trace_id: str,
) -> Exchange | Unwatched:
    """Return what watches one attempt; a fault of ours never keeps the attempt from being made."""
    try:
        return Exchange(endpoint, attribution, body, settings, deliver, attempt, trace_id)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is ours, and the guard tells of it
        _guard.report(error)
        return Unwatched()
