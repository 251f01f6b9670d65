"""Where tests of the spool keep its file."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the spool's file is, in a folder for this user alone."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    return folder / "spool-1.db"
