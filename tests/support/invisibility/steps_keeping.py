"""Steps: what an app may do with an answer besides reading it: pickle it, copy it, keep it, drop it, upgrade it."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

from tests.support.invisibility.describing import described
from tests.support.invisibility.stage import Stage
from tests.support.invisibility.steps import Steps

STEPS = Steps()


@STEPS.each(["ok", "gzip", "status-500I", "cookie"])
async def a_pickled_answer(stage: Stage, do: str) -> Any:
    response = await stage.post(stage.client(), do)
    again = pickle.loads(pickle.dumps(response))
    members = sorted(vars(again))
    return members, described(again), described(pickle.loads(pickle.dumps(again)))


@STEPS.step
async def a_pickled_answer_that_was_not_read(stage: Stage) -> Any:
    response = await stage.open(stage.client(), "ok")
    again = pickle.loads(pickle.dumps(response))
    await stage.do(response, "close")
    return sorted(vars(again)), described(again), await stage.outcome(lambda: stage.do(again, "read"))


@STEPS.step
async def a_copied_answer(stage: Stage) -> Any:
    response = await stage.post(stage.client(), "ok")
    return described(copy.copy(response)), described(copy.deepcopy(response))


@STEPS.step
async def an_encoding_of_the_apps_own(stage: Stage) -> Any:
    response = await stage.post(stage.client(default_encoding="latin-1"), "not-utf-8")
    by_function = await stage.post(stage.client(default_encoding=lambda content: "cp1252"), "not-utf-8")
    set_later = await stage.post(stage.client(), "not-utf-8")
    set_later.encoding = "utf-16"
    return described(response), described(by_function), described(set_later)


@STEPS.step
async def an_encoding_set_too_late(stage: Stage) -> Any:
    response = await stage.post(stage.client(), "ok")
    text = response.text

    async def late() -> None:
        response.encoding = "latin-1"

    return text, await stage.outcome(late)


@STEPS.step
async def what_keeps_an_answer_alive(stage: Stage) -> Any:
    """A read answer and its request are gone as soon as the app drops them, or as late as with a plain client."""
    client = stage.client()
    request = stage.request(client, "ok")
    response = await stage.send(client, request)
    living = [weakref.ref(response), weakref.ref(request)]
    del response, request
    at_once = [each() is None for each in living]
    gc.collect()
    return at_once, [each() is None for each in living]


@STEPS.step
async def an_answer_that_nobody_reads(stage: Stage) -> Any:
    """It is dropped, and so is its connection, or not, as with a plain client."""
    client = stage.client()
    response = await stage.open(client, "stalled")
    status = response.status_code
    del response
    gc.collect()
    return status


@STEPS.step
async def an_iteration_that_nobody_ends(stage: Stage) -> Any:
    response = await stage.open(stage.client(), "stalled")
    parts = stage.iterate(response, "iter_raw")
    first = await anext(parts)
    del parts, response
    gc.collect()
    return first


@STEPS.step
async def an_upgraded_connection(stage: Stage) -> Any:
    """After a 101 the connection is the app's."""
    response = await stage.open(stage.client(), "upgrade", headers={"Connection": "upgrade", "Upgrade": "echo"})
    stream = response.extensions["network_stream"]
    await stage.settle(stream.write(b"hello"))
    echoed = await stage.settle(stream.read(100, timeout=10))
    seen = described(response)
    await stage.do(response, "close")
    return echoed, seen, described(response), type(stream.get_extra_info("socket")).__name__


@STEPS.step
async def reading_an_upgraded_connection(stage: Stage) -> Any:
    response = await stage.post(stage.client(), "upgrade")
    return described(response), type(response.extensions["network_stream"]).__name__
