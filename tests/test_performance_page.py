"""docs/performance.md: it shows what was measured, and nothing else in the project claims a speed."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from benchmarks.page import KEPT, PAGES, merged, written
from benchmarks.plan import SUITES, suite_named
from benchmarks.results import Report

PROJECT = Path(__file__).parent.parent
PAGE = PROJECT / "docs" / "performance.md"
GENERATED = re.compile(r"(?s)<!-- begin [a-z_/0-9]+ -->.*?<!-- end -->")
CLAIM = re.compile(r"(?i)\d ?(µs|microsec)|(\d|twice|times) (as fast|faster|slower)|\d ?× (faster|slower)")
# A bound that the code keeps is none that was measured.
BOUNDS = ("Recording works in slices of",)


@pytest.fixture(scope="module")
def report() -> Report:
    return Report.read(KEPT)


def test_the_documentation_shows_what_was_measured(report: Report) -> None:
    """Tables, plots and the list of bars are what the kept numbers yield, in a run that was not a quick one."""
    assert not report.is_quick
    for path, text in written(report).items():
        assert text == path.read_text(), f"run python -m benchmarks.page {KEPT.relative_to(PROJECT)}"


def test_every_case_has_its_place_on_the_page(report: Report) -> None:
    """What `make bench` measures is shown, and no peer is passed over in silence."""
    cases = [(name, case) for name in SUITES for case in suite_named(name).cases]
    shown = set(re.findall(r"<!-- begin ([a-z_]+/[a-z_0-9]+) -->", PAGE.read_text()))
    assert {f"{name}/{case.name}" for name, case in cases} == shown
    for name, case in cases:
        table = report.table(name, case.name)
        assert {variant.name for variant in case.variants} == {row.variant for row in table.rows} | set(table.missing)


def test_every_plot_is_shown(report: Report) -> None:
    """No plot lies about that the page does not show, and none is missing."""
    drawn = {path.name for path in written(report) if path.suffix == ".svg"}
    assert drawn == set(re.findall(r"!\[[^]]*\]\(performance/([^)]+\.svg)\)", PAGE.read_text()))
    assert drawn == {path.name for path in KEPT.parent.glob("*.svg")}


def test_a_bar_that_is_missed_is_explained(report: Report) -> None:
    """Each missed bar, and no other, has its paragraph that says why and what was tried."""
    explained = set(re.findall(r"(?m)^\*\*(.+?)\.\*\*", PAGE.read_text().partition("## What is missed")[2]))
    reached = [each for table in report.tables for each in table.reached()]
    assert {each.bar.promise for each in reached if not each.is_met} == explained


@pytest.mark.parametrize(
    "path",
    sorted(
        path.relative_to(PROJECT).as_posix()
        for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md")
        for path in PROJECT.glob(pattern)
        if path != PAGE
    ),
)
def test_no_speed_is_claimed_elsewhere(path: str) -> None:
    """A speed stands in the generated parts, where it has its row, and nowhere else."""
    text = GENERATED.sub("", (PROJECT / path).read_text())
    claims = [line for line in text.splitlines() if CLAIM.search(line) and not any(bound in line for bound in BOUNDS)]
    assert [] == claims


def test_runs_of_different_machines_are_not_mixed(report: Report) -> None:
    """What was measured elsewhere, with other versions, or quickly, is refused."""
    elsewhere = msgspec.structs.replace(report, machine=msgspec.structs.replace(report.machine, cores=99))
    with pytest.raises(ValueError, match="different machines"):
        merged([report, elsewhere])
    with pytest.raises(ValueError, match="quick"):
        merged([msgspec.structs.replace(report, is_quick=True)])
    assert report.tables == merged([report, report]).tables
    assert PAGE in PAGES
