"""What a chunk of a streamed answer costs the one who reads it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2

from benchmarks.outbound.model import GATEWAY, HEADERS, conversation, somebody, the_apps_settings
from benchmarks.outbound.ways import Finished, must
from benchmarks.plan import Bar, Case, Metric, Prepare, Role, Round, Scale, Variant
from kwai_middleware import bind_caller
from kwai_middleware.httpx2_transport import AsyncKwaiTransport, KwaiTransport

__all__ = ["CASES"]

_CHUNKS: Final = 1000
_CHUNK: Final = b'data: {"id":"gen-1","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
_BODY: Final = conversation(1000)
_NANOSECONDS: Final = 1e9


class _Chunks(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    def __iter__(self) -> Iterator[bytes]:
        for _ in range(_CHUNKS):
            yield _CHUNK

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(_CHUNKS):
            yield _CHUNK


class _Streaming(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, stream=_Chunks())

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return self.handle_request(request)


class _PassedOn(_Chunks):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:  # noqa: UP028 - what looks at each chunk can do no less
            yield chunk

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            yield chunk


class _Parsed(_PassedOn):
    """Looks at each chunk as it comes, as one does who sums up a stream on its way."""

    seen = 0

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            if chunk.startswith(b"data: {"):
                _Parsed.seen += len(json.loads(chunk[6:])["choices"])
            yield chunk


class _Around(_Streaming):
    def __init__(self, stream: Callable[[Any], _Chunks]) -> None:
        self._inner = _Streaming()
        self._stream = stream

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        response = self._inner.handle_request(request)
        response.stream = self._stream(response.stream)
        return response


@dataclass(frozen=True)
class _Stream:
    """A way to read streams.

    Attributes:
        transport: Sends.
        seen: How many chunks have been looked at by now; of ours, how many calls were handed over.
        expected: How many that is after one stream.
        around: Is entered before the calls.
    """

    transport: Any
    seen: Callable[[], int] = lambda: 0
    expected: int = 0
    around: AbstractContextManager[object] = field(default_factory=nullcontext)


def _ours(kind: Any) -> _Stream:
    finished = Finished()
    transport = kind(_Streaming(), settings=the_apps_settings(), deliver=finished)
    return _Stream(transport, lambda: finished.count, 1, bind_caller(somebody()))


def _reading(make: Callable[[], _Stream]) -> Prepare:
    @contextmanager
    def prepare(scale: Scale) -> Iterator[Round]:
        way = make()
        client = httpx2.Client(transport=way.transport)

        def seconds(reading: str, streams: int) -> float:
            spent = 0.0
            for _ in range(streams):
                with client.stream("POST", GATEWAY, content=_BODY, headers=HEADERS) as response:
                    chunks = getattr(response, reading)()
                    begun = time.thread_time()
                    for _ in chunks:
                        pass
                    spent += time.thread_time() - begun
            return spent

        with way.around:
            with client.stream("POST", GATEWAY, content=_BODY, headers=HEADERS) as response:
                must("the chunks", _CHUNKS, sum(1 for _ in response.iter_raw()))
            must("what was seen", way.expected, way.seen())
            yield _rounds(seconds, ("iter_raw", "iter_lines"), scale)

    return prepare


def _reading_async(make: Callable[[], _Stream]) -> Prepare:
    @contextmanager
    def prepare(scale: Scale) -> Iterator[Round]:
        way = make()
        client = httpx2.AsyncClient(transport=way.transport)

        async def read(reading: str) -> tuple[float, int]:
            count = 0
            async with client.stream("POST", GATEWAY, content=_BODY, headers=HEADERS) as response:
                chunks = getattr(response, reading)()
                begun = time.thread_time()
                async for _ in chunks:
                    count += 1
                return time.thread_time() - begun, count

        async def read_all(reading: str, streams: int) -> float:
            return sum([(await read(reading))[0] for _ in range(streams)])

        with way.around, asyncio.Runner() as runner:
            must("the chunks", _CHUNKS, runner.run(read("aiter_raw"))[1])
            must("what was seen", way.expected, way.seen())
            yield _rounds(lambda *of: runner.run(read_all(*of)), ("aiter_raw", "aiter_lines"), scale)

    return prepare


def _rounds(seconds: Callable[[str, int], float], readings: tuple[str, ...], scale: Scale) -> Round:
    streams = {reading: max(1, round(scale.seconds / seconds(reading, 1))) for reading in readings}

    def one_round() -> dict[str, float]:
        return {reading: seconds(reading, count) / count / _CHUNKS * _NANOSECONDS for reading, count in streams.items()}

    return one_round


def _case(name: str, how: str, readings: tuple[str, str], ways: tuple[tuple[str, Role, Prepare], ...]) -> Case:
    return Case(
        name=name,
        title=f"A chunk of a stream{how}",
        what=f"CPU of the reading thread for one of the {_CHUNKS} chunks of a streamed answer, from the head of the "
        "answer to its end, what is done at the end included; httpx2, on a transport that has all chunks at hand.",
        metrics=(Metric(readings[0], "ns"), Metric(readings[1], "ns", decides=False)),
        variants=tuple(Variant(variant, role, prepare) for variant, role, prepare in ways),
        base="plain",
        bars=(Bar(f"A chunk of a stream{how}", "ours", readings[0], 300, of="added"),),
        quick=Scale(is_quick=True, rounds=3, seconds=0.01),
    )


CASES: Final = (
    _case(
        "chunks",
        "",
        ("iter_raw", "iter_lines"),
        (
            ("plain", "plain", _reading(lambda: _Stream(_Streaming()))),
            ("a generator that only passes on", "floor", _reading(lambda: _Stream(_Around(_PassedOn)))),
            ("ours", "ours", _reading(lambda: _ours(KwaiTransport))),
            (
                "each chunk parsed with json",
                "peer",
                _reading(lambda: _Stream(_Around(_Parsed), lambda: _Parsed.seen, _CHUNKS)),
            ),
        ),
    ),
    _case(
        "chunks_async",
        ", asynchronous",
        ("aiter_raw", "aiter_lines"),
        (
            ("plain", "plain", _reading_async(lambda: _Stream(_Streaming()))),
            ("a generator that only passes on", "floor", _reading_async(lambda: _Stream(_Around(_PassedOn)))),
            ("ours", "ours", _reading_async(lambda: _ours(AsyncKwaiTransport))),
        ),
    ),
)
