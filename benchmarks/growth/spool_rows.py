"""What it costs to bring a record to disk, and to ship one from there, while many wait."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks.outbound.ways import must
from benchmarks.plan import Case, Metric, Prepare, Round, Scale, Variant
from kwai_middleware import Secret
from kwai_middleware._delivery.destination import destination_of
from kwai_middleware._delivery.disk.spool import Bounds, DiskSpool
from kwai_middleware._delivery.spool import Outcome, Record

__all__ = ["CASE"]

_FEW: Final = 10
_MANY: Final = 1_000_000
_MANY_IN_A_HURRY: Final = 20_000
_AT_ONCE: Final = 10_000
_TOGETHER: Final = 100
_ENTRY: Final = b'{"model":"m","prompt_messages":[],"output":"%s"}' % (b"word " * 30)


def _records(first: int, count: int) -> list[Record]:
    return [
        Record(f"record-{number}", _ENTRY, customer=f"customer-{number % 100_000}")
        for number in range(first, first + count)
    ]


def _with(many: bool) -> Prepare:
    @contextmanager
    def prepare(scale: Scale) -> Iterator[Round]:
        rows = (_MANY_IN_A_HURRY if scale.is_quick else _MANY) if many else _FEW
        with tempfile.TemporaryDirectory() as folder:
            bounds = Bounds(max_bytes=16 << 30, max_pending_age=1e6)
            spool = DiskSpool(f"{folder}/spool.db", destination_of("https://x/api", Secret("the-key")), bounds)
            for first in range(0, rows, _AT_ONCE):
                some = min(_AT_ONCE, rows - first)
                must("appended", some, spool.append(_records(first, some)))
            # What filling it has left in its log is not to be cleared away by those that are measured.
            _shipped(spool, 1)
            must("appended", 1, spool.append(_records(rows, 1)))
            must("rows", rows, spool.counters().pending)
            yield _rounds(spool, rows, scale)
            must("rows", rows, spool.counters().pending)
            spool.close()

    return prepare


def _shipped(spool: DiskSpool, rows: int) -> None:
    handout = spool.lease(rows, 1 << 30, bulk=False)
    must("leased", rows, len(handout.rows))
    spool.settle([Outcome(row, "delivered") for row in handout.rows])


def _rounds(spool: DiskSpool, rows: int, scale: Scale) -> Round:
    number = rows

    def measured(times: int) -> dict[str, float]:
        nonlocal number
        took: list[float] = []
        cpu = time.thread_time()
        for _ in range(times):
            begun = time.perf_counter()
            number += 1
            spool.append(_records(number, 1))
            took.append(time.perf_counter() - begun)
        appended = time.thread_time()
        for _ in range(times):
            _shipped(spool, 1)
        shipped = time.thread_time()
        for _ in range(times):
            spool.counters()
        looked = time.thread_time()
        return {
            "append": (appended - cpu) / times * 1e6,
            "append, p50": statistics.median(took) * 1e6,
            "lease and settle": (shipped - appended) / times * 1e6,
            "look at the ledger": (looked - shipped) / times * 1e6,
        }

    begun = time.thread_time()
    measured(_FEW)
    times = max(_FEW, round(scale.seconds / (time.thread_time() - begun) * _FEW))

    def one_round() -> dict[str, float]:
        return measured(times) | {"of 100 at once, each": _together(spool)}

    def _together(spool: DiskSpool) -> float:
        spool.append(_records(0, _TOGETHER))
        begun = time.thread_time()
        _shipped(spool, _TOGETHER)
        return (time.thread_time() - begun) / _TOGETHER * 1e6

    return one_round


CASE: Final = Case(
    name="spool_rows",
    title="While records wait on disk",
    what="CPU to append one record of 200 bytes to the spool on disk, with its commit, and how long that takes; CPU to "
    "lease and settle one, and of 100 at once each; and to read the ledger; with "
    f"{_FEW} records in the spool, and with {_MANY:,} ({_MANY_IN_A_HURRY:,} in a quick run).",
    metrics=(
        Metric("append", "µs"),
        Metric("append, p50", "µs", decides=False),
        Metric("lease and settle", "µs"),
        Metric("of 100 at once, each", "µs", decides=False),
        Metric("look at the ledger", "µs", decides=False),
    ),
    variants=(
        Variant("few records wait", "ours", _with(many=False)),
        Variant("many records wait", "ours", _with(many=True)),
    ),
    base="few records wait",
    quick=Scale(is_quick=True, rounds=5, seconds=0.05),
    full=Scale(is_quick=False, rounds=15, seconds=0.3),
)
