"""The FastAPI example among all diagnostics, with endpoints more at which things go wrong."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from pydantic import BaseModel

import kwai_middleware as kwai
from kwai_middleware import httpx2_transport
from tests.apps import diagnostics

diagnostics.switch_on()
diagnostics.example("fastapi_app")

import app as example  # noqa: E402 - Sentry and the tracing SDK want to be there first

FastAPIInstrumentor.instrument_app(example.app)
redirected = httpx2_transport.async_client(settings=example.settings, follow_redirects=True)


class Wanted(BaseModel):
    """A call, and what happens after it."""

    route: str = "gateway"
    model: str = "openai/gpt-4o-mini"
    timeout: float = 30.0
    base_url: str | None = None
    stream: bool = False


def client(wanted: Wanted) -> Any:
    """The example's client, told where to go and how long to wait."""
    options: dict[str, Any] = {"timeout": wanted.timeout, "max_retries": 1}
    if wanted.base_url is not None:
        options["base_url"] = wanted.base_url
    return {"gateway": example.gateway, "direct": example.direct}[wanted.route].with_options(**options)


@example.app.post("/fails")
async def fails(request: Request, wanted: Wanted) -> None:
    """A call, and then an exception that nobody handles; the call itself may raise one."""
    caller = kwai.current_caller()
    headers = dict(request.headers)
    completion = await client(wanted).chat.completions.create(
        model=wanted.model, messages=[diagnostics.message("Hello?")]
    )
    raise RuntimeError(f"after the call: {caller} {headers} {completion.id}")


@example.app.post("/fails/stream")
async def fails_in_stream(wanted: Wanted) -> StreamingResponse:
    """An exception in the middle of a streamed response."""

    async def words() -> AsyncIterator[str]:
        stream = await client(wanted).chat.completions.create(
            model=wanted.model, messages=[diagnostics.message("one two three")], stream=True
        )
        async for chunk in stream:
            yield str(chunk)
            if not wanted.stream:
                raise RuntimeError("in the stream")

    return StreamingResponse(words(), media_type="text/plain")


@example.app.post("/redirected")
async def follows(request: Request, to: str) -> int:
    """A call that the vendor redirects to somebody else, followed."""
    body = {
        "model": "sandbox/redirect-307",
        "messages": [diagnostics.message("Hello?")],
        "metadata": {"redirect_to": to},
    }
    url = f"{str(example.settings.openrouter_base_url).rstrip('/')}/chat/completions"
    answer = await redirected.post(url, json=body, headers={"authorization": "Bearer house"})
    return answer.status_code


@example.app.post("/leaks")
async def leaks() -> None:
    """What no app should do: the key in the open, in a local of an exception and in its text."""
    caller = kwai.current_caller()
    assert caller is not None
    opened = caller.credentials[0].api_key.reveal()
    example.log.info("leak", processors_mask_it=False, spaced=" ".join(opened))
    raise RuntimeError(opened[::-1])


application: Any = example.app
if os.environ["ORDER"] == "outermost":
    # Outside of Sentry's and OpenTelemetry's own wrappers, too.
    application = kwai.ASGIMiddleware(example.app)
