"""Which requests are touched, and that everything else passes as the very object the app made."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kwai_middleware import _notices
from kwai_middleware._caller import Credential
from kwai_middleware._context import bind_caller
from kwai_middleware._route import Route
from kwai_middleware._secret import Secret
from tests.support.callers import caller, key_of, settings
from tests.support.flavours import Flavour
from tests.support.wired import wired

BODY = b'{"model":"m","messages":[]}'

TOUCHED = [
    "https://api.keywordsai.co/api/chat/completions",
    "https://api.keywordsai.co/api/chat/completions/",
    "https://api.keywordsai.co/chat/completions",
    "https://api.keywordsai.co:443/chat/completions/",
    "https://api.respan.ai/api/chat/completions",
    "https://api.respan.ai/chat/completions",
    "https://api.respan.ai/api/chat/completions?x=1",
    "https://API.respan.ai/api/chat/completions",
    "https://openrouter.ai/api/v1/chat/completions",
    "https://openrouter.ai/api/v1/chat/completions/",
    "https://openrouter.ai/api/v1/responses",
    "https://openrouter.ai/api/v1/embeddings",
    "https://api.keywordsai.co/api/responses",
    "https://api.respan.ai/api/audio/transcription/",
    "https://llm.example/v1/chat/completions",
    "http://127.0.0.1:8700/api/chat/completions",
    "http://127.0.0.1:8700/chat/completions",
    "http://inside.example:81/base/chat/completions",
    "https://whole.example/x/chat/completions",
]

UNTOUCHED = [
    "https://api.keywordsai.co.evil.example/api/chat/completions",
    "https://evil.example/api.keywordsai.co/api/chat/completions",
    "https://api.keywordsai.co@evil.example/api/chat/completions",
    "https://user:word@api.keywordsai.co/api/chat/completions",
    "https://user@api.keywordsai.co/api/chat/completions",
    "https://api.keywordsai.co:444/api/chat/completions",
    "https://api.keywordsai.co:80/api/chat/completions",
    "http://api.keywordsai.co/api/chat/completions",
    "http://api.keywordsai.co:443/api/chat/completions",
    "https://api.keywordsai.co./api/chat/completions",
    "https://xapi.keywordsai.co/api/chat/completions",
    "https://keywordsai.co/api/chat/completions",
    "https://api.keywordsai.cо/api/chat/completions",  # a Cyrillic letter at the end
    "https://api.keywordsai.co/API/CHAT/COMPLETIONS",
    "https://api.keywordsai.co/api/api/chat/completions",
    "https://api.keywordsai.co/api//chat/completions",
    "https://api.keywordsai.co/api/chat%2Fcompletions",
    "https://api.keywordsai.co/api/chat/completions//",
    "https://api.keywordsai.co/api/chat/completions/x",
    "https://api.keywordsai.co/api/request-logs/",
    "https://api.keywordsai.co/api/request-logs/create/",
    "https://api.keywordsai.co/api/users/acme/",
    "https://api.respan.ai/api/limit-policies/",
    "https://openrouter.ai/api/v1/keys",
    "https://openrouter.ai/api/v1/key",
    "https://openrouter.ai/api/v1/credits",
    "https://openrouter.ai/api/chat/completions",
    "https://openrouter.ai/chat/completions",
    "https://openrouter.ai.evil.example/api/v1/chat/completions",
    "https://api.openai.com/v1/chat/completions",
    "https://llm.example/v2/chat/completions",
    "https://llm.example/chat/completions",
    "http://llm.example/v1/chat/completions",
    "http://127.0.0.1:8701/api/chat/completions",
    "http://localhost:8700/api/chat/completions",
]

SETTINGS = settings(
    routes=(
        Route("https://llm.example/v1"),
        Route("http://127.0.0.1:8700/api/", kind="gateway"),
        Route("http://inside.example:81/base", insecure=True),
        Route("https://whole.example/x/chat/completions"),
    )
)


class _Inner:
    """Keeps the request objects that reach the network."""

    def __init__(self, library: Any) -> None:
        self.library = library
        self.requests: list[Any] = []

    def handle_request(self, request: Any) -> Any:
        self.requests.append(request)
        return self.library.Response(200, json={})

    async def handle_async_request(self, request: Any) -> Any:
        return self.handle_request(request)


def _sent(flavour: Flavour, method: str, url: str) -> tuple[Any, Any]:
    """The request as the app made it, and as it reached the network."""
    inner = _Inner(flavour.library)
    transport = flavour.transport_class(inner, settings=SETTINGS, deliver=lambda call: None)
    request = flavour.library.Request(method, url, content=BODY, headers={"authorization": "Bearer app"})
    with bind_caller(caller("acme")):
        if flavour.asynchronous:
            flavour.run(transport.handle_async_request(request))
        else:
            transport.handle_request(request)
    return request, inner.requests[0]


@pytest.mark.parametrize("url", TOUCHED)
def test_listed_endpoints_are_attributed(flavour: Flavour, url: str) -> None:
    """Every spelling of a listed endpoint carries the caller's key, on a copy."""
    request, sent = _sent(flavour, "POST", url)
    assert request is not sent
    assert b"sk-or-v1-acme" in sent.read() + str(sent.headers.raw).encode()
    assert BODY == request.read()
    assert "Bearer app" == request.headers["authorization"]


