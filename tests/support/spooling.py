"""What tests of spools share: time that passes when they say so, records, and a look into a spool's file."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from kwai_middleware._delivery.destination import Destination
from kwai_middleware._delivery.disk.spool import Bounds, DiskSpool
from kwai_middleware._delivery.spool import Outcome, Record, Row, Spool, SpoolCounters

HERE = Destination("https://logs.example/api", "digest-of-a-key")
ELSEWHERE = Destination("https://logs.example/api", "digest-of-another-key")
LARGE = 1 << 30


class Clock:
    """Time that passes when the test says so."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def record(name: object, size: int = 5) -> Record:
    """A record with a name and so many bytes."""
    return Record(str(name), b"x" * size, f"customer-{name}")


def records(*names: object) -> list[Record]:
    """Small records."""
    return [record(name) for name in names]


def names(rows: Sequence[Row]) -> list[str]:
    """What the rows are called."""
    return [row.record_id for row in rows]


def leased(spool: Spool, rows: int = 1, size: int = LARGE, *, bulk: bool = False) -> list[Row]:
    """The next rows, none if there are none."""
    return list(spool.lease(rows, size, bulk=bulk).rows)


def settle(spool: Spool, rows: Sequence[Row], end: Literal["delivered", "rejected", "returned"] = "delivered") -> None:
    """Say the same of all rows."""
    spool.settle([Outcome(row, end, "said so", row.attempts, row.together) for row in rows])


def balanced(counters: SpoolCounters) -> bool:
    """Say whether every record that came in is accounted for."""
    ends = (counters.delivered, counters.pending, counters.rejected, counters.evicted, counters.purged)
    return counters.appended == sum(ends) and min(ends) >= 0


def asked(path: str | Path, question: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    """Look into a spool's file as somebody else does."""
    connection = sqlite3.connect(path, timeout=10)
    try:
        return connection.execute(question, values).fetchall()
    finally:
        connection.close()


def without_a_trace(path: Path, text: bytes) -> bool:
    """Say whether a text stands in none of a spool's files."""
    return all(text not in each.read_bytes() for each in path.parent.iterdir() if each.is_file())


class Host:
    """Makes spools on one file that share their clocks, as the processes of one host do."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "spool.db"
        self.clock = Clock()
        self.ticks = Clock(5000.0)
        self.opened: list[DiskSpool] = []

    def spool(
        self,
        destination: Destination = HERE,
        *,
        connection_type: type[sqlite3.Connection] = sqlite3.Connection,
        **bounds: Any,
    ) -> DiskSpool:
        """Return one more spool on the file."""
        made = DiskSpool(
            str(self.path),
            destination,
            Bounds(**({"max_bytes": 64 * 1024 * 1024} | bounds)),
            clock=self.clock,
            ticks=self.ticks,
            connection_type=connection_type,
        )
        self.opened.append(made)
        return made

    def passes(self, seconds: float) -> None:
        """Let time pass, for both clocks."""
        self.clock.now += seconds
        self.ticks.now += seconds

    def close(self) -> None:
        """Close all spools."""
        for spool in self.opened:
            spool.close()


def ledger(spool: Any) -> SpoolCounters:
    """What a spool counts, wherever it lies and however the last request went."""
    return msgspec.structs.replace(spool.counters(), place="memory", last_success=None, last_error=None)
