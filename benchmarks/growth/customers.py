"""What a request and its call cost after many customers have been served."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpx2

from benchmarks.outbound.model import GATEWAY, HEADERS, AsyncModel, conversation, the_apps_settings
from benchmarks.outbound.ways import must
from benchmarks.plan import Case, Metric, Prepare, Round, Scale, Variant
from benchmarks.resident import give_back, resident
from kwai_middleware import ASGIMiddleware, HeaderIdentity
from kwai_middleware._delivery import log_entry
from kwai_middleware.httpx2_transport import AsyncKwaiTransport

__all__ = ["CASE"]

_MANY: Final = 100_000
_MANY_IN_A_HURRY: Final = 10_000
_BODY: Final = conversation(1_000)


class _App:
    """A web app that makes a call for each request, and keeps the finished calls for a while."""

    def __init__(self) -> None:
        self.finished: list[Any] = []
        self.model = AsyncModel(httpx2)
        transport = AsyncKwaiTransport(self.model, settings=the_apps_settings(), deliver=self.finished.append)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            request = httpx2.Request("POST", GATEWAY, content=_BODY, headers=HEADERS)
            await (await transport.handle_async_request(request)).aread()

        self._app = ASGIMiddleware(app, identify=HeaderIdentity(trusted_peers=["127.0.0.1"]))

    async def requests(self, customers: Iterable[int]) -> None:
        """Serve one request of each of these customers."""
        for number in customers:
            headers = [
                (b"host", b"app.example"),
                (b"x-customer-id", b"customer-%d" % number),
                (b"x-openrouter-key", b"sk-or-v1-%032d" % number),
            ]
            scope = {"type": "http", "method": "GET", "path": "/", "headers": headers, "client": ("127.0.0.1", 5)}
            await self._app(scope, _nothing, _nothing)

    def recorded(self) -> int:
        """Build and encode the records of all finished calls; return how many there were."""
        finished, self.finished[:] = list(self.finished), []
        for call in finished:
            log_entry.encode(call.build())
        return len(finished)


async def _nothing(*_: Any) -> Any:
    return None


def _after(many: bool, *, takes_turns: bool = False) -> Prepare:
    @contextmanager
    def prepare(scale: Scale) -> Iterator[Round]:
        app = _App()
        with asyncio.Runner() as runner:
            runner.run(app.requests([0] * 200))
            must("calls", 200, app.recorded())
            give_back()
            before = resident()
            count = 1
            if many:
                count = _MANY_IN_A_HURRY if scale.is_quick else _MANY
                for first in range(0, count, 1000):
                    runner.run(app.requests(range(first, first + 1000)))
                    # The records of some are built as well: all that remembers customers has seen them.
                    del app.finished[100:]
                    app.recorded()
            give_back()
            held = (resident() - before) / 1e6
            turns = itertools.cycle(range(count)) if takes_turns else itertools.repeat(0)
            yield _rounds(app, runner, turns, scale, held)

    return prepare


def _rounds(app: _App, runner: asyncio.Runner, turns: Iterator[int], scale: Scale, held: float) -> Round:
    def seconds(times: int) -> tuple[float, float]:
        customers = list(itertools.islice(turns, times))

        async def requests() -> float:
            begun = time.thread_time()
            await app.requests(customers)
            return time.thread_time() - begun

        on_the_loop = runner.run(requests())
        begun = time.thread_time()
        must("records", times, app.recorded())
        return on_the_loop, time.thread_time() - begun

    times = max(50, round(scale.seconds / sum(seconds(50)) * 50))

    def one_round() -> dict[str, float]:
        on_the_loop, recording = seconds(times)
        return {
            "request and call": on_the_loop / times * 1e6,
            "record": recording / times * 1e6,
            "held for all": held,
        }

    return one_round


CASE: Final = Case(
    name="customers",
    title="After many customers",
    what=f"CPU of a request through the ASGI middleware, with identity and key, and of a call of 1 KB in it, on a "
    f"transport that answers at once; of building and encoding its record; and the memory that is held after "
    f"{_MANY:,} customers with a key each ({_MANY_IN_A_HURRY:,} in a quick run) have been served.",
    metrics=(
        Metric("request and call", "µs"),
        Metric("record", "µs"),
        Metric("held for all", "MB", is_compared=False, decides=False),
    ),
    variants=(
        Variant("one customer, nobody before", "ours", _after(many=False)),
        Variant("one customer, after many", "ours", _after(many=True)),
        Variant("many customers in turn", "ours", _after(many=True, takes_turns=True)),
    ),
    base="one customer, nobody before",
    quick=Scale(is_quick=True, rounds=5, seconds=0.05),
    full=Scale(is_quick=False, rounds=15, seconds=0.3),
)
