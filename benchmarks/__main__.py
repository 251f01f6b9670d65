"""`python -m benchmarks`: run all of it or a part, show the tables, keep them as Markdown, JSON and plots."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks import plots, tables
from benchmarks.plan import SUITES, Case, Suite, suite_named
from benchmarks.results import Table
from benchmarks.running import run

_WHERE = Path("bench-results")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="SUITE[/CASE]", help=f"by default all: {', '.join(SUITES)}")
    parser.add_argument("--quick", action="store_true", help="rough numbers, within two minutes for all")
    parser.add_argument("--ours", action="store_true", help="leave the peers out")
    parser.add_argument("--into", type=Path, default=_WHERE, metavar="FOLDER", help=f"by default {_WHERE}")
    asked = parser.parse_args(arguments)

    wanted = _wanted(parser, asked.names)
    if asked.quick and not asked.names:
        left_out = [f"{suite.name}/{case.name}" for suite, case in wanted if not case.is_in_quick_run]
        print(f"Left out of a quick run: {', '.join(left_out)}.")
        wanted = [(suite, case) for suite, case in wanted if case.is_in_quick_run]
    report = run(wanted, is_quick=asked.quick, with_peers=not asked.ours, tell=_show)
    pages = [_page(table) for table in report.tables]
    reached = tables.bars(report)
    if reached:
        pages.append(f"## What was meant to be reached\n\n{reached}")
        print(f"\n{pages[-1]}")
    folder: Path = asked.into
    report.write(folder / "results.json")
    (folder / "tables.md").write_text("\n".join(pages))
    for table in report.tables:
        for name, drawing in plots.drawings(table):
            (folder / name).write_text(drawing)
    print(f"{report.seconds} s; {folder}/ has results.json, tables.md and the plots.")


def _wanted(parser: argparse.ArgumentParser, names: Sequence[str]) -> list[tuple[Suite, Case]]:
    wanted: list[tuple[Suite, Case]] = []
    for name in names or SUITES:
        suite_name, _, case_name = name.partition("/")
        if suite_name not in SUITES:
            parser.error(f"there is no suite {suite_name!r}; there are {', '.join(SUITES)}")
        suite = suite_named(suite_name)
        cases = [case for case in suite.cases if case_name in ("", case.name)]
        if not cases:
            parser.error(f"{suite_name} has no case {case_name!r}; it has {', '.join(c.name for c in suite.cases)}")
        wanted.extend((suite, case) for case in cases)
    return wanted


def _page(table: Table) -> str:
    return f"## {table.title}\n\n{table.what}\n\n{tables.markdown(table)}"


def _show(table: Table) -> None:
    print(f"\n{_page(table)}", flush=True)


if __name__ == "__main__":
    main()
