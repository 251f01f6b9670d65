"""How fast and how heavy delivery is: `python benchmarks/delivery.py [name...] [--quick]`, one line for each number.

Each measurement runs in a process of its own, with a spool of its own in a temporary folder (TMPDIR names the disk) and
a vendor on loopback in another process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import resource
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kwai_middleware import Caller, CompletedCall, Delivery, Settings
from kwai_middleware._delivery import call_event, log_entry
from kwai_middleware._delivery.destination import destination_of
from kwai_middleware._delivery.disk.spool import Bounds, DiskSpool
from kwai_middleware._delivery.spool import Outcome, Record
from kwai_middleware._secret import Secret

KEY = Secret("benchmark-key")


def call(size: int) -> CompletedCall:
    """A finished call with `size` bytes of prompt and answer."""
    words = "The quick brown fox jumps over the lazy dog. " * (size // 90 + 1)
    return CompletedCall(
        route="direct", host="openrouter.ai", endpoint="/api/v1/chat/completions", format="chat", model="m",
        outcome="complete", status_code=200, started_at=time.time(), duration=0.5, caller=Caller(identifier="acme"),
        messages=json.dumps([{"role": "user", "content": words[: size // 2]}]).encode(),
        completions=({"role": "assistant", "content": words[: size // 2]},), prompt_tokens=10, completion_tokens=20,
    )  # fmt: skip


# The vendor


def _serve(listener: socket.socket, hang: bool) -> None:
    def handle(connection: socket.socket) -> None:
        stream = connection.makefile("rb")
        while line := stream.readline():
            length = 0
            while (header := stream.readline()) not in (b"\r\n", b""):
                name, _, value = header.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            body = stream.read(length)
            if hang:
                return time.sleep(3600)
            answer = b'{"message":"log successful"}'
            if b"/bulk/" in line:
                answer = b'{"success_count":%d,"error_count":0,"errors":[]}' % len(json.loads(body)["logs"])
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(answer), answer))
        return None

    while True:
        connection, _ = listener.accept()
        threading.Thread(target=handle, args=(connection,), daemon=True).start()


@contextlib.contextmanager
def vendor(*, hang: bool = False) -> Iterator[str]:
    """A logs API in a process of its own, that takes all or never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        process = multiprocessing.get_context("fork").Process(target=_serve, args=(listener, hang), daemon=True)
        process.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        process.kill()


@contextlib.contextmanager
def settings(**more: Any) -> Iterator[Settings]:
    """Settings with a spool of their own; the vendor is away unless they name one."""
    with tempfile.TemporaryDirectory() as folder:
        away = {"api_key": KEY, "base_url": "http://127.0.0.1:9/api", "spool": f"sqlite://{folder}/spool/"}
        yield Settings(**{**away, **more})


def show(name: str, *numbers: object) -> None:
    """Print one line."""
    print(f"{name:<58} {'  '.join(str(number) for number in numbers)}", flush=True)


def quantiles(values: list[float], unit: float) -> str:
    """Median, 99th percentile and maximum."""
    cuts = statistics.quantiles(values, n=100)
    return f"p50 {cuts[49] * unit:.2f}  p99 {cuts[98] * unit:.2f}  max {max(values) * unit:.2f}"


# The measurements


def to_disk(quick: bool) -> None:
    """End of a call to disk: latency at an easy rate, and the most calls a second."""
    with settings() as ours, Delivery(ours) as delivery:
        delivery.submit(call(100))
        while delivery.stats().spooled < 1:
            time.sleep(0.001)
        latencies: list[float] = []
        for number in range(2, 302 if quick else 2002):
            begun = time.perf_counter()
            delivery.submit(call(10_000))
            while delivery._engine._calls.account().spooled < number:
                time.sleep(0.00005)
            latencies.append(time.perf_counter() - begun)
            time.sleep(0.002)
        show("end of call to disk, 10 KB, 1 process [ms]", quantiles(latencies, 1e3))
        count = 1000 if quick else 6000
        calls = [call(10_000) for _ in range(count)]
        before, begun = delivery.stats().spooled, time.perf_counter()
        for each in calls:
            delivery.submit(each)
        while delivery.stats().spooled - before < count:
            time.sleep(0.005)
        show("calls of 10 KB to disk, 1 process [1/s]", f"{count / (time.perf_counter() - begun):.0f}")
        delivery.close(0)


