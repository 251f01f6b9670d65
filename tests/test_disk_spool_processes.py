"""The spool on disk between real processes: everything is shipped once, and the dead leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kwai_middleware._delivery.spool import SpoolCounters
from tests.support.processes import DEADLINE, PROJECT
from tests.support.spooling import LARGE, Host, leased, ledger, names, settle

SHIPS = str(PROJECT / "tests" / "support" / "ships_from_a_spool.py")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    host.close()


def started(*arguments: object) -> subprocess.Popen[str]:
    """A process of the fleet."""
    return subprocess.Popen(
        [sys.executable, SHIPS, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
    )


def first_line(process: subprocess.Popen[str]) -> str:
    """What it says first."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_four_processes_ship_everything_exactly_once(host: Host) -> None:
    """All append and ship from one file at full speed, and nobody dies."""
    count = 200
    fleet = [started(host.path, name, count, 10_000, 5) for name in range(4)]
    assert ["ready"] * 4 == [first_line(process) for process in fleet]
    for process in fleet:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    reports = [json.loads(process.communicate(timeout=DEADLINE)[0]) for process in fleet]
    for report in reports:
        sys.stdout.write(f"{len(report['sent'])} sent; seconds for a commit: {report['seconds']}\n")
    sent = [name for report in reports for name in report["sent"]]
    assert sorted(f"{name}-{number}" for name in range(4) for number in range(count)) == sorted(sent)
    assert SpoolCounters(appended=4 * count, delivered=4 * count) == ledger(host.spool())


def test_the_rows_of_a_killed_process_are_taken_over_at_once(host: Host) -> None:
    """Neither its claim nor its leases are waited for; while it lives they are."""
    process = started(host.path)
    try:
        assert "leased 0" == first_line(process)
        spool = host.spool()
        # The same clock as that of the other process.
        host.ticks.now = time.monotonic()
        assert spool.lease(9, LARGE, bulk=False).is_elsewhere
        process.send_signal(signal.SIGKILL)
        process.wait(DEADLINE)
        rows = leased(spool, 9)
        assert ["0", "1"] == names(rows)
        settle(spool, rows)
        assert 2 == spool.counters().delivered
    finally:
        process.kill()
        process.communicate()
