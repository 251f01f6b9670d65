"""What an operator may see of a spool's file: all of its destinations, whoever writes to it meanwhile."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from kwai_middleware._delivery.destination import Destination
from kwai_middleware._delivery.disk import counting, existing, files, owners
from kwai_middleware._delivery.spool import SpoolCounters

__all__ = ["Amount", "Choice", "DestinationState", "Inspection", "Rejected", "Shipping"]

_STATES: Final = (
    "SELECT base_url, digest, (SELECT count(*) FROM records WHERE destination = id AND is_rejected = 1),"  # noqa: S608 - ours
    f" shipper, shipper_since, shipper_until, {counting.COLUMNS} FROM destinations ORDER BY base_url, digest"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which records.

    Attributes:
        customer: Whose; None for all, also for those that are nobody's.
        recorded_before: Seconds since 1970.
        rejected_only: None of those that wait.
    """

    customer: str | None = None
    recorded_before: float = math.inf
    rejected_only: bool = False


@dataclass(frozen=True, slots=True)
class Shipping:
    """Who ships the records of a destination.

    Attributes:
        pid: Of the process; None where another version of this library names it in another way.
        state: Whether it is `alive`, or `dead` and the next one takes over; `unknown` in another container.
            One that has not been heard of for too long is `late`: the next one takes over, too.
    """

    pid: int | None
    state: Literal["alive", "dead", "late", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationState:
    """One destination in a file.

    Attributes:
        destination: It.
        counters: Its ledger.
        rejected_kept: Of the rejected records, those that are still there to look at.
        shipping: None when nobody ships.
    """

    destination: Destination
    counters: SpoolCounters
    rejected_kept: int
    shipping: Shipping | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A record that the vendor will never take.

    Attributes:
        position: Its place in the file.
        record_id: Of the record.
        customer: Whom it is about.
        destination: Where it was to go.
        recorded_at: Seconds since 1970.
        rejected_at: Seconds since 1970.
        attempts: How often it was tried and failed, the last time included.
        reason: In words.
        size: Bytes.
        entry: The record itself, if asked for.
    """

    position: int
    record_id: str
    customer: str | None
    destination: Destination
    recorded_at: float
    rejected_at: float
    attempts: int
    reason: str
    size: int
    entry: bytes | None


@dataclass(frozen=True, slots=True)
class Amount:
    """How much a choice comes to.

    Attributes:
        records: Waiting or rejected.
        customers: Whom they are about.
        nobodys: Records that are about no customer.
        last: Position of the last of them; 0 when there is none.
    """

    records: int
    customers: int
    nobodys: int
    last: int


class Inspection:
    """Looks at one file. Every method may raise `SpoolUnavailable`.

    Args:
        path: Absolute, of a file that is there.
        clock: Seconds since 1970.
        ticks: Monotonic seconds, as the spool's own.

    Raises:
        SpoolUnavailable: It is no file for us.
    """

    def __init__(
        self, path: str, *, clock: Callable[[], float] = time.time, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self.database = existing.opened(path)
        self._clock = clock
        self._ticks = ticks

    def close(self) -> None:
        """Let go of the file."""
        self.database.close()

    def version(self) -> int:
        """Return the version of the file's tables."""
        ((version,),) = self.database.read("PRAGMA user_version")
        return int(version)

    def sizes(self) -> tuple[int, int]:
        """Return the bytes of the file and of its log."""
        return files.size_of(self.path), files.size_of(f"{self.path}-wal")

    def states(self) -> list[DestinationState]:
        """Return each destination's state, all of one moment."""
        return [self._state(row) for row in self.database.read(_STATES)]

    def state_of(self, destination: Destination) -> DestinationState | None:
        """Return the state of one destination; None when it is not in the file."""
        return next((state for state in self.states() if state.destination == destination), None)

    def rejected(self, choice: Choice, limit: int, *, entries: bool = False) -> list[Rejected]:
        """Return the last `limit` rejected records of a choice, the newest last."""
        found = self.database.read(
            "SELECT position, record_id, customer, base_url, digest, appended_at, rejected_at, attempts, reason, size,"
            " CASE WHEN ? THEN entry END FROM records JOIN destinations ON destinations.id = destination"
            " WHERE is_rejected = 1 AND (? IS NULL OR customer = ?) AND appended_at < ?"
            " ORDER BY position DESC LIMIT ?",
            (entries, choice.customer, choice.customer, choice.recorded_before, limit),
        )
        return [
            Rejected(
                position=position,
                record_id=record_id,
                customer=customer,
                destination=Destination(base_url, digest),
                recorded_at=recorded_at,
                rejected_at=rejected_at,
                # What is counted in the file is what failed before the answer that rejected it.
                attempts=attempts + 1,
                reason=reason or "",
                size=size,
                entry=entry,
            )
            for position, record_id, customer, base_url, digest, recorded_at, rejected_at, attempts, reason, size, entry
            in reversed(found)
        ]  # fmt: skip

    def amount(self, choice: Choice) -> Amount:
        """Count a choice."""
        ((records, customers, with_customer, last),) = self.database.read(
            "SELECT count(*), count(DISTINCT customer), count(customer), coalesce(max(position), 0)"
            " FROM records WHERE is_rejected >= ? AND (? IS NULL OR customer = ?) AND appended_at < ?",
            (choice.rejected_only, choice.customer, choice.customer, choice.recorded_before),
        )
        return Amount(records, customers, records - with_customer, last)

    def positions(self, choice: Choice) -> list[tuple[int, int]]:
        """Return position and size of each record of a choice."""
        found = self.database.read(
            "SELECT position, size FROM records"
            " WHERE is_rejected >= ? AND (? IS NULL OR customer = ?) AND appended_at < ? ORDER BY position",
            (choice.rejected_only, choice.customer, choice.customer, choice.recorded_before),
        )
        return [(position, size) for position, size in found]

    def is_under_way(self, owner: str, since: float, until: float) -> bool:
        """Whether a record is being sent by somebody who is alive.

        Args:
            owner: Of the lease.
            since: When the one who ships said last that it does.
            until: End of the lease.
        """
        return since <= self._ticks() < until and not owners.is_dead(owner)

    def _state(self, row: Sequence[Any]) -> DestinationState:
        base_url, digest, kept, shipper, since, until, *counted = row
        return DestinationState(
            destination=Destination(base_url, digest),
            counters=counting.counters_of(counted, self._clock(), self.path),
            rejected_kept=kept,
            shipping=None if shipper is None else self._shipping(shipper, since, until),
        )

    def _shipping(self, owner: str, since: float, until: float) -> Shipping:
        namespace, _, rest = owner.partition(":")
        number = rest.partition(":")[0]
        pid = int(number) if number.isascii() and number.isdecimal() else None
        if owners.is_dead(owner):
            return Shipping(pid, "dead")
        # One that begins in the future was made before the machine was started anew.
        if not since <= self._ticks() < until:
            return Shipping(pid, "late")
        is_here = namespace == owners.new_owner().partition(":")[0]
        return Shipping(pid, "alive" if is_here and pid is not None else "unknown")
