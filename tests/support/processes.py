"""Real server processes for tests: started as a user starts them, waited for, and surely ended."""

from __future__ import annotations

import contextlib
import functools
import http.client
import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

DEADLINE = 60.0
"""Seconds after which a test gives up waiting for something that should take far less."""

PROJECT = Path(__file__).resolve().parents[2]

UNMEASURED = {"COVERAGE_PROCESS_CONFIG": ""}
"""In the environment of a process that runs nothing which other tests do not measure: it costs half as much."""


# Below those that a system gives to whoever asks for any port, such as every client that connects.
_PORTS = range(10_000, 30_000)
_AT_A_TIME = 200


@functools.cache
def _ports_of_this_process() -> Iterator[int]:
    """A few ports round and round, of which no other process that runs tests gets one."""
    for first in range(_PORTS.start, _PORTS.stop, _AT_A_TIME):
        # The claim is the UDP port of the first one's number, which nobody wants and the system takes back at the end.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as claim, contextlib.suppress(OSError):
            claim.bind(("127.0.0.1", first))
            claim.detach()
            return itertools.cycle(range(first, first + _AT_A_TIME))
    raise RuntimeError("all ports for tests are claimed")


def free_port() -> int:
    """Return a port on which nothing listens, and which nothing takes before the caller does."""
    for port in itertools.islice(_ports_of_this_process(), _AT_A_TIME):
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise RuntimeError("all ports of this process are taken")


class Process:
    """A running server process and everything it has printed."""

    def __init__(self, popen: subprocess.Popen[bytes], log: Path) -> None:
        self.popen = popen
        self._log = log

    @property
    def output(self) -> str:
        """What it printed so far, on both streams."""
        return self._log.read_text(errors="replace")

    def stop(self, sig: int = signal.SIGTERM) -> int:
        """Send `sig` and wait for the end; returns the exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(sig)
        return self.popen.wait(DEADLINE)


@contextlib.contextmanager
def running(
    argv: Sequence[str], *, ready: str, env: Mapping[str, str] | None = None, cwd: Path = PROJECT
) -> Iterator[Process]:
    """Run `python argv...` until the block ends; begins when a GET of the URL `ready` is answered (by any status)."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("KWAI_", "COV_CORE"))}
    environ |= {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(PROJECT), **(env or {})}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "output")
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [sys.executable, *argv], env=environ, cwd=cwd, stdout=output, stderr=output, start_new_session=True
            )
        process = Process(popen, log)
        try:
            _wait_until_ready(process, ready)
            yield process
        except Exception as error:
            error.add_note(f"The server (exit code {popen.poll()}) printed at last:\n{process.output[-4000:]}")
            raise
        finally:
            if popen.poll() is None:
                popen.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    popen.wait(10)
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(popen.pid, signal.SIGKILL)
            popen.wait(DEADLINE)


def _wait_until_ready(process: Process, url: str) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    until = time.monotonic() + DEADLINE
    while time.monotonic() < until:
        if process.popen.poll() is not None:
            raise RuntimeError(f"the server ended with {process.popen.returncode}:\n{process.output}")
        try:
            opener.open(url, timeout=5).close()
        except urllib.error.HTTPError as answer:
            answer.close()
            return
        except (OSError, http.client.HTTPException):  # the latter: a connection to itself, as loopback allows
            time.sleep(0.02)  # not there yet: a refused connection gives nothing to wait on
        else:
            return
    raise RuntimeError(f"the server did not answer {url}:\n{process.output}")
