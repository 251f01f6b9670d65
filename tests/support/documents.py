"""Documents whose code and commands are run as they stand."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.processes import DEADLINE, PROJECT, Process, running

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def fenced(document: Path, language: str) -> list[str]:
    """Every fenced block of one language, in order."""
    return [body for tag, body in _FENCE.findall(document.read_text()) if tag == language]


class Terminal:
    """Runs a document's commands in a shell, with its ports exchanged for free ones.

    Args:
        folder: For what has to be on the PATH.
        ports: What a port in the document is here.
        real_curl: Use the machine's own curl when there is one.
    """

    def __init__(self, folder: Path, ports: Mapping[str, int], *, real_curl: bool = True) -> None:
        self._ports = ports
        tools = folder / "tools"
        tools.mkdir()
        (tools / "python").symlink_to(sys.executable)
        if not real_curl or shutil.which("curl") is None:
            curl = tools / "curl"
            curl.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tests.support.curl "$@"\n')
            curl.chmod(0o755)
        self._env = {"PATH": f"{Path(sys.executable).parent}:{tools}:{os.environ['PATH']}"}

    def run(self, commands: str) -> str:
        """Run commands to their end, and return what they printed."""
        env = {**os.environ, **self._env, "PYTHONPATH": str(PROJECT)}
        done = subprocess.run(
            ["sh", "-e", "-c", self._here(commands)],
            env=env,
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert (0, "") == (done.returncode, done.stderr)
        return done.stdout

    @contextlib.contextmanager
    def serve(self, commands: str, ready: str) -> Iterator[Process]:
        """Run commands of which the last is a server, until the block ends."""
        *before, server = self._here(commands).strip().splitlines()
        shell = "\n".join([*before, f"exec {server}"])
        argv = ["-c", "import os, sys; os.execvp('sh', ['sh', '-e', '-c', sys.argv[1]])", shell]
        with running(argv, ready=self._here(ready), env=self._env) as process:
            yield process

    def _here(self, text: str) -> str:
        for port, free in self._ports.items():
            text = re.sub(rf"\b{port}\b", str(free), text)
        return text
