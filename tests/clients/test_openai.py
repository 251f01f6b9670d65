"""The OpenAI SDK over our clients, today's and the one of before httpx2."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import openai

from tests.support.clients.openai_client import OpenAI
from tests.support.clients.stainless_checks import StainlessChecks
from tests.support.flavours import FLAVOURS
from tests.support.processes import PROJECT, UNMEASURED


class TestOpenAI(StainlessChecks):
    kind = OpenAI
    flavours = FLAVOURS
    limits = openai.DEFAULT_CONNECTION_LIMITS


def test_the_openai_sdk_of_before_httpx2() -> None:
    """The same checks hold in it, on httpx: they run in a process of their own, with that SDK in place of today's."""
    folder = Path(sys.prefix, "openai-2")
    assert folder.is_dir(), "`make setup` installs the older SDK"
    environ = {**os.environ, **UNMEASURED, "PYTHONPATH": os.pathsep.join((str(folder), str(PROJECT)))}
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:langsmith"]
    ended = subprocess.run(
        [*argv, "tests/apart/test_openai_2.py"],
        env=environ,
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert 0 == ended.returncode, ended.stdout
    assert re.search(r"^\d\d passed in", ended.stdout, re.MULTILINE), ended.stdout
