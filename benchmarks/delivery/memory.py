"""What waits for a vendor that is away, in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks.delivery.records import call, on_disk, settings, wait_until
from benchmarks.plan import Bar, Case, Metric, Round, Scale, Variant
from benchmarks.resident import resident
from kwai_middleware import Delivery

__all__ = ["CASE"]

_NAME: Final = "kwai_middleware"
_AT_ONCE: Final = 500


@contextmanager
def _prepare(scale: Scale) -> Iterator[Round]:
    count = 3_000 if scale.is_quick else 100_000

    def one_round() -> dict[str, float]:
        with settings() as ours, Delivery(ours) as delivery:
            delivery.submit(call(100))
            _wait_for(delivery, 1)
            before = resident()
            most = 0
            for number in range(count):
                delivery.submit(call())
                if number % _AT_ONCE == 0:
                    _wait_for(delivery, number - _AT_ONCE)
                    most = max(most, resident())
            _wait_for(delivery, count + 1)
            after = resident()
            stats = delivery.stats()
            if stats.pending != count + 1 or stats.dropped:
                raise RuntimeError(f"not all of it waits: {stats}")
            delivery.close(0.2)
        return {"RSS": (after - before) / 1e6, "at most": (max(most, after) - before) / 1e6}

    yield one_round


def _wait_for(delivery: Delivery, count: int) -> None:
    wait_until(lambda: on_disk(delivery) >= count)


CASE: Final = Case(
    name="memory",
    title="Memory while the vendor is away",
    what="Resident memory of the process over what it was with one small record: 100,000 calls of 10 KB (a quick run: "
    "3,000) submitted as fast as they go to disk, none of which can be delivered; at the end, and at most meanwhile.",
    metrics=(Metric("RSS", "MB"), Metric("at most", "MB", decides=False)),
    variants=(Variant(_NAME, "ours", _prepare),),
    bars=(Bar("Memory with the sink down, 100,000 calls of 10 KB, over idle", _NAME, "RSS", 50),),
    quick=Scale(is_quick=True, rounds=1, seconds=0),
    full=Scale(is_quick=False, rounds=1, seconds=0),
    warms_up=False,
)
