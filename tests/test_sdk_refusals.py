"""What an app's developer sees of a refused call, in each SDK: one attempt, a typed error, and what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import openrouter
import openrouter.errors
import pytest

from kwai_middleware import Settings, bind_caller
from kwai_middleware._notices import counts
from kwai_middleware.errors import CannotAttribute, MissingCredential
from kwai_middleware.sandbox import Sandbox
from tests.support.callers import caller
from tests.support.examples import sandbox_process
from tests.support.flavours import FLAVOURS, HTTPX, HTTPX2, Flavour
from tests.support.processes import PROJECT

MESSAGES: Any = [{"role": "user", "content": "one"}]


@pytest.fixture(scope="module")
def vendors() -> Iterator[Sandbox]:
    with sandbox_process() as sandbox:
        yield sandbox


@pytest.fixture(autouse=True)
def _emptied(vendors: Sandbox) -> None:
    vendors.reset()


Ask = Callable[..., Any]


def _openai(flavour: Flavour, vendors: Sandbox, route: str, http_client: Any) -> tuple[Ask, Any]:
    base_url = {"gateway": vendors.gateway_url, "relay": vendors.relay_url, "direct": vendors.openrouter_url}[route]
    make = openai.AsyncOpenAI if flavour.asynchronous else openai.OpenAI
    client: Any = make(api_key="app", base_url=base_url, http_client=http_client, max_retries=2)

    def ask(**more: Any) -> Any:
        return flavour.run(client.chat.completions.create(model="m", messages=MESSAGES, **more))

    return ask, openai.AuthenticationError


def _anthropic(flavour: Flavour, vendors: Sandbox, route: str, http_client: Any) -> tuple[Ask, Any]:
    base_url = vendors.gateway_anthropic_url if route == "gateway" else vendors.openrouter_anthropic_url
    make = anthropic.AsyncAnthropic if flavour.asynchronous else anthropic.Anthropic
    client: Any = make(api_key="app", base_url=base_url, http_client=http_client, max_retries=2)

    def ask(**more: Any) -> Any:
        return flavour.run(client.messages.create(model="m", messages=MESSAGES, max_tokens=9, **more))

    return ask, anthropic.AuthenticationError


def _openrouter(flavour: Flavour, vendors: Sandbox, route: str, http_client: Any) -> tuple[Ask, Any]:
    name = "async_client" if flavour.asynchronous else "client"
    urls = {"gateway": vendors.gateway_url.rstrip("/"), "relay": vendors.relay_url, "direct": vendors.openrouter_url}
    sdk = openrouter.OpenRouter(api_key="app", server_url=urls[route], **{name: http_client})

    def ask(**more: Any) -> Any:
        if flavour.asynchronous:
            return flavour.run(sdk.chat.send_async(model="m", messages=MESSAGES, **more))
        return sdk.chat.send(model="m", messages=MESSAGES, **more)

    return ask, openrouter.errors.UnauthorizedResponseError


SDKS = [
    pytest.param((sdk, *flavour.values[0], route), id=f"{sdk.__name__[1:]}-{flavour.id}-{route}")
    for sdk, flavours, routes in (
        (_openai, FLAVOURS, ("gateway", "relay", "direct")),
        (_anthropic, HTTPX2, ("gateway", "direct")),
        (_openrouter, HTTPX, ("gateway", "relay", "direct")),
    )
    for flavour in flavours
    for route in routes
]


class _Developer:
    """An app with one SDK client, and what its developer sees."""

    def __init__(self, vendors: Sandbox, case: Any) -> None:
        sdk, library, door, asynchronous, self.route = case
        self.flavour = Flavour(library, door, asynchronous=asynchronous)
        self.vendors = vendors
        self._sdk = sdk

    def sees(
        self, who: Any, *, refuse: str = "response", settings: dict[str, Any], **call: Any
    ) -> tuple[Any, int, Any]:
        """The error, how often the transport was asked, and the SDK's own class for a refused key."""
        before = sum(counts().get(f"refused_{code}", 0) for code in ("missing_credential", "cannot_attribute"))
        routes = Settings(
            base_url=self.vendors.gateway_url, openrouter_base_url=self.vendors.openrouter_url, **settings
        )
        http_client = self.flavour.client(settings=routes, deliver=lambda call: None, refuse=refuse)
        ask, expected = self._sdk(self.flavour, self.vendors, self.route, http_client)
        error: Exception | None = None
        try:
            with bind_caller(who):
                ask(**call)
        except Exception as raised:  # noqa: BLE001 - whatever the app would see
            error = raised
        self.flavour.close(http_client)
        attempts = sum(counts().get(f"refused_{code}", 0) for code in ("missing_credential", "cannot_attribute"))
        return error, attempts - before, expected


