"""What tests of shipping share: records that wait on disk already, and watching who sends how much at once."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from kwai_middleware._delivery.destination import destination_of
from kwai_middleware._secret import Secret
from kwai_middleware._settings import Settings
from tests.support import spool_command
from tests.support.logs_api import LogsAPI, taken
from tests.support.processes import DEADLINE
from tests.support.raw_server import Connection


def until(condition: Callable[[], bool]) -> None:
    """Wait for what happens on other threads and in other processes."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)  # a state of another thread gives nothing to wait on


def waiting(path: Path, settings: Settings, names: Sequence[object], text: str = "hello") -> None:
    """Let records wait in a file, as processes leave them behind whose vendor was away."""
    assert settings.api_key is not None
    destination = destination_of(settings.base_url, Secret(settings.api_key.reveal()))
    some = [spool_command.record(str(name), text=text) for name in names]
    spool_command.append(path, *some, destination=destination)


def place(path: Path) -> str:
    """The setting that names a file."""
    return f"sqlite://{path}"


class Crowd:
    """Takes every record, and counts how many are under way at once.

    Args:
        together: Of the first records, so many are answered only when all of them are there.
    """

    def __init__(self, together: int = 1) -> None:
        self.most = 0
        self._together = together
        self._barrier = threading.Barrier(together)
        self._count = self._now = 0
        self._lock = threading.Lock()

    def __call__(self, entry: dict[str, Any], times: int) -> bytes:
        with self._lock:
            self._count += 1
            self._now += 1
            self.most = max(self.most, self._now)
            is_early = self._count <= self._together
        if is_early:
            self._barrier.wait(DEADLINE)
        with self._lock:
            self._now -= 1
        return taken(entry, times)


class ApiOfProcesses(LogsAPI):
    """Knows which process each request comes from, and from how many at a time requests were under way."""

    def __init__(self) -> None:
        super().__init__(self._answer_one)
        self.pids: list[int] = []
        """Processes to look for."""
        self.most_processes = self.most_requests = 0
        self._under_way: list[int] = []
        self._guard = threading.Lock()
        self._here = threading.local()

    def serve(self, connection: Connection) -> None:
        """Handle one connection."""
        self._here.ports = connection.sock.getpeername()[1], connection.sock.getsockname()[1]
        self._here.pid = None
        super().serve(connection)

    def _answer_one(self, entry: dict[str, Any], times: int) -> bytes:
        pid: int = self._here.pid or _process_at(*self._here.ports, self.pids)
        self._here.pid = pid
        with self._guard:
            self._under_way.append(pid)
            self.most_requests = max(self.most_requests, len(self._under_way))
            self.most_processes = max(self.most_processes, len(set(self._under_way)))
        # Long enough for another one to be seen beside it.
        time.sleep(0.001)
        with self._guard:
            self._under_way.remove(pid)
        return taken(entry, times)


def _process_at(port: int, server_port: int, pids: Sequence[int]) -> int:
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        # Other connections come and go while the system writes the table: a line may be left out of it.
        for words in map(str.split, Path("/proc/net/tcp").read_text().splitlines()):
            if words[1].endswith(f":{port:04X}") and words[2].endswith(f":{server_port:04X}"):
                for pid in pids:
                    folder = f"/proc/{pid}/fd"
                    if any(_link(f"{folder}/{name}") == f"socket:[{words[9]}]" for name in os.listdir(folder)):
                        return pid
    raise LookupError(f"nobody is at {port}")


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except FileNotFoundError:
        return ""
