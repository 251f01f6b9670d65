"""A FastAPI app that tells who it thinks a request is for, at every place where that could go wrong.

The middleware is named by the environment variable KWAI_TEST_DOOR (`module:attribute`, called with
the app), so that a test can put another one in its place.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from fastapi import BackgroundTasks, FastAPI, Request, WebSocket
from fastapi.responses import StreamingResponse

from kwai_middleware import carry_caller, current_caller
from kwai_middleware.asgi import ASGIMiddleware
from kwai_middleware.identity import HeaderIdentity

SECRET = "between-proxy-and-app"

seen: list[Any] = []
ended: list[Any] = []
seen_changed = asyncio.Condition()


def who() -> dict[str, Any]:
    """Who is current, for us and for structlog, and whose key is there."""
    caller = current_caller()
    keys = () if caller is None else caller.credentials
    return {
        "caller": None if caller is None else caller.identifier,
        "logged": structlog.contextvars.get_contextvars().get("customer_id"),
        "key": keys[0].api_key.reveal() if keys else None,
    }


async def note(what: str) -> None:
    """Keep who was current there, for /seen."""
    async with seen_changed:
        seen.append([what, who()])
        seen_changed.notify_all()


def plain(app: Any) -> Any:
    """The middleware as the README has it."""
    return ASGIMiddleware(app)


def required(app: Any) -> Any:
    """The middleware for an app that wants an identity."""
    return ASGIMiddleware(app, required=True)


def only_unix(app: Any) -> Any:
    """The middleware for an app behind a proxy on a unix socket."""
    return ASGIMiddleware(app, identify=HeaderIdentity(trusted_peers=("unix",)))


def with_secret(app: Any) -> Any:
    """The middleware for an app behind a proxy that proves itself."""
    return ASGIMiddleware(app, identify=HeaderIdentity(proxy_secret=SECRET))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Nobody is current when the app starts and ends."""
    assert current_caller() is None
    yield
    assert current_caller() is None


inner = FastAPI(lifespan=lifespan)


@inner.get("/who")
async def get_who(request: Request) -> dict[str, Any]:
    """Who is current, and where the server says that the request comes from."""
    return {**who(), "client": request.scope["client"], "headers": sorted(request.headers)}


@inner.get("/who-in-thread")
def get_who_in_thread() -> dict[str, Any]:
    """The same from a view that FastAPI runs on a thread."""
    return who()


@inner.post("/who")
async def post_who(request: Request) -> dict[str, Any]:
    """Who is current after the whole body has been read."""
    body = await request.body()
    return {**who(), "bytes": len(body)}


@inner.post("/start")
async def start(background: BackgroundTasks) -> dict[str, Any]:
    """Start everything that outlives a request."""
    answered = asyncio.Event()

    async def task() -> None:
        await answered.wait()
        await note("task")

    async def after() -> None:
        await note("background")
        answered.set()

    def after_on_thread() -> None:
        threaded.append(who())

    async def last() -> None:
        await asyncio.gather(*tasks)
        async with seen_changed:
            seen.append(["background on a thread", threaded[0]])
            seen.append(["thread", await asyncio.to_thread(in_bare_thread, who)])
            seen.append(["carried thread", await asyncio.to_thread(in_bare_thread, carry_caller(who))])
            seen_changed.notify_all()

    threaded: list[Any] = []
    tasks = [asyncio.create_task(task()), asyncio.create_task(in_to_thread())]
    background.add_task(after)
    background.add_task(after_on_thread)
    background.add_task(last)
    return who()


async def in_to_thread() -> None:
    """Note who is current on a thread of `asyncio.to_thread`."""
    there = await asyncio.to_thread(who)
    async with seen_changed:
        seen.append(["to_thread", there])
        seen_changed.notify_all()


def in_bare_thread(function: Any) -> Any:
    """What `function` returns on a thread that nobody prepared."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(function()))
    thread.start()
    thread.join()
    return results[0]


@inner.get("/note")
async def get_note() -> None:
    """Note who is current, for a client that does not stay for the answer."""
    await note("asked")


@inner.get("/boom")
async def boom() -> None:
    """A view that fails."""
    raise ZeroDivisionError


@inner.get("/stream")
async def stream() -> StreamingResponse:
    """Tell who is current at each step, until the client goes away; note how it ended."""

    async def steps() -> AsyncIterator[bytes]:
        try:
            for _ in range(100_000):
                yield f"{who()['caller']} ".encode() * 200
                await asyncio.sleep(0)
        finally:
            seen.append(["stream ended", who()])

    return StreamingResponse(steps(), media_type="text/plain")


@inner.get("/seen")
async def get_seen(count: int) -> Any:
    """What was noted so far, as soon as it is this much; it is forgotten then."""
    async with seen_changed:
        while len(seen) < count:
            try:
                await asyncio.wait_for(seen_changed.wait(), 0.05)
            except TimeoutError:
                continue
        noted = list(seen)
        seen.clear()
        left = [end for end in ended if end[1] != {"caller": None, "logged": None, "key": None}]
        paths = [path for path, _ in ended]
        ended.clear()
    return {"seen": noted, "now": who(), "left": left, "ended": paths}


@inner.websocket("/ws")
async def websocket(socket: WebSocket) -> None:
    """Tell who is current for each text."""
    await socket.accept()
    async for _ in socket.iter_text():
        await socket.send_json(who())


mounted = FastAPI()
mounted.get("/who")(get_who)
inner.mount("/mounted", ASGIMiddleware(mounted))


def _door() -> Any:
    module, _, name = os.environ.get("KWAI_TEST_DOOR", "tests.apps.who_asgi:plain").partition(":")
    return getattr(importlib.import_module(module), name)


class Outside:
    """Outside of the middleware: notes whoever is still bound in a request's context after it, however it ended."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request."""
        try:
            await self._wrapped(scope, receive, send)
        finally:
            if scope["type"] != "lifespan":
                ended.append([scope["path"], who()])


app = Outside(_door()(inner))
