"""Work that outlives what its caller was identified by: the caller counts no more, and nobody else pays."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from kwai_middleware import (
    ASGIMiddleware,
    Caller,
    CallerExpired,
    InboundRequest,
    KeyResolver,
    WSGIMiddleware,
    current_caller,
    httpx_transport,
)
from kwai_middleware._context import Binding, current_slot
from kwai_middleware._slot import Slot
from kwai_middleware._unsettled import Unsettled
from kwai_middleware.structlog_processors import add_caller
from tests.support.callers import OPENROUTER, caller, key_of, settings
from tests.support.flavours import Flavour
from tests.support.looked_up import ASKS
from tests.support.processes import DEADLINE
from tests.support.spooling import Clock

ACME = Caller(identifier="acme")


def test_a_caller_that_has_expired(flavour: Flavour) -> None:
    """Nobody is current from then on, and a call is refused instead of being the app's own, with or without keys."""
    sent: list[Any] = []

    def handler(request: Any) -> Any:
        sent.append(request)
        return flavour.library.Response(200, json={})

    client = flavour.answering(handler, settings=settings(), deliver=lambda _: None)
    for who in (ACME, caller()):
        clock = Clock()
        with Binding(Slot(who, unsettled=Unsettled(valid_until=clock.now + 60, clock=clock))):
            flavour.post(client, OPENROUTER, **ASKS)
            assert who == current_caller()
            assert {"customer_id": "acme"} == add_caller(None, "info", {})
            clock.now += 60
            assert current_caller() is None
            assert {} == add_caller(None, "info", {})
            with pytest.raises(CallerExpired, match="connect again with a new token"):
                flavour.post(client, OPENROUTER, **ASKS)
            assert list(who.credentials) == [] or key_of("acme") in [key.reveal() for key in current_slot().secrets]
    flavour.close(client)
    assert 2 == len(sent)


def token(request: InboundRequest) -> Caller:
    """A token that holds for two seconds more."""
    request.valid_until = float(request.header("x-valid-until") or 0)
    return ACME


def the_app(**options: Any) -> ASGIMiddleware:
    """Calls a model for each message of a websocket, or each request."""
    inner = httpx.MockTransport(lambda request: httpx.Response(200, json={"ok": True}))
    transport = httpx_transport.AsyncKwaiTransport(
        inner, settings=settings(), deliver=lambda _: None, refuse="response"
    )
    client = httpx.AsyncClient(transport=transport)

    async def ask() -> str:
        answer = await client.post(OPENROUTER, **ASKS)
        return answer.headers.get("x-kwai-refused", "answered")

    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        async for _ in websocket.iter_text():
            await websocket.send_text(await ask())

    async def page(request: Request) -> JSONResponse:
        return JSONResponse(await ask())

    return ASGIMiddleware(Starlette(routes=[WebSocketRoute("/ws", talk), Route("/", page)]), **options)


@pytest.mark.parametrize("options", [{"identify": token}, {"max_age": 1.0}, {"identify": token, "max_age": 3600}])
def test_a_websocket_that_outlives_its_token(options: dict[str, Any]) -> None:
    """It stays open, and its calls are refused from the moment on that the token has expired, or `max_age` is over."""
    deadline = time.monotonic() + DEADLINE
    headers = {"x-customer-id": "acme", "x-valid-until": str(time.time() + 1)}
    with TestClient(the_app(**options)).websocket_connect("/ws", headers=headers) as websocket:
        answers = []
        while "caller_expired" not in answers and time.monotonic() < deadline:
            websocket.send_text("?")
            answers.append(websocket.receive_text())
        websocket.send_text("?")
        answers.append(websocket.receive_text())
    assert "answered" == answers[0]
    assert ["caller_expired"] * 2 == answers[-2:]


def test_a_request_is_not_cut_off_by_its_token() -> None:
    """A token that is valid when a request comes in is so for the request; only `max_age` says otherwise."""
    client = TestClient(the_app(identify=token))
    assert "answered" == client.get("/", headers={"x-valid-until": str(time.time())}).json()


def test_a_websocket_of_nobody_does_not_expire() -> None:
    """Nobody's calls are the app's own, however long it lasts."""
    with TestClient(the_app(identify=None, credentials=None, max_age=0.001)).websocket_connect("/ws") as websocket:
        websocket.send_text("?")
        assert "answered" == websocket.receive_text()


def test_keys_are_not_looked_up_for_an_expired_caller() -> None:
    """The vault is not asked any more, with a client of either kind."""
    asked: list[Caller] = []
    clock = Clock()
    unsettled = Unsettled(keys=KeyResolver(asked.append), valid_until=clock.now, clock=clock)
    with pytest.raises(CallerExpired):
        unsettled.paying_caller(ACME, with_keys=True)
    with pytest.raises(CallerExpired):
        asyncio.run(unsettled.paying_caller_async(ACME, with_keys=True))
    assert [] == asked


def test_max_age_under_wsgi() -> None:
    """A body that is streamed for too long calls no models any more."""
    seen: list[Caller | None] = []

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        seen.append(current_caller())
        yield b"part"
        deadline = time.monotonic() + DEADLINE
        while current_caller() is not None and time.monotonic() < deadline:
            yield b"part"
        seen.append(current_caller())

    transport = httpx.WSGITransport(WSGIMiddleware(app, max_age=0.3))
    with httpx.Client(transport=transport, base_url="http://app") as client:
        client.get("/", headers={"x-customer-id": "acme"})
    assert [ACME, None] == seen
