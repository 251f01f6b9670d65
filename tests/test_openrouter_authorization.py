"""OAuth at OpenRouter: the URL that a user is sent to, the code that comes back, and the key that it becomes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import trio

from kwai_middleware import (
    BlockingCall,
    Caller,
    ConfigurationError,
    Credential,
    Secret,
    Settings,
    bind_caller,
    httpx_transport,
    openrouter,
)
from kwai_middleware.openrouter import Authorization, ExchangedKey, InvalidCode, OpenRouterUnavailable
from kwai_middleware.sandbox import Sandbox
from tests.support.exposure import exposures
from tests.support.logs_api import answer
from tests.support.processes import DEADLINE
from tests.support.raw_server import Connection, raw_server

pytest_plugins = ["kwai_middleware.testing"]

CALLBACK = "https://app.example/openrouter/callback"
CODE = "the-code-of-the-tests"
VERIFIER = "v" * 43
Exchange = Callable[..., ExchangedKey]


def asyncio_exchange(code: Any, verifier: Any, **options: Any) -> ExchangedKey:
    return asyncio.run(openrouter.aexchange_code(code, verifier, **options))


def trio_exchange(code: Any, verifier: Any, **options: Any) -> ExchangedKey:
    async def run() -> ExchangedKey:
        return await openrouter.aexchange_code(code, verifier, **options)

    return trio.run(run)


@pytest.fixture(params=[openrouter.exchange_code, asyncio_exchange, trio_exchange], ids=["sync", "asyncio", "trio"])
def exchange(request: pytest.FixtureRequest) -> Exchange:
    """The function in each of its three worlds."""
    found: Exchange = request.param
    return found


def agreed(begun: Authorization) -> dict[str, str]:
    """What the callback's query brings when the user has agreed."""
    moved = httpx.get(begun.url, trust_env=False)
    assert 302 == moved.status_code
    return dict(httpx.URL(moved.headers["location"]).params)


@contextlib.contextmanager
def vendor(reply: bytes) -> Iterator[Settings]:
    """A vendor that answers everything with the same bytes, or with silence."""

    def serve(connection: Connection) -> None:
        connection.request()
        connection.send(reply)
        if not reply:
            connection.wait_until_closed()

    with raw_server(serve) as server:
        yield Settings(openrouter_base_url=server.url)


def exposed(error: BaseException, text: str) -> list[str]:
    return [found for name in ("exchange_code", "aexchange_code") for found in exposures(error, text, below=name)]


def test_the_url() -> None:
    """It is OpenRouter's page with an S256 challenge; our state travels in the callback's own query."""
    begun = openrouter.start_authorization(f"{CALLBACK}?tab=keys", settings=Settings())

    parts = urlsplit(begun.url)
    assert ("https", "openrouter.ai", "/auth") == parts[:3]
    digest = hashlib.sha256(begun.code_verifier.reveal().encode()).digest()
    assert {
        "callback_url": [f"{CALLBACK}?tab=keys&state={begun.state}"],
        "code_challenge": [base64.urlsafe_b64encode(digest).decode().rstrip("=")],
        "code_challenge_method": ["S256"],
    } == parse_qs(parts.query)
    assert re.fullmatch(r"[A-Za-z0-9._~-]{43,128}", begun.code_verifier.reveal())


def test_no_two_are_alike() -> None:
    """Each authorization has a state and a verifier of its own, and its repr shows neither."""
    begun = [openrouter.start_authorization(CALLBACK, settings=Settings()) for _ in range(50)]

    assert 50 == len({each.state for each in begun}) == len({each.code_verifier for each in begun})
    assert [] == [each for each in begun if each.state in repr(each) or each.code_verifier.reveal() in repr(each)]


def test_whose_answer_it_is() -> None:
    """Only the very state answers: no other one, none, nothing."""
    begun = openrouter.start_authorization(CALLBACK, settings=Settings())

    assert begun.is_answered_by(begun.state)
    assert [] == [
        state for state in ("", None, "ü\udc80", begun.state[:-1], f"{begun.state}x") if begun.is_answered_by(state)
    ]


def test_another_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is at the host of the environment's base URL, unless it is named."""
    monkeypatch.setenv("OPENROUTER_BASE_URL", "https://eu.example:8443/some/api/v1")

    assert openrouter.start_authorization(CALLBACK).url.startswith("https://eu.example:8443/auth?")
    named = openrouter.start_authorization(CALLBACK, auth_url="https://openrouter.example/auth/")
    assert named.url.startswith("https://openrouter.example/auth?")


@pytest.mark.parametrize(
    "url",
    [
        "http://app.example/callback",
        "/callback",
        "app.example",
        "https://user:secret@app.example/",
        "https://app.example/#here",
        "https://app.example/?a=1#here",
        "https://app.example/?a=b c",
        "https://app.example/?a=ü",
        "https://app.example/?a=\n",
        "https://app.example/?state=1",
        "https://app.example/?a=1&code=",
        None,
    ],
)
def test_a_callback_that_is_not_allowed(url: Any) -> None:
    """What is no page of the app's, or would take the code in clear through a network, is refused by name."""
    with pytest.raises(ConfigurationError, match="callback_url"):
        openrouter.start_authorization(url, settings=Settings())


def test_a_page_that_is_not_allowed() -> None:
    """The consent page is held to the rules of every other URL."""
    with pytest.raises(ConfigurationError, match="auth_url"):
        openrouter.start_authorization(CALLBACK, settings=Settings(), auth_url="http://openrouter.example/auth")


