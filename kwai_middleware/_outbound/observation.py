"""What was seen of one exchange, kept as it came; nothing has been parsed yet."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

import msgspec

from kwai_middleware._caller import Caller, Capture, Credential
from kwai_middleware._record import BilledTo, CompletedCall
from kwai_middleware._secret import Secret
from kwai_middleware._unsettled import Origins

if TYPE_CHECKING:
    from kwai_middleware._outbound.attempts import Attempt
    from kwai_middleware._outbound.budget import Reservation
    from kwai_middleware._outbound.routes import Endpoint
    from kwai_middleware._outbound.sent_bodies import Sent

__all__ = ["Ending", "Observation"]


class Ending(Enum):
    """The way an exchange ended. It does not tell success from failure: the content does."""

    END = "end"
    """The stream ended by itself."""
    CLOSED = "closed"
    """The app closed the response, or stopped iterating."""
    CANCELLED = "cancelled"
    """The task was cancelled, or the program interrupted."""
    TIMEOUT = "timeout"
    """A time limit of the HTTP client."""
    ERROR = "error"
    """Any other exception of the transport."""
    ABANDONED = "abandoned"
    """Nobody closed it; the garbage collector found it."""


class Observation(msgspec.Struct, eq=False):
    """One attempt, from its first byte to its last. The `PendingCall` that the transport delivers, and changes no more.

    Attributes:
        endpoint: Where it went.
        caller: Who it was for when it started.
        credential: The key that was sent, the caller's or the app's; None when the client's own paid, or
            one of a list.
        billed_to: Whose key paid.
        capture: How much of it may be logged.
        origins: Where identity and keys came from.
        app_credentials: The app's own keys, of which no record may show one.
        trace_id: Of the unit of work that it was part of.
        attempt: Which call it belongs to.
        request_body: The app's own bytes; None when they were a stream, or not kept for size.
        request_kept: False when a body was left out for its size.
        reservation: Memory held in the budget of open calls.
        started_at: Seconds since 1970.
        started: Nanoseconds of the monotonic clock, as are `answered` and `ended`.
        request_sent: What was seen of a body that may be a form, in place of all its bytes.
        answered: When the response's headers were there; None without a response.
        status: HTTP status; None without a response.
        response_headers: As received, names in any case.
        decoded: The chunks are plain bytes already, whatever `content-encoding` says.
        ended: When the stream ended, in whichever way.
        ending: The way it ended.
        error: Name and text of the exception, when one ended it.
        chunks: The response's body as it came over the wire; after a gap only its tail.
        arrivals: When each chunk came.
        gap_after: How many leading chunks are consecutive; the rest is the tail behind a gap. None
            when nothing was left out.
    """

    endpoint: Endpoint
    caller: Caller | None
    credential: Credential | None
    billed_to: BilledTo
    capture: Capture
    origins: Origins
    app_credentials: tuple[Credential, ...]
    trace_id: str
    attempt: Attempt
    request_body: bytes | None
    request_kept: bool
    reservation: Reservation
    started_at: float
    started: int
    request_sent: Sent | None = None
    answered: int | None = None
    status: int | None = None
    response_headers: Sequence[tuple[bytes, bytes]] = ()
    decoded: bool = False
    ended: int = 0
    ending: Ending = Ending.ABANDONED
    error: tuple[str, str] | None = None
    chunks: tuple[bytes, ...] = ()
    arrivals: tuple[int, ...] = ()
    gap_after: int | None = None

    @property
    def logged_by_vendor(self) -> bool:
        """A gateway logs its own calls, those that it relays too."""
        return self.endpoint.kind != "direct"

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The caller's keys and the app's own, for masking."""
        credentials = self.app_credentials if self.caller is None else self.caller.credentials + self.app_credentials
        return tuple(credential.api_key for credential in credentials)

    @property
    def size(self) -> int:
        """Bytes of the request and of what was kept of the answer."""
        return len(self.request_body or b"") + self.reservation.held

    def build(self) -> CompletedCall:
        """Look into it; see `records`."""
        from kwai_middleware._outbound import records

        return records.completed(self)

    def release(self) -> None:
        """Give its memory back to the budget."""
        self.reservation.release()

    def __repr__(self) -> str:
        return object.__repr__(self)  # what was said may be more than an error report should hold
