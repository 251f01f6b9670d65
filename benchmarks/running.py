"""Runs cases and gathers what they found."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

from benchmarks.machine import this_machine, version, versions
from benchmarks.plan import Case, Suite, Variant
from benchmarks.results import Report, Row, Table
from benchmarks.rounds import VariantFailed, measure

__all__ = ["run"]


def run(
    wanted: Sequence[tuple[Suite, Case]], *, is_quick: bool, with_peers: bool, tell: Callable[[Table], object]
) -> Report:
    """Measure cases one after the other.

    Args:
        wanted: The cases, each with its suite.
        is_quick: Whether rough numbers are enough.
        with_peers: Whether what one would use instead is measured as well.
        tell: Is told each table as soon as it is there.
    """
    begun = time.monotonic()
    tables: list[Table] = []
    for suite, case in wanted:
        tables.append(_table(suite, case, is_quick=is_quick, with_peers=with_peers))
        tell(tables[-1])
    return Report(
        day=datetime.now(UTC).date().isoformat(),
        machine=this_machine(),
        versions=versions(),
        is_quick=is_quick,
        seconds=round(time.monotonic() - begun),
        tables=tables,
    )


def _table(suite: Suite, case: Case, *, is_quick: bool, with_peers: bool) -> Table:
    variants: list[Variant] = []
    missing: dict[str, str] = {}
    for variant in case.variants:
        if variant.role == "peer" and not with_peers:
            continue
        if variant.distribution is not None and version(variant.distribution) is None:
            missing[variant.name] = f"{variant.distribution} is not installed"
            continue
        variants.append(variant)
    try:
        measured, failed = measure(suite, case, variants, is_quick=is_quick)
    except VariantFailed as failure:
        raise SystemExit(f"{suite.name}/{case.name}: {failure}; what it printed stands above") from failure
    missing.update(dict.fromkeys(failed, "it failed"))
    rows = [_row(variant, case, measured[variant.name]) for variant in variants if variant.name in measured]
    return Table(
        suite=suite.name,
        case=case.name,
        title=case.title,
        what=case.what,
        base=case.base,
        metrics=list(case.metrics),
        rows=rows,
        bars=list(case.bars),
        missing=missing,
    )


def _row(variant: Variant, case: Case, rounds: Sequence[Mapping[str, float]]) -> Row:
    numbers = {metric.name: [_kept(each[metric.name]) for each in rounds] for metric in case.metrics}
    return Row(
        variant=variant.name,
        role=variant.role,
        numbers=numbers,
        version=None if variant.distribution is None else version(variant.distribution),
    )


def _kept(measured: float) -> float:
    """Return five figures of a number: the rest is noise."""
    return float(f"{measured:.5g}")
