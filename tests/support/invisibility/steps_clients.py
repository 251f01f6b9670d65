"""Steps: what a client is told when it is made, its extensions, and its end."""

from __future__ import annotations

import gc
from typing import Any

from tests.support.invisibility.describing import described
from tests.support.invisibility.stage import BODY, PLACE, Stage
from tests.support.invisibility.steps import Steps

STEPS = Steps()


@STEPS.each([("timeout", {"timeout": {"read": 5.0}}), ("own", {"own": [1]}), ("empty", {})])
async def extensions(stage: Stage, case: Any) -> Any:
    client = stage.client()
    request = stage.request(client, "ok", extensions=case[1])
    response = await stage.send(client, request)
    return described(response), described(request)


@STEPS.step
async def another_target_on_another_path(stage: Stage) -> Any:
    target = f"/{PLACE}/models?do=ok".encode()
    url = stage.elsewhere("ok")
    return described(await stage.settle(stage.client().post(url, content=BODY, extensions={"target": target})))


@STEPS.each(["ok", "chunked", "nothing", "redirect-307,ok"])
async def a_trace(stage: Stage, do: str) -> Any:
    """The same events in the same order. What it shows of the request is the wire's, which SECURITY.md says."""
    events: list[Any] = []

    def trace(name: str, info: dict[str, Any]) -> None:
        events.append((name, sorted(info), type(info.get("return_value", info.get("exception"))).__name__))

    async def trace_async(name: str, info: dict[str, Any]) -> None:
        trace(name, info)

    client = stage.client(follow_redirects=True)
    tracing = {"trace": trace_async if stage.asynchronous else trace}
    return await stage.outcome(lambda: stage.post(client, do, extensions=tracing)), events


@STEPS.step
async def a_trace_that_fails(stage: Stage) -> Any:
    def trace(name: str, info: dict[str, Any]) -> None:
        if name.endswith("receive_response_headers.started"):
            raise LookupError(name)

    async def trace_async(name: str, info: dict[str, Any]) -> None:
        trace(name, info)

    tracing = {"trace": trace_async if stage.asynchronous else trace}
    client = stage.client()
    first = await stage.outcome(lambda: stage.post(client, "ok", extensions=tracing))
    return first, (await stage.post(client, "ok")).status_code


@STEPS.step
async def what_a_client_shows(stage: Stage) -> Any:
    client = stage.client(base_url=stage.base, headers={"X": "1"}, params={"a": "1"}, cookies={"c": "1"})
    members = sorted(name for name in vars(client) if name not in ("_transport", "_mounts"))
    shown = [client.headers.raw, str(client.base_url), str(client.params), client.timeout, client.trust_env]
    return members, shown, client.is_closed, type(client).__name__, client.event_hooks


@STEPS.step
async def a_client_as_a_context_manager(stage: Stage) -> Any:
    client = stage.client()
    async with stage.within(client) as entered:
        response = await stage.post(client, "ok")
        states = [entered is client, client.is_closed]
    late = await stage.outcome(lambda: stage.post(client, "ok"))
    again = await stage.outcome(stage.within(client).__aenter__)
    return described(response), states, client.is_closed, late, again


@STEPS.step
async def a_client_entered_twice(stage: Stage) -> Any:
    client = stage.client()
    async with stage.within(client):
        return await stage.outcome(stage.within(client).__aenter__)


@STEPS.step
async def an_exception_in_a_clients_block(stage: Stage) -> Any:
    client = stage.client()

    async def fail() -> None:
        async with stage.within(client):
            await stage.post(client, "ok")
            raise LookupError("in the block")

    return await stage.outcome(fail), client.is_closed


@STEPS.step
async def a_client_closed_twice(stage: Stage) -> Any:
    client = stage.client()
    await stage.post(client, "ok")
    first = await stage.outcome(lambda: stage.do(client, "close"))
    return first, await stage.outcome(lambda: stage.do(client, "close")), client.is_closed


@STEPS.step
async def a_client_that_was_closed(stage: Stage) -> Any:
    client = stage.client()
    await stage.do(client, "close")
    request = stage.request(client, "ok")
    return await stage.outcome(lambda: stage.send(client, request))


@STEPS.step
async def a_client_closed_under_an_answer(stage: Stage) -> Any:
    """Its open connections go with it."""
    client = stage.client()
    response = await stage.open(client, "stalled")
    parts = stage.iterate(response, "iter_raw")
    first = await anext(parts)
    closed = await stage.outcome(lambda: stage.do(client, "close"))
    rest = await stage.outcome(parts.rest)
    end = await stage.outcome(lambda: stage.do(response, "close"))
    return first, closed, rest, end, described(response)


@STEPS.step
async def a_client_that_nobody_closes(stage: Stage) -> Any:
    client = stage.client()
    status = (await stage.post(client, "ok")).status_code
    stage.clients.remove(client)
    del client
    gc.collect()
    return status, stage.server.wait_until_idle()


@STEPS.step
async def several_clients(stage: Stage) -> Any:
    clients = [stage.client() for _ in range(3)]
    return [described(await stage.post(client, "cookie")) for client in clients], [
        dict(each.cookies) for each in clients
    ]


@STEPS.step
async def a_stream_context_entered_by_hand(stage: Stage) -> Any:
    context = stage.stream(stage.client(), "chunked")
    response = await context.__aenter__()
    first = described(response)
    await context.__aexit__(None, None, None)
    return first, described(response)


@STEPS.step
async def events_of_a_server(stage: Stage) -> Any:
    """Where the library reads server-sent events itself."""
    client = stage.client()
    if not hasattr(client, "sse"):
        return "not in this library"
    events = []
    async with stage.within(client.sse(stage.url("sse-chunked"), method="POST", content=BODY)) as source:
        if stage.asynchronous:
            events = [(each.event, each.data, each.id) async for each in source]
        else:
            events = [(each.event, each.data, each.id) for each in source]
    return events
