"""The whole job on this machine: the vendors' sandbox, the FastAPI example, three customers, and what came of it.

It shows a table, checks it, and ends; with --keep it leaves both servers running until Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from kwai_middleware import Secret
from kwai_middleware.sandbox import Sandbox

HERE = Path(__file__).resolve().parent
DEADLINE = 30.0
HOUSE = {"gateway": "keywordsai-house-key-0123", "direct": "sk-or-v1-house-0123456789"}


@dataclass(frozen=True)
class Customer:
    """Somebody whose requests reach the app."""

    name: str
    key: str | None


ACME = Customer("acme", "sk-or-v1-acme-0123456789")
GLOBEX = Customer("globex", None)
INITECH = Customer("initech", "sk-or-v1-initech-dead")


@dataclass(frozen=True)
class Call:
    """One request to the app, and what must come of it."""

    customer: Customer
    path: str
    route: str
    stream: bool = False

    @property
    def model(self) -> str:
        """Streams take their time, so that the first token's has something to show."""
        return "sandbox/slow-0.25" if self.stream else "sandbox/echo"

    @property
    def question(self) -> str:
        """What is asked; no two calls ask the same."""
        return f"What does {self.customer.name} pay for at {self.path}?"

    @property
    def expected_status(self) -> int:
        """A dead key is refused by the vendor, and no other key is tried."""
        return 401 if self.customer is INITECH else 200

    @property
    def expected_key(self) -> str:
        """Fingerprint of the key that must pay: the customer's, or the app's own for a customer without one."""
        return Secret(self.customer.key or HOUSE[self.route]).fingerprint


CALLS = [
    Call(ACME, "/chat/stream", "gateway", stream=True),
    Call(ACME, "/direct/stream", "direct", stream=True),
    Call(ACME, "/openrouter", "direct"),
    Call(GLOBEX, "/chat", "gateway"),
    Call(GLOBEX, "/direct", "direct"),
    Call(INITECH, "/chat", "gateway"),
    Call(INITECH, "/direct", "direct"),
]
KEYS = [*HOUSE.values(), *(call.customer.key for call in CALLS if call.customer.key)]


