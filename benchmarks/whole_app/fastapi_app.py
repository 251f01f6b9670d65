"""The FastAPI app: the same endpoint without any library, with this one, and with its peers as they document it."""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import FastAPI, Request
from openai import AsyncOpenAI
from pydantic import BaseModel

from benchmarks.whole_app.state import LoopLag, state, wait_until_shipped

__all__ = ["langfuse", "ours", "plain", "sentry"]

_MODEL_URL: Final = "MODEL_URL"
_Ask = Callable[[Request, list[Any]], Awaitable[Any]]


class Question(BaseModel):
    """What a customer asks."""

    question: str


def _nothing() -> None:
    pass


def _app(ask: _Ask, flush: Callable[[], object] = _nothing) -> FastAPI:
    """One app: an endpoint that makes a call, and two that begin and end a measurement."""
    app = FastAPI()
    lag = LoopLag()

    @app.post("/ask")
    async def answer(question: Question, request: Request) -> dict[str, str]:
        completion = await ask(request, [{"role": "user", "content": question.question}])
        return {"answer": completion.choices[0].message.content}

    @app.get("/begin")
    async def begin() -> dict[str, float]:
        lag.begin()
        return state()

    @app.get("/end")
    async def end() -> dict[str, float]:
        late = lag.end()
        await asyncio.to_thread(flush)
        return {**state(), "lag": late}

    return app


def _by_hand(llm: Any) -> _Ask:
    """The customer's key pays, since the endpoint says so."""

    async def ask(request: Request, messages: list[Any]) -> Any:
        paying = {"Authorization": f"Bearer {request.headers['x-openrouter-key']}"}
        return await llm.chat.completions.create(model="openai/gpt-4o-mini", messages=messages, extra_headers=paying)

    return ask


def plain() -> FastAPI:
    """Nothing is recorded."""
    return _app(_by_hand(AsyncOpenAI(base_url=os.environ[_MODEL_URL], api_key="app-key")))


def ours() -> FastAPI:
    """The middleware, and the client that is handed to the SDK."""
    import kwai_middleware as kwai
    from kwai_middleware import httpx2_transport

    settings = kwai.Settings.from_env()
    llm = AsyncOpenAI(
        base_url=settings.openrouter_base_url, api_key="app-key", http_client=httpx2_transport.async_client()
    )

    async def ask(_: Request, messages: list[Any]) -> Any:
        return await llm.chat.completions.create(model="openai/gpt-4o-mini", messages=messages)

    app = _app(ask, lambda: wait_until_shipped(kwai.default_delivery(settings)))
    app.add_middleware(kwai.ASGIMiddleware)
    return app


def langfuse() -> FastAPI:
    """Its client in place of the SDK's, and the user's id for all that is traced below."""
    sdk, traced = importlib.import_module("langfuse"), importlib.import_module("langfuse.openai")
    by_hand = _by_hand(traced.AsyncOpenAI(base_url=os.environ[_MODEL_URL], api_key="app-key"))

    async def ask(request: Request, messages: list[Any]) -> Any:
        with sdk.propagate_attributes(user_id=request.headers["x-customer-id"]):
            return await by_hand(request, messages)

    return _app(ask, sdk.get_client().flush)


def sentry() -> FastAPI:
    """Every request traced, prompts and answers included; what it integrates with it finds by itself."""
    import sentry_sdk

    sentry_sdk.init(dsn=os.environ["SENTRY_DSN"], send_default_pii=True, traces_sample_rate=1.0)
    by_hand = _by_hand(AsyncOpenAI(base_url=os.environ[_MODEL_URL], api_key="app-key"))

    async def ask(request: Request, messages: list[Any]) -> Any:
        sentry_sdk.set_user({"id": request.headers["x-customer-id"]})
        return await by_hand(request, messages)

    return _app(ask, lambda: sentry_sdk.flush(30))