def test_from_the_first_page_to_the_first_call(kwai_sandbox: Sandbox, exchange: Exchange) -> None:
    """A user who agrees grants a key, and that key then pays for calls."""
    settings = kwai_sandbox.settings()
    begun = openrouter.start_authorization("http://localhost:3000/callback", settings=settings)
    brought = agreed(begun)
    assert begun.is_answered_by(brought["state"])

    granted = exchange(brought["code"], begun.code_verifier, settings=settings)

    assert granted.user_id is not None
    assert granted.key.reveal() not in repr(granted)
    acme = Caller(identifier="acme", credentials=(Credential(api_key=granted.key),))
    with httpx_transport.client(settings=settings, deliver=lambda _: None) as client, bind_caller(acme):
        client.post(f"{settings.openrouter_base_url}/chat/completions", json={"model": "m", "messages": [{}]})
    [call] = kwai_sandbox.calls(wait=1)
    assert granted.key.fingerprint == call["paid_by"]["fingerprint"]


def test_a_code_is_good_once(kwai_sandbox: Sandbox, exchange: Exchange) -> None:
    """The second exchange of a code, and one with another's verifier, give no key and show no code."""
    settings = kwai_sandbox.settings()
    begun, other = (openrouter.start_authorization(CALLBACK, settings=settings) for _ in range(2))
    code = agreed(begun)["code"]

    with pytest.raises(InvalidCode, match="once more") as raised:
        exchange(code, other.code_verifier, settings=settings)
    assert [] == exposed(raised.value, code) + exposed(raised.value, other.code_verifier.reveal())
    exchange(code, begun.code_verifier, settings=settings)
    with pytest.raises(InvalidCode, match="ten minutes"):
        exchange(code, begun.code_verifier, settings=settings)


@pytest.mark.parametrize(
    ("code", "verifier"),
    [
        ("", VERIFIER),
        ("two words", VERIFIER),
        (None, VERIFIER),
        (CODE, "short"),
        (CODE, "é" * 50),
        (CODE, "+" * 50),
        (CODE, None),
    ],
)
def test_what_cannot_be_a_code(exchange: Exchange, code: Any, verifier: Any) -> None:
    """It is refused before anything is sent."""
    with pytest.raises(InvalidCode) as raised:
        exchange(code, verifier, settings=Settings(openrouter_base_url="http://127.0.0.1:1"))

    assert None is raised.value.__context__


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_refused_code(exchange: Exchange, status: int) -> None:
    """Whatever words OpenRouter has for it, the user has to go there once more."""
    with vendor(answer(status, b"{}")) as settings, pytest.raises(InvalidCode, match="once more"):
        exchange(CODE, VERIFIER, settings=settings)


KEY = "sk-or-v1-granted-0123456789"


@pytest.mark.parametrize(
    "odd",
    [
        answer(200, b"{}"),
        answer(200, b'{"key": 1}'),
        answer(200, b'{"key": ""}'),
        answer(200, json.dumps({"key": f"{KEY} "}).encode() + b","),
        answer(200, json.dumps({"key": f"{KEY} and {KEY}"}).encode()),
        answer(307, location="/elsewhere"),
        answer(405),
        answer(500),
        b"",
    ],
    ids=range(9),
)
def test_an_answer_without_a_key(exchange: Exchange, odd: bytes) -> None:
    """It tells nothing of the code; neither the code, nor what else the answer held, is in the error."""
    with vendor(odd) as settings, pytest.raises(OpenRouterUnavailable) as raised:
        exchange(CODE, VERIFIER, settings=settings, timeout=DEADLINE if odd else 0.2)

    assert [] == exposed(raised.value, CODE) + exposed(raised.value, VERIFIER) + exposed(raised.value, KEY)


@pytest.mark.parametrize("user_id", [None, KEY])
def test_a_user_without_a_name(exchange: Exchange, user_id: str | None) -> None:
    """OpenRouter need not say who the user is; what it says instead must not be the key."""
    with vendor(answer(200, json.dumps({"key": KEY, "user_id": user_id}).encode())) as settings:
        granted = exchange(Secret(CODE), Secret(VERIFIER), settings=settings)

    assert (Secret(KEY), None) == (granted.key, granted.user_id)


def test_nothing_is_logged(kwai_sandbox: Sandbox, exchange: Exchange, caplog: pytest.LogCaptureFixture) -> None:
    """All loggers together, at debug level, show neither code nor verifier nor key."""
    settings = kwai_sandbox.settings()
    begun = openrouter.start_authorization(CALLBACK, settings=settings)
    code = agreed(begun)["code"]
    caplog.clear()
    caplog.set_level(logging.DEBUG)

    granted = exchange(code, begun.code_verifier, settings=settings)

    assert "httpcore.http11" in {record.name for record in caplog.records}
    shown = caplog.text + repr([vars(record) for record in caplog.records])
    assert [] == [hidden for hidden in (code, begun.code_verifier.reveal(), granted.key.reveal()) if hidden in shown]


def test_the_blocking_one_on_a_loop() -> None:
    """On an event loop the blocking function refuses, and names its twin."""

    async def on_the_loop() -> None:
        with pytest.raises(BlockingCall, match="await aexchange_code"):
            openrouter.exchange_code(CODE, VERIFIER, settings=Settings())

    asyncio.run(on_the_loop())
