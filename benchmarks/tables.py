"""Results as tables: Markdown, which is also readable on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from benchmarks.plan import Metric
from benchmarks.results import Report, Row, Spread, Table

__all__ = ["bars", "comparison", "markdown", "number"]


def number(value: float) -> str:
    """Return a number with three figures, or three decimals of a small one: no more was measured."""
    size = abs(float(f"{value:.3g}"))
    if value == 0:
        return "0"
    if size >= 100:
        return f"{value:,.0f}"
    decimals = 1 if size >= 10 else 2 if size >= 0.1 else 3
    return f"{round(value, decimals) + 0.0:.{decimals}f}"  # a negative zero becomes one


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return ""
    if spread.low == spread.high:
        return number(spread.median)
    return f"{number(spread.median)} ({number(spread.low)} to {number(spread.high)})"


def _times(table: Table, row: Row, metric: Metric) -> str:
    """Return how many times as much a peer adds as we do."""
    ours = next((each for each in table.rows if each.role == "ours"), None)
    if ours is None or row.role != "peer":
        return ""
    theirs, our_own = (
        table.added(each.variant, metric.name) or table.value(each.variant, metric.name) for each in (row, ours)
    )
    if theirs is None or our_own is None or our_own.median <= 0 or theirs.median <= 0:
        return ""
    return f"{theirs.median / our_own.median:.1f} ×"


def _columns(table: Table) -> Iterator[tuple[str, list[str]]]:
    yield "", [row.variant if row.version is None else f"{row.variant} {row.version}" for row in table.rows]
    for metric in table.metrics:
        values = [_spread(table.value(row.variant, metric.name)) for row in table.rows]
        yield f"{metric.name} [{metric.unit}]", values
        if table.base is not None and metric.is_compared:
            yield f"added [{metric.unit}]", [_spread(table.added(row.variant, metric.name)) for row in table.rows]
            if metric.decides:
                yield "against ours", [_times(table, row, metric) for row in table.rows]


def _lines(columns: Sequence[tuple[str, list[str]]]) -> Iterator[str]:
    filled = [(head, cells) for place, (head, cells) in enumerate(columns) if place == 0 or any(cells)]
    widths = [max(len(text) for text in (head, *cells)) for head, cells in filled]

    def line(texts: Sequence[str]) -> str:
        first, *others = zip(texts, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
        return f"| {' | '.join(cells)} |"

    yield line([head for head, _ in filled])
    rules = [":".ljust(widths[0], "-"), *(":".rjust(width, "-") for width in widths[1:])]
    yield f"| {' | '.join(rules)} |"
    for row in range(len(filled[0][1])):
        yield line([cells[row] for _, cells in filled])


def markdown(table: Table) -> str:
    """Return one case as a table: medians, and between which two values half of the rounds lay."""
    missing = [f"Not run: {name} ({why})." for name, why in table.missing.items()]
    return "\n".join((*_lines(list(_columns(table))), *missing)) + "\n"


def bars(report: Report) -> str:
    """Return what was meant to be reached, and what was; nothing where no bar was measured."""
    reached = [each for table in report.tables for each in table.reached()]
    if not reached:
        return ""
    sign = {False: "≤", True: "≥"}
    columns = [
        ("what", [each.bar.promise for each in reached]),
        ("bar", [f"{sign[each.more_is_better]} {number(each.bar.bound)} {each.unit}" for each in reached]),
        ("measured", [f"{_spread(each.number)} {each.unit}" for each in reached]),
        ("", ["" if each.is_met else "missed" for each in reached]),
    ]
    return "\n".join(_lines(columns)) + "\n"


def comparison(base: str, before: Sequence[Mapping[str, float]], now: Sequence[Mapping[str, float]]) -> str:
    """Return what two revisions took, and the ratio of each round's pair.

    Args:
        base: What the older one is called.
        before: What each round of it measured, by path.
        now: The same of this tree, round by round.
    """
    paths = list(now[0])
    pairs = list(zip(now, before, strict=True))
    columns = [
        ("CPU", paths),
        (f"{base} [µs]", [_spread(Spread.of([one[path] for one in before])) for path in paths]),
        ("this tree [µs]", [_spread(Spread.of([one[path] for one in now])) for path in paths]),
        ("ratio", [_spread(Spread.of([one[path] / other[path] for one, other in pairs])) for path in paths]),
    ]
    return "\n".join(_lines(columns)) + "\n"
