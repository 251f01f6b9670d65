"""The demo, as a process of its own: what it shows, and that it notices what is not so."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.documents import Terminal
from tests.support.processes import DEADLINE, PROJECT, UNMEASURED

# The environment that runs these tests is the one that the target would make.
MAKE = ["make", "--no-print-directory", f"VENV={sys.prefix}", f"--old-file={sys.prefix}/.ready", "demo"]


@pytest.fixture(autouse=True)
def only_one_demo() -> Iterator[None]:
    """Demos one after another, whichever worker runs them: each takes the ports that are free when it begins."""
    with (PROJECT / "examples" / "demo.py").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def demo(argv: list[str], folder: Path = PROJECT) -> Iterator[subprocess.Popen[str]]:
    """Run a demo as the foreground job of a terminal: Ctrl-C there reaches its whole process group."""
    process = subprocess.Popen(
        argv,
        cwd=folder,
        env={**os.environ, **UNMEASURED, "PYTHONPATH": str(PROJECT)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    overdue = threading.Timer(DEADLINE, os.killpg, (process.pid, signal.SIGKILL))
    overdue.start()
    try:
        with process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
    finally:
        overdue.cancel()


def printed_until_it_waits(process: subprocess.Popen[str]) -> str:
    """What a kept demo prints before it waits for Ctrl-C."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("Ctrl-C"):
            break
    return "".join(lines)


def test_the_demo_shows_each_call_and_ends() -> None:
    """`make demo` shows a line for each of the seven calls, no key, and ends by itself with exit code 0."""
    with demo(MAKE) as process:
        output = process.communicate(timeout=DEADLINE)[0]
    rows = [line.split() for line in output.splitlines() if re.match(r"(acme|globex|initech) ", line)]

    assert 0 == process.returncode, output
    assert ["acme", "acme", "acme", "globex", "globex", "initech", "initech"] == [row[0] for row in rows]
    assert ["gateway", "OpenRouter", "OpenRouter", "gateway", "OpenRouter", "gateway", "OpenRouter"] == [
        row[1] for row in rows
    ]
    assert [False] * 5 + [True] * 2 == ["401 refused" in " ".join(row) for row in rows]
    assert "\nAll as promised.\n" in output
    assert "sk-or-v1" not in output


def test_the_kept_demo_can_be_tried_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    """`make demo KEEP=1` prints curl lines that work, and Ctrl-C ends it and both of its servers."""
    terminal = Terminal(tmp_path / "tools", {}, real_curl=False)
    with demo([*MAKE, "KEEP=1"]) as process:
        output = printed_until_it_waits(process)
        chat, stream, calls, logs = (terminal.run(line) for line in re.findall(r"^curl .*$", output, re.MULTILINE))
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=DEADLINE)
    servers = set(re.findall(r"http://127\.0\.0\.1:\d+", output))

    assert '"answer":"Hello?"' in chat
    assert stream
    assert '"customer": "acme"' in calls
    assert '"customer": "acme"' in logs
    assert 2 == len(servers)
    for server in servers:
        with pytest.raises(httpx.ConnectError):
            httpx.get(server, trust_env=False)


@pytest.mark.parametrize(
    ("line", "replacement", "complaint"),
    [
        ("app.add_middleware(", "dict(middleware_class=", "something is missing"),
        (
            "kwai.first_of(kwai.HeaderCredentials(), connect.keys)",
            "None",
            "acme at /chat/stream: the right key pays",
        ),
        ("(kwai.ASGIMiddleware, ", "(kwai.ASGIMiddleware, identify=None, ", "something is missing"),
    ],
)
def test_the_demo_notices_what_is_not_so(tmp_path: Path, line: str, replacement: str, complaint: str) -> None:
    """With an app that forgets the middleware, or half of its work, the demo says so and fails."""
    shutil.copytree(PROJECT / "examples", tmp_path / "examples")
    app = tmp_path / "examples" / "fastapi_app" / "app.py"
    app.write_text(app.read_text().replace(line, replacement))
    with demo([sys.executable, "examples/demo.py"], tmp_path) as process:
        output = process.communicate(timeout=DEADLINE)[0]

    assert 1 == process.returncode
    assert "Not as promised" in output
    assert complaint in output


def test_an_app_that_does_not_start_is_shown(tmp_path: Path) -> None:
    """When a server does not start the demo prints why, and fails."""
    shutil.copytree(PROJECT / "examples", tmp_path / "examples")
    (tmp_path / "examples" / "fastapi_app" / "app.py").write_text("raise RuntimeError('no database')\n")
    with demo([sys.executable, "examples/demo.py"], tmp_path) as process:
        output = process.communicate(timeout=DEADLINE)[0]

    assert 1 == process.returncode
    assert "This server did not start" in output
    assert "no database" in output
