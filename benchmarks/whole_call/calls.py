"""Rounds of calls, one after the other, and what they take."""

from __future__ import annotations

import asyncio
import atexit
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from benchmarks.plan import Prepare, Round, Scale
from benchmarks.timing import percentiles
from benchmarks.whole_call.conversation import ANSWER, MESSAGES, MODEL
from benchmarks.whole_call.other_side import OtherSide, Seen, other_side

__all__ = ["FIRST_CHUNK", "PROCESS", "THREAD", "Kind", "SetUp", "Way", "prepare"]

THREAD: Final = "CPU, calling thread"
PROCESS: Final = "CPU, whole process"
FIRST_CHUNK: Final = "first chunk, p50"

_MICROSECONDS: Final = 1e6
_MILLISECONDS: Final = 1e3


@dataclass(frozen=True)
class Kind:
    """Which calls a case makes.

    Attributes:
        is_async: Whether by the SDK's asynchronous client, on one event loop.
        is_stream: Whether the answer comes in chunks.
        quick: Calls of a round of a quick run.
        full: The same of a whole run.
    """

    is_async: bool
    is_stream: bool
    quick: int
    full: int


def _nothing() -> None:
    return None


def _as_it_is(ask: Any) -> Any:
    return ask


def _all_kept(seen: Seen) -> bool:
    return min(seen.prompts, seen.answers) >= seen.calls


@dataclass(frozen=True)
class Way:
    """How a variant makes its calls.

    Attributes:
        client: The SDK's, sync or async.
        options: What each call is given besides its messages.
        around: Makes of the function that asks what an app would call.
        flush: Waits until all that was recorded has been sent.
        is_done: Says of what the other side got in a round whether the variant did its work.
    """

    client: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    around: Callable[[Any], Any] = _as_it_is
    flush: Callable[[], object] = _nothing
    is_done: Callable[[Seen], bool] = _all_kept


SetUp = Callable[[OtherSide, Kind], AbstractContextManager[Way]]


def prepare(set_up: SetUp, kind: Kind) -> Prepare:
    """Return how a variant of a case is prepared: a server of its own, and then its way."""

    @contextmanager
    def prepared(scale: Scale) -> Iterator[Round]:
        until_exit = ExitStack()
        # Registered before anything of a peer's, so that what peers still send at their exit is taken.
        atexit.register(until_exit.close)
        other = until_exit.enter_context(other_side())
        with set_up(other, kind) as way:
            rounds = _AsyncRounds if kind.is_async else _SyncRounds
            yield rounds(kind, way, other, kind.quick if scale.is_quick else kind.full).one

    return prepared


class _Rounds(ABC):
    def __init__(self, kind: Kind, way: Way, other: OtherSide, calls: int) -> None:
        self._kind = kind
        self._way = way
        self._other = other
        # The first round only warms up, and need not be long.
        self._calls = max(2, calls // 3)
        self._calls_of_next = calls
        self._first_chunks: list[float] = []
        more = {"stream": True, "stream_options": {"include_usage": True}} if kind.is_stream else {}
        self._options = {"model": MODEL, "messages": MESSAGES, **more, **way.options}
        self._create = way.client.chat.completions.create

    def one(self) -> dict[str, float]:
        """Make the calls of a round, and see that all of them were kept."""
        self._first_chunks.clear()
        process = time.process_time()
        thread, latencies = self._ask_all()
        self._way.flush()
        process = time.process_time() - process
        seen = self._other.seen()
        if seen.calls != self._calls or not self._way.is_done(seen):
            raise RuntimeError(f"what the other side saw of {self._calls} calls: {seen}")
        unit = _MILLISECONDS if self._kind.is_stream else _MICROSECONDS
        numbers = {
            THREAD: thread / self._calls * _MICROSECONDS,
            PROCESS: process / self._calls * _MICROSECONDS,
            **percentiles(latencies, 50, 99, of_a_second=unit),
        }
        if self._kind.is_stream:
            numbers[FIRST_CHUNK] = statistics.median(self._first_chunks) * unit
        self._calls = self._calls_of_next
        return numbers

    @abstractmethod
    def _ask_all(self) -> tuple[float, Sequence[float]]:
        """Return the CPU of the calling thread, and how long each call took."""

    def _check(self, answer: str) -> None:
        if answer != ANSWER:
            raise RuntimeError("that is not what the model said")


class _SyncRounds(_Rounds):
    def _ask_all(self) -> tuple[float, Sequence[float]]:
        ask: Callable[[], str] = self._way.around(self._stream if self._kind.is_stream else self._unary)
        latencies: list[float] = []
        thread = time.thread_time()
        for _ in range(self._calls):
            begun = time.perf_counter()
            self._check(ask())
            latencies.append(time.perf_counter() - begun)
        return time.thread_time() - thread, latencies

    def _unary(self) -> str:
        answer: str = self._create(**self._options).choices[0].message.content
        return answer

    def _stream(self) -> str:
        pieces: list[str] = []
        begun = time.perf_counter()
        for chunk in self._create(**self._options):
            if not pieces:
                self._first_chunks.append(time.perf_counter() - begun)
            pieces.extend(choice.delta.content or "" for choice in chunk.choices)
        return "".join(pieces)


class _AsyncRounds(_Rounds):
    def __init__(self, kind: Kind, way: Way, other: OtherSide, calls: int) -> None:
        super().__init__(kind, way, other, calls)
        self._runner = asyncio.Runner()

    def _ask_all(self) -> tuple[float, Sequence[float]]:
        return self._runner.run(self._ask_them())

    async def _ask_them(self) -> tuple[float, Sequence[float]]:
        ask: Callable[[], Awaitable[str]] = self._way.around(self._stream if self._kind.is_stream else self._unary)
        latencies: list[float] = []
        thread = time.thread_time()
        for _ in range(self._calls):
            begun = time.perf_counter()
            self._check(await ask())
            latencies.append(time.perf_counter() - begun)
        return time.thread_time() - thread, latencies

    async def _unary(self) -> str:
        answer: str = (await self._create(**self._options)).choices[0].message.content
        return answer

    async def _stream(self) -> str:
        pieces: list[str] = []
        begun = time.perf_counter()
        async for chunk in await self._create(**self._options):
            if not pieces:
                self._first_chunks.append(time.perf_counter() - begun)
            pieces.extend(choice.delta.content or "" for choice in chunk.choices)
        return "".join(pieces)
