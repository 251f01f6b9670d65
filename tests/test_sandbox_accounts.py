"""The sandbox's OpenRouter: what it tells of keys, its consent page, and the codes that become keys."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import httpx
import openrouter
import openrouter.errors
import pytest
from starlette.testclient import TestClient

from kwai_middleware._secret import Secret
from kwai_middleware.sandbox import Sandbox, create_app

pytest_plugins = ["kwai_middleware.testing"]

KEY = "sk-or-v1-acme-0123456789"
CALLBACK = "http://localhost:3000/callback?state=abc"
VERIFIER = "a-verifier-of-the-tests-with-enough-characters"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")


@pytest.fixture
def client() -> TestClient:
    """A client of a new sandbox."""
    return TestClient(create_app(), follow_redirects=False)


def asked(client: TestClient, key: str | None, path: str = "/api/v1/key") -> httpx.Response:
    return client.get(path, headers={} if key is None else {"authorization": f"Bearer {key}"})


def code_of(client: TestClient, **query: str) -> str:
    moved = client.get("/auth", params={"callback_url": CALLBACK, **query})
    assert 302 == moved.status_code
    location = httpx.URL(moved.headers["location"])
    assert ("localhost", 3000, "/callback", "abc") == (
        location.host,
        location.port,
        location.path,
        location.params["state"],
    )
    return location.params["code"]


def exchanged(client: TestClient, code: object, **members: object) -> httpx.Response:
    return client.post("/api/v1/auth/keys", json={"code": code, **members})


@pytest.mark.filterwarnings("ignore:warning. .. DEPRECATED:DeprecationWarning")  # the SDK's, of its own type
def test_the_vendors_sdk_understands_it(kwai_sandbox: Sandbox) -> None:
    """What is told of a key, and the exchange of a code, are what OpenRouter's own SDK reads."""
    kwai_sandbox.register_key(
        Secret(KEY), limit=5, usage=1, limit_reset="daily", expires_at="2100-01-01T00:00:00Z", is_free_tier=True
    )
    moved = httpx.get(
        f"{kwai_sandbox.url}/auth",
        params={"callback_url": CALLBACK, "code_challenge": CHALLENGE, "code_challenge_method": "S256"},
        trust_env=False,
    )
    with openrouter.OpenRouter(server_url=kwai_sandbox.openrouter_url, api_key=KEY) as sdk:
        told = sdk.api_keys.get_current_key_metadata().data
        granted = sdk.o_auth.exchange_auth_code_for_api_key(
            code=httpx.URL(moved.headers["location"]).params["code"],
            code_verifier=VERIFIER,
            code_challenge_method="S256",
        )

    assert (5, 4, "daily", 1, True, False) == (
        told.limit,
        told.limit_remaining,
        told.limit_reset,
        told.usage,
        told.is_free_tier,
        told.is_management_key,
    )
    assert told.effective_budget is not None
    assert 4 == told.effective_budget.remaining_usd
    assert 2100 == told.expires_at.year
    assert KEY not in told.label
    assert granted.key.startswith("sk-or-v1-")
    dead = openrouter.OpenRouter(server_url=kwai_sandbox.openrouter_url, api_key=f"{KEY}-dead")
    with dead as sdk, pytest.raises(openrouter.errors.UnauthorizedResponseError):
        sdk.api_keys.get_current_key_metadata()


@pytest.mark.parametrize(
    ("key", "status"),
    [(KEY, 200), (None, 401), (f"{KEY}-dead", 401), (f"{KEY}-slow", 429), (f"{KEY}-broke", 200), (f"{KEY}-spent", 200)],
)
def test_who_is_told(client: TestClient, key: str | None, status: int) -> None:
    """A key without credit or limit is told about itself, an unknown one is not; the old path is the same."""
    for path in ("/api/v1/key", "/api/v1/auth/key"):
        answer = asked(client, key, path)
        assert status == answer.status_code
        assert {"data"} == set(answer.json()) or {"error"} <= set(answer.json())
    assert (status == 429) == ("retry-after" in answer.headers)
    assert 405 == client.post("/api/v1/key").status_code
    assert 405 == client.get("/api/v1/auth/keys").status_code


@pytest.mark.parametrize(
    ("facts", "told", "called"),
    [
        ({}, 200, 200),
        ({"limit": 1, "usage": 0.5}, 200, 200),
        ({"limit": 1, "usage": 1}, 200, 403),
        ({"is_management_key": True}, 200, 403),
        ({"expires_at": "2020-01-01T00:00:00Z"}, 401, 401),
        ({"expires_at": "2100-01-01T00:00:00Z"}, 200, 200),
    ],
)
def test_a_registered_key(kwai_sandbox: Sandbox, facts: dict[str, Any], told: int, called: int) -> None:
    """What was registered decides what is told of a key, and whether it pays; a reset forgets it."""
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=kwai_sandbox.openrouter_url, headers=headers, trust_env=False) as client:

        def call() -> int:
            return client.post("/chat/completions", json={"model": "m", "messages": [{}]}).status_code

        kwai_sandbox.register_key(KEY, **facts)
        assert (told, called) == (client.get("/key").status_code, call())
        kwai_sandbox.reset()
        assert (200, 200) == (client.get("/key").status_code, call())


