"""A delivery's numbers as Prometheus sees them: scraped over HTTP and read by the parser of its own client."""

from __future__ import annotations

import contextlib
import gc
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest, make_asgi_app, make_wsgi_app
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parsed_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parsed
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from kwai_middleware._caller import Caller
from kwai_middleware._delivery.delivery import Delivery
from kwai_middleware.prometheus import register
from tests.support.finished_calls import Pending, completed
from tests.support.logs_api import LogsAPI, answer, logs_api
from tests.support.processes import DEADLINE, PROJECT

Samples = dict[tuple[str, str], float]


@pytest.fixture
def api() -> Iterator[LogsAPI]:
    """A vendor that takes everything."""
    with logs_api() as running_api:
        yield running_api


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


class _Quiet(WSGIRequestHandler):
    def log_request(self, *args: Any) -> None:
        pass


@contextlib.contextmanager
def scraped(registry: CollectorRegistry) -> Iterator[Callable[[], str]]:
    """Serve a registry over HTTP; yields what scrapes it."""
    with make_server("127.0.0.1", 0, make_wsgi_app(registry), handler_class=_Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

        def scrape() -> str:
            with opener.open(f"http://127.0.0.1:{server.server_port}/metrics", timeout=DEADLINE) as reply:
                return str(reply.read().decode())

        try:
            yield scrape
        finally:
            server.shutdown()
            thread.join(DEADLINE)


def samples(text: str) -> Samples:
    """Each sample by its name and labels."""
    return {
        (sample.name, ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in parsed(text)
        for sample in family.samples
    }


def now(registry: CollectorRegistry) -> Samples:
    return samples(generate_latest(registry).decode())


def python(api: LogsAPI, program: str, **environment: str) -> str:
    """Run a program in a process of its own; returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **api.environment(PYTHONPATH=str(PROJECT), **environment)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout


def test_a_scrape_shows_both_ledgers(
    api: LogsAPI, registry: CollectorRegistry, nothing_is_swallowed: list[BaseException]
) -> None:
    """After calls of each kind a scrape over HTTP shows each number that `stats()` has, read by Prometheus' parser."""

    def fail() -> Any:
        raise LookupError

    api.answer = lambda entry, times: answer(422 if entry["metadata"]["kwai_record_id"] == "bad" else 200)
    before = time.time()
    with Delivery(api.settings(spool="memory:")) as delivery, scraped(registry) as scrape:
        register(delivery, registry)
        delivery.submit(completed(record_id="good"))
        delivery.submit(completed(record_id="bad"))
        delivery.submit(completed(capture="none"))
        delivery.submit(Pending(fail))
        assert delivery.flush(DEADLINE)
        found = samples(scrape())
    nothing_is_swallowed.clear()
    assert {
        ("kwai_calls_total", "outcome=spooled"): 2,
        ("kwai_calls_total", "outcome=observed"): 1,
        ("kwai_calls_total", "outcome=dropped"): 1,
        ("kwai_calls_dropped_total", "reason=unreadable"): 1,
        ("kwai_calls_dropped_total", "reason=queue_full"): 0,
        ("kwai_calls_in_memory", ""): 0,
        ("kwai_records_appended_total", ""): 2,
        ("kwai_records_total", "state=delivered"): 1,
        ("kwai_records_total", "state=rejected"): 1,
        ("kwai_records_total", "state=evicted"): 0,
        ("kwai_records_total", "state=purged"): 0,
        ("kwai_records_pending", ""): 0,
        ("kwai_records_pending_bytes", ""): 0,
        ("kwai_oldest_pending_seconds", ""): 0,
        ("kwai_disk_failing", ""): 0,
        ("kwai_thread_restarts_total", "thread=recording"): 0,
        ("kwai_thread_restarts_total", "thread=shipping"): 0,
    }.items() <= found.items()
    assert found["kwai_errors_swallowed_total", "type=LookupError"] >= 1
    assert before <= found["kwai_last_success_timestamp_seconds", ""] <= time.time()


def test_what_waits_is_shown_with_its_age(api: LogsAPI, registry: CollectorRegistry) -> None:
    """While the vendor refuses the app, a scrape shows what waits, how much, for how long, and that it fails."""
    api.answer = lambda entry, times: answer(401)
    with Delivery(api.settings(spool="memory:", exit_timeout=0.1)) as delivery:
        register(delivery, registry)
        delivery.submit(completed())
        assert not delivery.flush(DEADLINE)
        found = now(registry)
    assert (1, 1) == (found["kwai_records_pending", ""], found["kwai_delivery_failing", ""])
    assert found["kwai_records_pending_bytes", ""] > 0
    assert found["kwai_oldest_pending_seconds", ""] > 0
    assert ("kwai_last_success_timestamp_seconds", "") not in found


def test_a_scrape_is_small_and_tells_nothing_of_anybody(api: LogsAPI, registry: CollectorRegistry) -> None:
    """Whoever calls, and whatever: the series are the same few, and no customer, key, model or text is in them."""
    api.answer = lambda entry, times: answer(422, b'{"detail":"acme-7 is not welcome"}')
    with Delivery(api.settings(spool="memory:", bulk_per_minute=0)) as delivery:
        register(delivery, registry)
        before = now(registry)
        for number in range(20):
            delivery.submit(completed(caller=Caller(identifier=f"acme-{number}"), model=f"model-{number}"))
        assert delivery.flush(DEADLINE)
        text = generate_latest(registry).decode()
    assert {name for name, _ in samples(text).keys() - before.keys()} <= {"kwai_notices_total"}
    for secret in ("acme", "model-", "welcome", "app-key", "127.0.0.1", str(PROJECT)):
        assert secret not in text


MANY_TYPES = """
from prometheus_client import REGISTRY, generate_latest
from kwai_middleware import Delivery, Settings, _guard
from kwai_middleware.prometheus import register

delivery = Delivery(Settings(spool="memory:"))
register(delivery)
for number in range(100):
    _guard.report(type(f"Error{number}", (Exception,), {})())
print(generate_latest(REGISTRY).decode())
"""


def test_types_of_errors_are_bounded(api: LogsAPI) -> None:
    """An app that makes up types of exceptions as it runs has thirty series of them, the rest in one."""
    found = samples(python(api, MANY_TYPES))
    types = {labels: value for (name, labels), value in found.items() if name == "kwai_errors_swallowed_total"}
    assert (31, 70, 1) == (len(types), types["type=other"], types["type=Error0"])


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text; version=1.0.0"])
def test_an_asgi_app_serves_it_in_both_formats(api: LogsAPI, registry: CollectorRegistry, accept: str) -> None:
    """Mounted as an ASGI app, on the event loop, it answers in Prometheus' format and in that of OpenMetrics."""
    with Delivery(api.settings(spool="memory:")) as delivery:
        register(delivery, registry)
        delivery.submit(completed())
        assert delivery.flush(DEADLINE)
        app = Starlette(routes=[Mount("/metrics", make_asgi_app(registry))])
        with TestClient(app) as client:
            text = client.get("/metrics/", headers={"accept": accept}).text
    families = {family.name: family for family in (parsed_openmetrics if "openmetrics" in accept else parsed)(text)}
    assert ("counter", "gauge") == (families["kwai_records"].type, families["kwai_records_pending"].type)
    assert all(family.documentation.endswith(".") for family in families.values())


def test_several_deliveries_are_told_apart(api: LogsAPI, registry: CollectorRegistry) -> None:
    """Registered together by names each has its label; what is of the process is there once."""
    with Delivery(api.settings(spool="memory:")) as one, Delivery(api.settings(spool="memory:")) as other:
        register({"one": one, "other": other}, registry)
        one.submit(completed())
        assert one.flush(DEADLINE)
        found = now(registry)
    assert (1, 0) == (
        found["kwai_calls_total", "delivery=one,outcome=spooled"],
        found["kwai_calls_total", "delivery=other,outcome=spooled"],
    )
    assert found["kwai_records_pending", "delivery=other"] == 0
    assert [] == [labels for name, labels in found if name == "kwai_notices_total" and "delivery" in labels]


def test_registered_twice_is_an_error_at_once(api: LogsAPI, registry: CollectorRegistry) -> None:
    """A second collector in the same registry is refused, not a scrape that nobody can read; removed, it may come."""
    with Delivery(api.settings(spool="memory:")) as delivery:
        collector = register(delivery, registry)
        with pytest.raises(ValueError, match="kwai_calls"):
            register(delivery, registry)
        registry.unregister(collector)
        register(delivery, registry)


def test_a_collector_keeps_no_delivery_alive(api: LogsAPI, registry: CollectorRegistry) -> None:
    """A delivery that nobody else holds ends as always; after that the registry shows what else it has."""
    Counter("unrelated", "Another one's.", registry=registry)
    delivery = Delivery(api.settings(spool="memory:"))
    register(delivery, registry)
    assert ("kwai_records_pending", "") in now(registry)
    del delivery
    gc.collect()
    assert {"unrelated_total", "unrelated_created"} == {name for name, _ in now(registry)}


FORKED = """
import os, sys
from prometheus_client import REGISTRY
from kwai_middleware import CompletedCall, Delivery
from kwai_middleware.prometheus import register

def shown():
    get = REGISTRY.get_sample_value
    return [get("kwai_calls_total", {"outcome": "spooled"}), get("kwai_records_appended_total")]

delivery = Delivery()
register(delivery)
delivery.submit(CompletedCall(route="direct", model="m"))
assert delivery.flush(60)
print(shown(), flush=True)
child = os.fork()
if child == 0:
    print(shown(), flush=True)
    delivery.submit(CompletedCall(route="direct", model="m"))
    assert delivery.flush(60)
    print(shown(), flush=True)
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(shown(), flush=True)
"""


def test_a_forked_worker_counts_its_own_calls_and_shows_the_shared_spool(api: LogsAPI, tmp_path: Path) -> None:
    """Registered before the fork it shows, in the child, the child's calls, and in both the records of the file."""
    shown = python(api, FORKED, KWAI_SPOOL=f"sqlite://{tmp_path}/records.db").splitlines()
    assert ["[1, 1]", "[0, 1]", "[1, 2]", "[1, 2]"] == shown


WITHOUT = """
import sys
sys.modules["prometheus_client"] = None
import kwai_middleware
try:
    import kwai_middleware.prometheus
except kwai_middleware.ConfigurationError as error:
    print(error)
"""


def test_without_the_extra_the_command_is_named(api: LogsAPI) -> None:
    """Where prometheus-client is not installed all else works, and this door names the command that installs it."""
    assert "pip install 'kwai-middleware[prometheus]'" in python(api, WITHOUT)
