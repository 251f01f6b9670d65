"""Steps: work that is stopped while it waits, as `asyncio`, `trio` and `anyio` stop it, and several calls at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import sniffio

from tests.support.invisibility.describing import described
from tests.support.invisibility.stage import Stage
from tests.support.invisibility.steps import Steps

STEPS = Steps()

_LATE = 10.0
"""Of a limit that is moved to now as soon as everybody waits: a busy machine is not too slow for it."""

_IN_A_WHILE = 1.0
"""Of the one limit that cannot be moved."""

_LARGE = b'{"model":"' + b"x" * 12_000_000 + b'"}'


def _in_asyncio() -> bool:
    return "asyncio" == sniffio.current_async_library()


async def _stopped(work: Callable[[], Awaitable[Any]], moment: Callable[[], Awaitable[Any]]) -> Any:
    """Begin `work`, stop it once `moment` has come, and return what it saw of its own end."""
    ends: list[Any] = []

    async def worked() -> None:
        try:
            ends.append(await work())
        except BaseException as error:
            ends.append(described(error))
            raise

    if _in_asyncio():
        task = asyncio.create_task(worked())
        await moment()
        task.cancel("enough")
        try:
            await task
        except asyncio.CancelledError as error:
            ends.append((error.args, task.cancelled()))
    else:
        async with anyio.create_task_group() as group:
            group.start_soon(worked)
            await moment()
            group.cancel_scope.cancel()
    return ends


def _arrived(stage: Stage, number: int = 1, *, whole: bool = True) -> Callable[[], Awaitable[Any]]:
    """The moment when the server has so many requests and everybody waits."""

    async def arrived() -> None:
        await anyio.to_thread.run_sync(lambda: stage.server.wait_for(number, whole=whole))
        await anyio.wait_all_tasks_blocked()

    return arrived


async def _strike(moment: Callable[[], Awaitable[Any]], strike: Callable[[], object]) -> None:
    await moment()
    strike()


@STEPS.asynchronous
async def stopped_while_waiting_for_the_head(stage: Stage) -> Any:
    client = stage.client()
    ends = await _stopped(lambda: stage.post(client, "silent"), _arrived(stage))
    return ends, (await stage.post(client, "ok")).status_code


def _each_way(how: str) -> Callable[[Stage], Awaitable[Any]]:
    async def stopped_in_the_answer(stage: Stage) -> Any:
        client = stage.client()
        begun = anyio.Event()
        kept: list[Any] = []

        async def read() -> None:
            async with stage.stream(client, "stalled") as response:
                kept.append(response)
                if how == "read":
                    begun.set()
                    await response.aread()
                async for part in stage.iterate(response, how):
                    kept.append(part)
                    begun.set()

        async def begun_and_waiting() -> None:
            await begun.wait()
            await anyio.wait_all_tasks_blocked()

        ends = await _stopped(read, begun_and_waiting)
        return ends, described(kept[0]), kept[1:], (await stage.post(client, "ok")).status_code

    stopped_in_the_answer.__name__ += f": {how}"
    return stopped_in_the_answer


for _how in ("iter_raw", "iter_bytes", "iter_text", "read"):
    STEPS.asynchronous(_each_way(_how))


@STEPS.asynchronous
async def stopped_in_an_answer_that_nobody_closes(stage: Stage) -> Any:
    """Without a context manager the answer stays open until somebody closes it."""
    client = stage.client()
    begun = anyio.Event()
    kept: list[Any] = []

    async def read() -> None:
        kept.append(await stage.open(client, "stalled"))
        async for _ in kept[0].aiter_raw():
            begun.set()

    ends = await _stopped(read, begun.wait)
    between = described(kept[0])
    await kept[0].aclose()
    return ends, between, described(kept[0])


@STEPS.asynchronous
async def stopped_while_sending(stage: Stage) -> Any:
    client = stage.client()
    return await _stopped(lambda: stage.post(client, "deaf", content=_LARGE), _arrived(stage, whole=False))


@STEPS.asynchronous
async def stopped_while_waiting_for_a_connection(stage: Stage) -> Any:
    client = stage.client(limits=stage.library.Limits(max_connections=1))
    async with stage.stream(client, "gated") as response:
        ends = await _stopped(lambda: stage.post(client, "ok"), anyio.wait_all_tasks_blocked)
        stage.server.gate.set()
        await response.aread()
    return ends, (await stage.post(client, "ok")).status_code


@STEPS.asynchronous
async def stopped_before_it_began(stage: Stage) -> Any:
    client = stage.client()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await stage.post(client, "ok")
    return scope.cancelled_caught, (await stage.post(client, "ok")).status_code


@STEPS.asynchronous
async def stopped_by_a_scope_with_a_deadline(stage: Stage) -> Any:
    client = stage.client()

    def is_over(scope: anyio.CancelScope) -> None:
        scope.deadline = anyio.current_time()

    async with anyio.create_task_group() as watching:
        with anyio.move_on_after(_LATE) as scope:
            watching.start_soon(_strike, _arrived(stage), lambda: is_over(scope))
            await stage.post(client, "silent")

        async def fail_after() -> None:
            with anyio.fail_after(_LATE) as scope:
                watching.start_soon(_strike, _arrived(stage, 2), lambda: is_over(scope))
                await stage.post(client, "silent")

        failed = await stage.outcome(fail_after)
    return scope.cancelled_caught, failed, (await stage.post(client, "ok")).status_code


@STEPS.asynchronous
async def stopped_by_the_event_loop(stage: Stage) -> Any:
    if not _in_asyncio():
        return "only there"
    client = stage.client()

    async def timeout() -> None:
        async with asyncio.timeout(_LATE) as limit:
            now = asyncio.get_running_loop().time
            watching.start_soon(_strike, _arrived(stage), lambda: limit.reschedule(now()))
            await stage.post(client, "silent")

    async def wait_for() -> None:
        await asyncio.wait_for(stage.post(client, "silent"), _IN_A_WHILE)

    async with anyio.create_task_group() as watching:
        timed_out = await stage.outcome(timeout)
    return timed_out, await stage.outcome(wait_for), (await stage.post(client, "ok")).status_code


@STEPS.asynchronous
async def stopped_because_another_failed(stage: Stage) -> Any:
    client = stage.client()

    async def fail() -> None:
        await _arrived(stage)()
        raise LookupError("another task")

    async def both() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(stage.post, client, "silent")
            group.start_soon(fail)

    return await stage.outcome(both), (await stage.post(client, "ok")).status_code


@STEPS.asynchronous
async def an_answer_read_by_another_task(stage: Stage) -> Any:
    response = await stage.open(stage.client(), "gated")
    got: list[Any] = []

    async def read() -> None:
        async for part in response.aiter_raw():
            got.append(part)
            stage.server.gate.set()
        await response.aclose()

    async with anyio.create_task_group() as group:
        group.start_soon(read)
    return got, described(response)


@STEPS.asynchronous
async def an_iteration_dropped_without_its_end(stage: Stage) -> Any:
    """The event loop finishes the library's generators, at its own time."""
    client = stage.client()
    async with stage.stream(client, "gated") as response:
        async for part in response.aiter_bytes():
            first = part
            break
    await anyio.lowlevel.checkpoint()
    return first, described(response)


@STEPS.asynchronous
async def an_answer_that_is_never_awaited(stage: Stage) -> Any:
    client = stage.client()
    coroutine = client.post(stage.url("ok"))
    coroutine.close()
    return coroutine.cr_frame is None


@STEPS.unordered
async def calls_at_the_same_time(stage: Stage) -> Any:
    """Each has a connection of its own, and all are kept."""
    client = stage.client()
    ends: list[Any] = []

    def keep(response: Any) -> None:
        ends.append((response.status_code, response.content, response.request.headers["x-number"]))

    def call(number: int) -> Any:
        return client.post(stage.url("together"), content=b"{}", headers={"X-Number": str(number)})

    async def call_async(number: int) -> None:
        keep(await call(number))

    if stage.asynchronous:
        async with anyio.create_task_group() as group:
            for number in range(_AT_ONCE):
                group.start_soon(call_async, number)
    else:
        threads = [threading.Thread(target=lambda number=number: keep(call(number))) for number in range(_AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    return sorted(ends)


_AT_ONCE = 8