class Server:
    """A server process of its own, and what it printed."""

    def __init__(self, *argv: str, ready: str, env: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen([sys.executable, *argv], env=env, stdout=output, stderr=subprocess.STDOUT)
        self._wait_until_ready(ready)

    def _wait_until_ready(self, url: str) -> None:
        until = time.monotonic() + DEADLINE
        while self.process.poll() is None and time.monotonic() < until:
            with contextlib.suppress(httpx.TransportError):
                httpx.get(url, trust_env=False)
                return
            time.sleep(0.05)
        self.stop()
        sys.exit(f"This server did not start: {self.process.args!r}\n{self.log.read_text()}")

    def stop(self) -> None:
        """End it the way an operator does, and wait for it."""
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(DEADLINE)


def free_port(preferred: int) -> int:
    """Return `preferred`, or another port when something listens there."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", preferred))
        except OSError:
            listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def servers() -> Iterator[tuple[str, str, Path]]:
    """Run the sandbox and the app; gives the URLs of both, and the file that holds the app's log."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        ports = str(free_port(8700)), str(free_port(8000))
        sandbox, app = (f"http://127.0.0.1:{port}" for port in ports)
        env = {name: value for name, value in os.environ.items() if not name.startswith(("KWAI_", "RESPAN_"))}
        env |= {
            "KEYWORDSAI_API_KEY": HOUSE["gateway"],
            "KEYWORDSAI_BASE_URL": f"{sandbox}/api",
            "OPENROUTER_API_KEY": HOUSE["direct"],
            "OPENROUTER_BASE_URL": f"{sandbox}/api/v1",
        }
        for argv, ready, log in (
            (("-m", "kwai_middleware", "sandbox", "--port", ports[0]), f"{sandbox}/sandbox/", "sandbox"),
            (("-m", "uvicorn", "app:app", "--app-dir", str(HERE / "fastapi_app"), "--port", ports[1]), app, "app"),
        ):
            server = Server(*argv, ready=ready, env=env, log=Path(folder, log))
            running.callback(server.stop)
        yield sandbox, app, server.log


async def ask_all(app: str) -> list[int]:
    """Send all calls at once, as the customers' browsers would; returns the status of each answer."""
    async with httpx.AsyncClient(base_url=app, trust_env=False, timeout=DEADLINE) as browser:

        async def ask(call: Call) -> int:
            headers = {"X-Customer-Id": call.customer.name}
            if call.customer.key is not None:
                headers["X-OpenRouter-Key"] = call.customer.key
            answer = await browser.post(
                call.path, headers=headers, json={"question": call.question, "model": call.model}
            )
            return answer.status_code

        return await asyncio.gather(*map(ask, CALLS))


def llm_calls(log: Path) -> list[dict[str, Any]]:
    """Return the app's own log lines about its model calls, waiting until there is one for each call."""
    until = time.monotonic() + DEADLINE
    while True:
        lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
        events = [line for line in lines if line.get("event") == "llm_call"]
        if len(events) >= len(CALLS) or time.monotonic() > until:
            return events
        time.sleep(0.05)


@dataclass(frozen=True)
class Outcome:
    """One call as everybody saw it.

    Attributes:
        call: What was asked, and what must come of it.
        status: What the customer got.
        event: What the app's log says.
        at_vendor: What the vendor saw.
        record: What reached the request-logs API; None for nothing.
    """

    call: Call
    status: int
    event: dict[str, Any]
    at_vendor: dict[str, Any]
    record: dict[str, Any] | None

    def broken_promises(self) -> list[str]:
        """Return what is not as promised."""
        call, record = self.call, self.record
        promises = {
            f"the customer gets status {call.expected_status}": self.status == call.expected_status,
            "the right key pays": self.at_vendor["paid_by"]["fingerprint"] == call.expected_key,
            "a direct call is logged, one through the gateway is not logged twice": (
                (record is not None) == (call.route == "direct")
            ),
        }
        if call.route == "gateway":
            promises["the gateway is told the customer"] = self.at_vendor["customer"] == call.customer.name
        if record is not None:
            promises |= {
                "the record names the customer": record["customer"] == call.customer.name,
                "the record holds no key": record["keys_seen"] == [],
                "the vendor keeps all of the record": record["dropped"] == [],
                "the record has the status": record["log"]["status_code"] == call.expected_status,
                "the record has the cost": call.expected_status != 200 or record["log"]["cost"] > 0,
            }
        return [f"{call.customer.name} at {call.path}: {promise}" for promise, kept in promises.items() if not kept]

    def cells(self) -> list[str]:
        """Return this call's row of the table."""
        call, event, record = self.call, self.event, self.record
        whose = "the app's" if call.customer.key is None else f"{call.customer.name}'s"
        return [
            call.customer.name,
            "gateway" if call.route == "gateway" else "OpenRouter",
            f"{whose} {self.at_vendor['paid_by']['fingerprint']}",
            call.model,
            f"{self.status} {'refused' if self.status == 401 else 'streamed' if call.stream else ''}",
            f"{event['prompt_tokens']}+{event['completion_tokens']}" if "completion_tokens" in event else "",
            f"${event['cost']:.6f}" if "cost" in event else "",
            f"{event['time_to_first_token'] * 1000:.0f} ms" if "time_to_first_token" in event else "",
            f"{event['duration'] * 1000:.0f} ms",
            "by the gateway itself" if record is None else f"{record['log_id'][:8]} for {record['customer']}",
        ]


HEADINGS = ["customer", "route", "whose key", "model", "status", "tokens", "cost", "1st token", "total", "logged"]


def outcomes(statuses: list[int], vendor: Sandbox, log: Path) -> list[Outcome]:
    """Bring together what everybody saw of each call."""
    events = {(event["customer_id"], event["route"], event["stream"]): event for event in llm_calls(log)}
    calls = {call["body"]["messages"][0]["content"]: call for call in vendor.calls(wait=len(CALLS), timeout=DEADLINE)}
    logged = vendor.logs(wait=sum(call.route == "direct" for call in CALLS), timeout=DEADLINE)
    records = {record["log"]["metadata"]["kwai_record_id"]: record for record in logged}
    return [
        Outcome(call, status, event, calls[call.question], records.get(event["record_id"]))
        for call, status in zip(CALLS, statuses, strict=True)
        if (event := events[call.customer.name, call.route, call.stream])
    ]


def print_table(rows: list[list[str]]) -> None:
    """Print rows in columns, the first as headings."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in (rows[0], ["-" * width for width in widths], *rows[1:]):
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_hints(sandbox: str, app: str) -> None:
    """Print what to try while the servers run."""
    ask = "-H 'X-Customer-Id: acme' -H 'X-OpenRouter-Key: sk-or-v1-acme-0123456789' --json"
    print(
        f"""
the app              {app}/docs
what vendors got     {sandbox}/sandbox/calls   {sandbox}/sandbox/logs
models and keys      {sandbox}/sandbox/
curl {app}/chat {ask} '{{"question": "Hello?"}}'
curl -N {app}/direct/stream {ask} '{{"question": "Hello?", "model": "sandbox/long-40"}}'
curl '{sandbox}/sandbox/calls?customer=acme'
curl '{sandbox}/sandbox/logs?customer=acme&wait=1'

Ctrl-C ends both servers.""",
        flush=True,
    )


def main() -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="leave both servers running until Ctrl-C")
    keep = parser.parse_args().keep
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with servers() as (sandbox, app, log):
        print(f"{len(CALLS)} requests at once; acme streams, globex brought no key, initech's key is dead.\n")
        statuses = asyncio.run(ask_all(app))
        try:
            seen = outcomes(statuses, Sandbox(sandbox), log)
        except (KeyError, TimeoutError) as missing:
            print(f"Not as promised: something is missing ({missing}). The app's log:\n{log.read_text()}")
            return 1
        print_table([HEADINGS, *(outcome.cells() for outcome in seen)])
        broken = [promise for outcome in seen for promise in outcome.broken_promises()]
        broken += ["no key in the app's log" for key in KEYS if key in log.read_text()]
        print("\n" + "\n".join(["Not as promised:", *broken] if broken else ["All as promised."]))
        if keep:
            print_hints(sandbox, app)
            with contextlib.suppress(KeyboardInterrupt):
                signal.pause()
        return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
