"""Delivery from Celery's pool of processes, and from children of the package that it makes them with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery

from kwai_middleware.sandbox import sandbox
from tests.support.logs_api import LogsAPI, logs_api, taken
from tests.support.processes import DEADLINE, PROJECT
from tests.test_delivery_servers import run_the_next_process

LONGEST_END = 30.0
"""Seconds for a warm shutdown: Celery takes six by itself."""

TASKS = """
import os
import httpx2
import kwai_middleware as kwai
from celery import Celery
from kwai_middleware import httpx2_transport

folder = os.environ["BROKER_FOLDER"]
app = Celery("tasks_of_tests", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": folder, "data_folder_out": folder, "control_folder": folder + "/control"
}
app.conf.task_ignore_result = True

def note(line):
    with open(folder + "/done", "a") as done:
        done.write(line + "\\n")

@app.task
def submits(number):
    name = f"{number} {os.getpid()}"
    kwai.default_delivery().submit(kwai.CompletedCall(record_id=name, model="m", messages=b"[]"))
    note(name)

@app.task
def calls(customer, url):
    with kwai.bind_caller(kwai.Caller(identifier=customer)), httpx2_transport.client() as client:
        content = {"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": f"I am {customer}"}]}
        headers = {"authorization": "Bearer sk-or-v1-of-the-app-0123456789abcdef"}
        client.post(url, json=content, headers=headers).raise_for_status()
    note(customer)
"""


@pytest.fixture
def api() -> Iterator[LogsAPI]:
    """A logs API that takes everything, until the test says otherwise."""
    with logs_api() as running_api:
        yield running_api


class Pool:
    """A worker of Celery with two children, whose broker is a folder."""

    def __init__(self, folder: Path, environment: dict[str, str], *options: str) -> None:
        self._folder = folder
        (folder / "control").mkdir()
        (folder / "tasks_of_tests.py").write_text(TASKS)
        argv = ["-A", "tasks_of_tests", "worker", "--pool", "prefork", "--concurrency", "2", "--without-gossip"]
        self._log = (folder / "log").open("wb")
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "celery", *argv, "--without-mingle", "--without-heartbeat", *options],
            env={
                **os.environ, **environment, "BROKER_FOLDER": str(folder),
                "PYTHONPATH": f"{folder}{os.pathsep}{PROJECT}",
            },
            cwd=folder,
            stdout=self._log,
            stderr=self._log,
        )  # fmt: skip

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        # Its children end with it, as it has asked the system.
        self._popen.kill()
        self._popen.wait(DEADLINE)
        self._log.close()

    def send(self, task: str, *arguments: object) -> None:
        """Have a task done."""
        with Celery("sender", broker="filesystem://") as app:
            folder = str(self._folder)
            app.conf.broker_transport_options = {
                "data_folder_in": folder, "data_folder_out": folder, "control_folder": f"{folder}/control",
            }  # fmt: skip
            app.send_task(f"tasks_of_tests.{task}", args=arguments)

    def wait(self, count: int) -> list[str]:
        """What the tasks have noted, as soon as so many have."""
        until = time.monotonic() + DEADLINE
        done: list[str] = []
        while len(done) < count:
            assert time.monotonic() < until, (self._folder / "log").read_text()
            assert self._popen.poll() is None
            time.sleep(0.02)
            if (self._folder / "done").exists():
                done = (self._folder / "done").read_text().splitlines()
        return done

    def shut_down(self) -> None:
        """End it as its operator does: what is under way is finished before."""
        self._popen.send_signal(signal.SIGTERM)
        assert 0 == self._popen.wait(LONGEST_END), (self._folder / "log").read_text()


def test_every_record_of_a_task_arrives_once(api: LogsAPI, tmp_path: Path) -> None:
    """Children that are replaced after three tasks deliver before they leave, and so do those of the end."""
    with Pool(tmp_path, api.environment(), "--max-tasks-per-child", "3") as pool:
        for number in range(8):
            pool.send("submits", number)
        done = pool.wait(8)
        pool.shut_down()
    assert Counter(done) == Counter(api.arrived)
    assert len({name.split()[1] for name in done}) > 2


def test_tasks_end_while_the_vendor_hangs(api: LogsAPI, tmp_path: Path) -> None:
    """The children go in time, and what they have left on disk is delivered by the next process."""
    api.answer = lambda entry, times: None
    with Pool(tmp_path, api.environment(KWAI_EXIT_TIMEOUT="0.5"), "--max-tasks-per-child", "3") as pool:
        for number in range(8):
            pool.send("submits", number)
        done = pool.wait(8)
        pool.shut_down()
    api.answer = taken
    run_the_next_process(api)
    assert {*done, "next process"} == set(api.arrived)


def test_a_call_in_a_task_is_its_customer_s(tmp_path: Path) -> None:
    """A task binds the caller that it was given, and the record of its call says so."""
    with sandbox() as vendor:
        environment = {
            "KEYWORDSAI_API_KEY": "sandbox-app-key", "KEYWORDSAI_BASE_URL": vendor.gateway_url,
            "OPENROUTER_BASE_URL": vendor.openrouter_url,
        }  # fmt: skip
        with Pool(tmp_path, environment) as pool:
            for number in range(4):
                pool.send("calls", f"customer-{number}", f"{vendor.openrouter_url}/chat/completions")
            pool.wait(4)
            pool.shut_down()
        logs = [entry["log"] for entry in vendor.logs()]
    assert {f"customer-{number}" for number in range(4)} == {log["customer_identifier"] for log in logs}
    assert 4 == len(logs)
    for log in logs:
        assert f"I am {log['customer_identifier']}" in json.dumps(log["prompt_messages"])


BILLIARD = """
import billiard
import kwai_middleware as kwai

def work(number):
    kwai.default_delivery().submit(kwai.CompletedCall(record_id=f"child {number}", model="m", messages=b"[]"))

if __name__ == "__main__":
    context = billiard.get_context("METHOD")
    children = [context.Process(target=work, args=(number,)) for number in range(3)]
    for child in children: child.start()
    for child in children: child.join()
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_of_billiard_deliver_before_they_leave(api: LogsAPI, tmp_path: Path, method: str) -> None:
    """They end without the interpreter's exit handlers; their records are delivered all the same."""
    script = tmp_path / "script.py"
    script.write_text(BILLIARD.replace("METHOD", method))
    subprocess.run(
        [sys.executable, script],
        env={**os.environ, **api.environment(), "PYTHONPATH": str(PROJECT)},
        timeout=DEADLINE,
        check=True,
    )
    assert Counter(["child 0", "child 1", "child 2"]) == Counter(api.arrived)
