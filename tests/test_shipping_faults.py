"""A logs API that is away, fails, refuses or answers oddly: everything arrives in the end, once where that can be."""

from __future__ import annotations

import json
import logging
import os
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from kwai_middleware._delivery.delivery import Delivery
from kwai_middleware._secret import Secret
from kwai_middleware._settings import Settings
from kwai_middleware.sandbox import Sandbox, sandbox
from tests.support.finished_calls import completed
from tests.support.logs_api import KEY, LogsAPI, Request, answer, taken
from tests.support.processes import DEADLINE, PROJECT, free_port
from tests.support.raw_server import Connection, raw_server
from tests.support.shipping import place, until, waiting
from tests.support.spool_command import spool_command_here

NO_PAUSE = 60_000
"""Bulk requests a minute: no test has to wait between two."""


@pytest.fixture(scope="module")
def vendors() -> Iterator[Sandbox]:
    """The project's sandbox."""
    with sandbox() as running:
        yield running


@pytest.fixture
def vendor(vendors: Sandbox) -> Sandbox:
    """The same, as new."""
    vendors.reset()
    return vendors


def kinds(api: LogsAPI) -> list[str]:
    """Of each request, in order of arrival."""
    return [request.kind for request in api.requests]


def name_of(entry: dict[str, Any]) -> str:
    """The id of a record."""
    return str(entry["metadata"]["kwai_record_id"])


def only_for(bad: str, reply: bytes) -> Callable[[dict[str, Any], int], bytes]:
    """Answer so to one record, and take the others."""
    return lambda entry, times: reply if name_of(entry) == bad else taken(entry, times)


def settings_at(api: LogsAPI, path: Path, **more: Any) -> Settings:
    """Settings of an app that keeps its records there and waits for no bulk."""
    return api.settings(**{"spool": place(path), "bulk_per_minute": NO_PAUSE, **more})


def remaining(delivery: Delivery) -> float:
    """Seconds for which nothing is sent unless somebody is in a hurry."""
    return delivery._engine._shipper._backoff.remaining(time.monotonic())


# The vendor is away


def test_everything_arrives_once_when_the_vendor_is_back(path: Path) -> None:
    """Nobody listens for the whole life of one process; the next one delivers what it has left, each record once."""
    port = free_port()
    away = Settings(api_key=Secret(KEY), base_url=f"http://127.0.0.1:{port}/api", spool=place(path))
    delivery = Delivery(away)
    for number in range(200):
        assert delivery.submit(completed(record_id=str(number)))
    until(lambda: delivery.stats().spooled == 200)
    # Nothing is lost by it.
    assert delivery.close(0.2)
    assert (200, 0) == (delivery.stats().pending, delivery.stats().delivered)
    api = LogsAPI(taken)
    with raw_server(api.serve, port=port), Delivery(away) as delivery:
        assert delivery.submit(completed(record_id="new"))
        until(lambda: delivery.stats().delivered == 201)
    assert Counter([*map(str, range(200)), "new"]) == Counter(api.arrived)


def test_one_record_goes_ahead_and_finds_out_whether_the_vendor_is_back(api: LogsAPI, path: Path) -> None:
    """While it fails every try is one record, also in a hurry, and they are few; after a success the bulk follows."""
    api.answer = lambda entry, times: answer(503)
    settings = settings_at(api, path)
    waiting(path, settings, range(300))
    with Delivery(settings) as delivery:
        assert delivery.submit(completed(record_id="300"))
        api.wait(301 + 1)
        until(lambda: delivery.stats().last_error == "HTTP 503")
        for _ in range(3):
            assert not delivery.flush(0.1)
        tried = len(api.requests)
        # One bulk to begin with; then nothing but single records.
        assert ["bulk"] + ["create"] * (tried - 1) == kinds(api)[:tried]
        assert tried <= 8
        api.answer = taken
        assert delivery.flush(DEADLINE)
        until(lambda: not delivery.stats().pending)
        assert ["create", "bulk"] == kinds(api)[-2:]
        assert 301 == delivery.stats().delivered


# What it answers to many