def steps(quick: bool) -> None:
    """CPU of one record of 10 KB by step."""
    rounds = 200 if quick else 2000

    def cpu(name: str, function: Callable[[], object]) -> None:
        begun = time.thread_time()
        for _ in range(rounds):
            function()
        show(f"CPU, {name} [µs]", f"{(time.thread_time() - begun) / rounds * 1e6:.0f}")

    one = call(10_000)
    with settings() as ours, Delivery(ours) as delivery:
        delivery._engine._recorder.wake = lambda: None  # only the hand-over
        cpu("submit", lambda: delivery.submit(one))
        delivery.close(0)
    cpu("event", lambda: call_event.emit(one))
    cpu("encode and mask, 10 KB", lambda: log_entry.encode(one))
    entry = log_entry.encode(one)
    for batch in (1, 100):
        with tempfile.TemporaryDirectory() as folder:
            bounds = Bounds(max_bytes=1 << 30, max_pending_age=1e6)
            spool = DiskSpool(f"{folder}/spool.db", destination_of("https://x/api", KEY), bounds)
            records = [Record(str(number), entry) for number in range(batch)]
            rounds_before, rounds = rounds, max(1, rounds // batch)
            cpu(f"append {batch} at once", lambda: spool.append(records))  # noqa: B023 - called at once
            cpu(f"lease and settle {batch} at once", lambda: _shipped(spool, batch))  # noqa: B023 - called at once
            rounds = rounds_before
            spool.close()


def _shipped(spool: DiskSpool, rows: int) -> None:
    handout = spool.lease(rows, 1 << 30, bulk=False)
    spool.settle([Outcome(row, "delivered") for row in handout.rows])


def loop_lag(quick: bool) -> None:
    """Lag of an asyncio loop while the same process records 500 calls of 20 KB a second, and without."""

    async def lag(delivery: Delivery | None) -> list[float]:
        lags: list[float] = []
        template = call(20_000)
        until = time.perf_counter() + (2 if quick else 10)
        while (begun := time.perf_counter()) < until:
            if delivery is not None:
                delivery.submit(template)
            await asyncio.sleep(0.002)
            lags.append(time.perf_counter() - begun - 0.002)
        return lags

    with vendor() as url, settings(base_url=url) as ours:
        show("loop lag, idle [ms]", quantiles(asyncio.run(lag(None)), 1e3))
        with Delivery(ours) as delivery:
            show("loop lag, 500 records of 20 KB a second [ms]", quantiles(asyncio.run(lag(delivery)), 1e3))


def memory(quick: bool) -> None:
    """Resident memory with the sink down and many records pending."""
    count = 5_000 if quick else 100_000
    with settings(max_spool_bytes=4 << 30) as ours, Delivery(ours) as delivery:
        delivery.submit(call(100))
        while delivery.stats().spooled < 1:
            time.sleep(0.001)
        before = _resident()
        begun = time.perf_counter()
        for number in range(count):
            delivery.submit(call(10_000))
            while delivery._engine._calls.waiting > 500:
                time.sleep(0.005)
            if number % 1000 == 0 and time.perf_counter() - begun > 300:
                break
        while delivery.stats().in_memory:
            time.sleep(0.01)
        stats = delivery.stats()
        show(f"memory over idle, {stats.pending} calls of 10 KB pending [MB]", f"{(_resident() - before) / 1e6:.1f}")
        show("dropped", stats.dropped)
        delivery.close(0)
    show("peak memory of the process [MB]", f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.1f}")


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def at_exit(quick: bool) -> None:
    """Time to close with a sink that accepts and never answers."""
    with vendor(hang=True) as url, settings(base_url=url) as ours:
        delivery = Delivery(ours)
        for _ in range(100):
            delivery.submit(call(10_000))
        while delivery.stats().spooled < 100:
            time.sleep(0.005)
        begun = time.perf_counter()
        delivery.close()
        show("close with a hanging sink [s]", f"{time.perf_counter() - begun:.2f}")


def shipping(quick: bool) -> None:
    """Records of 10 KB a second from a full spool, pace switched off: many in one request, and one in each."""
    count = 1000 if quick else 10_000
    for name, pace in (("in bulk", 60_000), ("as singles", 0)):
        with vendor() as url, settings(base_url=url, bulk_per_minute=pace) as ours:
            delivery = Delivery(ours)
            # Filled while nobody ships.
            delivery._engine._appended = lambda: None
            delivery._engine._recorder._appended = lambda: None
            for _ in range(count):
                delivery.submit(call(10_000))
                while delivery._engine._calls.waiting > 5000:
                    time.sleep(0.01)
            while delivery.stats().spooled < count:
                time.sleep(0.01)
            begun, cpu = time.perf_counter(), time.process_time()
            delivery._engine._shipper.wake()
            delivery.flush(120)
            took = time.perf_counter() - begun
            each = (time.process_time() - cpu) / count * 1e6
            show(
                f"shipping {name} [1/s, CPU µs each]",
                f"{count / took:.0f}",
                f"{each:.0f}",
                delivery.stats().pending,
            )
            delivery.close(0)


MEASUREMENTS = {each.__name__: each for each in (to_disk, steps, loop_lag, memory, at_exit, shipping)}


def main() -> None:
    """Run what was asked for, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *MEASUREMENTS], help="by default all")
    parser.add_argument("--quick", action="store_true", help="less exact, within a minute")
    asked = parser.parse_args()
    for name in asked.names or MEASUREMENTS:
        process = multiprocessing.get_context("spawn").Process(target=MEASUREMENTS[name], args=(asked.quick,))
        process.start()
        process.join()


if __name__ == "__main__":
    main()
