"""From a full spool to the vendor."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from benchmarks.delivery.records import call, on_disk, settings, wait_until
from benchmarks.loopback.running import loopback
from benchmarks.loopback.sink import accepted
from benchmarks.plan import Case, Metric, Prepare, Round, Scale, Variant
from kwai_middleware import Delivery, Settings

__all__ = ["CASE"]


def _with(bulk_per_minute: int) -> Prepare:
    @contextmanager
    def prepare(scale: Scale) -> Iterator[Round]:
        count = 500 if scale.is_quick else 5000

        def one_round() -> dict[str, float]:
            with socket.create_server(("127.0.0.1", 0)) as taken:
                port: int = taken.getsockname()[1]
            address = f"http://127.0.0.1:{port}/api"
            with settings(base_url=address, bulk_per_minute=bulk_per_minute) as ours:
                _fill(ours, count)
                with loopback(accepted, port=port) as sink, Delivery(replace(ours, exit_timeout=1)) as delivery:
                    begun, cpu = time.perf_counter(), time.process_time()
                    delivery.submit(call(100))
                    wait_until(lambda: on_disk(delivery) == 1 and delivery.stats().pending == 0)
                    took, spent = time.perf_counter() - begun, time.process_time() - cpu
                    delivered = delivery.stats().delivered
                    if delivered != count + 1 or not sink.count():
                        raise RuntimeError(f"{delivered} of {count + 1} were delivered, in {sink.count()} requests")
            return {"shipped": count / took, "CPU": spent / count * 1e6}

        yield one_round

    return prepare


def _fill(ours: Settings, count: int) -> None:
    """Leave records to the next process while nobody listens."""
    with Delivery(ours) as delivery:
        for _ in range(count):
            delivery.submit(call())
        wait_until(lambda: on_disk(delivery) == count)
        delivery.close(0.2)


CASE: Final = Case(
    name="shipping",
    title="Shipping from a full spool",
    what="Records of 10 KB that a process has left on the disk, shipped by another one to a sink on loopback, which "
    "takes them at once: many in a request with the pace switched off, and each in a request of its own.",
    metrics=(Metric("shipped", "1/s", more_is_better=True), Metric("CPU", "µs", decides=False)),
    variants=(Variant("in bulk", "ours", _with(60_000)), Variant("as singles", "ours", _with(0))),
    quick=Scale(is_quick=True, rounds=1, seconds=0),
    full=Scale(is_quick=False, rounds=5, seconds=0),
    warms_up=False,
)
