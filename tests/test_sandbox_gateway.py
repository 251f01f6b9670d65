"""The sandbox's gateway: whose key pays, what it answers, what the journal shows."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from kwai_middleware._secret import Secret
from kwai_middleware.sandbox import Sandbox

pytest_plugins = ["kwai_middleware.testing"]

HELLO: list[Any] = [{"role": "user", "content": "Hello you there"}]
ACME = {
    "customer_credentials": {"openrouter": {"api_key": "sk-or-v1-acme"}},
    "customer_params": {"customer_identifier": "acme", "name": "Acme"},
}


def post(
    sandbox: Sandbox, body: object = None, *, path: str = "/api/chat/completions", **headers: str
) -> httpx.Response:
    sent = {"authorization": "Bearer app-key-0123", **headers}
    content = (
        body if isinstance(body, bytes) else json.dumps({"model": "any", "messages": HELLO, **(body or {})}).encode()
    )
    with httpx.Client(trust_env=False) as client:
        return client.post(
            sandbox.url + path, content=content, headers={k.replace("_", "-"): v for k, v in sent.items() if v}
        )


def test_the_openai_sdk_gets_a_completion_that_the_customer_pays(kwai_sandbox: Sandbox) -> None:
    """A unary call through the OpenAI SDK is answered in OpenAI's shape and billed to the customer's key."""
    with openai.OpenAI(base_url=kwai_sandbox.gateway_url, api_key="app-key-0123", max_retries=0) as client:
        raw = client.chat.completions.with_raw_response.create(model="sandbox/echo", messages=HELLO, extra_body=ACME)
    completion = raw.parse()
    [call] = kwai_sandbox.calls(wait=1)
    assert completion.choices[0].message.content == "Hello you there"
    assert completion.choices[0].finish_reason == "stop"
    assert completion.usage is not None
    assert (8, 4, 12) == (
        completion.usage.prompt_tokens,
        completion.usage.completion_tokens,
        completion.usage.total_tokens,
    )
    assert {"source": "customer_credentials", "fingerprint": Secret("sk-or-v1-acme").fingerprint} == call["paid_by"]
    assert {"customer_identifier": "acme", "name": "Acme"} == call["customer_params"]
    assert ("acme", "gateway", "gateway", 200, "sent") == tuple(
        call[name] for name in ("customer", "route", "logged_by", "status", "outcome")
    )
    assert raw.headers["x-respan-log-id"] == call["log_id"]
    assert [] == kwai_sandbox.logs()


def test_the_openai_sdk_streams(kwai_sandbox: Sandbox) -> None:
    """A stream has OpenAI's shape: pieces, finish reason, and usage without a choice only when asked for."""
    with openai.OpenAI(base_url=kwai_sandbox.gateway_url, api_key="app-key-0123", max_retries=0) as client:
        with client.chat.completions.create(model="sandbox/echo", messages=HELLO, stream=True) as stream:
            plain = list(stream)
        with client.chat.completions.create(
            model="sandbox/echo", messages=HELLO, stream=True, stream_options={"include_usage": True}
        ) as stream:
            counted = list(stream)
    assert ["", "Hello", " you", " there", None] == [chunk.choices[0].delta.content for chunk in plain]
    assert [None, None, None, None, "stop"] == [chunk.choices[0].finish_reason for chunk in plain]
    assert [] == counted[-1].choices
    assert counted[-1].usage is not None
    assert counted[-1].usage.total_tokens == 12
    assert len(plain) + 1 == len(counted)


async def collect(client: openai.AsyncOpenAI, customer: str) -> tuple[str, str]:
    stream = await client.chat.completions.create(
        model="sandbox/long-20",
        messages=HELLO,
        stream=True,
        extra_body={
            "customer_credentials": {"openrouter": {"api_key": f"sk-or-v1-{customer}"}},
            "customer_params": {"customer_identifier": customer},
        },
    )
    chunks: list[ChatCompletionChunk] = [chunk async for chunk in stream]
    return customer, "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


def test_many_customers_stream_at_once(kwai_sandbox: Sandbox) -> None:
    """64 concurrent streams each arrive whole, and each is billed to its own customer."""

    async def everyone() -> list[tuple[str, str]]:
        async with openai.AsyncOpenAI(base_url=kwai_sandbox.gateway_url, api_key="app-key-0123") as client:
            return await asyncio.gather(*(collect(client, f"customer-{index}") for index in range(64)))

    answers = asyncio.run(everyone())
    paid = {call["customer"]: call["paid_by"]["fingerprint"] for call in kwai_sandbox.calls(wait=64, outcome="sent")}
    whole = "".join(f"word{index} " for index in range(20))
    assert {f"customer-{index}": whole for index in range(64)} == dict(answers)
    assert {f"customer-{index}": Secret(f"sk-or-v1-customer-{index}").fingerprint for index in range(64)} == paid


