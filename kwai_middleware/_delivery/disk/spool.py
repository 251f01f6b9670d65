"""The spool in a SQLite file, for one destination."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, cast

from kwai_middleware import _native as native
from kwai_middleware import _notices
from kwai_middleware._delivery.destination import Destination
from kwai_middleware._delivery.disk import counting, schema, tables, upkeep
from kwai_middleware._delivery.disk.attachment import Attachment
from kwai_middleware._delivery.disk.bounds import Bounds
from kwai_middleware._delivery.disk.errors import SpoolUnavailable
from kwai_middleware._delivery.disk.shipping import IDLE_POLL, Shipping
from kwai_middleware._delivery.spool import Handout, Outcome, Record, SpoolCounters

__all__ = ["Bounds", "DiskSpool"]

_logger: Final = logging.getLogger("kwai_middleware")

_PATIENCE: Final = 0.005
"""Seconds that an event loop may stand still for a look, as it does now and then anyway."""

_FIRST_PATIENCE: Final = 0.5
"""The same as long as there is no older view: the file may be just about to be opened."""

_OWN_PENDING: Final = (
    "SELECT 1 FROM records WHERE destination = (SELECT id FROM destinations WHERE base_url = ? AND digest = ?)"
    " AND is_rejected = 0 AND writer = ? AND position <= ? LIMIT 1"
)
_COUNTERS: Final = f"SELECT {counting.COLUMNS} FROM destinations WHERE base_url = ? AND digest = ?"  # noqa: S608 - ours


class DiskSpool:
    """Shared with the other processes of this host that have the same file.

    Every method may raise `SpoolUnavailable`; then nothing has happened.

    Args:
        path: Absolute.
        destination: Of the records: no other ones are seen.
        bounds: How much, how long, how often.
        rescue: Gets records of a file that is gone, when a new one does not take them; returns how
            many it took.
        clock: Seconds since 1970, for ages.
        ticks: Monotonic seconds, the same for all processes of the host, for leases.
        steps: The schema, see `schema.STEPS`.
        connection_type: What runs the statements.
    """

    poll: float | None = IDLE_POLL

    def __init__(
        self,
        path: str,
        destination: Destination,
        bounds: Bounds,
        *,
        rescue: Callable[[Sequence[Record]], int] = lambda _: 0,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
        steps: Sequence[str] = schema.STEPS,
        connection_type: type[sqlite3.Connection] = sqlite3.Connection,
    ) -> None:
        self.path = path
        self.rescue = rescue
        self._clock = clock
        self._attached = Attachment(path, destination, steps, connection_type, self._save)
        self._upkeep = upkeep.Upkeep(path, bounds, clock, ticks)
        self._shipping = Shipping(self._attached, bounds, clock, ticks, self._upkeep)
        self._lock = native.lock()
        self._last_position = (0, 0)
        self._saved_up_to = 0
        self._last_counters: SpoolCounters | None = None
        self._is_closed = self._was_settled = False

    def append(self, records: Sequence[Record]) -> int:
        """Take records in, as many as there is room for; returns how many, counted from the first."""

        def appended() -> int:
            self._upkeep.before_append(self._attached)
            taken = self._append(records, partly=False)
            if taken is None:
                self._upkeep.make_room(self._attached)
                taken = self._append(records, partly=True) or 0
                if taken < len(records):
                    self._upkeep.is_short_of_room()
            return taken

        self._upkeep.check_disk(sum(len(record.entry) for record in records))
        return self._attached.attempt(appended)

    def backlog(self) -> int:
        """How many records wait, those on lease included."""
        return self._attached.attempt(self._shipping.backlog)

    def lease(self, rows: int, size: int, *, bulk: bool) -> Handout:
        """Hand out the next records whose time has come, unless another process does."""
        return self._attached.attempt(lambda: self._shipping.lease(rows, size, bulk=bulk))

    def settle(self, outcomes: Sequence[Outcome], error: str | None = None) -> None:
        """Say what became of rows. When the file cannot be written, that is said as soon as it can."""
        self._shipping.add_unsettled(outcomes, error)
        self._attached.attempt(self._shipping.settle)

    def bulk_wait(self) -> float:
        """Seconds until the next bulk request may be sent."""
        return self._attached.attempt(self._shipping.bulk_wait)

    def renew(self) -> bool:
        """Keep the claim while nothing is sent; whether another process is in a hurry."""
        return self._attached.attempt(self._shipping.renew)

    def make_way(self, seconds: float) -> None:
        """Let another process ship after so many seconds, and this one again a little later."""
        self._attached.attempt(lambda: self._shipping.make_way(seconds))

    def hasten(self) -> None:
        """Let no record rest any longer, whichever process ships."""
        self._attached.attempt(self._shipping.hasten)

    def position(self) -> tuple[int, int]:
        """Return a mark behind what this process appended last, for `is_settled`."""
        return self._last_position

    def is_settled(self, position: object) -> bool:
        """Whether nothing that this process appended before the mark is pending."""
        if self._is_closed:
            return self._was_settled
        generation, last = cast("tuple[int, int]", position)
        if self._last_position == (0, 0):
            # Nothing was appended: no reason to make a file, or to wait for one that cannot be read.
            return True

        def settled() -> bool:
            # Not before the records of a file that is gone are in the new one.
            with self._attached.renewing:
                up_to = last if generation == self._attached.generation else self._saved_up_to
                values = (*self._attached.key, self._attached.owner, up_to)
                return not self._attached.reading.read(_OWN_PENDING, values)

        return self._attached.attempt(settled)

    def counters(self) -> SpoolCounters:
        """Return one consistent view of the ledger; the last one, when the file cannot be read at once."""
        with contextlib.suppress(SpoolUnavailable):
            self._last_counters = self._counters()
        return self._last_counters or SpoolCounters(place=self.path)

    def end_by(self, until: float) -> None:
        """Wait for other processes until then, and for moments only after that."""
        self._attached.end_by(until)

    def close(self, *, is_in_use: bool = False, is_appended_to: bool = False) -> int:
        """Let go of the file. Nothing is lost: what waits is shipped by another process, or the next one."""
        if not is_in_use:
            if self._attached.is_open:
                self._shipping.let_go()
                self.counters()
            with contextlib.suppress(SpoolUnavailable):
                self._was_settled = self.is_settled(self.position())
            self._is_closed = True
            self._attached.close()
        return 0

    def _append(self, records: Sequence[Record], *, partly: bool) -> int | None:
        """Append what fits, all in one transaction; None when that is not all and has to be."""
        database = self._attached.writing
        with database.transaction() as connection:
            wanted = sum(map(_space_of, records))
            fitting = _fitting(records, self._upkeep.room(connection, wanted))
            if not fitting or (len(fitting) < len(records) and not partly):
                return 0 if partly else None
            generation = self._attached.generation
            number = tables.destination_id(connection, self._attached.destination)
            position = tables.append(connection, number, fitting, self._attached.owner, self._clock())
        # Two threads may append, and the second to come here be the first that has appended.
        with self._lock:
            self._last_position = max(self._last_position, (generation, position))
        return len(fitting)

    def _save(self, found: Iterator[list[Record]]) -> None:
        lost = 0
        is_usable = True
        for records in found:
            taken = 0
            if is_usable:
                try:
                    taken = self.append(records)
                except SpoolUnavailable:
                    # Not tried again for each few of them.
                    is_usable = False
            rest = records[taken:]
            lost += len(rest) - (self.rescue(rest) if rest else 0)
        generation, position = self._last_position
        self._saved_up_to = position if generation == self._attached.generation else 0
        if lost:
            _notices.count("records_lost_with_file")
            _logger.error(
                "kwai_middleware: %d records of a file that is gone fit neither into a new one nor into memory", lost
            )

    def _counters(self) -> SpoolCounters:
        found = self._attached.glance(
            _COUNTERS, self._attached.key, _FIRST_PATIENCE if self._last_counters is None else _PATIENCE
        )
        if not found:
            return SpoolCounters(place=self.path)
        return counting.counters_of(found[0], self._clock(), self.path)


def _space_of(record: Record) -> int:
    return len(record.entry) + upkeep.ROW_OVERHEAD


def _fitting(records: Sequence[Record], room: int) -> Sequence[Record]:
    for number, record in enumerate(records):
        room -= _space_of(record)
        if room < 0:
            return records[:number]
    return records
