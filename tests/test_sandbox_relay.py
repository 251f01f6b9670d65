"""The sandbox's relay: both keys it asks for, OpenRouter's answers as they are, what would go on to a provider."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import httpx
import openai
import pytest

from kwai_middleware._secret import Secret
from kwai_middleware.sandbox import Sandbox
from tests.support.sandbox_requests import APP_KEY, HELLO, USER_KEY

pytest_plugins = ["kwai_middleware.testing"]


def post(
    sandbox: Sandbox,
    body: dict[str, object] | None = None,
    *,
    app_key: str | None = APP_KEY,
    user_key: str | None = USER_KEY,
    path: str = "/api/openrouter/v1/chat/completions",
    **headers: str,
) -> httpx.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if app_key is not None:
        sent["authorization"] = f"Bearer {app_key}"
    if user_key is not None:
        sent["x-openrouter-api-key"] = user_key
    asked = {"model": "any", "messages": HELLO, **(body or {})}
    return httpx.post(sandbox.url + path, json=asked, headers=sent, trust_env=False)


def test_the_openai_sdk_reads_the_relays_answer(kwai_sandbox: Sandbox) -> None:
    """A unary call is billed to the user's key, attributed by `respan_params`, and logged by the gateway."""
    with openai.OpenAI(
        base_url=kwai_sandbox.relay_url, api_key=APP_KEY, default_headers={"x-openrouter-api-key": USER_KEY}
    ) as client:
        raw = client.chat.completions.with_raw_response.create(
            model="openrouter/sandbox/echo",
            messages=HELLO,
            extra_body={"respan_params": {"customer_params": {"customer_identifier": "acme", "name": "Acme"}}},
        )
    [call] = kwai_sandbox.calls(wait=1, route="relay")
    completion = raw.parse()
    assert ("Hello you there", "sandbox/echo") == (completion.choices[0].message.content, completion.model)
    assert re.fullmatch(r"gen-\d+-[0-9a-f]{20}", completion.id)
    assert completion.id == raw.headers["x-generation-id"]
    assert raw.headers["x-respan-log-id"] == call["log_id"]
    assert {"source": "x-openrouter-api-key", "fingerprint": Secret(USER_KEY).fingerprint} == call["paid_by"]
    assert ("acme", {"customer_identifier": "acme", "name": "Acme"}) == (call["customer"], call["customer_params"])
    assert ("openrouter/sandbox/echo", "gateway", 200, "sent", []) == tuple(
        call[name] for name in ("model", "logged_by", "status", "outcome", "forwarded")
    )
    assert [] == kwai_sandbox.logs()


def test_the_openai_sdk_streams_through_the_relay(kwai_sandbox: Sandbox) -> None:
    """A stream has OpenRouter's shape: comments, finish reason, then usage and cost in a chunk with a choice."""

    async def collect() -> tuple[list[Any], str]:
        async with openai.AsyncOpenAI(
            base_url=kwai_sandbox.relay_url, api_key=APP_KEY, default_headers={"x-openrouter-api-key": USER_KEY}
        ) as client:
            stream = await client.chat.completions.create(model="sandbox/echo", messages=HELLO, stream=True)
            return [chunk async for chunk in stream], stream.response.headers["x-respan-log-id"]

    chunks, log_id = asyncio.run(collect())
    assert "Hello you there" == "".join(chunk.choices[0].delta.content for chunk in chunks)
    assert [None, "stop", None] == [chunk.choices[0].finish_reason for chunk in chunks[-3:]]
    assert 0.00001 == chunks[-1].usage.cost
    assert [log_id] == [call["log_id"] for call in kwai_sandbox.calls(wait=1, route="relay")]
    assert post(kwai_sandbox, {"stream": True}).text.startswith(": OPENROUTER PROCESSING\n\n")


