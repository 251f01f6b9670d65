"""What people are shown of a delivery: two sums that balance, where records wait, what happened last."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kwai_middleware._delivery.delivery import Delivery
from kwai_middleware._delivery.stats import Stats
from kwai_middleware._delivery.verdict import Fate, Verdict
from kwai_middleware._delivery.weather import Weather
from tests.support.finished_calls import completed
from tests.support.logs_api import LogsAPI, answer, logs_api, taken
from tests.support.processes import DEADLINE, PROJECT


@pytest.fixture
def api() -> Iterator[LogsAPI]:
    """A vendor that takes everything."""
    with logs_api() as running_api:
        yield running_api


def balanced(stats: Stats) -> bool:
    """Whether both ledgers come to their sums."""
    calls = stats.spooled + stats.observed + stats.in_memory + stats.dropped
    records = stats.delivered + stats.pending + stats.rejected + stats.evicted + stats.purged
    return (stats.accepted, stats.appended) == (calls, records)


def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)  # what is waited for rings no bell: a look now and then


def stats(**more: Any) -> Stats:
    """Stats with the numbers given, all else as in a delivery without a call."""
    fields: dict[str, Any] = dict.fromkeys(
        (
            *("accepted", "spooled", "observed", "in_memory", "dropped"),
            *("appended", "delivered", "pending", "rejected", "evicted", "purged", "pending_bytes"),
        ),
        0,
    )
    fields |= dict.fromkeys(["oldest_pending", "last_success", "last_error", "disk_error"])
    fields |= {name: {} for name in ("dropped_by_reason", "restarts", "swallowed", "notices")}
    return Stats(**(fields | {"kept_in": "memory", "rejections": (), "taken_at": 1_800_000_000.0} | more))


def test_the_table_shows_both_sums_in_columns() -> None:
    """`print(stats)` shows two sums side by side, digits under digits, and nothing about what did not happen."""
    shown = str(
        stats(
            accepted=1_234_567,
            spooled=1_234_500,
            observed=60,
            in_memory=5,
            dropped=2,
            appended=1_234_500,
            delivered=1_234_000,
            pending=497,
            rejected=1,
            evicted=2,
        )
    )
    assert (
        "calls of this process          records of the spool\n"
        "  spooled        1,234,500       delivered      1,234,000\n"
        "+ observed              60     + pending              497\n"
        "+ in memory              5     + rejected               1\n"
        "+ dropped                2     + evicted                2\n"
        "                               + purged                 0\n"
        "= accepted       1,234,567     = appended       1,234,500\n"
        "\n"
        "kept in         memory"
    ) == shown


def test_the_table_tells_what_happened() -> None:
    """Below the sums stands, one line each: what was lost and why, what waits, where, since when, what went wrong."""
    shown = str(
        stats(
            dropped_by_reason={"queue full": 1_000, "unreadable": 1},
            pending_bytes=3 * 1024 * 1024,
            oldest_pending=125.0,
            last_success=1_800_000_000.0 - 3.25,
            last_error="HTTP 500",
            disk_error="SQLITE_FULL: database or disk is full",
            rejections=("a: HTTP 422", "b: HTTP 413"),
            restarts={"recording": 0, "shipping": 2},
            swallowed={"LookupError": 1},
            notices={"unrouted": 3},
        )
    )
    assert [
        "dropped         1,000 queue full, 1 unreadable",
        "waiting         3.0 MiB, the oldest for 2 min 5 s",
        "kept in         memory since the disk fails: SQLITE_FULL: database or disk is full",
        "delivered last  2027-01-15 07:59:56 UTC, 3.2 s ago",
        "last error      HTTP 500",
        "rejected last   b: HTTP 413",
        "restarts        2 shipping",
        "swallowed       1 LookupError",
        "notices         3 unrouted",
    ] == shown.partition("\n\n")[2].splitlines()


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.04, "0.0 s"), (59.9, "59.9 s"), (60.0, "1 min 0 s"), (7_199.0, "1 h 59 min"), (90_000.0, "1 d 1 h")],
)
def test_ages_are_told_in_two_units(seconds: float, words: str) -> None:
    """An age is told as a person would: in the two largest units that it takes."""
    assert f"waiting         1.0 KiB, the oldest for {words}" in str(stats(oldest_pending=seconds, pending_bytes=1024))


def test_a_look_is_of_both_ledgers_and_of_the_file(api: LogsAPI, tmp_path: Path) -> None:
    """Through calls of each kind both ledgers balance; the path of the file and the time of the success are told."""
    path = tmp_path / "records.db"
    before = time.time()
    with Delivery(api.settings(spool=f"sqlite://{path}", bulk_per_minute=0)) as delivery:
        for number in range(4):
            delivery.submit(completed(record_id=str(number)))
        delivery.submit(completed(capture="none"))
        assert delivery.flush(DEADLINE)
        stats = delivery.stats()
    assert (5, 4, 1, 4, 4) == (stats.accepted, stats.spooled, stats.observed, stats.appended, stats.delivered)
    assert balanced(stats)
    assert (str(path), None, None) == (stats.kept_in, stats.disk_error, stats.last_error)
    assert stats.last_success is not None
    assert before <= stats.last_success <= stats.taken_at <= time.time()


def test_to_look_makes_no_file(api: LogsAPI, tmp_path: Path) -> None:
    """Before the first record a look shows zeros and where records would wait, and leaves no file behind."""
    path = tmp_path / "records.db"
    with Delivery(api.settings(spool=f"sqlite://{path}")) as delivery:
        stats = delivery.stats()
        assert [] == list(tmp_path.iterdir())
    assert (0, str(path), None) == (stats.appended, stats.kept_in, stats.oldest_pending)
    assert balanced(stats)


def test_in_memory_there_is_a_sum_too(api: LogsAPI) -> None:
    """A spool in memory says so, and its ledger ends with what was thrown away."""
    api.answer = lambda entry, times: answer(401)
    delivery = Delivery(api.settings(spool="memory:"))
    delivery.submit(completed())
    assert not delivery.flush(DEADLINE)
    stats = delivery.stats()
    assert ("memory", "HTTP 401", 1) == (stats.kept_in, stats.last_error, stats.pending)
    assert stats.oldest_pending is not None
    assert not delivery.close(DEADLINE)
    stats = delivery.stats()
    assert (0, 1) == (stats.pending, stats.purged)
    assert balanced(stats)


OTHER = """
import sys
from kwai_middleware import CompletedCall, Delivery

