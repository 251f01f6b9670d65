"""What a waiting room of encoded records offers, wherever it keeps them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, Protocol

import msgspec

__all__ = [
    "MOST_ALONE",
    "MOST_TOGETHER",
    "Handout",
    "Outcome",
    "Record",
    "Row",
    "Spool",
    "SpoolCounters",
    "most_at_once",
]

MOST_TOGETHER: Final = 500
"""Rows that the vendor takes in one bulk request."""

MOST_ALONE: Final = 8
"""Rows on lease at once that are sent in a request each: so many come twice at most when the process is killed
meanwhile, and they are sent long before the lease ends."""


class Record(msgspec.Struct, frozen=True):
    """An encoded record on its way into the spool.

    Attributes:
        record_id: Of the record.
        entry: What the vendor gets.
        customer: Whom it is about, so that an operator can find what is kept of one customer.
    """

    record_id: str
    entry: bytes
    customer: str | None = None


class Row(msgspec.Struct, frozen=True):
    """One record on lease: nobody else gets it until it is settled, or the lease has ended.

    Attributes:
        position: Its place in the order of appending; unique in its spool.
        record_id: Of the record.
        entry: The encoded record.
        attempts: How often it was sent before and held responsible for the failure.
        together: With how many others, itself included, it may be sent: halved each time that a
            request with it fails, down to 1.
        lease: Whose lease this is; what that means is the spool's affair.
    """

    position: int
    record_id: str
    entry: bytes
    attempts: int = 0
    together: int = MOST_TOGETHER
    lease: object = None


class Outcome(msgspec.Struct, frozen=True):
    """What became of a row on lease.

    Attributes:
        row: The lease.
        end: `delivered`: the vendor has it. `rejected`: the vendor will never take it. `returned`:
            it waits on.
        reason: Why it was rejected, in words for an operator.
        attempts: Of one that waits on: how often it failed by now.
        together: Of one that waits on: with how many others it may be sent.
        rest: Of one that waits on: seconds for it to stand behind the others; 0 keeps its place.
    """

    row: Row
    end: Literal["delivered", "rejected", "returned"]
    reason: str = ""
    attempts: int = 0
    together: int = MOST_TOGETHER
    rest: float = 0.0


class Handout(msgspec.Struct, frozen=True):
    """What `Spool.lease` found.

    Attributes:
        rows: On lease now; all have the same `together`.
        wait: When there are none: seconds after which it is worth asking again; None when nothing
            waits.
        is_elsewhere: Another process ships them.
        pause: When another process has made way, and this one takes its turn: seconds that were to
            pass between the two; else 0.
    """

    rows: tuple[Row, ...] = ()
    wait: float | None = None
    is_elsewhere: bool = False
    pause: float = 0.0


class SpoolCounters(msgspec.Struct, frozen=True):
    """The spool's ledger: `appended = delivered + pending + rejected + evicted + purged`.

    Attributes:
        appended: Records that ever came in.
        delivered: Accepted by the vendor.
        pending: Waiting, those on lease included.
        rejected: Refused by the vendor for good.
        evicted: Given up for their age.
        purged: Thrown away undelivered.
        pending_bytes: What the waiting ones occupy.
        oldest_pending: Age of the oldest waiting one in seconds; None when nothing waits.
        last_success: When any process delivered one last, in seconds since 1970, as far as this
            spool remembers it.
        last_error: What went wrong last, whichever process shipped.
        place: Where new records are kept: the path of a file, or `memory`.
        disk_error: Why they are in memory although they belong on disk.
    """

    appended: int = 0
    delivered: int = 0
    pending: int = 0
    rejected: int = 0
    evicted: int = 0
    purged: int = 0
    pending_bytes: int = 0
    oldest_pending: float | None = None
    last_success: float | None = None
    last_error: str | None = None
    place: str = "memory"
    disk_error: str | None = None


class Spool(Protocol):
    """Keeps records from their encoding until they are settled. Thread-safe; never blocks on a network."""

    poll: float | None
    """Seconds after which to look for what other processes have done; None when there are no others."""

    def append(self, records: Sequence[Record]) -> int:
        """Take records in, as many as there is room for; returns how many, counted from the first."""
        ...

    def backlog(self) -> int:
        """How many records wait, those on lease included."""
        ...

    def lease(self, rows: int, size: int, *, bulk: bool) -> Handout:
        """Hand out the next records whose time has come.

        Args:
            rows: At most so many.
            size: Bytes, at most, but one record at least.
            bulk: They are for one request: no more than each of them may be sent with, and the
                next such request has to wait its time. Of those that may only be sent alone,
                `MOST_ALONE`.
        """
        ...

    def settle(self, outcomes: Sequence[Outcome], error: str | None = None) -> None:
        """Say what became of rows. One whose lease has ended meanwhile is left alone.

        Args:
            outcomes: Of each row.
            error: What went wrong, in words for an operator; None when nothing did.
        """
        ...

    def bulk_wait(self) -> float:
        """Seconds until the next bulk request may be sent."""
        ...

    def renew(self) -> bool:
        """Keep what is on lease while nothing is sent; whether another process is in a hurry."""
        ...

    def make_way(self, seconds: float) -> None:
        """Let another process try, since this one reaches nobody; after so many seconds, and this one later."""
        ...

    def hasten(self) -> None:
        """Let no record rest any longer."""
        ...

    def position(self) -> object:
        """Return a mark behind what this process appended last, for `is_settled`."""
        ...

    def is_settled(self, position: object) -> bool:
        """Whether nothing that this process appended before the mark is pending."""
        ...

    def counters(self) -> SpoolCounters:
        """Return one consistent view of the ledger; an older one rather than wait for it: an event loop may ask."""
        ...

    def end_by(self, until: float) -> None:
        """Wait for other processes until the monotonic clock shows this, then for moments only: the end is near."""
        ...

    def close(self, *, is_in_use: bool = False, is_appended_to: bool = False) -> int:
        """Let go; returns how many pending records are lost by it. A closed spool takes nothing in.

        Args:
            is_in_use: A thread is still at it: it is to be closed once more when that has ended.
            is_appended_to: That thread may be one that appends.
        """
        ...


def most_at_once(together: int) -> int:
    """Return how many rows are handed out for a bulk request, by the number each may be sent with."""
    return together if together > 1 else MOST_ALONE
