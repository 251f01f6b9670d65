"""Delivery under the servers that run real apps: their ends, their forks, and a vendor that is away meanwhile."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.logs_api import LogsAPI, logs_api, taken
from tests.support.processes import DEADLINE, PROJECT, Process, free_port, running
from tests.support.shipping import until

NEXT_PROCESS = """
import time
import kwai_middleware as kwai
delivery = kwai.default_delivery()
delivery.submit(kwai.CompletedCall(record_id="next process", model="m", messages=b"[]"))
until = time.monotonic() + 30
while (delivery.stats().pending or not delivery.stats().delivered) and time.monotonic() < until:
    time.sleep(0.01)
"""

LONGEST_END = 15.0
"""Seconds for the end of a server: three for the delivery, and what the server and two busy cores take."""


@pytest.fixture
def api() -> Iterator[LogsAPI]:
    """A logs API that takes everything, until the test says otherwise."""
    with logs_api() as running_api:
        yield running_api


@contextlib.contextmanager
def serving(api: LogsAPI, argv: Sequence[str], port: int, **environment: str) -> Iterator[Process]:
    """Run a server for which `api` is the vendor."""
    with running(argv, ready=f"http://127.0.0.1:{port}/ready", env=api.environment(**environment)) as server:
        yield server


def asked(port: int, name: object) -> str:
    """The answer of the app: the id of the record that the request has led to."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{name}", timeout=DEADLINE) as response:
        body: bytes = response.read()
        return body.decode()


def asked_of_all(port: int, workers: int, least: int = 20) -> list[str]:
    """The answers to so many requests, and to more of them until so many workers have answered."""
    answers = [asked(port, number) for number in range(least)]
    until = time.monotonic() + DEADLINE
    while len(pids(answers)) < workers:
        assert time.monotonic() < until
        answers.append(asked(port, len(answers)))
    return answers


def pids(answers: Sequence[str]) -> set[str]:
    """The processes that have answered."""
    return {answer.split()[1] for answer in answers}


def arrived(api: LogsAPI) -> Counter[str]:
    """How often each record arrived, without those of the requests that only ask whether the server is there."""
    return Counter(name for name in api.arrived if not name.startswith("/ready"))


def stopped(server: Process) -> float:
    """Stop it by SIGTERM; returns the seconds that this took."""
    began = time.monotonic()
    server.stop()
    return time.monotonic() - began


def run_the_next_process(api: LogsAPI) -> None:
    """Let a later process of the app deliver what the earlier ones have left on disk."""
    subprocess.run(
        [sys.executable, "-c", NEXT_PROCESS],
        env={**os.environ, **api.environment()},
        cwd=PROJECT,
        timeout=DEADLINE,
        check=True,
    )


UVICORN = ["-m", "uvicorn", "--no-access-log"]
GUNICORN = ["-m", "gunicorn"]


def test_uvicorn_with_two_workers(api: LogsAPI) -> None:
    """The records of the last requests before SIGTERM arrive, once, from each worker."""
    port = free_port()
    argv = [*UVICORN, "--workers", "2", "--port", str(port), "tests.apps.answers_asgi:app"]
    with serving(api, argv, port) as server:
        answers = asked_of_all(port, 2)
        assert stopped(server) < LONGEST_END
    assert Counter(answers) == arrived(api)


def test_uvicorn_while_the_vendor_hangs(api: LogsAPI) -> None:
    """The workers end in time all the same, and the next process delivers what they have left on disk."""
    api.answer = lambda entry, times: None
    port = free_port()
    argv = [*UVICORN, "--workers", "2", "--port", str(port), "tests.apps.answers_asgi:app"]
    with serving(api, argv, port) as server:
        answers = asked_of_all(port, 2)
        assert stopped(server) < LONGEST_END
    api.answer = taken
    run_the_next_process(api)
    assert {*answers, "next process"} == set(arrived(api))


def test_gunicorn_replaces_its_workers_while_the_vendor_hangs(api: LogsAPI) -> None:
    """A worker whose time has come ends although nothing can be delivered; a later process delivers everything."""
    api.answer = lambda entry, times: None
    port = free_port()
    argv = [*GUNICORN, "--preload", "-w", "2", "--max-requests", "3", "-b", f"127.0.0.1:{port}"]
    with serving(api, [*argv, "tests.apps.preloaded:app"], port, KWAI_EXIT_TIMEOUT="0.5") as server:
        answers = [asked(port, number) for number in range(8)]
        assert len(pids(answers)) > 2
        assert stopped(server) < LONGEST_END
    api.answer = taken
    run_the_next_process(api)
    assert {"while importing", *answers, "next process"} == set(arrived(api))


UWSGI = """
import sys, pyuwsgi
sys.argv[0] = "uwsgi"
pyuwsgi.run()
"""

