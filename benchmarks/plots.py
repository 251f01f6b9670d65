"""Results as plots: bars with their spread, as SVG that reads on a light and on a dark page."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from xml.sax.saxutils import escape

from benchmarks.plan import Metric
from benchmarks.results import Row, Spread, Table
from benchmarks.tables import number

__all__ = ["drawings"]

_LINE: Final = 26
_TOP: Final = 58
_NAMES: Final = 330
_BARS: Final = 380
_NUMBERS: Final = 90
_STYLE: Final = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600; font-size: 15px }
  .faint { fill: #59636e }
  .plain { fill: #afb8c1 } .floor { fill: #afb8c1 } .ours { fill: #1a7f37 } .peer { fill: #0969da }
  line { stroke: #1f2328; stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .faint { fill: #9198a1 } line { stroke: #e6edf3 }
    .plain, .floor { fill: #57606a } .ours { fill: #3fb950 } .peer { fill: #4493f8 }
  }
"""


def drawings(table: Table) -> Iterator[tuple[str, str]]:
    """Yield a file name and an SVG for each number that variants are ranked by."""
    for metric in table.metrics:
        if metric.decides and len(table.rows) > 1:
            name = "".join(each if each.isalnum() else "-" for each in metric.name.lower())
            yield f"{table.suite}-{table.case}-{name}.svg", _drawing(table, metric)


def _drawing(table: Table, metric: Metric) -> str:
    is_added = table.base is not None and metric.is_compared and not metric.more_is_better
    shown: list[tuple[Row, Spread]] = []
    for row in table.rows:
        spread = (table.added if is_added else table.value)(row.variant, metric.name)
        if spread is not None:
            shown.append((row, spread))
    most = max(max(spread.high, spread.median) for _, spread in shown) or 1.0
    said = f"{metric.name} added over {table.base}" if is_added else metric.name
    better = "more is better" if metric.more_is_better else "less is better"
    width, height = _NAMES + _BARS + _NUMBERS, _TOP + _LINE * len(shown) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img">',
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="8" y="22">{escape(table.title)}</text>',
        f'<text class="faint" x="8" y="42">{escape(said)} [{escape(metric.unit)}], median and quartiles; '
        f"{better}</text>",
    ]
    for place, (row, spread) in enumerate(shown):
        parts.extend(_bar(row, spread, most, _TOP + _LINE * place))
    return "\n".join((*parts, "</svg>", ""))


def _bar(row: Row, spread: Spread, most: float, top: int) -> Iterator[str]:
    def across(value: float) -> float:
        return round(_NAMES + max(0.0, value) / most * _BARS, 1)

    middle = top + _LINE / 2
    yield f'<text x="{_NAMES - 8}" y="{middle + 4}" text-anchor="end">{escape(row.variant)}</text>'
    length = max(1.0, round(across(spread.median) - _NAMES, 1))
    yield f'<rect class="{row.role}" x="{_NAMES}" y="{top + 4}" width="{length}" height="{_LINE - 8}" rx="2"/>'
    yield f'<line x1="{across(spread.low)}" x2="{across(spread.high)}" y1="{middle}" y2="{middle}"/>'
    end = max(across(spread.high), across(spread.median)) + 6
    yield f'<text class="faint" x="{end}" y="{middle + 4}">{escape(number(spread.median))}</text>'
