"""From the end of a call to the disk."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks.delivery.records import call, on_disk, settings, wait_until
from benchmarks.plan import Bar, Case, Metric, Round, Scale, Variant
from benchmarks.timing import percentiles
from kwai_middleware import Delivery

__all__ = ["CASE"]

_NAME: Final = "kwai_middleware"
_GAP: Final = 0.002
_GLANCE: Final = 0.00005


@contextmanager
def _prepare(scale: Scale) -> Iterator[Round]:
    one_by_one, at_once = (150, 600) if scale.is_quick else (600, 5000)

    def one_round(delivery: Delivery) -> dict[str, float]:
        before = on_disk(delivery)
        latencies: list[float] = []
        for number in range(1, one_by_one + 1):
            begun = time.perf_counter()
            delivery.submit(call())
            while on_disk(delivery) < before + number:
                time.sleep(_GLANCE)
            latencies.append(time.perf_counter() - begun)
            time.sleep(_GAP)
        calls = [call() for _ in range(at_once)]
        before, begun = on_disk(delivery), time.perf_counter()
        for each in calls:
            delivery.submit(each)
        wait_until(lambda: on_disk(delivery) - before >= at_once)
        rate = at_once / (time.perf_counter() - begun)
        return {"to disk": rate, **percentiles(latencies, 50, 99)}

    with settings() as ours, Delivery(ours) as delivery:
        yield lambda: one_round(delivery)
        delivery.close(0.2)


CASE: Final = Case(
    name="to_disk",
    title="From the end of a call to the disk",
    what="Records of 10 KB, one process, the vendor away. p50 and p99: from `submit` until the record is committed, "
    "one call after the other; `to disk`: as many calls as can be, all submitted at once.",
    metrics=(
        Metric("to disk", "1/s", more_is_better=True),
        Metric("p50", "ms", decides=False),
        Metric("p99", "ms", decides=False),
    ),
    variants=(Variant(_NAME, "ours", _prepare),),
    bars=(
        Bar("Calls of 10 KB to disk a second, one process", _NAME, "to disk", 2000),
        Bar("End of a call to disk, p99", _NAME, "p99", 50),
    ),
    quick=Scale(is_quick=True, rounds=1, seconds=0),
    full=Scale(is_quick=False, rounds=5, seconds=0),
)
