"""The page of the one client that is installed here; noxfile.py says which that is."""

from __future__ import annotations

import os
from pathlib import Path

from kwai_middleware.sandbox import Sandbox
from tests.support.pages import blocks, run_block

CLIENT = os.environ["TESTED_CLIENT"]
MODEL = "sandbox/tools" if CLIENT == "instructor" else "openai/gpt-4o-mini"
"""instructor asks for a call of its function, which only this model of the sandbox makes."""


def test_the_blocks_of_the_page(vendors: Sandbox, tmp_path: Path) -> None:
    """Each asks for one answer at once and one word by word, both paid by and attributed to acme."""
    for code in blocks(CLIENT):
        assert {True, False} == {
            call["stream"] for call in run_block(code.replace("openai/gpt-4o-mini", MODEL), vendors, tmp_path)
        }
