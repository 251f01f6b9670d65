"""A list of keys in a header, all the way: through a door and a client to the vendor whom one of the keys pays."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator

import httpx
import pytest
from flask import Flask
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from kwai_middleware import ASGIMiddleware, HeaderCredentials, Secret, WSGIMiddleware, httpx_transport
from kwai_middleware.sandbox import Sandbox
from tests.support.examples import HOUSE_KEY, sandbox_process

HEAVY, LIGHT, ODD = "sk-or-v1-heavy-0123456789", "sk-or-v1-light-0123456789", "1key=with/odd:characters"
SENT = [
    ("X-Customer-Id", "acme"),
    ("X-OpenRouter-Key", f"{HEAVY};w=6, {LIGHT};w=2"),
    ("X-OpenRouter-Key", f'"{ODD}";w=2'),
]
LISTS = HeaderCredentials(lists=True)
CALLS = 150
QUESTION = {"model": "sandbox/echo", "messages": [{"role": "user", "content": "one"}]}
HOUSE = {"Authorization": f"Bearer {HOUSE_KEY}"}


@pytest.fixture(scope="module")
def vendors() -> Iterator[Sandbox]:
    with sandbox_process() as sandbox:
        yield sandbox


def _through_asgi(vendors: Sandbox, url: str) -> set[int]:
    async def ask() -> set[int]:
        async with httpx_transport.async_client(settings=vendors.settings(), deliver=lambda call: None) as llm:

            async def chat(request: Request) -> PlainTextResponse:
                answer = await llm.post(url, json=QUESTION, headers=HOUSE)
                return PlainTextResponse(status_code=answer.status_code)

            app = ASGIMiddleware(Starlette(routes=[Route("/", chat)]), credentials=LISTS)
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
                return {(await client.get("/", headers=SENT)).status_code for _ in range(CALLS)}

    return asyncio.run(ask())


def _through_wsgi(vendors: Sandbox, url: str) -> set[int]:
    # A WSGI server has joined the lines already.
    joined = {"X-Customer-Id": "acme", "X-OpenRouter-Key": ",".join(value for _, value in SENT[1:])}
    with httpx_transport.client(settings=vendors.settings(), deliver=lambda call: None) as llm:
        app = Flask(__name__)

        @app.get("/")
        def chat() -> tuple[str, int]:
            return "", llm.post(url, json=QUESTION, headers=HOUSE).status_code

        inside = httpx.WSGITransport(WSGIMiddleware(app, credentials=LISTS))
        with httpx.Client(transport=inside, base_url="http://app") as client:
            return {client.get("/", headers=joined).status_code for _ in range(CALLS)}


@pytest.mark.parametrize("through", [_through_asgi, _through_wsgi], ids=["ASGI", "WSGI"])
@pytest.mark.parametrize("route", ["gateway", "relay", "openrouter"])
def test_each_key_of_a_list_pays_its_share(
    vendors: Sandbox, through: Callable[[Sandbox, str], set[int]], route: str
) -> None:
    """Weights 6, 2 and 2, in two lines, one key quoted: about three fifths of the calls are paid by the first."""
    vendors.reset()
    bases = {"gateway": vendors.gateway_url, "relay": vendors.relay_url, "openrouter": vendors.openrouter_url}
    assert {200} == through(vendors, f"{bases[route].rstrip('/')}/chat/completions")

    paid = Counter(call["paid_by"]["fingerprint"] for call in vendors.calls(wait=CALLS, route=route))
    assert {Secret(key).fingerprint for key in (HEAVY, LIGHT, ODD)} == set(paid)
    assert 60 <= paid[Secret(HEAVY).fingerprint] <= 120  # 90 expected; five standard deviations are 30
