"""The pages of docs/clients: where they are, and what a block of one must have done when it was run as a script."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from kwai_middleware import Secret
from kwai_middleware.sandbox import Sandbox
from tests.support.documents import fenced
from tests.support.processes import DEADLINE, PROJECT, UNMEASURED

INDEX = PROJECT / "docs" / "clients" / "README.md"
PAGES = sorted(set(INDEX.parent.glob("*.md")) - {INDEX})
APART = {page.stem for page in (PROJECT / "requirements" / "clients").glob("*.in")}
"""The clients that have an environment of their own, where their pages are run too."""

ACME = Secret("sk-or-v1-acme").fingerprint
PAID_BY_THE_APP = "/api/anthropic/v1/messages"
"""Where the vendor documents no customer's keys."""


def blocks(client: str) -> list[str]:
    """Every Python block of a client's page, in order."""
    return fenced(INDEX.parent / f"{client}.md", "python")


def hand_over(page: Path) -> str:
    """The line below a page's heading."""
    return page.read_text().split("\n")[2]


def codes(line: str) -> list[str]:
    """The code in a line of text."""
    return re.findall(r"`([^`]+)`", line)


def run_block(code: str, vendors: Sandbox, folder: Path) -> list[dict[str, Any]]:
    """Run a block in a process of its own and judge what the vendors saw of it; returns its calls."""
    vendors.reset()
    script = folder / "block.py"
    script.write_text(code)
    own = {name: value for name, value in os.environ.items() if not name.startswith(("KWAI_", "COV_CORE"))}
    vendor = {
        "KEYWORDSAI_API_KEY": "app-key",
        "KEYWORDSAI_BASE_URL": vendors.gateway_url,
        "OPENROUTER_BASE_URL": vendors.openrouter_url,
    }
    done = subprocess.run(
        [sys.executable, str(script)],
        env={**own, **UNMEASURED, **vendor, "PYTHONPATH": str(PROJECT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    assert done.stdout.strip()
    assert "sk-or-v1" not in done.stdout + done.stderr
    calls = vendors.calls()
    direct = [call for call in calls if call["route"] == "openrouter"]
    logs = vendors.logs(wait=len(direct))
    assert {"openrouter", "gateway"} >= {call["route"] for call in calls}
    for call in calls:
        assert 200 == call["status"]
        assert (ACME == call["paid_by"]["fingerprint"]) == (call["path"] != PAID_BY_THE_APP)
        assert ("acme" if call["route"] == "gateway" else None) == call["customer"]
    assert [("acme", [])] * len(direct) == [(log["customer"], log["keys_seen"]) for log in logs]
    return calls
