"""`python -m kwai_middleware spool ...` as an operator or cron runs it, on files as apps leave them."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kwai_middleware.__main__ import main
from kwai_middleware._delivery.destination import Destination, destination_of
from kwai_middleware._delivery.disk.spool import Bounds, DiskSpool
from kwai_middleware._delivery.spool import Outcome, Record, SpoolCounters
from kwai_middleware._secret import Secret
from tests.support.logs_api import KEY
from tests.support.processes import DEADLINE, PROJECT

URL = "https://logs.example/api"
HERE = destination_of(URL, Secret(KEY))
ELSEWHERE = destination_of(URL, Secret("the-key-of-another-app"))
ENVIRONMENT = {"KEYWORDSAI_API_KEY": KEY, "KEYWORDSAI_BASE_URL": URL}


@dataclass(frozen=True)
class Done:
    """What came of a command."""

    code: int
    output: str
    errors: str

    @property
    def document(self) -> Any:
        """The JSON that it printed."""
        return json.loads(self.output)


def environment(**more: str) -> dict[str, str]:
    """The environment of a command: this one's, and what is said."""
    return {**os.environ, "PYTHONPATH": str(PROJECT), **ENVIRONMENT, **more}


def arguments(*words: str | Path) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "kwai_middleware", "spool", *map(str, words)]


def spool_command(*words: str | Path, **variables: str) -> Done:
    """Run a command to its end, as cron does: there is no terminal."""
    done = subprocess.run(
        arguments(*words),
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=DEADLINE,
    )
    errors = done.stderr.decode()
    assert "Traceback" not in errors, errors
    return Done(done.returncode, done.stdout.decode(), errors)


def spool_command_here(*words: str | Path, **variables: str) -> Done:
    """The same in this process, which is quicker."""
    output, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in {**ENVIRONMENT, **variables}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            try:
                code = main(["spool", *map(str, words)])
            except SystemExit as ended:
                assert isinstance(ended.code, int)
                code = ended.code
    return Done(code, output.getvalue(), errors.getvalue())


def entry(record_id: str, text: str = "hello") -> bytes:
    """A record as it is sent."""
    return json.dumps({"model": "a/b", "output": text, "metadata": {"kwai_record_id": record_id}}).encode()


def record(record_id: str, customer: str | None = "acme", text: str = "hello") -> Record:
    """A record about a customer."""
    return Record(record_id, entry(record_id, text), customer)


@contextlib.contextmanager
def app(path: Path, destination: Destination = HERE, **more: Any) -> Iterator[DiskSpool]:
    """The spool of an app that runs in this process until the block ends."""
    spool = DiskSpool(str(path), destination, Bounds(max_bytes=256 * 1024 * 1024), **more)
    try:
        yield spool
    finally:
        spool.close()


def append(path: Path, *records: Record, destination: Destination = HERE, **more: Any) -> None:
    """Let an app have recorded these."""
    with app(path, destination, **more) as spool:
        assert len(records) == spool.append(records)


def reject(path: Path, number: int, reason: str = "HTTP 422: no", destination: Destination = HERE) -> None:
    """Let the vendor have refused the first ones."""
    with app(path, destination) as spool:
        rows = spool.lease(number, 1 << 30, bulk=False).rows
        assert number == len(rows)
        spool.settle([Outcome(row, "rejected", reason) for row in rows], reason)


def counters(path: Path, destination: Destination = HERE) -> SpoolCounters:
    """The ledger as an app sees it."""
    with app(path, destination) as spool:
        return spool.counters()


class Terminal:
    """A command at a terminal: what it shows, and what is typed."""

    def __init__(self, words: Sequence[str | Path], variables: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        self.popen = subprocess.Popen(
            arguments(*words),
            env=environment(TERM="xterm", **variables),
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self.output = ""
        self._changed = threading.Condition()
        self._has_ended = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for(self, text: str) -> None:
        """Return when the text has been shown."""
        with self._changed:
            found = self._changed.wait_for(lambda: text in self.output or self._has_ended, DEADLINE)
        assert found, self.output
        assert text in self.output, self.output

    def type(self, text: str) -> None:
        """Type a line."""
        os.write(self._master, f"{text}\n".encode())

    def end(self) -> int:
        """Wait for the end of the command; returns its exit code."""
        code = self.popen.wait(DEADLINE)
        self._reader.join(DEADLINE)
        assert "Traceback" not in self.output, self.output
        return code

    def close(self) -> None:
        """End what is still there."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait(DEADLINE)
        self._reader.join(DEADLINE)
        os.close(self._master)

    def _read(self) -> None:
        # The other side of a terminal that nobody has open any more is an error.
        with contextlib.suppress(OSError):
            while read := os.read(self._master, 65536):
                with self._changed:
                    self.output += read.decode(errors="replace")
                    self._changed.notify_all()
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()


@contextlib.contextmanager
def at_a_terminal(*words: str | Path, **variables: str) -> Iterator[Terminal]:
    """Run a command at a terminal of its own."""
    terminal = Terminal(words, variables)
    try:
        yield terminal
    finally:
        terminal.close()