APP_OF_UWSGI = """
import os, time
import kwai_middleware as kwai

delivery = kwai.default_delivery()
for number in range(200):
    name = f"/while-importing/{number} {os.getpid()}"
    delivery.submit(kwai.CompletedCall(record_id=name, model="m", messages=b"[]"))

def application(environ, start_response):
    name = f"{environ['PATH_INFO']} {os.getpid()}"
    delivery.submit(kwai.CompletedCall(record_id=name, model="m", messages=b"[]"))
    while "RECORDED_FIRST" in os.environ and delivery.stats().in_memory:
        time.sleep(0.001)
    start_response("200 OK", [("content-type", "text/plain")])
    return [name.encode()]
"""


def uwsgi(folder: Path, port: int, *options: str) -> list[str]:
    """The command line of uWSGI with an app that makes calls while it is imported, and in its requests."""
    app = folder / "app_of_uwsgi.py"
    app.write_text(APP_OF_UWSGI)
    fixed = ["--master", "--processes", "2", "--die-on-term", "--wsgi-file", str(app)]
    return ["-c", UWSGI, "--http-socket", f"127.0.0.1:{port}", *fixed, *options]


def is_idle(server: Process) -> bool:
    """Say whether each worker waits for a request.

    uWSGI ends one that does not wherever it is: without the handlers of its exit, or with a lock in its hand.
    """
    pid = server.popen.pid
    workers = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    try:
        return all(any(map(polls, Path(f"/proc/{worker}/task").iterdir())) for worker in workers)
    except OSError:
        # One that is being replaced.
        return False


def polls(thread: Path) -> bool:
    """Say whether a thread sleeps in `epoll`, by the kernel's name of the place; another one is that of locks."""
    place = (thread / "wchan").read_text()
    return "epoll" in place or "ep_poll" in place


@pytest.mark.parametrize(
    ("options", "imports"),
    [
        (["--enable-threads"], 1),
        (["--threads", "4"], 1),
        (["--enable-threads", "--lazy-apps"], 2),
        (["--enable-threads", "--max-requests", "5"], 1),
        (["--enable-threads", "--py-call-uwsgi-fork-hooks"], 1),
    ],
    ids=["threads of ours", "threads of its own", "lazy apps", "workers are replaced", "hooks of Python's"],
)
def test_uwsgi(api: LogsAPI, tmp_path: Path, options: list[str], imports: int) -> None:
    """It forks in C after calls were made: all records arrive, each once, and no worker is left hanging."""
    port = free_port()
    # A worker that is still busy with its last request when it is told to end does not call the handlers of its exit.
    with serving(api, uwsgi(tmp_path, port, *options), port, RECORDED_FIRST="1") as server:
        # A worker that is asked to end while it imports its app goes on without one.
        answers = asked_of_all(port, 2)
        until(lambda: all(f"GET {answer.split()[0]} " in server.output for answer in answers) and is_idle(server))
        assert stopped(server) < LONGEST_END
        assert "kwai_middleware" not in server.output
    run_the_next_process(api)
    counts = arrived(api)
    while_importing = Counter({name: times for name, times in counts.items() if name.startswith("/while-importing")})
    assert Counter([*answers, "next process"]) == counts - while_importing
    assert (imports * 200, imports * 200) == (len(while_importing), while_importing.total())
    assert imports == len(pids(list(while_importing)))


def test_uwsgi_without_threads(api: LogsAPI, tmp_path: Path) -> None:
    """Where no thread of ours runs between two requests, what is left is delivered at the end."""
    port = free_port()
    with serving(api, uwsgi(tmp_path, port), port) as server:
        answers = asked_of_all(port, 2)
        until(lambda: all(f"GET {answer.split()[0]} " in server.output for answer in answers) and is_idle(server))
        assert stopped(server) < LONGEST_END
    assert Counter(answers) == Counter(name for name in arrived(api).elements() if "importing" not in name)


def test_uwsgi_while_the_vendor_hangs(api: LogsAPI, tmp_path: Path) -> None:
    """Master and workers end in time, and the next process delivers what they have left on disk."""
    api.answer = lambda entry, times: None
    port = free_port()
    argv = uwsgi(tmp_path, port, "--enable-threads")
    # A worker that is still busy with its last request when it is told to end does not call the handlers of its exit.
    with serving(api, argv, port, KWAI_EXIT_TIMEOUT="0.5", RECORDED_FIRST="1") as server:
        answers = asked_of_all(port, 2)
        assert stopped(server) < LONGEST_END
    api.answer = taken
    run_the_next_process(api)
    assert {*answers, "next process"} == {name for name in arrived(api) if "importing" not in name}
    assert 200 == len([name for name in arrived(api) if "importing" in name])


def test_another_module_of_the_name_of_uwsgi(api: LogsAPI, tmp_path: Path) -> None:
    """An app's own `uwsgi.py` is taken for nothing else."""
    (tmp_path / "uwsgi.py").write_text("")
    subprocess.run(
        [sys.executable, "-c", "import uwsgi\n" + NEXT_PROCESS],
        env={**os.environ, **api.environment(), "PYTHONPATH": f"{tmp_path}{os.pathsep}{PROJECT}"},
        timeout=DEADLINE,
        check=True,
    )
    assert ["next process"] == api.arrived