@pytest.mark.parametrize(
    "path", ["/api/chat/completions", "/api/chat/completions/", "/chat/completions", "/chat/completions/"]
)
def test_every_spelling_of_the_path_is_the_same_endpoint(kwai_sandbox: Sandbox, path: str) -> None:
    """The vendor takes its path with and without `/api` and a trailing slash; the journal shows which it was."""
    assert post(kwai_sandbox, path=path + "?a=b").status_code == 200
    assert [path + "?a=b"] == [call["path"] for call in kwai_sandbox.calls(wait=1, route="gateway")]


@pytest.mark.parametrize("authorization", ["", "Basic app-key-0123", "Bearer", "Bearer app-key-dead"])
def test_without_a_good_key_of_the_app_there_is_no_answer(kwai_sandbox: Sandbox, authorization: str) -> None:
    """The gateway insists on a Bearer key, also when the customer brings one; its error has `detail`."""
    body = {} if authorization.endswith("-dead") else ACME
    answer = post(kwai_sandbox, body, authorization=authorization)
    [call] = kwai_sandbox.calls(wait=1)
    assert answer.status_code == 401
    assert answer.json()["detail"].startswith("Your API key is invalid or expired")
    assert "x-respan-log-id" not in answer.headers
    assert call["logged_by"] is None


@pytest.mark.parametrize(
    ("key", "status", "kind"),
    [
        ("sk-or-v1-acme-dead", 401, "authentication_error"),
        ("sk-or-v1-acme-broke", 402, "insufficient_quota"),
        ("sk-or-v1-acme-spent", 403, "permission_error"),
        ("sk-or-v1-acme-slow", 429, "rate_limit_error"),
    ],
)
def test_a_customers_bad_key_is_the_providers_error(kwai_sandbox: Sandbox, key: str, status: int, kind: str) -> None:
    """The gateway hands on what the provider says about the customer's key, and logs the call."""
    answer = post(kwai_sandbox, {"customer_credentials": {"openrouter": {"api_key": key}}})
    [call] = kwai_sandbox.calls(wait=1)
    assert (status, kind, str(status)) == (
        answer.status_code,
        answer.json()["error"]["type"],
        answer.json()["error"]["code"],
    )
    assert ("1" if status == 429 else None) == answer.headers.get("retry-after")
    assert answer.headers["x-respan-log-id"] == call["log_id"]
    assert Secret(key).fingerprint == call["paid_by"]["fingerprint"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"\xff\xfe{}",
        b'{"messages": [{}]}',
        b'{"model": 1, "messages": [{}]}',
        b'{"model": "", "messages": [{}]}',
        b'{"model": "a"}',
        b'{"model": "a", "messages": []}',
        b'{"model": "a", "messages": "Hello"}',
    ],
)
def test_a_malformed_request_is_refused_and_kept(kwai_sandbox: Sandbox, body: bytes) -> None:
    """What is no chat request answers 400 and still stands in the journal, with its digest."""
    assert post(kwai_sandbox, body).status_code == 400
    [call] = kwai_sandbox.calls(wait=1, status=400)
    assert (len(body), hashlib.sha256(body).hexdigest()) == (call["body_length"], call["body_sha256"])


def encoded(value: object) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    ("body", "header", "customer"),
    [
        pytest.param({"customer_identifier": "top"}, None, "top", id="top level"),
        pytest.param({"customer_identifier": 7}, None, "7", id="a number"),
        pytest.param(
            {"customer_identifier": "top", "customer_params": {"customer_identifier": "params"}},
            None,
            "params",
            id="customer_params before the top level",
        ),
        pytest.param(
            {"customer_identifier": "top"}, {"customer_identifier": "header"}, "header", id="header before it"
        ),
        pytest.param(
            {"respan_params": {"customer_identifier": "nested"}},
            {"customer_identifier": "header"},
            "nested",
            id="respan_params before the header",
        ),
        pytest.param(
            {"keywordsai_params": {"customer_identifier": "old"}, "respan_params": {"customer_identifier": "new"}},
            None,
            "new",
            id="respan_params before its alias",
        ),
        pytest.param({"respan_params": '{"customer_identifier": "text"}'}, None, "text", id="respan_params as text"),
        pytest.param(
            {"customer_identifier": "top", "respan_params": "no object"},
            {"customer_identifier": "header"},
            "top",
            id="no object: ignored with the header",
        ),
        pytest.param({"customer_identifier": "top"}, "not base64!", "top", id="header that is no base64"),
        pytest.param({"customer_params": "acme"}, None, None, id="customer_params that is no object"),
    ],
)
def test_parameters_travel_in_three_places(
    kwai_sandbox: Sandbox, body: dict[str, object], header: object, customer: str | None
) -> None:
    """The customer is found wherever the vendor looks, in the vendor's order."""
    value = header if isinstance(header, str) else encoded(header)
    post(kwai_sandbox, body, x_data_respan_params="" if header is None else value)
    assert [customer] == [call["customer"] for call in kwai_sandbox.calls(wait=1)]


