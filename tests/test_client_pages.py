"""The pages of docs/clients: each block is run as it stands, and all pages have one form."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kwai_middleware.sandbox import Sandbox
from tests.support.documents import fenced
from tests.support.examples import sandbox_process
from tests.support.pages import APART, INDEX, PAGES, blocks, codes, hand_over, run_block
from tests.support.processes import PROJECT

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
BLOCKS = [
    pytest.param(page.stem, number, id=f"{page.stem}-{number}")
    for page in PAGES
    if page.stem not in APART
    for number in range(len(blocks(page.stem)))
]


@pytest.fixture(scope="module")
def vendors() -> Iterator[Sandbox]:
    with sandbox_process() as sandbox:
        yield sandbox


@pytest.mark.parametrize(("client", "number"), BLOCKS)
def test_a_block(vendors: Sandbox, tmp_path: Path, client: str, number: int) -> None:
    """As it stands it asks for one answer at once and one word by word, both paid by and attributed to acme."""
    calls = run_block(blocks(client)[number], vendors, tmp_path)
    assert {True, False} == {call["stream"] for call in calls}


@every_page
def test_the_form_of_a_page(page: Path) -> None:
    """A heading; a line that hands our client over, as the block does; the block; what stays; what to know."""
    text = page.read_text()
    heading, empty, line, below, *_ = text.split("\n")
    assert f"# {page.stem}" == heading
    assert ("", "") == (empty, below)
    first, *_ = blocks(page.stem)
    whole = "".join(first.split()).replace('"client":', "client=")
    assert any("".join(code.split()) in whole for code in codes(line))
    assert ["What stays as it was", "What to know"] == re.findall(r"^## (.*)$", text, re.MULTILINE)


@every_page
def test_the_blocks_of_a_page(page: Path) -> None:
    """Each is whole and short: settings from the environment, a bound caller, an address that the settings name."""
    assert "```python" in page.read_text().split("\n## ")[0]
    for code in blocks(page.stem):
        assert 30 >= len(code.splitlines())
        assert "Settings.from_env()" in code
        assert "bind_caller(" in code
        assert "settings.base_url" in code or "settings.openrouter_base_url" in code
        assert "://" not in code
        assert 'Secret("sk-or-v1-acme")' in code


@every_page
def test_the_links_of_a_page(page: Path) -> None:
    """They lead to files of the project."""
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text())
    assert [] == [link for link in links if not (page.parent / link).exists()]


def test_every_page_is_listed() -> None:
    """The index has each page with the line that hands our client over; the README has each page."""
    rows = dict(re.findall(r"^\| \[[^]]+\]\(([\w-]+)\.md\) \| (.*) \|", INDEX.read_text(), re.MULTILINE))
    assert {page.stem for page in PAGES} == set(rows)
    for page in PAGES:
        assert set(codes(rows[page.stem])) <= set(codes(hand_over(page)))
    assert [] == [
        page.name for page in PAGES if f"](docs/clients/{page.name})" not in (PROJECT / "README.md").read_text()
    ]


def test_every_client_apart_has_a_page_and_pins() -> None:
    """What cannot be installed beside the rest has a page, pinned requirements, and tests of its own."""
    assert {page.stem for page in PAGES} >= APART
    for client in APART:
        assert (PROJECT / "requirements" / "clients" / f"{client}.txt").exists()
        assert (PROJECT / "tests" / "apart" / f"test_{client.replace('-', '_')}.py").exists()


def test_no_other_language_hides_code() -> None:
    """Blocks that are not Python are commands."""
    for page in PAGES:
        commands = [line for block in fenced(page, "") for line in block.splitlines()]
        assert all(command.startswith("pip install ") for command in commands)
