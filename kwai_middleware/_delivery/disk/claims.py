"""Who ships the records of a destination: one process at a time."""

from __future__ import annotations

import sqlite3
from typing import Final

import msgspec

from kwai_middleware._delivery.disk import owners

__all__ = ["QUESTION", "Claim", "extend", "free", "hasten", "space_bulk", "take"]

QUESTION: Final = (
    "SELECT id, shipper, epoch, shipper_since, shipper_until, bulk_at, hurries, pending,"
    " (SELECT min(until) FROM leases WHERE leases.destination = destinations.id),"
    " (SELECT min(until) FROM rests WHERE rests.destination = destinations.id)"
    " FROM destinations WHERE base_url = ? AND digest = ?"
)
"""Asks for the members of a `Claim`."""


class Claim(msgspec.Struct, frozen=True):
    """Who ships the records of a destination.

    Attributes:
        destination: Its number in this file.
        owner: Of the claim; None when nobody ships.
        epoch: Counts the owners so far.
        since: Monotonic seconds of the last renewal; or when the last owner made way.
        until: Monotonic seconds; the owner renews it. Without an owner: when the next one may take it.
        bulk_at: Monotonic seconds before which no bulk request may be sent.
        hurries: Counts those who asked for haste.
        pending: Records that wait.
        next_lease_end: Monotonic seconds at which the first lease of one of them ends; None when none is on lease.
        next_rest_end: The same of those that rest.
    """

    destination: int
    owner: str | None
    epoch: int
    since: float
    until: float
    bulk_at: float
    hurries: int
    pending: int
    next_lease_end: float | None
    next_rest_end: float | None

    def is_of_another(self, owner: str, now: float) -> bool:
        """Whether someone else than `owner` ships, and may be alive."""
        if self.owner is None or self.owner == owner:
            return False
        # A claim that begins in the future was made before the machine was started anew.
        return self.since <= now < self.until and not owners.is_dead(self.owner)

    def has_ended(self, now: float) -> bool:
        """Whether there are leases or rests whose time is over."""
        return any(end is not None and end <= now for end in (self.next_lease_end, self.next_rest_end))

    @property
    def pause(self) -> float:
        """Seconds between the last owner, who has made way, and the next one; 0 when it has not."""
        return self.until - self.since if self.owner is None else 0.0


def take(connection: sqlite3.Connection, claim: Claim, owner: str, now: float, until: float) -> int:
    """Make `owner` the one who ships from now on; returns its epoch."""
    # Whoever shipped before has nothing on lease any more: it is dead, or too late.
    connection.execute("DELETE FROM leases WHERE destination = ?", (claim.destination,))
    if now < claim.since:
        # Measured by a clock that has begun anew since.
        connection.execute("DELETE FROM rests WHERE destination = ?", (claim.destination,))
    connection.execute(
        "UPDATE destinations SET shipper = ?, epoch = epoch + 1, shipper_since = ?, shipper_until = ? WHERE id = ?",
        (owner, now, until, claim.destination),
    )
    return claim.epoch + 1


def extend(connection: sqlite3.Connection, destination: int, owner: str, now: float, until: float) -> None:
    """Let `owner` ship for longer, if it still does."""
    connection.execute(
        "UPDATE destinations SET shipper_since = ?, shipper_until = ? WHERE id = ? AND shipper = ?",
        (now, until, destination, owner),
    )


def space_bulk(connection: sqlite3.Connection, destination: int, until: float) -> None:
    """Let no bulk request be sent for a while, whoever ships."""
    connection.execute("UPDATE destinations SET bulk_at = ? WHERE id = ?", (until, destination))


def free(connection: sqlite3.Connection, destination: int, owner: str, now: float, until: float) -> bool:
    """Let others ship, from a moment on, unless `owner` has something on lease: it may be under way.

    Returns:
        Whether `owner` did ship, and does no more.
    """
    changed = connection.execute(
        "UPDATE destinations SET shipper = NULL, shipper_since = ?, shipper_until = ? WHERE id = ? AND shipper = ?"
        " AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.destination = destinations.id)",
        (now, until, destination, owner),
    )
    return changed.rowcount > 0


def hasten(connection: sqlite3.Connection, destination: int) -> None:
    """Let whoever comes first ship at once, if nobody does."""
    connection.execute(
        "UPDATE destinations SET shipper_until = shipper_since WHERE id = ? AND shipper IS NULL", (destination,)
    )
