"""A whole app while the logs API hangs, breaks off, fails or refuses: its users notice nothing."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kwai_middleware._delivery.crew import Crew
from kwai_middleware._delivery.memory import MemorySpool
from kwai_middleware._delivery.sender import Sender
from kwai_middleware._delivery.shipper import Shipper
from kwai_middleware._delivery.spool import Record
from kwai_middleware._delivery.verdict import Fate, Verdict
from kwai_middleware._secret import Secret
from kwai_middleware.sandbox import Sandbox
from tests.support.callers import key_of
from tests.support.examples import environment_for, fastapi_example, sandbox_process
from tests.support.logs_api import LogsAPI, logs_api, taken
from tests.support.processes import PROJECT

CALLS = 300
SPOOL = 256 * 1024
QUESTION = "tell me more " * 800  # some 10 KB


@pytest.fixture(scope="module")
def vendors() -> Iterator[Sandbox]:
    with sandbox_process() as sandbox:
        yield sandbox


@pytest.fixture
def api() -> Iterator[LogsAPI]:
    with logs_api() as api:
        yield api


async def _ask(url: str, calls: int) -> list[int]:
    headers = {"x-customer-id": "acme", "x-openrouter-key": key_of("acme")}
    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as client:

        async def one(number: int) -> int:
            question = {"question": f"{number} {QUESTION}", "model": "sandbox/echo"}
            response = await client.post("/direct", json=question, headers=headers)
            return response.status_code

        statuses: list[int] = []
        for start in range(0, calls, 20):
            statuses += await asyncio.gather(*(one(number) for number in range(start, start + 20)))
        return statuses


def _resident_kib(pid: int) -> int:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1])


@pytest.mark.parametrize("mode", ["hang", "reset", "500", "401"])
def test_the_app_notices_nothing(vendors: Sandbox, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 300 calls of 10 KB is answered, memory stays at the spool's bound, and the server ends when told to."""
    vendors.reset()
    vendors.logs_mode(mode)
    settings = {"KWAI_SPOOL": "memory:", "KWAI_MAX_MEMORY_BYTES": str(SPOOL), "KWAI_EXIT_TIMEOUT": "1"}
    with fastapi_example(vendors, env=settings) as (url, process):
        assert [200] * 40 == asyncio.run(_ask(url, 40))
        before = _resident_kib(process.popen.pid)
        assert [200] * CALLS == asyncio.run(_ask(url, CALLS))
        grown = _resident_kib(process.popen.pid) - before
        # The calls have 6 MB of questions and answers; what is kept of them is bounded by the spool.
        assert grown < 4.5 * 1024
        assert process.stop(signal.SIGTERM) in (0, -signal.SIGTERM)
        assert "kwai_middleware" in process.output
        assert "sk-or-v1" not in process.output


def test_what_waits_is_delivered_when_the_server_is_told_to_end(vendors: Sandbox) -> None:
    """The logs API is slow, the server gets SIGTERM right after the calls, and every record arrives."""
    vendors.reset()
    vendors.logs_mode("slow", seconds=0.05)
    with fastapi_example(vendors) as (url, process):
        assert [200] * 20 == asyncio.run(_ask(url, 20))
        assert process.stop(signal.SIGTERM) in (0, -signal.SIGTERM)
    assert {"acme"} == {entry["customer"] for entry in vendors.logs(wait=20)}


def test_without_an_api_key_the_app_works_and_one_warning_says_so(vendors: Sandbox) -> None:
    """Calls are attributed and paid for; nothing is logged, and the log says what to set, once."""
    program = """
import kwai_middleware as kwai, openai, os
from kwai_middleware import httpx2_transport
http_client = httpx2_transport.client()
client = openai.OpenAI(base_url=os.environ["OPENROUTER_BASE_URL"], api_key="house", http_client=http_client)
caller = kwai.Caller(identifier="acme", credentials=(kwai.Credential(api_key=kwai.Secret("k-acme")),))
for _ in range(3):
    with kwai.bind_caller(caller):
        client.chat.completions.create(model="sandbox/echo", messages=[{"role": "user", "content": "hi"}])
delivery = kwai.default_delivery()
assert delivery.flush(30)
print(delivery.stats().dropped_by_reason)
"""
    vendors.reset()
    environment = {name: value for name, value in environment_for(vendors).items() if name != "KEYWORDSAI_API_KEY"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, env={**_plain_environment(), **environment}, text=True,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert ("{'not configured': 3}\n", 0) == (done.stdout, done.returncode), done.stderr
    assert 1 == done.stderr.count("no API key for the logs API")
    assert {Secret("k-acme").fingerprint} == {call["paid_by"]["fingerprint"] for call in vendors.calls(wait=3)}
    assert [] == vendors.log_requests()


def test_the_end_of_a_process_takes_the_exit_timeout_and_no_longer(api: LogsAPI) -> None:
    """With a vendor that never answers, the end adds the three seconds that are allowed, on the process's own clock."""
    api.answer = lambda entry, times: None
    program = """
import atexit, time
from kwai_middleware import CompletedCall, default_delivery
atexit.register(lambda: print(time.monotonic() - began))  # runs last: what is registered first ends last
default_delivery().submit(CompletedCall(model="m", started_at=1.0))
while not default_delivery().stats().spooled: time.sleep(0.01)

def begin():
    global began
    began = time.monotonic()

atexit.register(begin)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, env={**_plain_environment(), **api.environment()}, text=True,
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert 0 == done.returncode, done.stderr
    assert 2.5 < float(done.stdout) < 3.5


def test_a_request_that_hangs_is_given_up_after_the_request_timeout(api: LogsAPI) -> None:
    """The first attempt is never answered; after the time-out the second one delivers the record."""
    from kwai_middleware import CompletedCall, Delivery

    api.answer = lambda entry, times: taken(entry, times) if times else None
    with Delivery(api.settings(request_timeout=0.2)) as delivery:
        assert delivery.submit(CompletedCall(record_id="late", model="m", started_at=1.0))
        assert ["late", "late"] == api.wait(2)
        assert delivery.flush(30)
        assert 1 == delivery.stats().delivered


class _Surprised(Sender):
    """A sender that fails once in a way that nobody foresaw."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:9", Secret("k"))
        self.surprises = 1

    def send(self, entry: bytes, timeout: float) -> Verdict:
        if self.surprises:
            self.surprises -= 1
            raise LookupError("a bug of ours")
        return Verdict(Fate.DELIVERED, "200")


def test_a_surprise_in_the_sender_loses_no_record() -> None:
    """The record goes back into the spool before the error goes on, and is delivered by the next attempt."""
    spool = MemorySpool(1 << 20, 3600)
    assert 1 == spool.append([Record("one", b"{}")])
    sender = _Surprised()
    shipper = Shipper(spool, sender, Crew(lambda: sender), 1.0, lambda: None)
    with pytest.raises(LookupError):
        shipper.step(1.0)
    assert (1, 0) == (spool.counters().pending, spool.counters().delivered)
    shipper.hurry()
    assert 0.0 == shipper.step(1.0)
    counters = spool.counters()
    assert (1, 1, 0) == (counters.appended, counters.delivered, counters.pending)


def _plain_environment() -> dict[str, str]:
    import os

    kept: dict[str, Any] = {name: value for name, value in os.environ.items() if not name.startswith("KWAI_")}
    return kept
