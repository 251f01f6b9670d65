"""Steps: every kind of answer, read in every way that a response offers."""

from __future__ import annotations

from typing import Any

from tests.support.invisibility.answers import ANSWERS, BROKEN
from tests.support.invisibility.describing import described
from tests.support.invisibility.stage import Stage
from tests.support.invisibility.steps import Steps

STEPS = Steps()

_STREAMED = ("lines", "chunked-gzip", "short-body")
_WAYS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("raw", "iter_raw", {}),
    ("raw in ones", "iter_raw", {"chunk_size": 1}),
    ("raw in sevens", "iter_raw", {"chunk_size": 7}),
    ("raw at once", "iter_raw", {"chunk_size": 65536}),
    ("bytes", "iter_bytes", {}),
    ("bytes in threes", "iter_bytes", {"chunk_size": 3}),
    ("text", "iter_text", {}),
    ("text in fives", "iter_text", {"chunk_size": 5}),
    ("lines", "iter_lines", {}),
)


@STEPS.each(ANSWERS)
async def an_answer(stage: Stage, do: str) -> Any:
    return described(await stage.post(stage.client(), do))


@STEPS.each(BROKEN)
async def a_broken_answer(stage: Stage, do: str) -> Any:
    client = stage.client()
    first = await stage.outcome(lambda: stage.post(client, do))
    gone = stage.server.wait_until_idle()
    return first, gone, await stage.outcome(lambda: stage.post(client, "ok"))


@STEPS.each([(f"{do} as {way[0]}", do, way) for do in _STREAMED for way in _WAYS])
async def a_streamed_answer(stage: Stage, case: Any) -> Any:
    _, do, (_, how, options) = case
    response = await stage.open(stage.client(), do)
    before = described(response)
    parts: list[Any] = []
    counts = []

    async def iterated() -> None:
        async for part in stage.iterate(response, how, **options):
            parts.append(part)
            counts.append(response.num_bytes_downloaded)

    end = await stage.outcome(iterated)
    after = described(response)
    await stage.do(response, "close")
    # Where the pieces of a body end that nobody asked to be cut is up to the network.
    shown = parts if "chunk_size" in options or how == "iter_lines" else type(parts[0])().join(parts) if parts else []
    return before, shown, counts[-1:], end, after, described(response)


@STEPS.each(["iter_raw", "iter_bytes", "iter_text", "iter_lines", "read"])
async def a_second_reading(stage: Stage, how: str) -> Any:
    """What can still be done with an answer that was iterated to its end."""
    response = await stage.open(stage.client(), "chunked")
    await stage.iterate(response, "iter_raw").rest()

    async def again() -> Any:
        if how == "read":
            return await stage.do(response, "read")
        return await stage.iterate(response, how).rest()

    return await stage.outcome(again), described(response)


@STEPS.each(["iter_raw", "iter_bytes", "iter_lines", "read"])
async def a_reading_after_the_close(stage: Stage, how: str) -> Any:
    response = await stage.open(stage.client(), "chunked")
    await stage.do(response, "close")

    async def again() -> Any:
        if how == "read":
            return await stage.do(response, "read")
        return await stage.iterate(response, how).rest()

    return await stage.outcome(again), described(response)


@STEPS.each(["iter_raw", "iter_bytes", "iter_text", "iter_lines"])
async def a_reading_of_what_is_read(stage: Stage, how: str) -> Any:
    response = await stage.post(stage.client(), "lines")
    return (
        await stage.outcome(lambda: stage.iterate(response, how, 4).rest())
        if how != "iter_lines"
        else (await stage.outcome(lambda: stage.iterate(response, how).rest()))
    )


@STEPS.each(["text", "content", "json", "elapsed", "num_bytes_downloaded"])
async def a_look_before_the_reading(stage: Stage, name: str) -> Any:
    response = await stage.open(stage.client(), "ok")

    async def look() -> Any:
        value = getattr(response, name)
        return value() if callable(value) else value

    early = await stage.outcome(look)
    await stage.do(response, "close")
    return early, described(response)


@STEPS.step
async def the_other_kind_of_reading(stage: Stage) -> Any:
    """A synchronous answer cannot be awaited, an asynchronous one has to be."""
    response = await stage.open(stage.client(), "ok")

    async def wrong() -> Any:
        if stage.asynchronous:
            return list(response.iter_raw())
        return [part async for part in response.aiter_raw()]

    async def wrong_read() -> Any:
        return response.read() if stage.asynchronous else await response.aread()

    async def wrong_close() -> Any:
        return response.close() if stage.asynchronous else await response.aclose()

    outcomes = [await stage.outcome(action) for action in (wrong, wrong_read, wrong_close)]
    await stage.do(response, "close")
    return outcomes, described(response)


@STEPS.step
async def chunks_come_when_they_are_sent(stage: Stage) -> Any:
    """The second part is sent only when the first has been seen."""
    async with stage.stream(stage.client(), "gated") as response:
        parts = stage.iterate(response, "iter_raw")
        first = await anext(parts)
        so_far = response.num_bytes_downloaded
        stage.server.gate.set()
        return first, so_far, await parts.rest(), described(response)


@STEPS.step
async def an_answer_left_in_the_middle(stage: Stage) -> Any:
    client = stage.client()
    async with stage.stream(client, "gated") as response:
        first = await anext(stage.iterate(response, "iter_raw"))
    return first, described(response), (await stage.post(client, "ok")).status_code


@STEPS.step
async def an_iteration_closed_in_the_middle(stage: Stage) -> Any:
    client = stage.client()
    response = await stage.open(client, "gated")
    parts = stage.iterate(response, "iter_bytes")
    first = await anext(parts)
    await parts.close()
    between = described(response)
    await stage.do(response, "close")
    return first, between, described(response), (await stage.post(client, "ok")).status_code


@STEPS.step
async def an_answer_closed_under_its_iteration(stage: Stage) -> Any:
    response = await stage.open(stage.client(), "gated")
    parts = stage.iterate(response, "iter_raw")
    first = await anext(parts)
    await stage.do(response, "close")
    return first, await stage.outcome(lambda: anext(parts)), described(response)


@STEPS.step
async def two_iterations_at_once(stage: Stage) -> Any:
    response = await stage.open(stage.client(), "gated")
    first = stage.iterate(response, "iter_raw")
    begun = await anext(first)
    second = await stage.outcome(lambda: stage.iterate(response, "iter_raw").rest())
    stage.server.gate.set()
    rest = await first.rest()
    return begun, second, rest, described(response)


@STEPS.step
async def the_stream_itself(stage: Stage) -> Any:
    """SDKs sometimes look below the response."""
    response = await stage.open(stage.client(), "chunked")
    library = stage.library
    kinds = [isinstance(response.stream, kind) for kind in (library.SyncByteStream, library.AsyncByteStream)]
    parts = [part async for part in response.stream] if stage.asynchronous else list(response.stream)
    await stage.do(response.stream, "close")
    return kinds, b"".join(parts), described(response)


@STEPS.step
async def an_answer_closed_twice(stage: Stage) -> Any:
    response = await stage.open(stage.client(), "ok")
    await stage.do(response, "close")
    return await stage.outcome(lambda: stage.do(response, "close")), described(response)


@STEPS.step
async def an_answer_read_twice(stage: Stage) -> Any:
    response = await stage.open(stage.client(), "ok")
    first = await stage.do(response, "read")
    return first is await stage.do(response, "read"), described(response)
