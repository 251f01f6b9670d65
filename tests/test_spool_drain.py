"""`spool drain`: what waits is sent now, with a bar at a terminal, whoever else ships or interrupts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from kwai_middleware._delivery.destination import Destination, destination_of
from kwai_middleware._delivery.disk.errors import SpoolGone
from kwai_middleware._delivery.disk.inspection import Inspection
from kwai_middleware._delivery.draining import Draining, Progress
from kwai_middleware._delivery.spool import Outcome
from kwai_middleware._secret import Secret
from kwai_middleware.sandbox.running import sandbox
from tests.support.logs_api import KEY, LogsAPI, answer, taken
from tests.support.processes import DEADLINE
from tests.support.spool_command import (
    ELSEWHERE,
    Done,
    app,
    append,
    arguments,
    at_a_terminal,
    counters,
    environment,
    record,
    spool_command,
)
from tests.support.spooling import asked, balanced

MIB = 1024 * 1024


def of(api: LogsAPI) -> Destination:
    """Where an app with this environment sends to."""
    return destination_of(api.url, Secret(KEY))


def waiting(path: Path, api: LogsAPI, number: int, **more: Any) -> None:
    """Let records wait for the vendor."""
    append(path, *(record(f"r{each}") for each in range(number)), destination=of(api), **more)


def drain(path: Path, api: LogsAPI, *words: str, **variables: str) -> Done:
    """Drain as cron does."""
    return spool_command("drain", "--spool", path, *words, **api.environment(**variables))


def refusing(status: int) -> Any:
    """Says no to everything."""
    return lambda entry, times: answer(status, b'{"detail":"because"}')


def test_everything_is_delivered(path: Path, api: LogsAPI) -> None:
    """Each record arrives once, in order, the ledger says so, and so does the exit code."""
    waiting(path, api, 5)
    done = drain(path, api)
    ledger = counters(path, of(api))
    status = spool_command("status", "--spool", path)

    assert "last success 20" in status.output
    assert " ago)" in status.output
    assert (0, "Delivered 5, 0 left.") == (done.code, done.output.strip())
    assert f"{path}: 5 records to send" in done.errors
    assert [f"r{each}" for each in range(5)] == api.arrived
    assert (5, 0) == (ledger.delivered, ledger.pending)
    assert [(None,)] == asked(path, "SELECT shipper FROM destinations")


@pytest.mark.parametrize("bulk_per_minute", ["0", "30"])
def test_many_are_delivered(path: Path, api: LogsAPI, bulk_per_minute: str) -> None:
    """A large backlog goes out in bulk requests, or over a few connections where those are switched off."""
    waiting(path, api, 250)
    done = drain(path, api, "--json", KWAI_BULK_PER_MINUTE=bulk_per_minute)

    assert 0 == done.code
    assert [(250, 0, 0, "nothing waits")] == [
        (each["delivered"], each["pending"], each["rejected"], each["ending"]) for each in done.document["files"]
    ]
    assert sorted(f"r{each}" for each in range(250)) == sorted(api.arrived)


def test_it_sends_to_the_sandbox(path: Path) -> None:
    """The vendor's stand-in lists the record after a drain."""
    with sandbox() as vendor:
        variables = {"KEYWORDSAI_API_KEY": KEY, "KEYWORDSAI_BASE_URL": f"{vendor.url}/api"}
        append(path, record("r1"), destination=destination_of(f"{vendor.url}/api", Secret(KEY)))
        done = spool_command("drain", "--spool", path, **variables)
        assert 0 == done.code, done.output
        logs = vendor.logs(wait=1)

    assert "r1" in json.dumps(logs)


def test_at_a_terminal_there_is_a_bar(path: Path, api: LogsAPI) -> None:
    """It moves while records go out, and stands at 100 % in the end."""
    waiting(path, api, 4)
    go_on = threading.Semaphore(0)

    def when_let(entry: dict[str, Any], times: int) -> bytes:
        assert go_on.acquire(timeout=DEADLINE)
        return taken(entry, times)

    api.answer = when_let
    with at_a_terminal("drain", "--spool", path, **api.environment()) as terminal:
        terminal.wait_for("[..............................]   0%  delivered 0, 4 left")
        go_on.release(2)
        terminal.wait_for("50%  delivered 2, 2 left")
        go_on.release(2)
        assert 0 == terminal.end()
        output = terminal.output

    assert "[##############################] 100%  delivered 4, 0 left\x1b[K\r\n" in output
    assert "\r\n" in output.partition("100%")[2]
    assert "Delivered 4, 0 left." in output.splitlines()[-1]


