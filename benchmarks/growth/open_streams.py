"""What a call costs while many streams are open, and what each of them holds."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import httpx2

from benchmarks.outbound.model import GATEWAY, HEADERS, conversation, somebody, the_apps_settings
from benchmarks.outbound.ways import Finished, must
from benchmarks.plan import Case, Metric, Prepare, Round, Scale, Variant
from kwai_middleware import bind_caller
from kwai_middleware.httpx2_transport import KwaiTransport

__all__ = ["CASE"]

_CHUNKS: Final = 200
_READ: Final = 20
_TRACED: Final = 100
_BODY: Final = conversation(10_000)


class _Chunks(httpx2.SyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        for number in range(_CHUNKS):
            # A new object each, as from a connection.
            yield b'data: {"id":"gen-1","choices":[{"index":0,"delta":{"content":"word %d"}}]}\n\n' % number


class _Streaming(httpx2.BaseTransport):
    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=_Chunks())


@dataclass(frozen=True)
class _Open:
    """A stream that has been read in part."""

    response: httpx2.Response
    chunks: Iterator[bytes]


def _opened(client: httpx2.Client) -> _Open:
    request = client.build_request("POST", GATEWAY, content=_BODY, headers=HEADERS)
    response = client.send(request, stream=True)
    chunks = response.iter_raw()
    for _ in range(_READ):
        next(chunks)
    return _Open(response, chunks)


def _all_opened(client: httpx2.Client, count: int) -> tuple[list[_Open], float]:
    """Open streams; return them and the bytes that each of the last ones holds."""
    traced = min(count, _TRACED)
    opened = [_opened(client) for _ in range(count - traced)]
    gc.collect()
    tracemalloc.start()
    try:
        opened.extend(_opened(client) for _ in range(traced))
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return opened, held / traced


def _while_open(count: int) -> Prepare:
    @contextmanager
    def prepare(scale: Scale) -> Iterator[Round]:
        finished = Finished()
        transport = KwaiTransport(_Streaming(), settings=the_apps_settings(), deliver=finished)
        with httpx2.Client(transport=_Streaming()) as plain, httpx2.Client(transport=transport) as client:
            _opened(plain).response.close()
            without, held_without = _all_opened(plain, min(count, _TRACED))
            for each in without:
                each.response.close()
            del without
            with bind_caller(somebody()):
                _opened(client).response.close()
                opened, held = _all_opened(client, count)
                must("streams that are over", 1, finished.count)
                yield _rounds(client, scale, (held - held_without) / 1e3)
                must("streams that are open", count, sum(not each.response.is_closed for each in opened))
                for each in opened:
                    each.response.close()

    return prepare


def _rounds(client: httpx2.Client, scale: Scale, held: float) -> Round:
    def begun_and_read() -> tuple[float, float]:
        before = time.thread_time()
        with client.stream("POST", GATEWAY, content=_BODY, headers=HEADERS) as response:
            chunks = response.iter_raw()
            begun = time.thread_time()
            for _ in chunks:
                pass
            return begun - before, time.thread_time() - begun

    times = max(10, round(scale.seconds / sum(begun_and_read())))

    def one_round() -> dict[str, float]:
        took = [begun_and_read() for _ in range(times)]
        return {
            "to begin a call": sum(begun for begun, _ in took) / times * 1e6,
            "a chunk": sum(read for _, read in took) / times / _CHUNKS * 1e9,
            "held by each": held,
        }

    return one_round


def _variant(count: int) -> Variant:
    name = "1 open stream" if count == 1 else f"{count:,} open streams"
    return Variant(name, "ours", _while_open(count))


CASE: Final = Case(
    name="open_streams",
    title="While streams are open",
    what="CPU of the calling thread to begin one more streamed call of 10 KB, httpx2 included, and to read each of its "
    f"{_CHUNKS} chunks, while others are open and read in part; and the memory that we hold for each of those beside "
    f"what the plain client holds: {_READ} chunks of 80 bytes, kept until the record is built, are in it.",
    metrics=(
        Metric("to begin a call", "µs"),
        Metric("a chunk", "ns"),
        Metric("held by each", "kB", is_compared=False, decides=False),
    ),
    variants=tuple(_variant(count) for count in (1, 100, 5000)),
    base="1 open stream",
    quick=Scale(is_quick=True, rounds=5, seconds=0.05),
    full=Scale(is_quick=False, rounds=15, seconds=0.3),
)
