"""The CPU of one record, step by step."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks.delivery.records import KEY, call, on_disk, settings, wait_until
from benchmarks.plan import Case, Metric, Prepare, Round, Scale, Variant
from benchmarks.timing import sync_loop
from kwai_middleware import Delivery
from kwai_middleware._delivery import call_event, log_entry
from kwai_middleware._delivery.destination import destination_of
from kwai_middleware._delivery.disk.spool import Bounds, DiskSpool
from kwai_middleware._delivery.spool import Outcome, Record

__all__ = ["CASE"]

_SUBMITTED: Final = 200


@contextmanager
def _submit(_: Scale) -> Iterator[Round]:
    def one_round(delivery: Delivery) -> dict[str, float]:
        calls = [call() for _ in range(_SUBMITTED)]
        before, begun = on_disk(delivery), time.thread_time()
        for each in calls:
            delivery.submit(each)
        spent = time.thread_time() - begun
        wait_until(lambda: on_disk(delivery) == before + _SUBMITTED)
        return {"CPU": spent / _SUBMITTED * 1e6}

    with settings() as ours, Delivery(ours) as delivery:
        yield lambda: one_round(delivery)
        delivery.close(0.2)


@contextmanager
def _event(scale: Scale) -> Iterator[Round]:
    one = call()
    with open(os.devnull, "w") as nowhere:
        logging.basicConfig(level=logging.INFO, stream=nowhere)
        with _each(lambda: call_event.emit(one), scale) as one_round:
            yield one_round


@contextmanager
def _encode(scale: Scale) -> Iterator[Round]:
    one = call()
    with _each(lambda: log_entry.encode(one), scale) as one_round:
        yield one_round


def _append(rows: int) -> Prepare:
    @contextmanager
    def prepare(scale: Scale) -> Iterator[Round]:
        with _spool() as spool:
            batch = _records(rows)
            with _each(lambda: spool.append(batch), scale, rows) as one_round:
                yield one_round

    return prepare


def _ship(rows: int) -> Prepare:
    @contextmanager
    def prepare(scale: Scale) -> Iterator[Round]:
        with _spool() as spool:
            batch, times = _records(rows), max(1, (100 if scale.is_quick else 1000) // rows)

            def one_round() -> dict[str, float]:
                for _ in range(times):
                    spool.append(batch)
                begun = time.thread_time()
                for _ in range(times):
                    handout = spool.lease(rows, 1 << 30, bulk=False)
                    spool.settle([Outcome(row, "delivered") for row in handout.rows])
                spent = time.thread_time() - begun
                if spool.counters().pending:
                    raise RuntimeError("not all of it was shipped")
                return {"CPU": spent / (times * rows) * 1e6}

            yield one_round

    return prepare


@contextmanager
def _spool() -> Iterator[DiskSpool]:
    with tempfile.TemporaryDirectory() as folder:
        bounds = Bounds(max_bytes=8 << 30, max_pending_age=1e6)
        spool = DiskSpool(f"{folder}/spool.db", destination_of("https://x/api", KEY), bounds)
        yield spool
        spool.close()


def _records(count: int) -> list[Record]:
    entry = log_entry.encode(call())
    return [Record(str(number), entry) for number in range(count)]


@contextmanager
def _each(work: Callable[[], object], scale: Scale, records: int = 1) -> Iterator[Round]:
    def repeated(times: int) -> None:
        for _ in range(times):
            work()

    with sync_loop(repeated, scale) as one_round:
        yield lambda: {"CPU": one_round()["CPU"] / records}


CASE: Final = Case(
    name="steps",
    title="A record, step by step",
    what="CPU for each record of 10 KB on the thread that does it. Submitting is the app's thread, and wakes the "
    "recording thread; the event goes to standard logging and from there to /dev/null.",
    metrics=(Metric("CPU", "µs"),),
    variants=(
        Variant("submit", "ours", _submit),
        Variant("event", "ours", _event),
        Variant("encode and mask", "ours", _encode),
        Variant("append, 1 at once", "ours", _append(1)),
        Variant("append, 100 at once", "ours", _append(100)),
        Variant("lease and settle, 1 at once", "ours", _ship(1)),
        Variant("lease and settle, 100 at once", "ours", _ship(100)),
    ),
    quick=Scale(is_quick=True, rounds=3, seconds=0.02),
    full=Scale(is_quick=False, rounds=7, seconds=0.2),
)