@pytest.mark.parametrize(
    ("base", "url", "place"),
    [
        ("https://gw.example/api/openrouter/v1", "https://gw.example/api/openrouter/v1/chat/completions", "relay"),
        ("https://gw.example/openrouter/", "https://gw.example/openrouter/v1/chat/completions/", "relay"),
        ("https://gw.example/api/anthropic/", "https://gw.example/api/anthropic/v1/messages", "metadata"),
        ("https://gw.example/api/anthropic/v1", "https://gw.example/api/anthropic/v1/messages", "metadata"),
        ("https://gw.example/v1", "https://gw.example/v1/chat/completions", "body"),
    ],
)
def test_what_an_sdk_is_given_for_an_endpoint_of_the_gateway_is_that_endpoint(
    flavour: Flavour, base: str, url: str, place: str
) -> None:
    """Below the relay's base URL no key is put into the body: OpenRouter hands on what it does not know."""
    sent = wired(flavour, caller(), url=url, routes=(Route(base, kind="gateway"),))
    body, header = json.loads(sent.content), sent.headers.get("x-openrouter-api-key")
    assert (key_of("acme") if place == "relay" else None) == header
    assert ("customer_credentials" in body) == (place == "body")
    assert ("metadata" in body) == (place == "metadata")
    assert (key_of("acme") in sent.content.decode()) == (place != "relay")


def test_the_relay_gets_a_key_for_openrouter_and_no_other(flavour: Flavour) -> None:
    """Whichever provider's keys the gateway prefers, what it relays goes to OpenRouter."""
    credentials = (Credential(provider="openai", api_key=Secret("sk-openai-1")),)
    routes = (Route("https://gw.example/api", kind="gateway", provider="openai"),)
    url = "https://gw.example/api/openrouter/v1/chat/completions"
    sent = wired(flavour, caller(credentials=credentials), url=url, routes=routes)
    assert "sk-openai-1" not in str(sent.headers.raw) + sent.content.decode()
    sent = wired(flavour, caller(), url=url, routes=routes)
    assert key_of("acme") == sent.headers["x-openrouter-api-key"]


@pytest.mark.parametrize("target", ["/api/chat/completions", b"/api/chat/completions"])
def test_another_target_than_the_urls_may_be_text(flavour: Flavour, target: str | bytes) -> None:
    """What is put on the wire in place of the URL's path decides, as text too, as the HTTP libraries take it."""
    request = {"content": b"{}", "extensions": {"target": target}}
    sent = wired(flavour, caller(), url="https://api.keywordsai.co/other", request=request)
    assert key_of("acme") in sent.content.decode()


@pytest.mark.parametrize("url", UNTOUCHED)
def test_everything_else_passes_untouched(flavour: Flavour, url: str) -> None:
    """A look-alike host, another port or scheme, and another endpoint get the app's very own request object."""
    request, sent = _sent(flavour, "POST", url)
    assert request is sent
    assert BODY == sent.read()


@pytest.mark.parametrize("method", ["GET", "PUT", "OPTIONS", "HEAD", "DELETE"])
def test_other_methods_pass_untouched(flavour: Flavour, method: str) -> None:
    """Only a POST is a model call."""
    request, sent = _sent(flavour, method, TOUCHED[0])
    assert request is sent


def test_a_look_alike_host_is_warned_of_once(flavour: Flavour, caplog: pytest.LogCaptureFixture) -> None:
    """A bound key at a host that looks like a vendor's is counted each time and warned of once per host."""
    url = f"https://api.keywordsai.co.{flavour.name}.example/api/chat/completions"
    before = _notices.counts().get("unrouted", 0)
    for _ in range(3):
        _sent(flavour, "POST", url)
    assert before + 3 == _notices.counts()["unrouted"]
    assert 1 == caplog.text.count(f"api.keywordsai.co.{flavour.name}.example")
    assert "sk-or-v1" not in caplog.text


def test_other_endpoints_of_a_listed_host_are_no_cause_for_a_warning(flavour: Flavour) -> None:
    """Management and logging endpoints of the vendor's own hosts are used on purpose."""
    before = _notices.counts().get("unrouted", 0)
    _sent(flavour, "POST", "https://api.keywordsai.co/api/request-logs/")
    _sent(flavour, "POST", "https://api.openai.com/v1/chat/completions")
    assert before == _notices.counts().get("unrouted", 0)


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/api//chat/completions/", "/api/v2/v1/messages", "/api/v1/responses?x=1"]
)
def test_another_path_to_the_models_of_a_listed_host_is_warned_of(
    flavour: Flavour, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A base URL that is off by one part would put every call on the app's own bill without a word."""
    host = f"{flavour.name}{len(path)}.listed.example"
    options = {"settings": settings(routes=(Route(f"https://{host}/api", kind="gateway"),))}
    client = flavour.answering(lambda request: flavour.library.Response(200), deliver=lambda call: None, **options)
    before = _notices.counts().get("unrouted", 0)
    with bind_caller(caller()):
        flavour.post(client, f"https://{host}{path}")
        flavour.post(client, f"https://{host}/api/request-logs/")
    flavour.post(client, f"https://{host}{path}")
    flavour.close(client)
    assert before + 1 == _notices.counts()["unrouted"]
    assert 1 == caplog.text.count(host)
    assert "sk-or-v1" not in caplog.text


def test_nobody_at_a_look_alike_host_is_not_counted(flavour: Flavour) -> None:
    """Without a bound key nothing is missing from the call."""
    before = _notices.counts().get("unrouted", 0)
    client = flavour.answering(
        lambda request: flavour.library.Response(200), settings=SETTINGS, deliver=lambda call: None
    )
    flavour.post(client, "https://openrouter.evil.example/api/v1/chat/completions")
    with bind_caller(caller(credentials=())):
        flavour.post(client, "https://openrouter.evil.example/api/v1/chat/completions")
    assert before == _notices.counts().get("unrouted", 0)
    flavour.close(client)
