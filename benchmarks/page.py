"""`python -m benchmarks.page`: write what a run found into `docs/performance.md`, the README and the plots.

What stands between `<!-- begin bars -->` and `<!-- end -->` is written by this, and by nothing else:
`machine`, `bars`, `peers` (their versions), and a case by its suite and name, as in `inbound/asgi`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from benchmarks import plots, tables
from benchmarks.results import Report, Table

__all__ = ["KEPT", "filled", "merged", "written"]

_ROOT: Final = Path(__file__).resolve().parent.parent
_PLOTS: Final = "performance"
KEPT: Final = _ROOT / "docs" / _PLOTS / "results.json"
"""The numbers that the documentation shows."""

PAGES: Final = (_ROOT / "docs" / "performance.md", _ROOT / "README.md")
"""Where they are shown."""

_BLOCK: Final = re.compile(r"(?s)(<!-- begin (?P<name>[a-z_/0-9]+) -->\n).*?(<!-- end -->)")


def main(arguments: Sequence[str] | None = None) -> None:
    """Take the numbers of one or several runs over into the documentation."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("results", nargs="+", type=Path, help="results.json of runs; a later one's cases replace")
    asked = parser.parse_args(arguments)
    try:
        report = merged([Report.read(path) for path in asked.results])
    except ValueError as error:
        parser.error(str(error))
    report.write(KEPT)
    for path, text in written(report).items():
        path.write_text(text)


def merged(reports: Sequence[Report]) -> Report:
    """Return one report of runs on the same machine; of a case that was run twice, the later one counts.

    Raises:
        ValueError: They were made on different machines, with different versions, or quickly.
    """
    first, *others = reports
    cases = {(table.suite, table.case): table for report in reports for table in report.tables}
    for report in others:
        if (report.machine, report.versions) != (first.machine, first.versions):
            raise ValueError("these runs were made on different machines or with different versions")
    if any(report.is_quick for report in reports):
        raise ValueError("a quick run is too rough to be shown")
    return msgspec.structs.replace(
        reports[-1], tables=list(cases.values()), seconds=sum(report.seconds for report in reports)
    )


def written(report: Report) -> dict[Path, str]:
    """Return what each file of the documentation has to be, by its path."""
    files = {page: filled(page.read_text(), report) for page in PAGES}
    for table in report.tables:
        files.update((KEPT.parent / name, drawing) for name, drawing in plots.drawings(table))
    return files


def filled(page: str, report: Report) -> str:
    """Return a page with what stands between its marks made anew."""
    return _BLOCK.sub(lambda block: f"{block[1]}{_block(block['name'], report)}{block[3]}", page)


def _block(name: str, report: Report) -> str:
    if name == "machine":
        return _machine(report)
    if name == "bars":
        return tables.bars(report)
    if name == "peers":
        return _peers(report)
    return _case(report.table(*name.split("/")))


def _case(table: Table) -> str:
    drawn = "".join(f"![{table.title}]({_PLOTS}/{name})\n\n" for name, _ in plots.drawings(table))
    return f"{table.what}\n\n{drawn}{tables.markdown(table)}"


def _machine(report: Report) -> str:
    on = report.machine
    shared = ", ".join(f"{name} {number}" for name, number in report.versions.items())
    return (
        f"Measured on {report.day}: {on.processor}, {on.cores} cores, {on.memory_gb} GB, {on.system}, {on.python}; "
        f"{shared}; {report.seconds // 60} minutes in all.\n"
    )


def _peers(report: Report) -> str:
    found = {row.variant: row.version for table in report.tables for row in table.rows if row.version is not None}
    return "".join(f"- {name}: {number}\n" for name, number in sorted(found.items()))


if __name__ == "__main__":
    main()