with Delivery() as delivery:
    delivery.submit(CompletedCall(route="direct", model="m"))
    print(delivery.flush(float(sys.argv[1])))
"""


def ship_elsewhere(api: LogsAPI, path: Path, seconds: float) -> str:
    """Deliver one call in another process that has the same file; returns whether it says to have."""
    environment = {**os.environ, **api.environment(KWAI_SPOOL=f"sqlite://{path}", PYTHONPATH=str(PROJECT))}
    argv = [sys.executable, "-c", OTHER, str(seconds)]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=DEADLINE)
    assert 0 == done.returncode, done.stderr
    return done.stdout.strip()


def test_success_and_error_of_another_process_count(api: LogsAPI, tmp_path: Path) -> None:
    """A process that ships nothing itself shows when another one did, and what went wrong there."""
    path = tmp_path / "records.db"
    with Delivery(api.settings(spool=f"sqlite://{path}")) as delivery:
        assert "True" == ship_elsewhere(api, path, DEADLINE)
        seen = delivery.stats()
        assert (1, None) == (seen.delivered, seen.last_error)
        assert seen.last_success is not None

        api.answer = lambda entry, times: answer(401, b'{"detail":"no such key"}')
        assert "False" == ship_elsewhere(api, path, DEADLINE)
        assert "HTTP 401: no such key" == delivery.stats().last_error
        assert seen.last_success == delivery.stats().last_success
        delivery.submit(completed())
        assert not delivery.flush(DEADLINE)
        # Asked again, it is this process that ships: so the other one begins when it has let go.
        assert "HTTP 401: no such key" == delivery.stats().last_error


def test_whoever_ships_last_tells_how_it_went() -> None:
    """A success of another process ends an error of one's own that is older, and no newer one."""
    weather = Weather()
    assert (None, None) == weather.of_all(None, None)
    weather.observe(Verdict(Fate.BUSY, "HTTP 429"))
    assert (None, "HTTP 429") == weather.of_all(None, None)
    assert (1.0, "HTTP 429") == weather.of_all(1.0, None)
    later = time.time() + 1.0
    assert (later, None) == weather.of_all(later, None)
    assert (later, "HTTP 500") == weather.of_all(later, "HTTP 500")
    weather.observe(Verdict(Fate.DELIVERED))
    assert (weather.last_success, None) == weather.of_all(1.0, None)


def test_an_outage_of_the_disk_is_told_and_its_end_too(api: LogsAPI, tmp_path: Path) -> None:
    """While the folder cannot be used records wait in memory, with the reason; afterwards the file is named again."""
    folder = tmp_path / "state"
    folder.write_text("a file is in the way")
    api.answer = lambda entry, times: answer(401)
    with Delivery(api.settings(spool=f"sqlite://{folder}/records.db")) as delivery:
        delivery.submit(completed())
        until(lambda: delivery.stats().pending == 1)
        stats = delivery.stats()
        assert ("memory", 1) == (stats.kept_in, stats.pending)
        assert stats.disk_error
        assert f"kept in         memory since the disk fails: {stats.disk_error}" in str(stats)
        assert balanced(stats)
        folder.unlink()
        api.answer = taken
        # The disk is found to work when there is something to be written to it.
        while delivery.stats().disk_error is not None:
            delivery.submit(completed())
            assert delivery.flush(DEADLINE)
        stats = delivery.stats()
    assert (f"{folder}/records.db", stats.accepted) == (stats.kept_in, stats.delivered)
    assert balanced(stats)


def test_a_look_does_not_wait_for_whoever_writes(api: LogsAPI, tmp_path: Path) -> None:
    """While another program holds the turn to write, for however long, a look shows what is in the file."""
    path = tmp_path / "records.db"
    with Delivery(api.settings(spool=f"sqlite://{path}")) as looking:
        assert "True" == ship_elsewhere(api, path, DEADLINE)
        assert 1 == looking.stats().delivered
        assert "True" == ship_elsewhere(api, path, DEADLINE)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as writer:
            writer.execute("BEGIN IMMEDIATE")
            assert 2 == looking.stats().delivered
            writer.execute("ROLLBACK")


def test_the_shown_numbers_can_be_read_by_a_program(api: LogsAPI) -> None:
    """The columns are regular: a cron job's regular expression finds each number by its name."""
    with Delivery(api.settings(spool="memory:")) as delivery:
        delivery.submit(completed())
        assert delivery.flush(DEADLINE)
        shown = str(delivery.stats())
    numbers = dict(re.findall(r"(accepted|appended|delivered) +(\d+)", shown))
    assert {"accepted": "1", "appended": "1", "delivered": "1"} == numbers