def test_nothing_to_send(path: Path, api: LogsAPI) -> None:
    """Where nothing of this app waits, that is said; what waits for another app is counted, and not sent."""
    append(path, record("r1"), record("r2"), destination=ELSEWHERE)
    others = drain(path, api)
    waiting(path, api, 1)
    own = drain(path, api, "--json")
    again = drain(path, api)

    assert [0, 0, 0] == [each.code for each in (others, own, again)]
    assert f"Nothing waits for {api.url} with key {of(api).digest[:8]} (this app's)." in others.output
    assert "2 records for another API key or base_url" in others.output
    assert 2 == own.document["waiting_for_others"]
    assert "Nothing waits" in again.output
    assert ["r0"] == api.arrived
    assert 2 == counters(path, ELSEWHERE).pending


def test_every_file_of_a_folder_is_drained(path: Path, api: LogsAPI) -> None:
    """Also one that is named after another destination, when records of this app are in it."""
    waiting(path, api, 2)
    second = path.with_name("spool-2.db")
    append(second, record("second"), destination=of(api))
    done = spool_command("drain", **api.environment(KWAI_SPOOL=f"sqlite://{path.parent}/"))

    assert 0 == done.code
    assert ["Delivered 2, 0 left.", "Delivered 1, 0 left."] == done.output.splitlines()
    assert ["r0", "r1", "second"] == api.arrived


def test_without_a_key_it_cannot_send(path: Path, api: LogsAPI) -> None:
    """That is exit code 2, and says which variable is missing."""
    waiting(path, api, 1)
    done = drain(path, api, KEYWORDSAI_API_KEY="")

    assert 2 == done.code
    assert "KEYWORDSAI_API_KEY" in done.errors
    assert 1 == counters(path, of(api)).pending


def test_the_age_of_records_is_no_reason_to_give_them_up(path: Path, api: LogsAPI) -> None:
    """Whoever drains after two weeks wants what has waited for two weeks."""
    waiting(path, api, 3, clock=lambda: time.time() - 14 * 86400)

    assert 0 == drain(path, api).code
    assert ["r0", "r1", "r2"] == api.arrived


def test_what_rests_is_tried_at_once(path: Path, api: LogsAPI) -> None:
    """A record that has failed, and would wait for an hour, is sent now."""
    waiting(path, api, 1)
    with app(path, of(api)) as spool:
        spool.settle(
            [Outcome(row, "returned", attempts=5, rest=3600.0) for row in spool.lease(1, MIB, bulk=False).rows]
        )

    assert 0 == drain(path, api, "--timeout", "30s").code
    assert ["r0"] == api.arrived


def test_a_refused_app_is_told_at_once(path: Path, api: LogsAPI) -> None:
    """With a wrong key there is no use in waiting: exit code 1, the answer, how many are left."""
    waiting(path, api, 3)
    api.answer = refusing(401)
    done = drain(path, api)
    as_json = drain(path, api, "--json")

    assert (1, 1) == (done.code, as_json.code)
    assert "Delivered 0, 3 left. The logs API refuses this app" in done.output
    assert "Last error: HTTP 401: because" in done.output
    assert ("refused", 3, "HTTP 401: because") == tuple(
        as_json.document["files"][0][name] for name in ("ending", "pending", "last_error")
    )


def test_rejected_records_are_not_delivered(path: Path, api: LogsAPI) -> None:
    """One that the vendor will never take is exit code 1, and leads to `spool rejected`."""
    waiting(path, api, 3)
    api.answer = lambda entry, times: (
        answer(422, b'{"detail":"no"}') if entry["metadata"]["kwai_record_id"] == "r1" else taken(entry, times)
    )
    done = drain(path, api)

    assert 1 == done.code
    assert "Delivered 2, 0 left, 1 rejected. See 'spool rejected'." in done.output


