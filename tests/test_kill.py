"""A process that is killed loses nothing that was on disk, whenever it happens."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from kwai_middleware._delivery.delivery import Delivery
from kwai_middleware.sandbox import Sandbox, sandbox
from tests.support.processes import DEADLINE, PROJECT

KILLS = 200
WORKERS = 4
RATE = 30.0
"""Calls a second of each worker."""


class Workers:
    """Processes that make calls over one spool."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder = folder
        self.pids: list[int] = []
        self._forker = subprocess.Popen(
            [sys.executable, "-m", "tests.apps.killed", str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROJECT, text=True, env={**os.environ, **environment},
        )  # fmt: skip
        self._number = 0

    def begin(self) -> int:
        """Start one more; returns its process id."""
        self._number += 1
        assert self._forker.stdin is not None
        assert self._forker.stdout is not None
        self._forker.stdin.write(f"worker-{self._number} {RATE}\n")
        self._forker.stdin.flush()
        pid = int(self._forker.stdout.readline())
        self.pids.append(pid)
        return pid

    def kill(self, pid: int) -> None:
        """Kill one of them."""
        self.pids.remove(pid)
        os.kill(pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill all of them."""
        for pid in list(self.pids):
            self.kill(pid)
        self._forker.communicate()
        assert 0 == self._forker.returncode

    def on_disk(self) -> set[str]:
        """Ids of all records that were on disk, as far as the workers lived to tell."""
        return {line for path in self.folder.iterdir() for line in path.read_text().split("\n")[:-1]}


def finish(vendor: Sandbox, place: str) -> None:
    """Let one more process come, as after a restart, and deliver what the dead have left."""
    with Delivery(vendor.settings(spool=place)) as delivery:
        from tests.support.finished_calls import completed

        delivery.submit(completed(record_id="last"))
        assert delivery.flush(DEADLINE)
        pending = threading.Event()
        for _ in range(int(DEADLINE / 0.05)):
            if not delivery.stats().pending:
                break
            pending.wait(0.05)
        assert 0 == delivery.stats().pending


def arrived(vendor: Sandbox) -> list[dict[str, Any]]:
    """What the vendor got."""
    return [entry["log"] for entry in vendor.logs()]


def test_nothing_that_was_on_disk_is_lost_by_two_hundred_kills(tmp_path: Path) -> None:
    """Four processes share a spool, two hundred are killed: all arrives, for the right customer, nearly all once."""
    journals = tmp_path / "journals"
    journals.mkdir()
    place = f"sqlite://{tmp_path}/spool/"
    chance = random.Random(7)
    with sandbox() as vendor:
        workers = Workers(
            journals,
            {
                "KWAI_SPOOL": place, "KEYWORDSAI_API_KEY": "sandbox-app-key", "KEYWORDSAI_BASE_URL": vendor.gateway_url,
                "PYTHONPATH": str(PROJECT),
            },
        )  # fmt: skip
        moment = threading.Event()
        for _ in range(WORKERS):
            workers.begin()
        for _ in range(KILLS):
            moment.wait(chance.uniform(0.0, 0.4))
            workers.kill(chance.choice(workers.pids))
            workers.begin()
        workers.end()
        finish(vendor, place)
        logs = [log for log in arrived(vendor) if log["metadata"]["kwai_record_id"] != "last"]
    counts = Counter(log["metadata"]["kwai_record_id"] for log in logs)
    on_disk = workers.on_disk()
    assert len(on_disk) > KILLS
    assert set() == on_disk - counts.keys()
    assert counts.total() - len(counts) < len(counts) / 100
    for log in logs:
        customer = log["metadata"]["kwai_record_id"].partition("-customer-")[2]
        assert f"customer-{customer}" == log["customer_identifier"] == log["customer_params"]["customer_identifier"]
        assert json.dumps(log["prompt_messages"]).count(f"customer-{customer}:") == 1
