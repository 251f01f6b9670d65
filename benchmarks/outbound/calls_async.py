"""What a call costs the event loop that makes it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import httpx2

from benchmarks.outbound.calls import QUICK
from benchmarks.outbound.model import GATEWAY, HEADERS, AsyncModel, conversation, somebody, the_apps_settings
from benchmarks.outbound.ways import Finished, attributed, must
from benchmarks.plan import Bar, Case, Metric, Prepare, Round, Scale, Variant
from benchmarks.timing import async_loop
from kwai_middleware import bind_caller
from kwai_middleware.httpx2_transport import AsyncKwaiTransport

__all__ = ["CASES"]

_BODY: Final = conversation(10_000)


async def _checked(client: httpx2.AsyncClient, model: AsyncModel) -> None:
    """Send one call and look at what has arrived."""
    model.keeps = True
    await client.post(GATEWAY, content=_BODY, headers=HEADERS)
    model.keeps = False


def _calls(client: httpx2.AsyncClient) -> Callable[[int], Awaitable[None]]:
    async def calls(times: int) -> None:
        for _ in range(times):
            await client.post(GATEWAY, content=_BODY, headers=HEADERS)

    return calls


class _Forwarding(httpx2.AsyncBaseTransport):
    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response: httpx2.Response = await self._inner.handle_async_request(request)
        return response


def _without(wrap: Callable[[Any], Any]) -> Prepare:
    @contextmanager
    def prepare(scale: Scale) -> Iterator[Round]:
        model = AsyncModel(httpx2)
        client = httpx2.AsyncClient(transport=wrap(model))
        asyncio.run(_checked(client, model))
        must("the body", _BODY, model.body)
        with async_loop(_calls(client), scale) as one_round:
            yield one_round

    return prepare


@contextmanager
def _ours(scale: Scale) -> Iterator[Round]:
    model, finished = AsyncModel(httpx2), Finished()
    transport = AsyncKwaiTransport(model, settings=the_apps_settings(), deliver=finished)
    client = httpx2.AsyncClient(transport=transport)
    with bind_caller(somebody()):
        asyncio.run(_checked(client, model))
        attributed(_BODY, model)
        must("records", 1, finished.count)
        with async_loop(_calls(client), scale) as one_round:
            yield one_round


CASES: Final = (
    Case(
        name="httpx2_async",
        title="A call with httpx2, asynchronous",
        what="The same with httpx2's asynchronous client: CPU of the event loop's thread for one POST of 10 KB and the "
        "reading of its answer.",
        metrics=(Metric("CPU", "µs"),),
        variants=(
            Variant("plain", "plain", _without(lambda model: model)),
            Variant("a transport that only forwards", "floor", _without(_Forwarding)),
            Variant("through the gateway", "ours", _ours),
        ),
        base="plain",
        bars=(
            Bar(
                "An asynchronous call of 10 KB through the gateway over plain httpx2",
                "through the gateway",
                "CPU",
                20,
                of="added",
            ),
        ),
        quick=QUICK,
    ),
)
