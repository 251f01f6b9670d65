"""A FastAPI backend whose users bring their own LLM keys."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator

import connect
import openai
import openrouter.errors
import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionUserMessageParam
from openrouter import OpenRouter
from openrouter.components import ChatUserMessage
from pydantic import BaseModel

import kwai_middleware as kwai
from kwai_middleware import httpx2_transport, httpx_transport
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
http_client = httpx2_transport.async_client(settings=settings)
openrouter_http_client = httpx_transport.async_client(settings=settings)
gateway = AsyncOpenAI(
    base_url=settings.base_url,
    api_key=os.environ["KEYWORDSAI_API_KEY"],
    http_client=http_client,
)
direct = AsyncOpenAI(
    base_url=settings.openrouter_base_url,
    api_key=os.environ["OPENROUTER_API_KEY"],  # pays for customers who brought no key
    http_client=http_client,
)
router = OpenRouter(
    server_url=settings.openrouter_base_url,
    api_key=os.environ["OPENROUTER_API_KEY"],
    async_client=openrouter_http_client,
)


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Close the connections when the server stops; what is left to deliver, the middleware flushes."""
    yield
    await http_client.aclose()
    await openrouter_http_client.aclose()


# 3. The app. The middleware binds each request's customer and key, brought or connected; no line below mentions either.
app = FastAPI(lifespan=lifespan)
app.add_middleware(kwai.ASGIMiddleware, credentials=kwai.first_of(kwai.HeaderCredentials(), connect.keys))
app.include_router(connect.pages)


class Question(BaseModel):
    """What a customer asks."""

    question: str
    model: str = "openai/gpt-4o-mini"


class Answer(BaseModel):
    """What the model answered."""

    answer: str | None
    model: str


def prompt(question: Question) -> ChatCompletionUserMessageParam:
    """The question as a message."""
    return {"role": "user", "content": question.question}


@app.post("/chat")
async def chat(question: Question) -> Answer:
    """Through the Keywords AI gateway, which bills and logs the call."""
    completion = await gateway.chat.completions.create(model=question.model, messages=[prompt(question)])
    log.info("answered", characters=len(completion.choices[0].message.content or ""))
    return Answer(answer=completion.choices[0].message.content, model=completion.model)


@app.post("/chat/stream")
async def chat_stream(question: Question) -> StreamingResponse:
    """The same, word by word."""
    return StreamingResponse(await words(gateway, question), media_type="text/plain")


@app.post("/direct")
async def direct_chat(question: Question) -> Answer:
    """Straight to OpenRouter: the customer's key pays there, and the call is logged by us."""
    completion = await direct.chat.completions.create(model=question.model, messages=[prompt(question)])
    return Answer(answer=completion.choices[0].message.content, model=completion.model)


@app.post("/direct/stream")
async def direct_stream(question: Question) -> StreamingResponse:
    """The same, word by word."""
    return StreamingResponse(await words(direct, question), media_type="text/plain")


@app.post("/openrouter")
async def openrouter_chat(question: Question) -> Answer:
    """Straight to OpenRouter with its own SDK, which stands on httpx instead of httpx2."""
    completion = await router.chat.send_async(
        model=question.model, messages=[ChatUserMessage(role="user", content=question.question)]
    )
    return Answer(answer=str(completion.choices[0].message.content), model=completion.model)


async def words(client: AsyncOpenAI, question: Question) -> AsyncIterator[str]:
    """Ask, and return the words of the answer as they come. A refused call raises here, before the response begins."""
    stream = await client.chat.completions.create(
        model=question.model,
        messages=[prompt(question)],
        stream=True,
        stream_options={"include_usage": True},
    )

    async def each_word() -> AsyncIterator[str]:
        async with stream:
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content

    return each_word()


# 4. A customer's dead key is the customer's to know, with the vendor's own status.
@app.exception_handler(openai.APIStatusError)
async def openai_error(request: Request, error: openai.APIStatusError) -> JSONResponse:
    """Pass the vendor's refusal on."""
    log.warning("refused", status=error.status_code, path=request.url.path)
    return JSONResponse({"error": error.message}, status_code=error.status_code)


@app.exception_handler(openrouter.errors.OpenRouterError)
async def openrouter_error(request: Request, error: openrouter.errors.OpenRouterError) -> JSONResponse:
    """Pass the vendor's refusal on."""
    log.warning("refused", status=error.status_code, path=request.url.path)
    return JSONResponse({"error": error.message}, status_code=error.status_code)
