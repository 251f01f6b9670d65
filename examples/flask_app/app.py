"""A Flask backend whose users bring their own LLM keys."""

from __future__ import annotations

import os
from collections.abc import Iterator

import openai
import structlog
from flask import Flask, Response, request, stream_with_context
from openai import OpenAI

import kwai_middleware as kwai
from kwai_middleware import httpx2_transport
from kwai_middleware.structlog_processors import add_caller, mask_keys

# 1. Logs. `customer_id` is bound to structlog for each request; merge_contextvars shows it in every event.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        add_caller,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        mask_keys,
        structlog.processors.JSONRenderer(),
    ]
)
log = structlog.get_logger()

# 2. Clients, one of each for the whole process. Only `http_client` differs from what you would write anyway.
settings = kwai.Settings.from_env()
http_client = httpx2_transport.client(settings=settings)
gateway = OpenAI(
    base_url=settings.base_url,
    api_key=os.environ["KEYWORDSAI_API_KEY"],
    http_client=http_client,
)
direct = OpenAI(
    base_url=settings.openrouter_base_url,
    api_key=os.environ["OPENROUTER_API_KEY"],  # pays for customers who brought no key
    http_client=http_client,
)

# 3. The app. The middleware binds each request's customer and key; no line below mentions either.
app = Flask(__name__)
app.wsgi_app = kwai.WSGIMiddleware(app.wsgi_app)  # type: ignore[method-assign]  # the way Flask documents it


@app.post("/chat")
def chat() -> dict[str, str | None]:
    """Through the Keywords AI gateway, which bills and logs the call."""
    return {"answer": ask(gateway)}


@app.post("/chat/stream")
def chat_stream() -> Response:
    """The same, word by word."""
    question = request.get_json()
    stream = gateway.chat.completions.create(
        model=question.get("model", "openai/gpt-4o-mini"),
        messages=[{"role": "user", "content": question["question"]}],
        stream=True,
        stream_options={"include_usage": True},
    )

    def words() -> Iterator[str]:
        with stream:
            for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content
        log.info("streamed to the end")

    return Response(stream_with_context(words()), mimetype="text/plain")


@app.post("/direct")
def direct_chat() -> dict[str, str | None]:
    """Straight to OpenRouter: the customer's key pays there, and the call is logged by us."""
    return {"answer": ask(direct)}


def ask(client: OpenAI) -> str | None:
    """Put the request's question to a model."""
    question = request.get_json()
    completion = client.chat.completions.create(
        model=question.get("model", "openai/gpt-4o-mini"),
        messages=[{"role": "user", "content": question["question"]}],
    )
    log.info("answered", model=completion.model)
    return completion.choices[0].message.content


# 4. A customer's dead key is the customer's to know, with the vendor's own status.
@app.errorhandler(openai.APIStatusError)
def refused(error: openai.APIStatusError) -> tuple[dict[str, str], int]:
    """Pass the vendor's refusal on."""
    log.warning("refused", status=error.status_code, path=request.path)
    return {"error": error.message}, error.status_code
