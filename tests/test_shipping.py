"""How what waits is shipped: alone while traffic is low, many together under load, by one process at a time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

from kwai_middleware._delivery.delivery import Delivery
from kwai_middleware._settings import Settings
from tests.support.finished_calls import completed
from tests.support.logs_api import LogsAPI
from tests.support.processes import DEADLINE, PROJECT
from tests.support.raw_server import raw_server
from tests.support.shipping import ApiOfProcesses, Crowd, place, until, waiting

MIB = 1024 * 1024
NO_PAUSE = 60_000
"""Bulk requests a minute: no test has to wait between two."""


def kinds(api: LogsAPI) -> list[str]:
    """Of each request, in order of arrival."""
    return [request.kind for request in api.requests]


def each_once(api: LogsAPI, *names: object) -> bool:
    """Whether these records arrived, and each of them once."""
    return Counter(api.arrived) == Counter(map(str, names))


# Low traffic


def test_each_record_goes_at_once_and_alone(api: LogsAPI, path: Path) -> None:
    """Nobody asks for it: each arrives before the next call, in order, over one connection."""
    with Delivery(api.settings(spool=place(path), bulk_per_minute=1)) as delivery:
        for number in range(12):
            delivery.submit(completed(record_id=str(number)))
            api.wait(number + 1)
        assert delivery.flush(DEADLINE)
    assert [str(number) for number in range(12)] == api.arrived
    assert (["create"] * 12, 1) == (kinds(api), api.connections)


def test_no_distance_between_bulks_holds_up_a_first_record(api: LogsAPI, path: Path) -> None:
    """A minute must pass before the next bulk; the first record of the next process arrives all the same."""
    settings = api.settings(spool=place(path), bulk_per_minute=1)
    waiting(path, settings, range(150))
    with Delivery(settings) as delivery:
        delivery.submit(completed(record_id="last"))
        api.wait(151)
        until(lambda: not delivery.stats().pending)
    with Delivery(settings) as delivery:
        delivery.submit(completed(record_id="first"))
        api.wait(152)
    assert ["bulk", "create"] == kinds(api)
    assert each_once(api, *range(150), "last", "first")


# Load


def test_up_to_a_hundred_go_over_a_few_connections(api: LogsAPI, path: Path) -> None:
    """Four are under way at once, never more, and none goes in bulk."""
    api.answer = crowd = Crowd(4)
    settings = api.settings(spool=place(path), bulk_per_minute=NO_PAUSE)
    waiting(path, settings, range(99))
    with Delivery(settings) as delivery:
        delivery.submit(completed(record_id="99"))
        api.wait(100)
        assert delivery.flush(DEADLINE)
    assert ({"create"}, 4) == (set(kinds(api)), crowd.most)
    # One for those that are sent one by one, four for the others.
    assert api.connections <= 5
    assert each_once(api, *range(100))


def test_more_go_in_bulk(api: LogsAPI, path: Path) -> None:
    """Five hundred in a request, in order; what is few again goes alone."""
    settings = api.settings(spool=place(path), bulk_per_minute=NO_PAUSE)
    waiting(path, settings, range(1049))
    with Delivery(settings) as delivery:
        delivery.submit(completed(record_id="1049"))
        until(lambda: not delivery.stats().pending)
    bulks = [request for request in api.requests if request.kind == "bulk"]
    assert [list(map(str, range(500))), list(map(str, range(500, 1000)))] == [request.ids for request in bulks]
    assert 50 == kinds(api).count("create")
    assert each_once(api, *range(1050))


def test_what_comes_often_goes_together(api: LogsAPI, path: Path) -> None:
    """After a hundred records within half a second those that follow are gathered, though they are few."""
    with Delivery(api.settings(spool=place(path), bulk_per_minute=NO_PAUSE)) as delivery:
        for _ in range(100):
            delivery.submit(completed())
        until(lambda: 100 == delivery.stats().delivered)
        for _ in range(25):
            delivery.submit(completed())
        until(lambda: 125 == delivery.stats().delivered)
    assert [25] == [len(request.ids) for request in api.requests if request.kind == "bulk"]


def test_a_bulk_is_bounded_in_bytes(api: LogsAPI, path: Path) -> None:
    """No more than four MiB are in hand at once, however many records may go together."""
    settings = api.settings(spool=place(path), bulk_per_minute=NO_PAUSE)
    waiting(path, settings, range(200), text="x" * 50_000)
    with Delivery(settings) as delivery:
        delivery.submit(completed(record_id="200"))
        api.wait(201)
        assert delivery.flush(DEADLINE)
    bulks = [json.dumps(request.rows).encode() for request in api.requests if request.kind == "bulk"]
    assert 2 == len(bulks)
    assert all(3 * MIB < len(body) < 4 * MIB + 100_000 for body in bulks)
    assert each_once(api, *range(201))


def test_what_is_too_much_for_the_bulks_of_a_minute_goes_alone(api: LogsAPI, path: Path) -> None:
    """One bulk a minute: what is beyond the next one goes over four connections, and in a hurry that one too."""
    api.answer = crowd = Crowd()
    settings = api.settings(spool=place(path), bulk_per_minute=1)
    waiting(path, settings, range(1049))
    with Delivery(settings) as delivery:
        delivery.submit(completed(record_id="1049"))
        until(lambda: 0 < delivery.stats().pending <= 500)
        assert 1 == kinds(api).count("bulk")
        # They wait for the next bulk.
        assert 490 < delivery.stats().pending
        assert delivery.flush(DEADLINE)
        until(lambda: not delivery.stats().pending)
    assert (1, 550) == (kinds(api).count("bulk"), kinds(api).count("create"))
    assert crowd.most <= 4
    assert each_once(api, *range(1050))


def test_no_bulk_where_none_is_allowed(api: LogsAPI, path: Path) -> None:
    """With `bulk_per_minute=0` each is a request of its own, however many wait."""
    api.answer = crowd = Crowd(4)
    settings = api.settings(spool=place(path), bulk_per_minute=0)
    waiting(path, settings, range(149))
    with Delivery(settings) as delivery:
        delivery.submit(completed(record_id="149"))
        api.wait(150)
        assert delivery.flush(DEADLINE)
    assert (["create"] * 150, 4) == (kinds(api), crowd.most)
    assert each_once(api, *range(150))


# Processes

PROCESS = """
import sys
from kwai_middleware import CompletedCall, default_delivery
name = sys.argv[1]
delivery = default_delivery()
print("ready", flush=True)
sys.stdin.readline()
for number in range(40):
    assert delivery.submit(CompletedCall(record_id=f"{name}-{number}", model="m", started_at=1.0))
