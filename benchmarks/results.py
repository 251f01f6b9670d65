"""What a run found: every number of every round, kept as JSON, and what can be said of it."""

from __future__ import annotations

import statistics
from pathlib import Path

import msgspec

from benchmarks.plan import Bar, Metric, Role

__all__ = ["Machine", "Reached", "Report", "Row", "Spread", "Table"]


class Spread(msgspec.Struct, frozen=True):
    """A number as several rounds saw it.

    Attributes:
        median: The middle one.
        low: A quarter of the rounds had less.
        high: A quarter of the rounds had more.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, numbers: list[float]) -> Spread:
        """Sum up what the rounds saw."""
        if len(numbers) == 1:
            return cls(numbers[0], numbers[0], numbers[0])
        low, median, high = statistics.quantiles(numbers, n=4, method="inclusive")
        return cls(median, low, high)


class Row(msgspec.Struct, frozen=True):
    """One variant of a case.

    Attributes:
        variant: Its name.
        role: What it is compared as.
        numbers: Of each metric, what every round measured, in the order of the rounds.
        version: Of a peer, which one.
    """

    variant: str
    role: Role
    numbers: dict[str, list[float]]
    version: str | None = None


class Reached(msgspec.Struct, frozen=True):
    """A bar, and what became of it."""

    bar: Bar
    unit: str
    number: Spread
    more_is_better: bool

    @property
    def is_met(self) -> bool:
        """Whether the median is on the right side."""
        return self.number.median >= self.bar.bound if self.more_is_better else self.number.median <= self.bar.bound


class Table(msgspec.Struct, frozen=True):
    """One case and all that was measured of it.

    Attributes:
        suite: Its suite's name.
        case: Its name.
        title: Its heading.
        what: What was done and counted.
        base: The variant that the others are compared to.
        metrics: What was measured.
        rows: The variants.
        bars: What is meant to be reached.
        missing: Variants that could not be run, and why.
    """

    suite: str
    case: str
    title: str
    what: str
    base: str | None
    metrics: list[Metric]
    rows: list[Row]
    bars: list[Bar] = []
    missing: dict[str, str] = {}

    def row(self, variant: str) -> Row | None:
        """Return the row of a variant; None when it was not run."""
        return next((row for row in self.rows if row.variant == variant), None)

    def metric(self, name: str) -> Metric:
        """Return a metric by its name."""
        return next(metric for metric in self.metrics if metric.name == name)

    def value(self, variant: str, metric: str) -> Spread | None:
        """Return what a variant took; None when it was not run."""
        row = self.row(variant)
        return None if row is None else Spread.of(row.numbers[metric])

    def added(self, variant: str, metric: str, over: str | None = None) -> Spread | None:
        """Return what a variant took more than the base did in the same round; None without a base."""
        row, base = self.row(variant), self.row(over or self.base or "")
        if row is None or base is None or row is base:
            return None
        return Spread.of([one - other for one, other in zip(row.numbers[metric], base.numbers[metric], strict=True)])

    def percent(self, variant: str, metric: str, over: str | None = None) -> Spread | None:
        """Return the same in percent of the base."""
        row, base = self.row(variant), self.row(over or self.base or "")
        if row is None or base is None or row is base:
            return None
        pairs = zip(row.numbers[metric], base.numbers[metric], strict=True)
        return Spread.of([(one / other - 1) * 100 for one, other in pairs])

    def reached(self) -> list[Reached]:
        """Return what became of the bars whose variants were run."""
        found: list[Reached] = []
        for bar in self.bars:
            metric = self.metric(bar.metric)
            unit = "%" if bar.of == "percent" else metric.unit
            if bar.of == "value":
                number = self.value(bar.variant, bar.metric)
            elif bar.of == "added":
                number = self.added(bar.variant, bar.metric, bar.over)
            else:
                number = self.percent(bar.variant, bar.metric, bar.over)
            if number is not None:
                found.append(Reached(bar, unit, number, metric.more_is_better))
        return found


class Machine(msgspec.Struct, frozen=True):
    """On what it was measured."""

    processor: str
    cores: int
    memory_gb: int
    system: str
    python: str


class Report(msgspec.Struct, frozen=True):
    """One run of the benchmarks.

    Attributes:
        day: When, as YYYY-MM-DD.
        machine: On what.
        versions: Of the libraries that all variants share.
        is_quick: Whether it was a quick run, whose numbers are rough.
        seconds: How long it took.
        tables: What was found.
    """

    day: str
    machine: Machine
    versions: dict[str, str]
    is_quick: bool
    seconds: int
    tables: list[Table]

    def write(self, path: Path) -> None:
        """Keep it in a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(self), indent=1) + b"\n")

    @classmethod
    def read(cls, path: Path) -> Report:
        """Read it back."""
        return msgspec.json.decode(path.read_bytes(), type=cls)

    def table(self, suite: str, case: str) -> Table:
        """Return a table by the names of its suite and case."""
        return next(table for table in self.tables if (table.suite, table.case) == (suite, case))
