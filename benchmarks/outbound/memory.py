"""What a call needs of memory beside its body."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx2

from benchmarks.outbound import ways
from benchmarks.outbound.calls import SAME_WORK, checked
from benchmarks.outbound.model import Model, conversation, transport_over
from benchmarks.plan import Bar, Case, Metric, Prepare, Round, Scale, Variant
from benchmarks.resident import give_back

__all__ = ["CASES"]

_SIZES: Final = {"1 MB": 1_000_000, "10 MB": 10_000_000}


_PEAK: Final = Path("/proc/self/clear_refs")
"""Where a process lets its peak begin anew; only Linux has it."""


def _peak(calls: Callable[[int], None]) -> float:
    """Return the most megabytes that one more call brings into memory."""
    calls(1)
    give_back()
    _PEAK.write_text("5")
    before = _most_resident()
    calls(1)
    return (_most_resident() - before) / 1e6


def _most_resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


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


_CASE: Final = Case(
    name="memory",
    title="Memory of a call",
    what="By how much one call with httpx2 raises the memory that the process has resident, at the most, beside the "
    "body that the app has made; on httpx2's own transport, whose connection pool answers at once.",
    metrics=tuple(Metric(f"peak, {said}", "MB", is_compared=False) for said in _SIZES),
    variants=tuple(Variant(name, role, _prepare(make), peer) for name, role, make, peer in SAME_WORK),
    base="plain",
    bars=(
        Bar(
            "Memory of a call of 1 MB over plain httpx2: no second copy",
            "through the gateway",
            "peak, 1 MB",
            0.1,
            of="added",
        ),
    ),
    quick=Scale(is_quick=True, rounds=1, seconds=0),
    full=Scale(is_quick=False, rounds=5, seconds=0),
)
CASES: Final = (_CASE,) if _PEAK.exists() else ()
