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

from tests.support.processes import DEADLINE, PROJECT, UNMEASURED, Process, running

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def fenced(document: Path, language: str) -> list[str]:
    """Every fenced block of one language, in order."""
    return [body for tag, body in _FENCE.findall(document.read_text()) if tag == language]


class Terminal:
    """Runs a document's commands in a shell, with its ports exchanged for free ones.

    Args:
        tools: A new folder, for what has to be on the PATH.
        ports: What a port in the document is here.
        folder: Where commands run.
        env: Variables beside this process's own.
        real_curl: Use the machine's own curl when there is one.
    """

    def __init__(
        self,
        tools: Path,
        ports: Mapping[str, int],
        *,
        folder: Path = PROJECT,
        env: Mapping[str, str] | None = None,
        real_curl: bool = True,
    ) -> None:
        self.folder = folder
        self._ports = ports
        tools.mkdir()
        (tools / "python").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
        (tools / "python").chmod(0o755)
        if not real_curl or shutil.which("curl") is None:
            (tools / "curl").write_text('#!/bin/sh\nexec python -m tests.support.curl "$@"\n')
            (tools / "curl").chmod(0o755)
        self._env = {**UNMEASURED, **(env or {}), "PATH": f"{tools}:{os.environ['PATH']}"}

    def run(self, commands: str) -> str:
        """Run commands to their end, and return what they printed."""
        done = subprocess.run(
            ["sh", "-e", "-c", self.here(commands)],
            env={**os.environ, **self._env, "PYTHONPATH": str(PROJECT)},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        assert (0, "") == (done.returncode, done.stderr)
        return done.stdout

    @contextlib.contextmanager
    def serve(self, commands: str, ready: str) -> Iterator[Process]:
        """Run commands of which the last is a server, until the block ends."""
        *before, server = self.here(commands).strip().splitlines()
        shell = "\n".join([*before, f"exec {server}"])
        argv = ["-c", "import os, sys; os.execvp('sh', ['sh', '-e', '-c', sys.argv[1]])", shell]
        with running(argv, ready=self.here(ready), env=self._env, cwd=self.folder) as process:
            yield process

    def here(self, text: str) -> str:
        """Return `text` with the ports that are free here."""
        for port, free in self._ports.items():
            text = re.sub(rf"\b{port}\b", str(free), text)
        return text