def test_the_time_is_bounded(path: Path, api: LogsAPI) -> None:
    """With a vendor that fails it ends after the timeout, says what is left, and all of it is still there."""
    waiting(path, api, 3)
    api.answer = refusing(500)
    done = drain(path, api, "--timeout", "1.5s")
    ledger = counters(path, of(api))

    assert 1 == done.code
    assert "Delivered 0, 3 left. The time (--timeout) is over. Last error: HTTP 500: because" in done.output
    assert "It fails: HTTP 500: because" in done.errors
    assert (3, 0) == (ledger.pending, ledger.rejected)


def test_no_time_at_all(path: Path, api: LogsAPI) -> None:
    """`--timeout 0s` sends nothing."""
    waiting(path, api, 1)

    assert 1 == drain(path, api, "--timeout", "0s").code
    assert [] == api.arrived


def test_another_process_that_ships_is_watched(path: Path, api: LogsAPI) -> None:
    """While an app holds the claim nothing is sent twice: the drain says who ships, and ends when all is settled."""
    waiting(path, api, 3)
    with app(path, of(api)) as spool:
        rows = spool.lease(1, MIB, bulk=False).rows
        command = started(path, api)
        assert command.stderr is not None
        seen = [command.stderr.readline() for _ in range(2)]
        while rows:
            spool.settle([Outcome(row, "delivered") for row in rows])
            rows = spool.lease(1, MIB, bulk=False).rows
        output, errors = command.communicate(timeout=DEADLINE)

    assert f"Process {os.getpid()} ships these records already: watching it.\n" == seen[1]
    assert 0 == command.returncode, errors
    assert "Delivered 3, 0 left." in output
    assert [] == api.arrived


def test_an_app_that_gives_up_leaves_less_to_deliver(path: Path, api: LogsAPI) -> None:
    """Records that an app gives up for their age meanwhile were not delivered: exit code 1."""
    waiting(path, api, 3, clock=lambda: time.time() - 3 * 86400)
    with app(path, of(api)) as spool, app(path, of(api), clock=lambda: time.time() + 6 * 86400) as later:
        rows = spool.lease(1, MIB, bulk=False).rows
        command = started(path, api)
        assert command.stderr is not None
        while "watching it" not in command.stderr.readline():
            pass
        later.lease(1, MIB, bulk=False)
        spool.settle([Outcome(row, "delivered") for row in rows])
        output, errors = command.communicate(timeout=DEADLINE)

    assert 1 == command.returncode, errors
    assert "Delivered 1, 0 left, 2 given up for their age." in output


