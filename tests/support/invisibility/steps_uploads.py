"""Steps: bodies that are sent in pieces, as they come."""

from __future__ import annotations

import dataclasses
from typing import Any

from tests.support.invisibility.describing import described
from tests.support.invisibility.stage import BODY, Stage
from tests.support.invisibility.steps import Steps

STEPS = Steps()


@STEPS.each([("pieces", [b"one", b"", b"two"]), ("nothing", []), ("large", [b"x" * 70_000] * 3)], gateway=False)
async def a_streamed_upload(stage: Stage, case: Any) -> Any:
    client = stage.client()
    request = stage.request(client, "ok", content=stage.upload(case[1]))
    response = await stage.send(client, request)
    again = await stage.outcome(lambda: stage.send(client, request))
    return described(response), response.request is request, again


@STEPS.not_on_gateways
async def bytes_sent_in_chunks(stage: Stage) -> Any:
    client = stage.client()
    first = await stage.post(client, "ok", content=BODY, headers={"Transfer-Encoding": "chunked"})
    return described(first), described(await stage.post(client, "ok"))


@STEPS.not_on_gateways
async def a_streamed_upload_of_known_length(stage: Stage) -> Any:
    upload = stage.upload([b"12", b"345"])
    return described(await stage.post(stage.client(), "ok", content=upload, headers={"Content-Length": "5"}))


@STEPS.each(["3", "9", "many"], gateway=False)
async def a_streamed_upload_of_another_length(stage: Stage, length: str) -> Any:
    client = stage.client()
    upload = stage.upload([b"12", b"345"])
    first = await stage.outcome(lambda: stage.post(client, "ok", content=upload, headers={"Content-Length": length}))
    return first, (await stage.post(client, "ok", content=b"{}")).status_code


@STEPS.not_on_gateways
async def an_upload_that_fails(stage: Stage) -> Any:
    """The app's own exception comes out of the client as it went in."""
    client = stage.client()
    error = ValueError("no more of it", 7)
    caught: Any = None
    try:
        await stage.post(client, "ok", content=stage.upload([b"one"], error))
    except ValueError as raised:
        caught = raised
    seen = described(caught)
    return caught is error, seen, (await stage.post(client, "ok", content=b"x")).status_code


@STEPS.not_on_gateways
async def an_upload_of_the_wrong_kind(stage: Stage) -> Any:
    """A synchronous generator for an asynchronous client, and the other way round."""

    async def asynchronous() -> Any:
        yield b"one"

    wrong = (part for part in (b"one",)) if stage.asynchronous else asynchronous()
    return await stage.outcome(lambda: stage.post(stage.client(), "ok", content=wrong))


@STEPS.not_on_gateways
async def an_upload_of_no_bytes(stage: Stage) -> Any:
    return await stage.outcome(lambda: stage.post(stage.client(), "ok", content=stage.upload([7])))


@STEPS.not_on_gateways
async def a_stream_of_the_apps_own(stage: Stage) -> Any:
    """A class that inherits from the library's stream type, which is told to close."""
    library = stage.library
    events: list[str] = []

    class Own(library.SyncByteStream, library.AsyncByteStream):  # type: ignore[misc,name-defined] # known at run time
        def __iter__(self) -> Any:
            events.append("iterated")
            yield b"own"

        async def __aiter__(self) -> Any:
            events.append("iterated")
            yield b"own"

    request = library.Request("POST", stage.url("ok"), stream=Own(), headers=stage.host | {"Content-Length": "3"})
    response = await stage.send(stage.client(), request)
    return described(response), events


@STEPS.not_on_gateways
async def a_stream_without_a_hash(stage: Stage) -> Any:
    """As a data class is."""
    library = stage.library

    @dataclasses.dataclass
    class Own(library.SyncByteStream, library.AsyncByteStream):  # type: ignore[misc,name-defined] # known at run time
        content: bytes

        def __iter__(self) -> Any:
            yield self.content

        async def __aiter__(self) -> Any:
            yield self.content

    request = library.Request("POST", stage.url("ok"), stream=Own(b"own"), headers=stage.host | {"Content-Length": "3"})
    return await stage.outcome(lambda: stage.send(stage.client(), request))
