"""An ASGI app under our middleware that submits a record for each request."""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import kwai_middleware as kwai
from kwai_middleware.asgi import ASGIMiddleware

delivery = kwai.default_delivery()


async def answer(request: Request) -> PlainTextResponse:
    """Submit a record named by the path and this process."""
    name = f"{request.url.path} {os.getpid()}"
    delivery.submit(kwai.CompletedCall(record_id=name, model="m", messages=b"[]"))
    return PlainTextResponse(name)


app = Starlette(routes=[Route("/{name}", answer)])
app.add_middleware(ASGIMiddleware)