def started(path: Path, api: LogsAPI, **variables: str) -> subprocess.Popen[str]:
    """A drain that somebody will interrupt."""
    return subprocess.Popen(
        arguments("drain", "--spool", path),
        env=environment(**api.environment(**variables)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_ends_after_the_request_under_way(path: Path, api: LogsAPI, sig: int) -> None:
    """The record under way is delivered and counted, the others wait on, and nobody sends any of them twice."""
    waiting(path, api, 5)
    go_on = threading.Event()

    def when_let(entry: dict[str, Any], times: int) -> bytes:
        assert go_on.wait(DEADLINE)
        return taken(entry, times)

    api.answer = when_let
    command = started(path, api)
    api.wait(1)
    command.send_signal(sig)
    assert command.stderr is not None
    while "Ending after the requests under way" not in command.stderr.readline():
        pass
    go_on.set()
    output, errors = command.communicate(timeout=DEADLINE)
    ledger = counters(path, of(api))

    assert 1 == command.returncode, errors
    assert "Delivered 1, 4 left. Stopped." in output
    assert "Traceback" not in errors
    assert (1, 4) == (ledger.delivered, ledger.pending)
    assert balanced(ledger)
    assert 0 == drain(path, api).code
    assert [f"r{each}" for each in range(5)] == api.arrived


def test_interrupted_it_leaves_the_other_files(path: Path, api: LogsAPI) -> None:
    """What waits in the files behind the one that was interrupted is told of, too."""
    waiting(path, api, 1)
    append(path.with_name("spool-2.db"), record("second"), destination=of(api))
    go_on = threading.Event()

    def when_let(entry: dict[str, Any], times: int) -> bytes:
        assert go_on.wait(DEADLINE)
        return taken(entry, times)

    api.answer = when_let
    command = started(path.parent, api)
    api.wait(1)
    command.send_signal(signal.SIGINT)
    assert command.stderr is not None
    while "Ending after the requests under way" not in command.stderr.readline():
        pass
    go_on.set()
    output, errors = command.communicate(timeout=DEADLINE)

    assert 1 == command.returncode, errors
    assert ["Delivered 1, 0 left.", "Delivered 0, 1 left. Stopped."] == [
        line.removesuffix(" Stopped.") if line.startswith("Delivered 1") else line for line in output.splitlines()
    ]
    assert ["r0"] == api.arrived


def test_a_file_that_others_hold_is_tried_again(path: Path, api: LogsAPI) -> None:
    """While another process writes for long the operator is told why nothing moves; then everything is delivered."""
    waiting(path, api, 2)
    errors: list[str] = []
    with contextlib.closing(Inspection(str(path))) as inspection:
        state = inspection.state_of(of(api))
        assert state is not None
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        def progressed(progress: Progress) -> None:
            if progress.last_error is not None:
                errors.append(progress.last_error)
                other.close()

        draining = Draining(inspection, state, api.settings(), Secret(KEY), progressed)
        assert "nothing waits" == draining.run(time.monotonic() + DEADLINE, lambda: False)

    assert 1 == len(errors)
    assert ["r0", "r1"] == api.arrived


def test_a_file_that_cannot_be_opened_is_not_empty(path: Path, api: LogsAPI) -> None:
    """Nobody says that nothing waits when nobody could look."""
    path.write_bytes(b"x" * 8192)
    done = drain(path, api)

    assert (2, "") == (done.code, done.output)


def test_interrupted_twice_it_ends_at_once(path: Path, api: LogsAPI) -> None:
    """Also while the vendor hangs; the ledger balances, and the next drain delivers everything."""
    waiting(path, api, 3)
    api.answer = lambda entry, times: None
    command = started(path, api, KWAI_REQUEST_TIMEOUT="600")
    api.wait(1)
    command.send_signal(signal.SIGINT)
    assert command.stderr is not None
    while "once more ends at once" not in command.stderr.readline():
        pass
    command.send_signal(signal.SIGINT)
    output, errors = command.communicate(timeout=DEADLINE)
    ledger = counters(path, of(api))
    api.answer = taken

    assert 1 == command.returncode, errors
    assert "Delivered 0, 3 left. Stopped." in output
    assert "Traceback" not in errors
    assert 3 == ledger.pending
    assert balanced(ledger)
    assert 0 == drain(path, api).code
    assert ["r0", "r0", "r1", "r2"] == api.arrived


def test_killed_it_leaves_everything_to_the_next(path: Path, api: LogsAPI) -> None:
    """A drain that was killed in the middle of a request holds up nothing."""
    waiting(path, api, 2)
    api.answer = lambda entry, times: None
    command = started(path, api)
    api.wait(1)
    command.kill()
    command.communicate(timeout=DEADLINE)
    api.answer = taken

    assert 0 == drain(path, api).code
    assert ["r0", "r0", "r1"] == api.arrived


def test_a_file_that_goes_away_is_reported(path: Path, api: LogsAPI) -> None:
    """A file that is deleted in the middle of a drain is exit code 2, with its path."""
    waiting(path, api, 2)

    def delete(entry: dict[str, Any], times: int) -> bytes:
        for each in path.parent.iterdir():
            each.unlink()
        return answer(500)

    api.answer = delete
    done = drain(path, api)

    assert 2 == done.code
    assert f"error: {path}" in done.errors


def test_a_destination_that_goes_away_is_reported(path: Path, api: LogsAPI) -> None:
    """Somebody has put another file in place of the one that was looked into."""
    waiting(path, api, 1)
    seen: list[Progress] = []
    with contextlib.closing(Inspection(str(path))) as inspection:
        state = inspection.state_of(of(api))
        assert state is not None
        with inspection.database.transaction() as connection:
            connection.execute("DELETE FROM destinations")
        draining = Draining(inspection, state, api.settings(), Secret(KEY), seen.append)
        with pytest.raises(SpoolGone, match="holds nothing for this destination"):
            draining.run(time.monotonic() + DEADLINE, lambda: False)

    assert [] == seen