@pytest.fixture(params=SDKS)
def developer(request: pytest.FixtureRequest, vendors: Sandbox) -> Iterator[_Developer]:
    developer = _Developer(vendors, request.param)
    yield developer
    developer.flavour.end()


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "streamed"])
def test_a_missing_key_is_one_attempt_and_the_sdks_own_error(
    developer: _Developer, vendors: Sandbox, stream: bool
) -> None:
    """The SDK's class for a refused key, with our sentence of what to do; nothing reached the vendor."""
    error, attempts, expected = developer.sees(caller(credentials=()), settings={"byok": "only"}, stream=stream)
    assert expected is type(error)
    assert 1 == attempts
    assert "send the caller's key with the request, or set byok='prefer'" in str(error)
    assert "nothing was sent" in str(error)
    response = getattr(error, "response", None) or error.raw_response
    assert 401 == response.status_code
    assert "missing_credential" == response.headers["x-kwai-refused"]
    assert [] == vendors.calls()


def test_what_cannot_be_attributed_says_so(developer: _Developer, vendors: Sandbox) -> None:
    """A call that brings a name of its own where that is an error tells which member it was."""
    if developer._sdk is _openrouter:
        call: dict[str, Any] = {"metadata": {"respan_params": '{"customer_identifier":"other"}'}}
    else:
        call = {"extra_body": {"customer_identifier": "other"}}
    error, attempts, expected = developer.sees(caller(), settings={"on_conflict": "error"}, **call)
    assert expected is type(error)
    assert 1 == attempts
    assert "customer_identifier" in str(error)
    assert "leave it out" in str(error)
    assert "other" not in str(error).replace("another", "")
    assert [] == vendors.calls()


def test_our_own_error_is_there_for_who_asks_for_it(developer: _Developer, vendors: Sandbox) -> None:
    """refuse='raise': where the SDK lets it through it is ours, and where it hides it, ours is the cause."""
    error, attempts, _ = developer.sees(caller(credentials=()), refuse="raise", settings={"byok": "only"})
    if developer._sdk is _anthropic:
        assert anthropic.APIConnectionError is type(error)
        assert MissingCredential is type(error.__cause__)
        assert 3 == attempts
    else:
        assert MissingCredential is type(error)
        assert 1 == attempts
    assert [] == vendors.calls()


def test_the_openai_sdk_of_before_httpx2(vendors: Sandbox) -> None:
    """It shows the refusal as its own typed error after one attempt; a raised one it would repeat, and then hide."""
    folder = Path(sys.prefix, "openai-2")
    assert folder.is_dir(), "`make setup` installs the older SDK"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join((str(folder), str(PROJECT)))}
    environ |= {"KEYWORDSAI_BASE_URL": vendors.gateway_url, "OPENROUTER_BASE_URL": vendors.openrouter_url}
    for base_url in ("https://api.keywordsai.co/api", "https://openrouter.ai/api/v1"):
        argv = [sys.executable, "-m", "tests.apps.refused_openai_2", base_url]
        ended = subprocess.run(argv, env=environ, cwd=PROJECT, capture_output=True, timeout=120, check=False)
        assert 0 == ended.returncode, ended.stderr.decode()
        seen = json.loads(ended.stdout)
        assert seen["version"].startswith("2.")
        for kind in ("sync", "async"):
            answer, raised = seen["response"][kind], seen["raise"][kind]
            assert "AuthenticationError" == answer["type"]
            assert 1 == answer["attempts"]
            assert "byok='only'" in answer["message"]
            assert ("APIConnectionError", "MissingCredential", 3) == (
                raised["type"],
                raised["cause"],
                raised["attempts"],
            )


def test_a_refusal_in_raw_httpx_is_our_own_error_or_a_response() -> None:
    """The plain transport raises; a ready client answers, with the same words."""
    from kwai_middleware import httpx_transport

    url = "https://openrouter.ai/api/v1/chat/completions"
    only = Settings(byok="only")
    transport = httpx_transport.KwaiTransport(httpx.MockTransport(lambda request: httpx.Response(200)), settings=only)
    with httpx.Client(transport=transport) as client, pytest.raises(MissingCredential, match="send the caller's key"):
        client.post(url, json={})
    with httpx_transport.client(settings=only) as client:
        answer = client.post(url, json={})
    assert 401 == answer.status_code
    assert "send the caller's key" in answer.json()["error"]["message"]
    assert CannotAttribute.code == "cannot_attribute"
