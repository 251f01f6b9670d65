"""The Flask app: the same endpoint without any library, with this one, and with its peers as they document it."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any, Final

from flask import Flask, request
from openai import OpenAI

from benchmarks.whole_app.state import state, wait_until_shipped

__all__ = ["langfuse", "ours", "plain", "sentry"]

_MODEL_URL: Final = "MODEL_URL"
_Ask = Callable[[list[Any]], Any]


def _nothing() -> None:
    pass


def _app(ask: _Ask, flush: Callable[[], object] = _nothing) -> Flask:
    """One app: an endpoint that makes a call, and two that begin and end a measurement."""
    app = Flask(__name__)

    @app.post("/ask")
    def answer() -> dict[str, str]:
        completion = ask([{"role": "user", "content": request.get_json()["question"]}])
        return {"answer": completion.choices[0].message.content}

    @app.get("/begin")
    def begin() -> dict[str, float]:
        return state()

    @app.get("/end")
    def end() -> dict[str, float]:
        flush()
        return state()

    return app


def _by_hand(llm: Any) -> _Ask:
    """The customer's key pays, since the endpoint says so."""

    def ask(messages: list[Any]) -> Any:
        paying = {"Authorization": f"Bearer {request.headers['x-openrouter-key']}"}
        return llm.chat.completions.create(model="openai/gpt-4o-mini", messages=messages, extra_headers=paying)

    return ask


def plain() -> Flask:
    """Nothing is recorded."""
    return _app(_by_hand(OpenAI(base_url=os.environ[_MODEL_URL], api_key="app-key")))


def ours() -> Flask:
    """The middleware, and the client that is handed to the SDK."""
    import kwai_middleware as kwai
    from kwai_middleware import httpx2_transport

    settings = kwai.Settings.from_env()
    llm = OpenAI(base_url=settings.openrouter_base_url, api_key="app-key", http_client=httpx2_transport.client())

    def ask(messages: list[Any]) -> Any:
        return llm.chat.completions.create(model="openai/gpt-4o-mini", messages=messages)

    app = _app(ask, lambda: wait_until_shipped(kwai.default_delivery(settings)))
    app.wsgi_app = kwai.WSGIMiddleware(app.wsgi_app)  # type: ignore[method-assign]  # the way Flask documents it
    return app


def langfuse() -> Flask:
    """Its client in place of the SDK's, and the user's id for all that is traced below."""
    sdk, traced = importlib.import_module("langfuse"), importlib.import_module("langfuse.openai")
    by_hand = _by_hand(traced.OpenAI(base_url=os.environ[_MODEL_URL], api_key="app-key"))

    def ask(messages: list[Any]) -> Any:
        with sdk.propagate_attributes(user_id=request.headers["x-customer-id"]):
            return by_hand(messages)

    return _app(ask, sdk.get_client().flush)


def sentry() -> Flask:
    """Every request traced, prompts and answers included; what it integrates with it finds by itself."""
    import sentry_sdk

    sentry_sdk.init(dsn=os.environ["SENTRY_DSN"], send_default_pii=True, traces_sample_rate=1.0)
    by_hand = _by_hand(OpenAI(base_url=os.environ[_MODEL_URL], api_key="app-key"))

    def ask(messages: list[Any]) -> Any:
        sentry_sdk.set_user({"id": request.headers["x-customer-id"]})
        return by_hand(messages)

    return _app(ask, lambda: sentry_sdk.flush(30))
