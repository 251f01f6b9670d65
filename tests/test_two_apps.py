"""Two apps of one host, each with an API key of its own, that keep their records in one place."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.logs_api import LogsAPI, answer, logs_api, taken
from tests.support.processes import DEADLINE, PROJECT

APP = """
import sys, time
import kwai_middleware as kwai

name, count = sys.argv[1], int(sys.argv[2])
delivery = kwai.default_delivery()
for number in range(count):
    delivery.submit(kwai.CompletedCall(record_id=f"{name} {number}", model="m", messages=b"[]"))
while delivery.stats().spooled < count:
    time.sleep(0.005)
print("on disk", flush=True)
# Until it is told to end, or killed.
sys.stdin.readline()
while delivery.stats().pending:
    time.sleep(0.005)
"""


@pytest.fixture
def api() -> Iterator[LogsAPI]:
    """A logs API that takes everything, until the test says otherwise."""
    with logs_api() as running_api:
        yield running_api


@pytest.fixture(params=["spool/", "spool/one.db"], ids=["one folder", "one file"])
def place(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Where both keep their records."""
    return f"sqlite://{tmp_path}/{request.param}"


@contextlib.contextmanager
def app(api: LogsAPI, place: str, key: str, name: str, count: int) -> Iterator[subprocess.Popen[str]]:
    """A process with this key that has made so many calls; their records are on disk."""
    environment = api.environment(KWAI_SPOOL=place, KEYWORDSAI_API_KEY=key)
    with subprocess.Popen(
        [sys.executable, "-c", APP, name, str(count)],
        env={**os.environ, **environment}, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert "on disk\n" == process.stdout.readline()
            yield process
        finally:
            process.kill()


def finish(process: subprocess.Popen[str]) -> None:
    """Let it deliver all that waits for a process with its key, and end."""
    process.communicate("\n", timeout=DEADLINE)
    assert 0 == process.returncode


def delivered(api: LogsAPI) -> Counter[tuple[str, str]]:
    """Each record that arrived, and the key that it came with."""
    counts: Counter[tuple[str, str]] = Counter()
    for request in api.requests:
        headers = [line.split() for line in request.head.splitlines()[1:]]
        [key] = [header[-1].decode() for header in headers if header[0].lower() == b"authorization:"]
        counts.update((record_id, key) for record_id in request.ids)
    return counts


def of(name: str, count: int, key: str) -> Counter[tuple[str, str]]:
    """What is delivered of an app, each record once."""
    return Counter((f"{name} {number}", key) for number in range(count))


def test_each_ships_its_own(api: LogsAPI, place: str) -> None:
    """Side by side, each sends its own records, with its own key."""
    with app(api, place, "key-of-a", "a", 20) as a, app(api, place, "key-of-b", "b", 20) as b:
        finish(a)
        finish(b)
    assert of("a", 20, "key-of-a") + of("b", 20, "key-of-b") == delivered(api)


def test_what_a_killed_app_leaves_waits_for_its_key(api: LogsAPI, place: str) -> None:
    """One is killed while the vendor is away for it: the other one ships none of its records."""
    api.answer = lambda entry, times: (
        answer(503) if entry["metadata"]["kwai_record_id"].startswith("a") else taken(entry, times)
    )
    with app(api, place, "key-of-a", "a", 20) as a:
        a.kill()
        a.wait(DEADLINE)
    # From here on the vendor would take them, whoever sends them.
    api.answer = taken
    api.requests.clear()
    with app(api, place, "key-of-b", "b", 20) as b:
        finish(b)
    # What the first one had sent when it was killed may be read only now; it came with its own key.
    assert of("b", 20, "key-of-b") == Counter({each: 1 for each in delivered(api) if each[1] == "key-of-b"})
    with app(api, place, "key-of-a", "a again", 1) as a:
        finish(a)
    counts = delivered(api)
    assert (of("a", 20, "key-of-a") + of("a again", 1, "key-of-a") + of("b", 20, "key-of-b")).keys() == counts.keys()
    assert of("b", 20, "key-of-b") == Counter({each: times for each, times in counts.items() if each[1] == "key-of-b"})


def test_an_app_killed_in_the_middle_of_a_request_holds_up_nobody(api: LogsAPI, place: str) -> None:
    """One is killed while a request of its is under way; the other one goes on, and the next one takes its place."""
    api.answer = lambda entry, times: (
        None if entry["metadata"]["kwai_record_id"].startswith("a") else taken(entry, times)
    )
    with app(api, place, "key-of-a", "a", 20) as a, app(api, place, "key-of-b", "b", 20) as b:
        while not any(name.startswith("a") for name in api.arrived):
            api.wait(len(api.arrived) + 1)
        a.kill()
        a.wait(DEADLINE)
        finish(b)
        api.answer = taken
        with app(api, place, "key-of-a", "a again", 1) as a:
            finish(a)
    counts = delivered(api)
    assert (of("a", 20, "key-of-a") + of("a again", 1, "key-of-a") + of("b", 20, "key-of-b")).keys() == counts.keys()
    assert of("b", 20, "key-of-b") == Counter({each: times for each, times in counts.items() if each[0][0] == "b"})
