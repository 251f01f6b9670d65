"""What a call needs of memory beside its body."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import httpx2

from benchmarks.outbound import ways
from benchmarks.outbound.calls import SAME_WORK, checked
from benchmarks.outbound.model import Model, conversation, transport_over
from benchmarks.plan import Bar, Case, Metric, Prepare, Round, Scale, Variant

__all__ = ["CASES"]

_SIZES: Final = {"1 MB": 1_000_000, "10 MB": 10_000_000}


def _peak(calls: Callable[[int], None]) -> float:
    """Return the most kilobytes that one more call holds at once."""
    calls(1)
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        calls(1)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return (most - before) / 1e3


def _prepare(make: ways.MakeWay) -> Prepare:
    @contextmanager
    def prepare(scale: Scale) -> Iterator[Round]:
        del scale
        model = Model(httpx2)
        way = make(httpx2, transport_over(model, httpx2))
        with way.around:
            by_size = {said: checked(way, model, conversation(size)) for said, size in _SIZES.items()}
            yield lambda: {f"peak, {said}": _peak(calls) for said, calls in by_size.items()}

    return prepare


CASES: Final = (
    Case(
        name="memory",
        title="Memory of a call",
        what="The most memory that one call with httpx2 holds at once beside the body that the app has made, on "
        "httpx2's own transport, whose connection pool answers at once: what tracemalloc sees, which is all that is "
        "asked of Python's allocators.",
        metrics=tuple(Metric(f"peak, {said}", "kB") for said in _SIZES),
        variants=tuple(Variant(name, role, _prepare(make), peer) for name, role, make, peer in SAME_WORK),
        base="plain",
        bars=(
            Bar(
                "Memory of a call of 1 MB over plain httpx2: no second copy",
                "through the gateway",
                "peak, 1 MB",
                100,
                of="added",
            ),
        ),
        quick=Scale(is_quick=True, rounds=1, seconds=0),
        full=Scale(is_quick=False, rounds=5, seconds=0),
    ),
)
