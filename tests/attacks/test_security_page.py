"""SECURITY.md: each promise names the tests that hold it."""

from __future__ import annotations

import re

from tests.support.processes import PROJECT

TEXT = (PROJECT / "SECURITY.md").read_text()
LINK = re.compile(r"\[([\w/]+\.py)\]\((tests/[\w/]*test_\w+\.py)\)")


def promises() -> list[list[str]]:
    """The rows of the table of promises."""
    section = TEXT.split("\n## What we promise\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\|(.*)\|$", section, re.MULTILINE)[2:]
    return [[cell.strip() for cell in row.split(" | ")] for row in rows]


def test_every_promise_names_its_tests() -> None:
    """Beside each promise stand links to files of tests, under the names of these files, and nothing else."""
    assert len(promises()) > 20
    for promise, held_by in promises():
        links = LINK.findall(held_by)
        assert links, promise
        assert "" == LINK.sub("", held_by).replace(",", "").strip(), promise
        assert all(f"tests/{name}" == path for name, path in links), promise


def test_each_of_these_files_has_tests() -> None:
    """No link leads to a file that is gone, or that tests nothing."""
    paths = {path for _, held_by in promises() for _, path in LINK.findall(held_by)}
    assert [] == [path for path in sorted(paths) if "def test_" not in (PROJECT / path).read_text()]


def test_every_attack_is_a_promise() -> None:
    """Each file of attacks holds some promise on the page."""
    attacks = {f"tests/attacks/{path.name}" for path in (PROJECT / "tests/attacks").glob("test_*.py")}
    linked = {path for _, held_by in promises() for _, path in LINK.findall(held_by)}
    assert {"tests/attacks/test_security_page.py"} == attacks - linked


def test_what_is_not_promised_stands_there() -> None:
    """The page does not end with what is promised."""
    assert (
        TEXT.index("## What we promise") < TEXT.index("## What we cannot promise") < TEXT.index("## Supported versions")
    )