@pytest.mark.parametrize("status", [400, 413, 422])
def test_one_bad_row_among_many_is_rejected_alone(api: LogsAPI, path: Path, status: int) -> None:
    """The vendor takes the others, once; the bad one is sent alone, and what it says to that is kept."""
    api.answer = only_for("77", answer(status, b'{"detail":"much too bad"}'))
    settings = settings_at(api, path)
    waiting(path, settings, range(499))
    with Delivery(settings) as delivery:
        delivery.submit(completed(record_id="499"))
        until(lambda: not delivery.stats().pending)
        stats = delivery.stats()
    assert (499, 1, 0) == (stats.delivered, stats.rejected, stats.pending)
    assert (f"77: HTTP {status}: much too bad",) == stats.rejections
    assert {"77": 2} == {name: times for name, times in Counter(api.arrived).items() if times != 1}
    assert 500 == len(set(api.arrived))
    done = spool_command_here("rejected", "--json", KWAI_SPOOL=place(path), KEYWORDSAI_BASE_URL=api.url)
    [rejected] = done.document["files"][0]["rejected"]
    assert ("77", f"HTTP {status}: much too bad") == (rejected["record_id"], rejected["reason"])


@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_a_bulk_that_is_not_taken_is_sent_in_halves(api: LogsAPI, path: Path, status: int) -> None:
    """Whoever looks at no row of it gets ever smaller parts, until only the bad row is left; nothing else is lost."""

    def by_request(request: Request) -> bytes:
        if "450" in request.ids:
            return answer(status, b'{"detail":"no"}')
        return answer(201, json.dumps({"success_count": len(request.ids), "error_count": 0}).encode())

    api.answer, api.answer_bulk = only_for("450", answer(422)), by_request
    settings = settings_at(api, path)
    waiting(path, settings, range(499))
    with Delivery(settings) as delivery:
        delivery.submit(completed(record_id="499"))
        until(lambda: not delivery.stats().pending)
        stats = delivery.stats()
    assert (499, 1) == (stats.delivered, stats.rejected)
    sizes = [len(request.ids) for request in api.requests if request.kind == "bulk"]
    assert sizes[0] == max(sizes) == 500
    # In halves, down to where the rest is few enough to be sent alone.
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) >= 2
    delivered = Counter(name for request in api.requests if "450" not in request.ids for name in request.ids)
    assert {1} == set(delivered.values())
    assert 499 == len(delivered)


def test_a_record_that_the_vendor_trips_over_makes_way(vendor: Sandbox, path: Path) -> None:
    """Every request with it in it fails with 500; the others arrive, once, and it waits on."""
    vendor.logs_mode("ok", poison="the poison", bulk_per_minute=NO_PAUSE)
    settings = vendor.settings(spool=place(path), bulk_per_minute=NO_PAUSE)
    waiting(path, settings, range(70))
    waiting(path, settings, ["bad"], text="the poison")
    waiting(path, settings, range(71, 120))
    with Delivery(settings) as delivery:
        delivery.submit(completed(record_id="70"))
        until(lambda: delivery.stats().delivered == 120)
        stats = delivery.stats()
        assert (1, 0, ()) == (stats.pending, stats.rejected, stats.rejections)
        assert 3 <= len(vendor.log_requests(status=500)) <= 12
        vendor.logs_mode("ok")
        # Whoever is in a hurry ends its rest.
        delivery.submit(completed(record_id="120"))
        assert delivery.flush(DEADLINE)
        until(lambda: not delivery.stats().pending)
    arrived = Counter(name_of(entry["log"]) for entry in vendor.logs())
    assert Counter([*map(str, range(121)), "bad"]) == arrived


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(answer(429, retry_after="1800"), id="header"),
        pytest.param(answer(429, b'{"detail":"slow","retry_after":1800}'), id="body"),
        pytest.param(answer(503, retry_after="1800"), id="503"),
    ],
)
@pytest.mark.parametrize("count", [1, 150], ids=["one", "many"])
def test_the_vendor_is_obeyed_about_the_time_to_wait(api: LogsAPI, path: Path, reply: bytes, count: int) -> None:
    """Asked for half an hour, nothing is sent before, though more records come; nobody is held responsible."""
    api.answer = lambda entry, times: reply
    settings = settings_at(api, path)
    waiting(path, settings, range(count))
    with Delivery(settings) as delivery:
        delivery.submit(completed(record_id="new"))
        until(lambda: remaining(delivery) > 1700)
        assert remaining(delivery) <= 1800
        requests = kinds(api)
        assert ["create" if count == 1 else "bulk"] == requests
        for number in range(20):
            delivery.submit(completed(record_id=f"more-{number}"))
        until(lambda: delivery.stats().spooled == 21)
        assert requests == kinds(api)
        api.answer = taken
        assert delivery.flush(DEADLINE)
        until(lambda: not delivery.stats().pending)
        assert (count + 21, 0) == (delivery.stats().delivered, delivery.stats().rejected)