def test_keys_that_end_so(client: TestClient) -> None:
    """Two more endings stand for keys that pay for nothing."""
    assert 0 == asked(client, f"{KEY}-spent").json()["data"]["limit_remaining"]
    assert asked(client, f"{KEY}-management").json()["data"]["is_management_key"]


def test_what_cannot_be_registered(kwai_sandbox: Sandbox) -> None:
    """There are no other facts, and no other values."""
    for facts in ({"colour": "red"}, {"limit": "much"}, {"expires_at": "2020-01-01T00:00:00"}):
        with pytest.raises(ValueError, match="keys: "):
            kwai_sandbox.register_key(KEY, **facts)


def test_the_consent_page(client: TestClient) -> None:
    """A browser sees who asks, safely written, and goes back with a code once the user agrees."""
    url = {"callback_url": "https://a%3Cb%3E.example/callback"}
    page = client.get("/auth", params=url, headers={"accept": "text/html,*/*"})
    assert 200 == page.status_code
    assert '<form method="post">' in page.text
    assert "<b>" not in page.text

    moved = client.post("/auth", params=url, headers={"accept": "text/html,*/*"})
    assert 302 == moved.status_code
    assert "/callback?code=" in moved.headers["location"]


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"callback_url": "/callback"},
        {"callback_url": "http://app.example/callback"},
        {"callback_url": "https://"},
        {"callback_url": "http://[/"},
        {"callback_url": CALLBACK, "code_challenge": CHALLENGE, "code_challenge_method": "MD5"},
    ],
)
def test_what_the_consent_page_refuses(client: TestClient, query: dict[str, str]) -> None:
    """Nobody is sent to a page that the vendor would not send to."""
    assert 400 == client.get("/auth", params=query).status_code


S256 = {"code_challenge": CHALLENGE, "code_challenge_method": "S256"}
PLAIN = {"code_challenge": VERIFIER}


@pytest.mark.parametrize(
    ("begun", "members", "status"),
    [
        (S256, {"code_verifier": VERIFIER, "code_challenge_method": "S256"}, 200),
        (S256, {"code_verifier": f"{VERIFIER}x", "code_challenge_method": "S256"}, 403),
        (S256, {"code_verifier": None, "code_challenge_method": "S256"}, 403),
        (S256, {"code_verifier": VERIFIER}, 400),
        (PLAIN, {"code_verifier": VERIFIER, "code_challenge_method": "plain"}, 200),
        (PLAIN, {"code_verifier": CHALLENGE, "code_challenge_method": "plain"}, 403),
        ({}, {}, 200),
    ],
)
def test_an_exchange(client: TestClient, begun: dict[str, str], members: dict[str, object], status: int) -> None:
    """A code becomes a key for who shows the verifier to its challenge."""
    assert status == exchanged(client, code_of(client, **begun), **members).status_code


def test_codes_end(client: TestClient) -> None:
    """A code is good once, and for ten minutes; what is no code is none."""
    now = [0.0]
    accounts = client.app.state.sandbox.accounts  # type: ignore[attr-defined]  # Starlette's own state
    accounts.clock = lambda: now[0]
    codes = [code_of(client) for _ in range(3)]
    assert [200, 403] == [exchanged(client, codes[0]).status_code for _ in range(2)]
    now[0] = 600.0
    assert 200 == exchanged(client, codes[1]).status_code
    now[0] = 600.1
    assert 403 == exchanged(client, codes[2]).status_code
    assert [403, 400, 400] == [exchanged(client, code).status_code for code in ("", 7, None)]
    assert 400 == client.post("/api/v1/auth/keys", content=b"code").status_code


def test_what_is_remembered_is_bounded(client: TestClient) -> None:
    """Of codes that nobody exchanges the oldest are forgotten."""
    accounts = client.app.state.sandbox.accounts  # type: ignore[attr-defined]  # Starlette's own state
    first, *_, last = [accounts.grant(None, None) for _ in range(10_001)]
    assert 403 == exchanged(client, first).status_code
    assert 200 == exchanged(client, last).status_code


def test_no_journal_shows_a_granted_key(client: TestClient) -> None:
    """A key that the sandbox hands out is masked in what it shows, wherever it turns up later."""
    granted = exchanged(client, code_of(client)).json()["key"]
    client.post("/api/v1/chat/completions", json={"model": "m", "messages": [{"content": f"my key: {granted}"}]})

    assert granted not in client.get("/sandbox/calls").text
    assert f"[key {Secret(granted).fingerprint}]" in client.get("/sandbox/calls").text