@pytest.mark.parametrize("prefix", ["/api", ""])
@pytest.mark.parametrize("slash", ["", "/"])
def test_every_spelling_of_the_path_is_the_relay(kwai_sandbox: Sandbox, prefix: str, slash: str) -> None:
    """The relay takes its path with and without `/api` and a trailing slash, and nothing but POST."""
    path = f"{prefix}/openrouter/v1/chat/completions{slash}"
    assert post(kwai_sandbox, path=path).status_code == 200
    assert httpx.get(kwai_sandbox.url + path, trust_env=False).status_code == 405
    assert ["relay", "unknown"] == [call["route"] for call in kwai_sandbox.calls(wait=2)]


@pytest.mark.parametrize(
    ("app_key", "user_key", "status", "told"),
    [
        pytest.param(None, USER_KEY, 401, "Your API key is invalid or expired", id="no key of the app"),
        pytest.param("app-key-dead", USER_KEY, 401, "Your API key is invalid or expired", id="a bad key of the app"),
        pytest.param(APP_KEY, None, 400, "The header x-openrouter-api-key is required", id="no key of the user"),
        pytest.param(APP_KEY, "", 400, "The header x-openrouter-api-key is required", id="an empty key of the user"),
    ],
)
def test_both_keys_are_needed(
    kwai_sandbox: Sandbox, app_key: str | None, user_key: str | None, status: int, told: str
) -> None:
    """Without either key the gateway refuses by itself, in its own shape; nobody pays and nothing is logged."""
    answer = post(kwai_sandbox, app_key=app_key, user_key=user_key)
    [call] = kwai_sandbox.calls(wait=1, status=status)
    assert (status, True) == (answer.status_code, answer.json()["detail"].startswith(told))
    assert "x-respan-log-id" not in answer.headers
    assert (None, None) == (call["paid_by"], call["logged_by"])


@pytest.mark.parametrize(
    ("user_key", "status"),
    [
        ("sk-or-v1-acme-dead", 401),
        ("sk-or-v1-acme-broke", 402),
        ("sk-or-v1-acme-spent", 403),
        ("sk-or-v1-acme-slow", 429),
    ],
)
def test_a_users_bad_key_is_openrouters_error(kwai_sandbox: Sandbox, user_key: str, status: int) -> None:
    """What OpenRouter says about the user's key comes back unchanged, headers too, and is logged."""
    answer = post(kwai_sandbox, user_key=user_key)
    [call] = kwai_sandbox.calls(wait=1, status=status)
    with httpx.Client(trust_env=False, headers={"authorization": f"Bearer {user_key}"}) as client:
        direct = client.post(
            f"{kwai_sandbox.openrouter_url}/chat/completions", json={"model": "any", "messages": HELLO}
        )
    assert (direct.status_code, direct.json()) == (answer.status_code, answer.json())
    assert ("1" if status == 429 else None) == answer.headers.get("retry-after")
    assert (answer.headers["x-respan-log-id"], "gateway") == (call["log_id"], call["logged_by"])
    assert Secret(user_key).fingerprint == call["paid_by"]["fingerprint"]


@pytest.mark.parametrize("model", ["sandbox/error-503", "sandbox/error-in-200-at-top", "sandbox/html-error"])
def test_every_trouble_of_openrouter_comes_back_as_it_is(kwai_sandbox: Sandbox, model: str) -> None:
    """Errors, also those within a 200 and those of a proxy, have OpenRouter's status and shape."""
    answer = post(kwai_sandbox, {"model": model})
    with httpx.Client(trust_env=False, headers={"authorization": f"Bearer {USER_KEY}"}) as client:
        direct = client.post(
            f"{kwai_sandbox.openrouter_url}/chat/completions", json={"model": model, "messages": HELLO}
        )
    shape = re.compile(r'"user_id":"[^"]*"')
    assert (direct.status_code, shape.sub("", direct.text)) == (answer.status_code, shape.sub("", answer.text))


def test_a_malformed_request_is_openrouters_error(kwai_sandbox: Sandbox) -> None:
    """What is no chat request answers 400 in OpenRouter's shape, with the log's id."""
    answer = post(kwai_sandbox, {"messages": []})
    assert (400, "invalid_request") == (answer.status_code, answer.json()["error"]["metadata"]["error_type"])
    assert "x-respan-log-id" in answer.headers


