"""How long an event loop has to wait while large records are made, kept and shipped in its process."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from benchmarks.delivery import records
from benchmarks.delivery.naive_logger import NaiveLogger
from benchmarks.loopback.running import Loopback, loopback
from benchmarks.loopback.sink import accepted
from benchmarks.plan import Bar, Case, Metric, Prepare, Round, Scale, Variant
from benchmarks.timing import percentiles
from kwai_middleware import Delivery

__all__ = ["CASE"]

_NAME: Final = "kwai_middleware"
_IDLE: Final = "idle"
_GAP: Final = 0.05

_Submit = Callable[[], object]


async def _round_trips(seconds: float, submit: _Submit | None) -> list[float]:
    """Serve an echo to a client in another process, and submit a record now and then."""
    connected = asyncio.Event()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    async def submitting(submit: _Submit) -> None:
        await connected.wait()
        for _ in range(_count(seconds)):
            submit()
            await asyncio.sleep(_GAP)

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        words = (sys.executable, "-m", "benchmarks.loopback.pings", str(port), str(seconds))
        pinging = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
        recording = None if submit is None else asyncio.create_task(submitting(submit))
        printed, _ = await pinging.communicate()
        if recording is not None:
            await recording
    took: list[float] = json.loads(printed)
    return took


def _measured(runner: asyncio.Runner, scale: Scale, submit: _Submit | None = None) -> dict[str, float]:
    took = runner.run(_round_trips(scale.seconds, submit))
    return {**percentiles(took, 50, 99), "max": max(took) * 1e3}


def _count(seconds: float) -> int:
    return int(seconds / _GAP)


@contextmanager
def _idle(scale: Scale) -> Iterator[Round]:
    with asyncio.Runner() as runner:
        yield partial(_measured, runner, scale)


@contextmanager
def _ours(scale: Scale) -> Iterator[Round]:
    from benchmarks.delivery.large_calls import CUSTOMER, LAST_WORDS, pending_calls

    with (
        loopback(accepted, keep=1) as sink,
        records.settings(base_url=f"{sink.url}/api") as ours,
        Delivery(ours) as delivery,
        asyncio.Runner() as runner,
    ):
        make = pending_calls(ours)

        def one_round() -> dict[str, float]:
            calls = make(_count(scale.seconds))
            due = delivery.stats().delivered + len(calls)
            measured = _measured(runner, scale, lambda: delivery.submit(calls.pop()))
            records.wait_until(lambda: delivery.stats().delivered == due, seconds=30)
            _check(sink, CUSTOMER, LAST_WORDS)
            return measured

        yield one_round


def _by_hand(library: str) -> Prepare:
    @contextmanager
    def prepare(scale: Scale) -> Iterator[Round]:
        from benchmarks.delivery.large_calls import ANSWER, CUSTOMER, LAST_WORDS, REQUEST

        if library == "json":
            loads, dumps = json.loads, _dumped
        else:
            orjson = importlib.import_module(library)
            loads, dumps = orjson.loads, orjson.dumps
        with loopback(accepted, keep=1) as sink, asyncio.Runner() as runner:
            logger = NaiveLogger(sink.port, loads, dumps)

            def one_round() -> dict[str, float]:
                calls = [(bytes(bytearray(REQUEST)), bytes(bytearray(ANSWER))) for _ in range(_count(scale.seconds))]
                due = sink.count() + len(calls)
                measured = _measured(runner, scale, lambda: logger.submit(*calls.pop(), CUSTOMER))
                logger.flush()
                if sink.count() != due:
                    raise RuntimeError("not every record arrived")
                _check(sink, CUSTOMER, LAST_WORDS)
                return measured

            yield one_round
            logger.close()

    return prepare


def _dumped(entry: object) -> bytes:
    return json.dumps(entry).encode()


def _check(sink: Loopback, customer: str, last_words: str) -> None:
    for request in sink.kept():
        if customer.encode() not in request.body or last_words.encode() not in request.body:
            raise RuntimeError("a record came without its customer, or without all of its prompt")


CASE: Final = Case(
    name="loop_lag",
    title="An event loop beside 2 MB records",
    what="A few bytes to an echo server on an asyncio loop and back, every millisecond and from another process, while "
    "a call with 2 MB of prompt ends every 50 ms in the server's process and is logged to a sink on loopback. Ours: "
    "from the raw request and answer to the record, masked, on the disk, shipped. By hand: a queue and a thread that "
    "parses both, builds the log entry, dumps it and posts it; no disk, no masks. A round trip counts from when it was "
    "due; the calls themselves are made before.",
    metrics=(Metric("p50", "ms", decides=False), Metric("p99", "ms"), Metric("max", "ms", decides=False)),
    variants=(
        Variant(_IDLE, "plain", _idle),
        Variant(_NAME, "ours", _ours),
        Variant("json.dumps in a thread", "peer", _by_hand("json")),
        Variant("orjson.dumps in a thread", "peer", _by_hand("orjson"), "orjson"),
    ),
    base=_IDLE,
    bars=(Bar("Loopback round trip p99 while 2 MB records are processed, over idle", _NAME, "p99", 0.5, of="added"),),
    quick=Scale(is_quick=True, rounds=1, seconds=0.5),
    full=Scale(is_quick=False, rounds=7, seconds=1.5),
)
