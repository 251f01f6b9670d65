"""The Celery example, with a real broker and a real worker: references go through the queue, keys never do."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from kwai_middleware import Caller, Secret
from kwai_middleware.sandbox import Sandbox
from kwai_middleware.testing import Canary
from tests.support.broker import Broker, broker, redis_server
from tests.support.documents import Terminal, fenced
from tests.support.processes import DEADLINE, PROJECT, Process, free_port
from tests.support.shipping import until

EXAMPLE = PROJECT / "examples" / "celery_app"
SECRET = "only-for-this-example-0123456789abcdef"
ACME = Secret("sk-or-v1-acme").fingerprint


class Example:
    """The processes of the example's README, each started when a test wants it."""

    def __init__(self, folder: Path, running: Broker, customer_keys: dict[str, list[str]]) -> None:
        (folder / "customer_keys.json").write_text(json.dumps(customer_keys))
        self.broker = running
        self._ports = {"8700": free_port(), "8000": free_port(), "6379": running.port}
        env = {"CUSTOMER_KEYS": str(folder / "customer_keys.json")}
        self._terminal = Terminal(folder / "tools", self._ports, env=env)
        self._sandbox, redis, self._worker, self._app, *self.blocks = fenced(EXAMPLE / "README.md", "console")
        assert "redis-server --port 6379\n" == redis
        self.vendor = Sandbox(f"http://127.0.0.1:{self._ports['8700']}")
        self._running = ExitStack()

    def __enter__(self) -> Example:
        self._serve(self._sandbox)
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def app(self) -> Process:
        """Start the app, as the README says."""
        return self._serve(self._app, "http://127.0.0.1:8000/")

    def worker(self) -> Process:
        """Start the worker, as the README says; what it is to do waits for it."""
        process = self._serve(self._worker)
        self._running.callback(process.popen.kill)  # it would take its time to end
        return process

    def run(self, block: str) -> str:
        """Run commands of the README."""
        return self._terminal.run(block)

    def ask(self, path: str, headers: dict[str, str], body: object = None) -> Any:
        """Send a request to the app."""
        content = None if body is None else json.dumps(body).encode()
        url = f"http://127.0.0.1:{self._ports['8000']}{path}"
        request = urllib.request.Request(url, content, {**headers, "content-type": "application/json"})
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=DEADLINE) as answer:
            return json.load(answer)

    def _serve(self, commands: str, ready: str = "http://127.0.0.1:8700/sandbox/") -> Process:
        return self._running.enter_context(self._terminal.serve(commands, ready))


@contextmanager
def queue_of(running: Broker) -> Iterator[Celery]:
    """The queue of the example, as somebody who can write to the broker has it."""
    with Celery(broker=running.url, backend=running.url) as queue:
        yield queue


def summarise(queue: Celery, reference: object) -> Any:
    """Have a task of the example done."""
    return queue.send_task("tasks.summarise", args=[reference, "a text"])


@pytest.fixture
def canary() -> Canary:
    """A key whose sightings the test looks at itself."""
    return Canary()


def test_the_key_pays_and_is_never_in_the_broker(tmp_path: Path, canary: Canary) -> None:
    """All the README says is so; a key that the request brings and the worker finds pays, and no queue ever has it."""
    keys = {"acme": ["sk-or-v1-acme"], "canary": [canary.key.reveal()]}
    with broker(tmp_path, server=redis_server()) as running, Example(tmp_path, running, keys) as example:
        app = example.app()
        headers = canary.headers("canary")
        started = example.ask("/summaries", headers, {"text": "A tenant is a customer with neighbours."})
        waiting = running.contents()
        assert any(started["id"].encode() in each for each in waiting["celery"])
        assert [] == canary.check("the broker, while the task waits", waiting)

        worker = example.worker()
        assert example.ask(f"/summaries/{started['id']}", headers)["summary"]
        (call,) = example.vendor.calls()
        assert canary.key.fingerprint == call["paid_by"]["fingerprint"]
        (log,) = example.vendor.logs(wait=1, customer="canary")
        assert ("canary", []) == (log["customer"], log["keys_seen"])
        assert "reference" == log["log"]["metadata"]["identity_from"]

        ask, calls, logs = example.blocks
        assert set(json.loads(example.run(ask))) == {"summary"}
        (call,) = json.loads(example.run(calls))["calls"]
        assert ACME == call["paid_by"]["fingerprint"]
        (log,) = json.loads(example.run(logs))["logs"]
        assert ("acme", []) == (log["customer"], log["keys_seen"])
        with pytest.raises(urllib.request.HTTPError, match="404"):
            example.ask(f"/summaries/{started['id']}", {"X-Customer-Id": "acme"})

        # The search would find it: this one has a key in it where nobody would put one.
        careless = Canary()
        with queue_of(running) as queue:
            named = Caller(name=careless.key.reveal()).reference(secrets=[SECRET])
            queue.send_task("tasks.summarise", args=[named, "a text"], queue="unread")
        for where, searched in (("the broker", running.contents()), ("its connections", running.traffic)):
            assert [] == canary.check(where, searched)
            assert [] != careless.check(where, searched)
        assert [] == canary.check("what was printed", [app.output, worker.output])
        canary.check("the vendors", example.vendor)
        canary.verify()


def test_a_reference_that_does_not_hold_fails_its_task(tmp_path: Path) -> None:
    """Forged, damaged or too old, it is an error in the log and in the result, and no model is called."""
    acme = Caller(identifier="acme")
    good = acme.reference(secrets=[SECRET])
    old = acme.reference(secrets=[SECRET], clock=lambda: 1_000_000_000.0)
    forged = acme.reference(secrets=[SECRET[::-1]])
    with broker(tmp_path, server=redis_server()) as running, Example(tmp_path, running, {}) as example:
        with queue_of(running) as queue:
            tasks = [summarise(queue, reference) for reference in (old, forged, good[:-1], "", None)]
            worker = example.worker()
            for task in tasks:
                with pytest.raises(Exception, match="bind_reference: ") as caught:
                    task.get(timeout=DEADLINE)
                assert "InvalidReference" == type(caught.value).__name__
            assert [] == example.vendor.calls()
            # The worker logs after it has told the result.
            until(lambda: 5 <= worker.output.count("raised unexpected: InvalidReference("))
            kept = str(running.contents()) + worker.output
            assert [] == [part for part in (old, forged, good) if part.split(".")[1] in kept]
            # The worker itself is well.
            assert "acme" == summarise(queue, good).get(timeout=DEADLINE)["customer"]
        assert 1 == len(example.vendor.calls())
