"""What a waiting room of encoded records offers, wherever it keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Row", "Spool", "SpoolCounters"]


@dataclass(frozen=True, slots=True)
class Row:
    """One record on lease: nobody else gets it until it is settled.

    Attributes:
        position: Its place in the order of appending; unique in its spool.
        record_id: Of the record.
        entry: The encoded record.
        attempts: How often it was sent before and held responsible for the failure.
    """

    position: int
    record_id: str
    entry: bytes
    attempts: int


@dataclass(frozen=True, slots=True)
class SpoolCounters:
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
    """

    appended: int
    delivered: int
    pending: int
    rejected: int
    evicted: int
    purged: int
    pending_bytes: int
    oldest_pending: float | None


class Spool(Protocol):
    """Keeps records from their encoding until they are settled. Thread-safe; never blocks on a network."""

    def append(self, record_id: str, entry: bytes) -> bool:
        """Take a record in. False when there is no room."""
        ...

    def lease(self) -> Row | None:
        """Hand out the next record whose time has come."""
        ...

    def delivered(self, row: Row) -> None:
        """Settle: the vendor has it."""
        ...

    def rejected(self, row: Row) -> None:
        """Settle: the vendor will never take it."""
        ...

    def returned(self, row: Row, rest: float | None) -> None:
        """Give it back unsettled.

        Args:
            row: The lease.
            rest: None keeps its place and holds it blameless; seconds send it behind the others,
                not to be tried again before they have passed, and count one attempt; 0 counts the
                attempt and keeps its place.
        """
        ...

    def hasten(self) -> None:
        """Let all records rest no longer."""
        ...

    def next_due(self) -> float | None:
        """Seconds until `lease` has something; None when it never will by itself."""
        ...

    def position(self) -> int:
        """Position of the record appended last."""
        ...

    def is_settled(self, position: int) -> bool:
        """Whether nothing up to `position` is pending."""
        ...

    def counters(self) -> SpoolCounters:
        """Return one consistent view of the ledger."""
        ...

    def close(self) -> int:
        """Let go; returns how many pending records are lost by it. A closed spool takes nothing in."""
        ...
