"""docs/openrouter-keys.md: each block is run as it stands."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from kwai_middleware.openrouter import KeyInfo
from kwai_middleware.sandbox import Sandbox
from tests.support.documents import fenced
from tests.support.processes import DEADLINE, PROJECT, UNMEASURED

pytest_plugins = ["kwai_middleware.testing"]

PAGE = PROJECT / "docs" / "openrouter-keys.md"
BLOCKS = fenced(PAGE, "python")


@pytest.fixture
def printed(kwai_sandbox: Sandbox) -> Iterator[list[str]]:
    """What each block prints, each in a process of its own."""
    environment = {**os.environ, **UNMEASURED, "OPENROUTER_BASE_URL": kwai_sandbox.openrouter_url}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env={**environment, "PYTHONPATH": str(PROJECT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for code in BLOCKS
    ]
    yield [process.communicate(timeout=DEADLINE)[0] for process in running]
    assert [0] * len(BLOCKS) == [process.returncode for process in running]


def test_the_blocks(printed: list[str]) -> None:
    """Each runs, prints what the text around it says, and shows no key."""
    pasted, connected, resolved, tried = printed

    assert "**** is good; may still spend: None\n" == pasted
    assert "/auth\nOpenRouter gives no key for this code" in connected
    assert "first_of" in resolved.lower().replace("firstof", "first_of")
    assert "12.5 monthly 2100-01-01 00:00:00+00:00" == tried.splitlines()[-1]
    assert "sk-or" not in "".join(printed)


def test_the_table() -> None:
    """It has each attribute of what is told of a key, but for the key itself."""
    rows = [row.split(" | ")[0] for row in PAGE.read_text().splitlines() if row.startswith("| `")]
    named = {name for row in rows for name in row.split("`")[1::2]}

    assert {field.name for field in dataclasses.fields(KeyInfo)} - {"key"} == named - {"info."}


def test_the_links() -> None:
    """They lead to files of the project."""
    links = re.findall(r"\]\((?!https?://)([^)#]+)\)", PAGE.read_text())
    assert links
    assert [] == [link for link in links if not (PAGE.parent / link).exists()]
