"""Steps: what only HTTP/2 has, and what is different there: streams of one connection, their ends, and flow control."""

from __future__ import annotations

from typing import Any

import anyio

from tests.support.invisibility.describing import described
from tests.support.invisibility.stage import Stage
from tests.support.invisibility.steps import Steps

STEPS = Steps()

_SOON = 0.03
_LARGE = b'{"model":"' + b"x" * 700_000 + b'"}'


@STEPS.each(["ok", "trailers", "hints", "gzip", "megabyte", "many-headers", "no-content", "go-away-later"])
async def an_answer_in_frames(stage: Stage, do: str) -> Any:
    client = stage.client()
    first = described(await stage.post(client, do))
    return first, described(await stage.post(client, "ok"))


@STEPS.each(["reset", "go-away", "nothing", "garbage", "reset,ok", "go-away,ok"])
async def a_broken_stream(stage: Stage, do: str) -> Any:
    client = stage.client()
    first = await stage.outcome(lambda: stage.post(client, do))
    return first, await stage.outcome(lambda: stage.post(client, "ok"))


@STEPS.each(["iter_raw", "iter_lines", "read"])
async def a_stream_that_is_reset_on_its_way(stage: Stage, how: str) -> Any:
    client = stage.client()
    response = await stage.open(client, "reset-later")

    async def read() -> Any:
        if how != "iter_raw":
            stage.server.gate.set()
        if how == "read":
            return await stage.do(response, "read")
        async for _ in stage.iterate(response, how):
            stage.server.gate.set()
        return "the end"

    outcome = await stage.outcome(read)
    await stage.do(response, "close")
    return outcome["type"], described(response), (await stage.post(client, "ok")).status_code


@STEPS.step
async def several_streams_of_one_connection(stage: Stage) -> Any:
    """An open stream does not keep another from being answered."""
    client = stage.client()
    first = await stage.open(client, "gated")
    others = [described(await stage.post(client, "ok")) for _ in range(3)]
    stage.server.gate.set()
    body = await stage.do(first, "read")
    return body, others, first.extensions["stream_id"]


@STEPS.step
async def a_stream_left_in_the_middle(stage: Stage) -> Any:
    client = stage.client()
    async with stage.stream(client, "gated") as response:
        first = await anext(stage.iterate(response, "iter_raw"))
    return first, described(response), (await stage.post(client, "ok")).status_code


@STEPS.step
async def a_large_upload(stage: Stage) -> Any:
    """Larger than the window: the other side has to ask for the rest."""
    response = await stage.post(stage.client(), "ok", content=_LARGE)
    return described(response)["status"], len(response.request.content)


@STEPS.not_on_gateways
async def a_large_streamed_upload(stage: Stage) -> Any:
    return described(await stage.post(stage.client(), "ok", content=stage.upload([b"x" * 70_000] * 5)))


@STEPS.step
async def an_upload_that_is_not_taken(stage: Stage) -> Any:
    client = stage.client()
    await stage.post(client, "ok")
    return await stage.outcome(lambda: stage.post(client, "deaf", content=_LARGE, timeout=stage.timeout(read=_SOON)))


@STEPS.step
async def a_time_out_of_one_stream(stage: Stage) -> Any:
    client = stage.client()
    first = await stage.outcome(lambda: stage.post(client, "silent", timeout=stage.timeout(read=_SOON)))
    return first, (await stage.post(client, "ok")).status_code


@STEPS.asynchronous
async def one_stream_cancelled_among_others(stage: Stage) -> Any:
    client = stage.client()
    first = await stage.open(client, "gated")
    with anyio.CancelScope() as scope:
        async with stage.stream(client, "stalled") as response:
            async for _ in response.aiter_raw():
                scope.cancel()
    stage.server.gate.set()
    return await first.aread(), scope.cancelled_caught, (await stage.post(client, "ok")).status_code


@STEPS.asynchronous_unordered
async def calls_on_one_connection_at_the_same_time(stage: Stage) -> Any:
    """Threads cannot do this: the libraries take a stream's number before its turn, and servers refuse the rest."""
    client = stage.client()
    await stage.post(client, "ok")
    stage.server.arrived.clear()
    ends: list[Any] = []

    async def call() -> None:
        ends.append((await client.post(stage.url("together"), content=b"{}")).content)

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(call)
    return ends