@pytest.mark.parametrize("params", ['{"customer_identifier": "text"}', ["list"], 1, True, None])
def test_respan_params_that_are_no_object_are_ignored(kwai_sandbox: Sandbox, params: object) -> None:
    """None of their parameters apply, JSON as text included; upstream they are not seen either."""
    assert post(kwai_sandbox, {"respan_params": params}).status_code == 200
    [call] = kwai_sandbox.calls(wait=1)
    assert (None, None, []) == (call["customer"], call["customer_params"], call["forwarded"])


def test_parameters_at_the_top_level_leak_to_the_provider(kwai_sandbox: Sandbox) -> None:
    """The relay reads none of them and sends all of them on: the journal says which."""
    leaked = {
        "customer_credentials": {"openrouter": {"api_key": "sk-or-v1-leaked"}},
        "customer_params": {"customer_identifier": "acme"},
        "keywordsai_params": {"customer_identifier": "acme"},
    }
    post(kwai_sandbox, {**leaked, "temperature": 0, "provider": {"order": []}, "user": "u"})
    [call] = kwai_sandbox.calls(wait=1, route="relay")
    assert list(leaked) == call["forwarded"]
    assert (None, "x-openrouter-api-key") == (call["customer"], call["paid_by"]["source"])


def test_openrouter_itself_sends_unknown_members_on(kwai_sandbox: Sandbox) -> None:
    """Called without the gateway, OpenRouter forwards what it does not know, the gateway's members too."""
    body = {"model": "any", "messages": HELLO, "respan_params": {}, "customer_params": {}, "min_p": 0.1}
    httpx.post(
        f"{kwai_sandbox.openrouter_url}/chat/completions",
        json=body,
        headers={"authorization": f"Bearer {USER_KEY}"},
        trust_env=False,
    )
    assert [["respan_params", "customer_params"]] == [call["forwarded"] for call in kwai_sandbox.calls(wait=1)]


def test_the_user_and_the_routing_are_in_the_journal_and_no_key_is(kwai_sandbox: Sandbox) -> None:
    """The journal shows the pinned provider and the fall-back switch; the user's key is a fingerprint everywhere."""
    key = "user-key-without-a-known-shape"
    post(
        kwai_sandbox,
        {"messages": [{"role": "user", "content": f"my key is {key}"}], "respan_params": {"disable_fallback": True}},
        user_key=key,
        x_respan_route_provider="openrouter",
    )
    [call] = kwai_sandbox.calls(wait=1)
    assert ("openrouter", True) == (call["route_provider"], call["disable_fallback"])
    assert key not in json.dumps(call)
    assert Secret(key).fingerprint == dict(call["headers"])["x-openrouter-api-key"]
    assert [{"door": "header x-openrouter-api-key", "kind": "key", "value": Secret(key).fingerprint}] == call["doors"]


def test_a_key_that_came_to_the_relay_is_found_in_a_record(kwai_sandbox: Sandbox) -> None:
    """A key of no known shape is recognised in the logs once it came in the user's header."""
    key = "user-key-without-a-known-shape"
    post(kwai_sandbox, user_key=key)
    httpx.post(
        f"{kwai_sandbox.gateway_url}request-logs/create/",
        json={"model": "any", "input": f"my key is {key}"},
        headers={"authorization": f"Bearer {APP_KEY}"},
        trust_env=False,
    )
    assert [[Secret(key).fingerprint]] == [log["keys_seen"] for log in kwai_sandbox.logs(wait=1)]


def test_the_relay_is_listed(kwai_sandbox: Sandbox) -> None:
    """The page that says what there is to try names the relay and both places for Anthropic's format."""
    listed = httpx.get(f"{kwai_sandbox.url}/sandbox/", trust_env=False).json()
    assert (kwai_sandbox.relay_url, kwai_sandbox.openrouter_url) == (listed["relay"], listed["openrouter"])
    assert {
        "gateway": kwai_sandbox.gateway_anthropic_url,
        "openrouter": kwai_sandbox.openrouter_anthropic_url,
    } == listed["messages"]
