"""The end of a process that has something left to deliver."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks.delivery.records import call, on_disk, settings, wait_until
from benchmarks.loopback.running import loopback
from benchmarks.loopback.sink import accepted, silent
from benchmarks.loopback.wire import Answer
from benchmarks.plan import Bar, Case, Metric, Prepare, Round, Scale, Variant
from kwai_middleware import Delivery

__all__ = ["CASE"]

_RECORDS: Final = 100
_SILENT: Final = "a sink that never answers"


def _towards(to_answer: Answer) -> Prepare:
    @contextmanager
    def prepare(_: Scale) -> Iterator[Round]:
        def one_round() -> dict[str, float]:
            with loopback(to_answer) as sink, settings(base_url=f"{sink.url}/api") as ours:
                delivery = Delivery(ours)
                for _ in range(_RECORDS):
                    delivery.submit(call())
                wait_until(lambda: on_disk(delivery) == _RECORDS)
                begun = time.perf_counter()
                delivery.close()
                took = time.perf_counter() - begun
                stats = delivery.stats()
                if stats.spooled != _RECORDS or (stats.delivered == _RECORDS) != (to_answer is accepted):
                    raise RuntimeError(f"not as it was meant to be: {stats}")
            return {"close": took}

        yield one_round

    return prepare


CASE: Final = Case(
    name="close",
    title="Closing",
    what="`Delivery.close()` with 100 records of 10 KB on the disk, and the time that it is given by default.",
    metrics=(Metric("close", "s"),),
    variants=(
        Variant("a sink that takes everything", "ours", _towards(accepted)),
        Variant(_SILENT, "ours", _towards(silent)),
    ),
    bars=(Bar("Closing with a sink that accepts and never answers", _SILENT, "close", 3.1),),
    quick=Scale(is_quick=True, rounds=1, seconds=0),
    full=Scale(is_quick=False, rounds=3, seconds=0),
    warms_up=False,
    is_in_quick_run=False,
)