assert delivery.flush(60)
print("flushed", flush=True)
sys.stdin.readline()
"""


def test_one_process_at_a_time_ships(path: Path) -> None:
    """Four that share a file send no faster than one: one bulk a minute, four connections, one shipper."""
    api = ApiOfProcesses()
    with raw_server(api.serve) as server:
        api.url = f"{server.url}/api"
        settings = api.settings(spool=place(path))
        waiting(path, settings, range(600))
        environment = {**os.environ, **api.environment(KWAI_SPOOL=place(path), KWAI_BULK_PER_MINUTE="1")}
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", PROCESS, str(name)],
                env=environment, cwd=PROJECT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )
            for name in "abcd"
        ]  # fmt: skip
        try:
            api.pids = [process.pid for process in processes]
            for word in ("ready\n", "flushed\n"):
                for process in processes:
                    assert process.stdout is not None
                    assert word == process.stdout.readline()
                for process in processes:
                    assert process.stdin is not None
                    process.stdin.write("go\n")
                    process.stdin.flush()
            assert [0] * 4 == [process.wait(DEADLINE) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.communicate()
    assert 1 == kinds(api).count("bulk")
    assert (1, 4) >= (api.most_processes, api.most_requests)
    assert each_once(api, *range(600), *(f"{name}-{number}" for name in "abcd" for number in range(40)))


def test_haste_of_another_process_ends_the_wait_for_a_bulk(api: LogsAPI, path: Path) -> None:
    """Who waits for the next bulk, for a minute, hears that another process sharing the file flushes."""
    settings = api.settings(spool=place(path), bulk_per_minute=1)
    waiting(path, settings, range(800))
    program = """
from kwai_middleware import CompletedCall, default_delivery
delivery = default_delivery()
assert delivery.submit(CompletedCall(record_id="other", model="m", started_at=1.0))
assert delivery.flush(45)
"""
    with Delivery(settings) as delivery:
        delivery.submit(completed(record_id="800"))
        until(lambda: 0 < delivery.stats().pending <= 500)
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=PROJECT, text=True, capture_output=True, timeout=DEADLINE,
            env={**os.environ, **api.environment(KWAI_SPOOL=place(path), KWAI_BULK_PER_MINUTE="1")},
        )  # fmt: skip
        assert (0, "") == (done.returncode, done.stderr)
    assert 1 == kinds(api).count("bulk")
    assert each_once(api, *range(801), "other")


def test_more_records_of_another_process_end_the_wait_for_a_bulk(api: LogsAPI, path: Path) -> None:
    """Who waits for the next bulk sees that more have come in than fit into it, whoever wrote them."""
    settings: Settings = api.settings(spool=place(path), bulk_per_minute=1)
    waiting(path, settings, range(799))
    with Delivery(settings) as delivery:
        delivery.submit(completed(record_id="799"))
        until(lambda: 0 < delivery.stats().pending <= 500)
        arrived = len(api.arrived)
        waiting(path, settings, range(800, 1100))
        api.wait(arrived + 90)
        assert 1 == kinds(api).count("bulk")
        assert delivery.flush(DEADLINE)
        until(lambda: not delivery.stats().pending)
    assert each_once(api, *range(1100))
