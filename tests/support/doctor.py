"""`python -m kwai_middleware doctor ...` on apps that a test writes."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kwai_middleware.__main__ import main
from tests.support.processes import DEADLINE, PROJECT

_numbers = itertools.count()

FASTAPI = """
import os
import kwai_middleware as kwai
from fastapi import FastAPI
app = FastAPI()
"""
FLASK = """
import os
import kwai_middleware as kwai
from flask import Flask
app = Flask("shop")
"""
GUARDED = (
    'app.add_middleware(kwai.ASGIMiddleware, identify=kwai.HeaderIdentity(proxy_secret="s" * 32), required=True)\n'
)


@dataclass(frozen=True)
class Told:
    """What came of it."""

    code: int
    output: str
    errors: str

    @property
    def document(self) -> Any:
        """The JSON."""
        return json.loads(self.output)

    @property
    def names(self) -> set[str]:
        """The findings that are worse than fine."""
        return {each["name"] for each in self.document["findings"] if each["severity"] != "ok"}

    def finding(self, name: str) -> dict[str, str]:
        """One finding, which is there once."""
        found: list[dict[str, str]] = [each for each in self.document["findings"] if each["name"] == name]
        assert 1 == len(found), self.output
        return found[0]


def doctor(folder: Path, source: str, *words: str, **variables: str) -> Told:
    """Write an app, and run the command on it in this process; `{app}` in a word is the app's place."""
    module = f"shop{next(_numbers)}"
    (folder / f"{module}.py").write_text(source)
    return doctor_of(folder, f"{module}:app", *words, **variables)


def doctor_of(folder: Path, app: str, *words: str, as_json: bool = True, **variables: str) -> Told:
    """Run the command in this process, on an app that is there."""
    options = [word.replace("{app}", app) for word in words]
    if as_json:
        options.insert(0, "--json")
    variables.setdefault("KEYWORDSAI_API_KEY", "app-key-of-the-doctor")
    if "KEYWORDSAI_BASE_URL" not in variables:
        options.insert(0, "--offline")
    output, errors = io.StringIO(), io.StringIO()
    with _apart(folder, variables), contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            code = main(["doctor", app, *options])
        except SystemExit as ended:
            assert isinstance(ended.code, int)
            code = ended.code
    return Told(code, output.getvalue(), errors.getvalue())


def doctor_command(folder: Path, *words: str, **variables: str) -> Told:
    """Run the command as a user does."""
    done = subprocess.run(
        [sys.executable, "-m", "kwai_middleware", "doctor", *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(PROJECT), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=DEADLINE,
    )
    return Told(done.returncode, done.stdout.decode(), done.stderr.decode())


@contextlib.contextmanager
def _apart(folder: Path, variables: dict[str, str]) -> Iterator[None]:
    """Run in a folder and an environment, and leave nothing of the app behind."""
    modules, path = set(sys.modules), list(sys.path)
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        for name in ("FORWARDED_ALLOW_IPS", "WEB_CONCURRENCY", "PORT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        try:
            yield
        finally:
            sys.path[:] = path
            for name in set(sys.modules) - modules:
                if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
                    del sys.modules[name]
