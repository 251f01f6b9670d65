"""Spools on disk for tests, and programs that use them in processes of their own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kwai_middleware._delivery.destination import Destination
from kwai_middleware._delivery.disk.spool import Bounds, DiskSpool
from kwai_middleware._delivery.spool import Outcome, Record
from tests.support.processes import DEADLINE, PROJECT

DESTINATION = Destination("http://127.0.0.1/api", "0123456789abcdef")
BOUNDS = Bounds(max_bytes=1 << 30, max_pending_age=3600.0)
ANOTHER_USER = 65534

PROGRAM = """
import ctypes, os, signal, sqlite3, sys, threading, time
from kwai_middleware._delivery.disk.database import Database
from kwai_middleware._delivery.disk.errors import SpoolUnavailable
from tests.support.spool_files import become_somebody, record, records_in, spool_at

path = sys.argv[1]
"""

NO_FORK_WARNING = ("-W", "ignore:This process:DeprecationWarning")
"""Python 3.12 and later warn of what some tests are about: a fork in a process with threads."""


def spool_at(path: str | Path) -> DiskSpool:
    """A spool in this file."""
    return DiskSpool(str(path), DESTINATION, BOUNDS)


def record(name: str, size: int = 100) -> Record:
    """A record of a name."""
    return Record(name, b"x" * size)


def records_in(spool: DiskSpool) -> list[str]:
    """The names of all records that wait, in order; they are delivered by that."""
    names: list[str] = []
    while rows := spool.lease(500, 1 << 30, bulk=False).rows:
        names += [row.record_id for row in rows]
        spool.settle([Outcome(row, "delivered") for row in rows])
    return names


def become_somebody() -> None:
    """Give up the rights of root, for which no file is read-only."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(ANOTHER_USER)
        os.setuid(ANOTHER_USER)


@contextlib.contextmanager
def folder_of_somebody() -> Iterator[Path]:
    """A folder that belongs to whoever a process is after `become_somebody`."""
    with tempfile.TemporaryDirectory() as folder:
        if os.geteuid() == 0:
            os.chown(folder, ANOTHER_USER, ANOTHER_USER)
        yield Path(folder)


def start(program: str, *arguments: str | Path, options: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start a program after `PROGRAM`; it can be talked to line by line."""
    # Somebody else cannot write down what was measured, and a hundred children take too long to.
    unmeasured = ("KWAI_", "COV") if "become_somebody()" in program or "range(100)" in program else ("KWAI_",)
    return subprocess.Popen(
        [sys.executable, "-X", "dev", "-u", *NO_FORK_WARNING, *options, "-c", PROGRAM + program, *map(str, arguments)],
        env={name: value for name, value in os.environ.items() if not name.startswith(unmeasured)},
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(program: str, *arguments: str | Path, options: tuple[str, ...] = ()) -> str:
    """Run a program after `PROGRAM` to its end; returns what it prints. It has nothing to complain of."""
    with start(program, *arguments, options=options) as process:
        try:
            out, complaints = process.communicate(timeout=DEADLINE)
        finally:
            process.kill()
    assert ("", 0) == (complaints, process.returncode)
    return out


@contextlib.contextmanager
def running(program: str, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """Run a program after `PROGRAM` until the block ends; it begins when the program prints its first line."""
    with start(program, *arguments) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()
