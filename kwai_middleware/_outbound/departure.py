"""One request that is about to leave: what becomes of it and of the answer, for every HTTP library."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, MutableMapping
from typing import Any, ClassVar, cast

from kwai_middleware import _guard
from kwai_middleware._caller import Credential
from kwai_middleware._outbound.deciding import Decision
from kwai_middleware._outbound.exchange import Exchange, Unwatched
from kwai_middleware._outbound.failover import Seen
from kwai_middleware._outbound.observation import Ending
from kwai_middleware._outbound.parameter_header import PARAMETER_HEADER
from kwai_middleware._outbound.tracebacks import drop_inner_frames
from kwai_middleware._outbound.wire import wire_header

__all__ = ["Departure"]


class Departure(ABC):
    """Connects the app's request, its copy on the wire, and the exchange that watches both.

    Each HTTP library's own one says how a request is copied and how an answer is watched.

    Args:
        request: The app's own request; it is never changed.
        decision: What becomes of it.

    Attributes:
        decision: The same.
        exchange: Is told what happens.
        received: The exchange's own, which is called for each chunk.
    """

    timeouts: ClassVar[tuple[type[BaseException], ...]] = ()
    """The bases of the library's time-out exceptions."""

    __slots__ = ("_copies", "_copy", "_request", "decision", "exchange", "received")

    def __init__(self, request: Any, decision: Decision) -> None:
        self._request = request
        self.decision = decision
        self._copies = False
        self._copy: weakref.ref[Any] | None = None
        self.exchange: Exchange | Unwatched = decision.exchange
        self.received: Callable[[bytes], None] = decision.exchange.received

    def wire(self) -> Any:
        """Return what goes to the wire: a copy with the caller's key, or the request itself when nothing changes.

        Call it where its value is used, and keep the value in no variable: exceptions carry the
        variables of every frame they pass.
        """
        decision = self.decision
        changes = decision.changes
        self._copies = bool(
            decision.changes_body or changes.headers or changes.in_header is not None or decision.key_headers
        )
        if not (self._copies or self._watches_body()):
            return self._request
        copy = self._copied()
        self._copy = weakref.ref(copy)
        return copy

    def _watches_body(self) -> bool:
        """Say whether the body is watched while it goes out."""
        return self.decision.body is None and self.exchange.watches_body

    @abstractmethod
    def _copied(self) -> Any:
        """Return a copy of the app's request, changed as decided."""

    def _twin(self) -> Any:
        """Return a new request with all that hangs on the app's own, for libraries whose requests are plain objects."""
        twin: Any = object.__new__(type(cast("object", self._request)))
        cast("dict[str, Any]", vars(twin)).update(cast("dict[str, Any]", vars(self._request)))
        return twin

    def _write_headers(self, headers: MutableMapping[str, Any]) -> None:
        """Write what was decided into the headers of a copy."""
        changes = self.decision.changes
        for name, value in changes.headers.items():
            if name in headers:
                del headers[name]
            if value is not None:
                headers[name] = value
        if changes.in_header is not None:
            headers[PARAMETER_HEADER] = wire_header(changes, changes.in_header)
        for name in self.decision.key_headers:
            key = changes.attribution.credentials[0].api_key
            self._put(headers, name, f"Bearer {key.reveal()}" if name == "authorization" else key.reveal())

    def _put(self, headers: MutableMapping[str, Any], name: str, value: str) -> None:
        """Write one header in place of those that have this name, in lower case."""
        headers[name] = value

    def may_give_way(self, status: int) -> bool:
        """Say whether an answer may be about the key, and has to be looked into before it is handed on."""
        failover = self.decision.failover
        return failover is not None and failover.is_in_doubt(status)

    def next_key(self, status: int, headers: tuple[tuple[bytes, bytes], ...], seen: Seen) -> Credential | None:
        """Return with which key the request goes out again; then this attempt is over, and the app gets nothing of it.

        Args:
            status: Of the answer.
            headers: Of the answer.
            seen: Of the answer's body.
        """
        failover = self.decision.failover
        credential = None if failover is None else failover.next_key(status, headers, seen)
        if credential is not None:
            with _guard.never_raise:
                self.exchange.head_arrived(status, headers)
                if seen.is_decoded:
                    self.exchange.arrives_decoded()
                self.exchange.received(seen.body)
                self.exchange.finished(Ending.END if seen.is_whole else Ending.CLOSED)
        return credential

    def sending(self) -> None:
        """The request's body goes out, from its beginning."""
        self.exchange.sending()

    def sent(self, chunk: bytes) -> None:
        """A part of the request's body goes out."""
        self.exchange.sent(chunk)

    def arrives_decoded(self) -> None:
        """What is received is not as on the wire any more."""
        self.exchange.arrives_decoded()

    def finished(self, ending: Ending) -> None:
        """The answer is over without an exception."""
        self.exchange.finished(ending)

    def cannot_watch(self, error: Exception) -> None:
        """A fault of ours keeps the answer from being watched: it goes to the app, and the attempt is over for us."""
        _guard.report(error)
        # Or it would be open, and hold memory of the budget, until the process ends.
        self.exchange.finished(Ending.ABANDONED)

    def failed(self, error: BaseException) -> None:
        """The request or the answer ended with `error`, which the app will get."""
        self.exchange.finished(self._ending(error), error if isinstance(error, Exception) else None)
        if self._copies:
            # Also when the copy could not be made: an interrupt finds the key in the frames that make it.
            with _guard.never_raise:
                drop_inner_frames(error)
            with _guard.never_raise:
                self._disguise()
        with _guard.never_raise:
            self._show_the_apps_request(error)

    def _ending(self, error: BaseException) -> Ending:
        if isinstance(error, self.timeouts):
            return Ending.TIMEOUT
        if isinstance(error, GeneratorExit):
            return Ending.CLOSED
        return Ending.ERROR if isinstance(error, Exception) else Ending.CANCELLED

    def _disguise(self) -> None:
        """Make the wire copy a twin of the app's own request: exceptions of layers inside may hold on to it."""
        copy: Any = None if self._copy is None else self._copy()
        if copy is not None:
            attributes = cast("dict[str, Any]", vars(copy))
            attributes.clear()
            attributes.update(cast("dict[str, Any]", vars(self._request)))

    def _show_the_apps_request(self, thing: Any) -> None:
        """A response or an exception that names the wire copy names the app's own request instead."""
        copy = None if self._copy is None else self._copy()
        try:
            if copy is not None and thing.request is copy:
                thing.request = self._request
        except (AttributeError, RuntimeError):
            # It names none, or cannot be told another; then it names the copy, which is a twin by now.
            return