def test_the_old_parameter_header_counts_too(kwai_sandbox: Sandbox) -> None:
    """A key in `X-Data-Keywordsai-Params` pays; the journal shows the header decoded and masked."""
    credentials = {"customer_credentials": {"groq": {"api_key": "gsk-of-acme-1"}}}
    post(kwai_sandbox, {}, x_data_keywordsai_params=encoded(credentials))
    [call] = kwai_sandbox.calls(wait=1)
    mark = Secret("gsk-of-acme-1").fingerprint
    assert {"source": "customer_credentials", "fingerprint": mark} == call["paid_by"]
    assert {"customer_credentials": {"groq": {"api_key": mark}}} == json.loads(
        dict(call["headers"])["x-data-keywordsai-params"]
    )


def test_openrouters_key_goes_before_another_providers(kwai_sandbox: Sandbox) -> None:
    """Of several credentials OpenRouter's pays; an empty or misshapen one is none."""
    both = {"openai": {"api_key": "sk-openai-key"}, "openrouter": {"api_key": "sk-or-v1-acme"}}
    for credentials in (
        both,
        {"openai": {"api_key": "sk-openai-key"}},
        {"openrouter": {"api_key": ""}},
        {"openrouter": 1},
    ):
        post(kwai_sandbox, {"customer_credentials": credentials})
    keys = ("sk-or-v1-acme", "sk-openai-key", "app-key-0123", "app-key-0123")
    assert [Secret(key).fingerprint for key in keys] == [
        call["paid_by"]["fingerprint"] for call in kwai_sandbox.calls()
    ]


def test_no_key_is_ever_shown(kwai_sandbox: Sandbox) -> None:
    """Whatever door a key came through, the journal shows its fingerprint only."""
    keys = [
        f"sk-or-v1-{word}-0123456789abcdef" for word in ("body", "text", "query", "header", "override", "old", "cookie")
    ]
    body, text, query, header, override, old, cookie = keys
    post(
        kwai_sandbox,
        {
            "messages": [{"role": "user", "content": f"my key is {text}, and my other is app-key-0123"}],
            "customer_credentials": {"openrouter": {"api_key": body}},
            "credential_override": {"gpt": {"api_key": override}},
            "customer_api_keys": {"gpt": old},
            f"a member named {text}": {"deep": [body, 1, None, True]},
        },
        path=f"/api/chat/completions?key={query}",
        x_openrouter_key=header,
        cookie=cookie,
        user_agent=f"agent of {body}",
        x_api_key="short",
        x_data_respan_params=base64.b64encode(f'{{"customer_credentials": "{body}"'.encode()).decode(),
    )
    [call] = kwai_sandbox.calls(wait=1)
    shown = json.dumps(call)
    assert [] == [key for key in [*keys, "app-key-0123", "short"] if key in shown]
    assert Secret(body).fingerprint == call["body"]["customer_credentials"]["openrouter"]["api_key"]
    assert Secret(old).fingerprint == call["body"]["customer_api_keys"]["gpt"]
    assert f"Bearer {Secret('app-key-0123').fingerprint}" == dict(call["headers"])["authorization"]
    assert f"[key {Secret(text).fingerprint}]" in call["body"]["messages"][0]["content"]


def test_a_path_that_is_no_endpoint_is_kept_as_it_came(kwai_sandbox: Sandbox) -> None:
    """Any other path answers 404, and the journal shows what arrived there."""
    with httpx.Client(trust_env=False) as client:
        answer = client.put(
            f"{kwai_sandbox.url}/api/v1/keys?x=%2F", content=b"\x00raw", headers={"Authorization": "none"}
        )
    [call] = kwai_sandbox.calls(wait=1, route="unknown")
    assert (404, {"detail": "Not found."}) == (answer.status_code, answer.json())
    assert ("PUT", "/api/v1/keys?x=%2F", None, hashlib.sha256(b"\x00raw").hexdigest()) == tuple(
        call[name] for name in ("method", "path", "body", "body_sha256")
    )


def test_another_method_is_refused(kwai_sandbox: Sandbox) -> None:
    """The endpoints take POST only."""
    assert httpx.get(f"{kwai_sandbox.gateway_url}chat/completions", trust_env=False).status_code == 405
