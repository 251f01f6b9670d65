"""Tests run beside other tests and beside what a developer keeps on the machine: their folders, their ports."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import platformdirs
import pytest

from tests.support.processes import DEADLINE, PROJECT, free_port, running

STATE = Path(platformdirs.user_state_dir("kwai-middleware"))
"""Where this machine's user keeps it, as it was before any test."""

SHOWS_ITS_STATE_FOLDER = """
import http.server, platformdirs, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(platformdirs.user_state_dir("kwai-middleware").encode())

http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""

seen: set[Path] = set()


def state_folder() -> Path:
    return Path(platformdirs.user_state_dir("kwai-middleware"))


@pytest.fixture(scope="module")
def of_the_file() -> Path:
    """The state folder of what serves a whole file."""
    return state_folder()


@pytest.mark.parametrize("number", [1, 2])
def test_each_test_has_a_state_folder_of_its_own(of_the_file: Path, number: int) -> None:
    """It is not the user's, not another test's, not that of the file, and not there before it is used."""
    assert state_folder() not in {STATE, of_the_file, *seen}
    assert of_the_file != STATE
    assert not state_folder().parent.exists()
    seen.add(state_folder())


def test_a_server_keeps_its_state_where_its_test_does() -> None:
    """A process that a test starts has the test's state folder."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    with running(["-c", SHOWS_ITS_STATE_FOLDER, str(port)], ready=url), urllib.request.urlopen(url) as answer:
        assert str(state_folder()) == answer.read().decode()


USES_ITS_STATE_FOLDER = """
import atexit, os, pathlib

def test_it():
    folder = pathlib.Path(os.environ["XDG_STATE_HOME"])
    folder.mkdir()
    atexit.register(lambda: print("at exit:", folder.is_dir()))
"""


def test_no_state_folder_outlives_the_run(tmp_path: Path) -> None:
    """State is kept while anything may write it, to the very end of the process, and is gone after that."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["tests.conftest"]')
    (tmp_path / "test_it.py").write_text(USES_ITS_STATE_FOLDER)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )

    assert "1 passed" in done.stdout
    assert done.stdout.endswith("at exit: True\n")
    assert [] == list(tmp_path.glob("kwai-tests-*"))


def test_no_two_processes_get_the_same_port() -> None:
    """A port is nobody else's: neither another process with tests nor a client that connects somewhere takes it."""
    ports = [free_port(), free_port()]
    program = "from tests.support.processes import free_port\nprint(free_port(), free_port(), flush=True)\ninput()"
    argv = [sys.executable, "-c", program]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": PROJECT}
    with subprocess.Popen(argv, **pipes) as one, subprocess.Popen(argv, **pipes) as other:
        ports += [int(port) for process in (one, other) for port in process.stdout.readline().split()]
        one.communicate("\n", DEADLINE)
        other.communicate("\n", DEADLINE)

    assert 6 == len(set(ports))
    assert {True} == {1024 < port < 32768 for port in ports}


def test_a_port_that_is_taken_is_not_given() -> None:
    """However often somebody asks, a port on which something listens is not among the answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", free_port()))
        taken.listen()
        assert taken.getsockname()[1] not in {free_port() for _ in range(400)}
