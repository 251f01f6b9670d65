"""The benchmarks' arithmetic, and how they show it: tables, plots, JSON."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import plots, tables
from benchmarks.plan import SUITES, Bar, Metric, suite_named
from benchmarks.results import Machine, Report, Row, Spread, Table
from benchmarks.timing import async_loop, sync_loop
from tests.support.processes import DEADLINE, PROJECT, UNMEASURED

MEASURED = st.floats(-1e9, 1e9)
ROUNDS = st.lists(MEASURED, min_size=1, max_size=20)
WHOLE = st.lists(st.integers(1, 10**6).map(float), min_size=1, max_size=9)
SVG = "{http://www.w3.org/2000/svg}"


def table_of(base: list[float], ours: list[float], peer: list[float], *bars: Bar, **more: object) -> Table:
    """A case with three variants and one number."""
    rows = [
        Row("bare", "plain", {"CPU": base}),
        Row("with us", "ours", {"CPU": ours}),
        Row("with them", "peer", {"CPU": peer}, version="1.2.3"),
    ]
    case = Table("suite", "case", "Title", "What.", "bare", [Metric("CPU", "µs")], rows, list(bars))
    return msgspec.structs.replace(case, **more)


def report_of(*shown: Table) -> Report:
    """A run that found them."""
    machine = Machine("a processor", cores=2, memory_gb=8, system="Linux 6", python="CPython 3.11")
    return Report("2026-01-02", machine, {"httpx": "0.28"}, is_quick=True, seconds=7, tables=list(shown))


def cells(markdown: str) -> list[list[str]]:
    """The cells of a Markdown table, line by line; all lines have equally many."""
    lines = [line for line in markdown.splitlines() if line]
    assert all(line.startswith("| ") and line.endswith(" |") for line in lines), markdown
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    assert {len(rows[0])} == {len(row) for row in rows}, markdown
    assert all(re.fullmatch(r":-*|-*:", cell) for cell in rows[1])
    return rows


# What was found


def test_a_spread_is_the_median_and_the_quartiles() -> None:
    """Of five rounds, the third is the median; one that was far off moves nothing."""
    assert Spread(3, 2, 4) == Spread.of([1000, 2, 1, 4, 3])
    assert Spread(7, 7, 7) == Spread.of([7])


@given(ROUNDS)
def test_a_spread_lies_within_what_was_measured(numbers: list[float]) -> None:
    """Low, median and high are in order and never outside, and the order of the rounds does not matter."""
    spread = Spread.of(numbers)
    assert min(numbers) <= spread.low <= spread.median <= spread.high <= max(numbers)
    assert spread == Spread.of(sorted(numbers))


@given(WHOLE, st.integers(-1000, 1000), st.integers(1, 9))
def test_what_is_added_is_seen_through_the_noise(base: list[float], extra: int, times: int) -> None:
    """Rounds are compared pair by pair: however much the base wanders, the same difference and ratio come out."""
    table = table_of(base, [each + extra for each in base], [each * times for each in base])
    assert Spread(extra, extra, extra) == table.added("with us", "CPU")
    percent = table.percent("with them", "CPU")
    assert percent is not None
    assert (times - 1) * 100 == pytest.approx(percent.low, abs=1e-6) == pytest.approx(percent.high, abs=1e-6)


def test_nothing_is_added_by_what_was_not_run() -> None:
    """The base itself, and a variant that is missing, add nothing that could be shown."""
    table = table_of([1, 2], [3, 4], [5, 6])
    assert table.added("bare", "CPU") is None
    assert table.added("someone else", "CPU") is None
    assert table.percent("bare", "CPU") is None
    assert table.value("someone else", "CPU") is None
    assert Spread(2, 2, 2) == table.added("with them", "CPU", over="with us")


@pytest.mark.parametrize(
    ("of", "over", "measured", "unit"),
    [
        ("value", None, 6.0, "µs"),
        ("added", None, 2.0, "µs"),
        ("percent", None, 50.0, "%"),
        ("added", "with them", -2.0, "µs"),
    ],
)
def test_a_bar_is_met_up_to_its_bound(of: str, over: str | None, measured: float, unit: str) -> None:
    """Of the number, of what is added or of that in percent; the bound itself still counts."""
    for bound, is_met in ((measured, True), (measured - 0.01, False)):
        bar = msgspec.convert(
            {"promise": "p", "variant": "with us", "metric": "CPU", "bound": bound, "of": of, "over": over}, Bar
        )
        (reached,) = table_of([4], [6], [8], bar).reached()
        assert (measured, unit, is_met) == (reached.number.median, reached.unit, reached.is_met)


def test_more_can_be_better() -> None:
    """Of calls a second the bound is the least."""
    rate = Metric("rate", "1/s", more_is_better=True)
    rows = [Row("with us", "ours", {"rate": [2000]})]
    for bound, is_met in ((2000, True), (2001, False)):
        bar = Bar("rate", "with us", "rate", bound)
        (reached,) = table_of([1], [1], [1], bar, metrics=[rate], rows=rows).reached()
        assert is_met is reached.is_met


def test_a_bar_of_what_was_not_run_is_left_out() -> None:
    """It is neither met nor missed."""
    bar = Bar("p", "someone else", "CPU", 1)
    assert [] == table_of([1], [1], [1], bar).reached()
    assert tables.bars(report_of(table_of([1], [1], [1], bar))) == ""


def test_numbers_survive_the_file(tmp_path: Path) -> None:
    """What is written as JSON is read back as it was, into a folder that need not be there."""
    bar = Bar("p", "with us", "CPU", 3, of="added", over="bare")
    report = report_of(table_of([1 / 3], [2e9], [-0.0], bar, missing={"another": "it failed"}))
    path = tmp_path / "new" / "results.json"
    report.write(path)
    assert report == Report.read(path)
    assert report.tables[0] == report.table("suite", "case")


# How it is shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"), (1234567.8, "1,234,568"), (100, "100"), (99.96, "100"), (99.94, "99.9"), (12.34, "12.3"),
        (9.996, "10.0"), (9.99, "9.99"), (3, "3.00"), (0.456, "0.46"), (0.0678, "0.068"), (-0.0001, "0.000"),
        (-7.5, "-7.50"), (-250, "-250"),
    ],
)  # fmt: skip
def test_a_number_has_three_figures(value: float, shown: str) -> None:
    """More was not measured."""
    assert shown == tables.number(value)


@given(MEASURED)
def test_a_shown_number_is_the_number(value: float) -> None:
    """However large or small, what is shown is what was measured, but for its last figure."""
    assert float(tables.number(value).replace(",", "")) == pytest.approx(value, rel=0.006, abs=0.005)


def test_a_table_says_who_added_what() -> None:
    """Medians with quartiles, what each adds to the base, and how many times that is of ours."""
    table = table_of([4, 4, 4], [6, 7, 8], [13, 13, 13], missing={"another": "other-kit is not installed"})
    head, _, bare, us, them = cells(tables.markdown(table).partition("Not run")[0])
    assert ["", "CPU [µs]", "added [µs]", "against ours"] == head
    assert ["bare", "4.00", "", ""] == bare
    assert ["with us", "7.00 (6.50 to 7.50)", "3.00 (2.50 to 3.50)", ""] == us
    assert ["with them 1.2.3", "13.0", "9.00", "3.0 ×"] == them
    assert "Not run: another (other-kit is not installed)." in tables.markdown(table)


@given(WHOLE, st.integers(-(10**6), 10**6), st.booleans(), st.booleans())
def test_every_table_is_one(base: list[float], extra: int, is_compared: bool, decides: bool) -> None:
    """All lines have as many cells as there are heads, whatever was measured."""
    metric = Metric("CPU", "µs", is_compared=is_compared, decides=decides)
    other = [each + extra for each in base]
    bar = Bar("p", "with us", "CPU", 1, of="added")
    table = table_of(base, other, base, bar, metrics=[metric])
    assert 2 + len(table.rows) == len(cells(tables.markdown(table)))
    assert 3 == len(cells(tables.bars(report_of(table))))


def test_a_missed_bar_is_marked() -> None:
    """And a met one is not."""
    met, missed = Bar("met", "with us", "CPU", 2, of="added"), Bar("not met", "with us", "CPU", 1.5, of="added")
    _, _, *lines = cells(tables.bars(report_of(table_of([4], [6], [9], met, missed))))
    assert [["met", "≤ 2.00 µs", "2.00 µs", ""], ["not met", "≤ 1.50 µs", "2.00 µs", "missed"]] == lines


def test_revisions_are_compared_round_by_round() -> None:
    """The ratio is that of each pair of rounds: a machine that slowed down meanwhile does not change it."""
    before, now = [{"path": 10.0}, {"path": 40.0}, {"path": 20.0}], [{"path": 5.0}, {"path": 20.0}, {"path": 10.0}]
    head, _, line = cells(tables.comparison("v1", before, now))
    assert ["CPU", "v1 [µs]", "this tree [µs]", "ratio"] == head
    assert ["path", "20.0 (15.0 to 30.0)", "10.0 (7.50 to 15.0)", "0.50"] == line


def test_a_plot_names_what_it_shows() -> None:
    """Names come out as they were, whatever XML thinks of their characters."""
    odd = '<b> & "co"'
    rows = [Row("bare", "plain", {"CPU": [1]}), Row(odd, "ours", {"CPU": [2]})]
    ((name, drawing),) = plots.drawings(table_of([1], [1], [1], rows=rows, title=odd))
    assert "suite-case-cpu.svg" == name
    texts = [text.text for text in ET.fromstring(drawing).iter(f"{SVG}text")]
    assert 2 == texts.count(odd), "as the title and beside its bar"
    assert "bare" not in texts, "what it is compared to adds nothing to itself"


@given(ROUNDS, st.floats(-1e9, 1e9), st.booleans())
def test_a_plot_keeps_within_its_frame(base: list[float], extra: float, more_is_better: bool) -> None:
    """No bar is longer than its place, and none has a negative length, whatever was measured."""
    metric = Metric("CPU", "µs", more_is_better=more_is_better)
    ((_, drawing),) = plots.drawings(table_of(base, [each + extra for each in base], base, metrics=[metric]))
    image = ET.fromstring(drawing)
    width = float(image.attrib["width"])
    bars = list(image.iter(f"{SVG}rect"))
    assert (3 if more_is_better else 2) == len(bars)
    assert all(0 < float(bar.attrib["width"]) <= width - float(bar.attrib["x"]) for bar in bars)
    assert all(0 <= float(line.attrib[end]) <= width for line in image.iter(f"{SVG}line") for end in ("x1", "x2"))


def test_only_what_decides_is_plotted() -> None:
    """A number that only tells more of the story is in the table alone, and so is a single variant."""
    assert [] == list(plots.drawings(table_of([1], [1], [1], metrics=[Metric("CPU", "µs", decides=False)])))
    assert [] == list(plots.drawings(table_of([1], [1], [1], rows=[Row("bare", "plain", {"CPU": [1]})])))


# What is there to be run


def test_a_round_does_the_work_as_often_as_it_counts() -> None:
    """Every round of a loop does the same number of repetitions, found out before the first."""
    done: list[int] = []
    scale = next(iter(suite_named("start").cases)).quick
    with sync_loop(done.append, scale, "work") as one_round:
        done.clear()
        assert ["work", "work"] == [name for _ in range(2) for name in one_round()]
    assert done[0] == done[1] >= 1

    async def work(times: int) -> None:
        done.append(times)

    with async_loop(work, scale) as one_round:
        done.clear()
        assert {"CPU"} == set(one_round())
    assert done[0] >= 1


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_speaks_only_of_what_it_has(name: str) -> None:
    """Bases and bars name variants and numbers of their own case, and no two have the same name."""
    suite = suite_named(name)
    assert name == suite.name
    assert len(suite.cases) == len({case.name for case in suite.cases})
    for case in suite.cases:
        variants = [variant.name for variant in case.variants]
        assert len(variants) == len(set(variants)), case.name
        assert any(variant.role == "ours" for variant in case.variants), case.name
        named = {case.base, *(bar.variant for bar in case.bars), *(bar.over for bar in case.bars)} - {None}
        assert named <= set(variants), case.name
        assert {bar.metric for bar in case.bars} <= {metric.name for metric in case.metrics}, case.name


def test_what_a_suite_is_made_of_imports_no_peer() -> None:
    """A peer is imported in its own variant's process only: some of them change what others see."""
    program = f"""
        import sys
        from benchmarks.plan import suite_named
        for name in {SUITES!r}: suite_named(name)
        peers = {{"abto", "asgi_correlation_id", "starlette_context", "posthog", "sentry_sdk", "opentelemetry",
                 "langfuse", "traceloop", "respan_tracing"}}
        print(sorted(peers & {{name.partition(".")[0] for name in sys.modules}}))
    """
    lines = "\n".join(line.strip() for line in program.splitlines())
    ran = subprocess.run(
        [sys.executable, "-c", lines],
        cwd=PROJECT, env={**os.environ, **UNMEASURED}, capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert "[]\n" == ran.stdout, ran.stderr