@pytest.mark.parametrize("status", [401, 403, 404, 307])
def test_a_refused_app_loses_nothing_of_its_many_records(
    api: LogsAPI, path: Path, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """One loud event, a pause of half a minute or more, one record for each try; put right, all is in bulk again."""
    caplog.set_level(logging.WARNING, "kwai_middleware")
    api.answer = lambda entry, times: answer(status)
    settings = settings_at(api, path)
    waiting(path, settings, range(300))
    with Delivery(settings) as delivery:
        delivery.submit(completed(record_id="300"))
        until(lambda: remaining(delivery) > 25)
        for _ in range(2):
            # Back at once: waiting would not help.
            assert not delivery.flush(DEADLINE)
        assert ["bulk", "create", "create"] == kinds(api)
        assert 301 == delivery.stats().pending
        api.answer = taken
        assert delivery.flush(DEADLINE)
        until(lambda: not delivery.stats().pending)
        assert (301, 0, None) == (delivery.stats().delivered, delivery.stats().rejected, delivery.stats().last_error)
    assert ["create", "bulk"] == kinds(api)[3:]
    assert ["ERROR", "WARNING"] == [record.levelname for record in caplog.records if "the logs API" in record.message]


@pytest.mark.parametrize("mode", ["garbage", "cut", "huge"])
def test_rows_of_an_answer_that_is_no_account_go_alone(vendor: Sandbox, path: Path, mode: str) -> None:
    """Nobody can tell which rows were taken: each is sent alone, under its id, so that a copy can be told."""
    vendor.logs_mode(mode, times=1)
    settings = vendor.settings(spool=place(path), bulk_per_minute=NO_PAUSE)
    waiting(path, settings, range(120))
    with Delivery(settings) as delivery:
        delivery.submit(completed(record_id="120"))
        until(lambda: not delivery.stats().pending)
        assert (121, 0) == (delivery.stats().delivered, delivery.stats().pending)
    requests = vendor.log_requests()
    assert ["bulk"] + ["create"] * (len(requests) - 1) == [request["endpoint"] for request in requests]
    arrived = Counter(name_of(entry["log"]) for entry in vendor.logs())
    assert {str(number) for number in range(121)} == set(arrived)
    assert {1, 2} >= set(arrived.values())


@pytest.mark.parametrize("mode", ["garbage", "cut"])
def test_a_vendor_that_never_gives_an_account_gets_everything(vendor: Sandbox, path: Path, mode: str) -> None:
    """Its status is believed where the request is one record: all arrives, twice at most."""
    vendor.logs_mode(mode)
    settings = vendor.settings(spool=place(path), bulk_per_minute=NO_PAUSE)
    waiting(path, settings, range(120))
    with Delivery(settings) as delivery:
        delivery.submit(completed(record_id="120"))
        until(lambda: not delivery.stats().pending)
        assert 121 == delivery.stats().delivered
    arrived = Counter(name_of(entry["log"]) for entry in vendor.logs())
    assert (121, True) == (len(arrived), max(arrived.values()) <= 2)


def test_rows_of_a_bulk_that_is_never_answered_arrive(api: LogsAPI, path: Path) -> None:
    """It is given up after the request's time, twice; then the halves go, and nothing is lost."""
    silent = iter([True, True])

    def hang(request: Request) -> bytes | None:
        if next(silent, False):
            return None
        return answer(201, json.dumps({"success_count": len(request.ids), "error_count": 0}).encode())

    api.answer_bulk = hang
    settings = settings_at(api, path, request_timeout=0.3)
    waiting(path, settings, range(300))
    with Delivery(settings) as delivery:
        delivery.submit(completed(record_id="300"))
        until(lambda: not delivery.stats().pending)
        assert (301, 0) == (delivery.stats().delivered, delivery.stats().rejected)
    assert [301, 300, 150] == [len(request.ids) for request in api.requests if request.kind == "bulk"][:3]
    assert 301 == len(set(api.arrived))


def test_a_certificate_that_is_not_trusted_loses_nothing(path: Path) -> None:
    """Nothing is sent to whom nobody vouches for; the records wait, none is to blame, and the reason is told."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    received: list[bytes] = []

    def serve(connection: Connection) -> None:
        with context.wrap_socket(connection.sock, server_side=True) as tls:
            received.append(tls.recv(100))

    with raw_server(serve) as server:
        url = server.url.replace("http:", "https:") + "/api"
        settings = Settings(api_key=Secret(KEY), base_url=url, spool=place(path), exit_timeout=0.2)
        waiting(path, settings, range(150))
        with Delivery(settings) as delivery:
            delivery.submit(completed(record_id="150"))
            for _ in range(4):
                assert not delivery.flush(0.1)
            until(lambda: "certificate verify failed" in (delivery.stats().last_error or ""))
            assert (151, 0) == (delivery.stats().pending, delivery.stats().rejected)
    assert [] == [data for data in received if data]


# The app meanwhile

STREAMS = """
import asyncio, atexit, hashlib, json, sys, time
atexit.register(lambda: print(time.monotonic() - ended, flush=True))  # runs last
from kwai_middleware import Caller, Credential, Secret, bind_caller, httpx2_transport
from kwai_middleware.sandbox import Sandbox

async def main():
    sandbox = Sandbox(sys.argv[1])
    async with httpx2_transport.async_client(settings=sandbox.settings(request_timeout=0.5)) as client:

        async def one(number):
            question = {"model": "sandbox/long-200", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
            caller = Caller(identifier=f"c{number}", credentials=(Credential(api_key=Secret(f"k-{number}")),))
            with bind_caller(caller):
                async with client.stream("POST", f"{sandbox.openrouter_url}/chat/completions", json=question) as answer:
                    body = b"".join([chunk async for chunk in answer.aiter_raw()])
            events = [json.loads(line[6:]) for line in body.decode().splitlines() if line.startswith("data: {")]
            for event in events:
                del event["id"], event["created"]
            return answer.status_code, len(events), body.endswith(b"data: [DONE]\\n\\n"), events

        return await asyncio.gather(*(one(number) for number in range(16)))

found = asyncio.run(main())
text = json.dumps(found)
print(json.dumps([[status, count, ends] for status, count, ends, _ in found]))
print(hashlib.sha256(text.encode()).hexdigest())
ended = time.monotonic()
"""


def streamed(vendor: Sandbox) -> tuple[list[list[Any]], str, float]:
    """Stream sixteen answers in a process of its own; returns what came, its digest, and how long the end took."""
    done = subprocess.run(
        [sys.executable, "-c", STREAMS, vendor.url],
        env=dict(os.environ), cwd=PROJECT, text=True, capture_output=True, timeout=DEADLINE,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    found, digest, seconds = done.stdout.splitlines()
    return json.loads(found), digest, float(seconds)


def test_streams_do_not_notice_a_sink_that_hangs(vendor: Sandbox) -> None:
    """Sixteen at once get the same events in the same order as with a healthy one, and the process ends in time."""
    found, digest, _ = streamed(vendor)
    assert 16 == len(vendor.logs(wait=16))
    assert {200} == {status for status, _, _ in found}
    assert all(count >= 200 and ends for _, count, ends in found)
    vendor.logs_mode("hang")
    assert (found, digest) == (again := streamed(vendor))[:2]
    # Three seconds are allowed, and a slow machine a little more.
    assert again[2] < 5
    keys = {Secret(f"k-{number}").fingerprint for number in range(16)}
    assert keys == {call["paid_by"]["fingerprint"] for call in vendor.calls()}
