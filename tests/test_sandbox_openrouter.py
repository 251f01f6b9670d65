"""The sandbox's OpenRouter: shapes after recorded traffic, read by the real SDKs."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import httpx
import openai
import openrouter
import pytest
from openrouter.errors import UnauthorizedResponseError

from kwai_middleware._secret import Secret
from kwai_middleware.sandbox import Sandbox

pytest_plugins = ["kwai_middleware.testing"]

HELLO: list[Any] = [{"role": "user", "content": "Hello you there"}]

STREAM = """\
: OPENROUTER PROCESSING

: OPENROUTER PROCESSING

data: {"id":"ID","provider":"Sandbox","model":"a/model","object":"chat.completion.chunk","created":NOW,"choices":\
[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null,\
"native_finish_reason":null,"logprobs":null}]}

data: {"id":"ID","provider":"Sandbox","model":"a/model","object":"chat.completion.chunk","created":NOW,"choices":\
[{"index":0,"delta":{"role":"assistant","content":"Hello"},"finish_reason":null,\
"native_finish_reason":null,"logprobs":null}]}

data: {"id":"ID","provider":"Sandbox","model":"a/model","object":"chat.completion.chunk","created":NOW,"choices":\
[{"index":0,"delta":{"role":"assistant","content":" you"},"finish_reason":null,\
"native_finish_reason":null,"logprobs":null}]}

data: {"id":"ID","provider":"Sandbox","model":"a/model","object":"chat.completion.chunk","created":NOW,"choices":\
[{"index":0,"delta":{"role":"assistant","content":" there"},"finish_reason":null,\
"native_finish_reason":null,"logprobs":null}]}

data: {"id":"ID","provider":"Sandbox","model":"a/model","object":"chat.completion.chunk","created":NOW,"choices":\
[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":"stop","native_finish_reason":"stop","logprobs":null}]}

data: {"id":"ID","provider":"Sandbox","model":"a/model","object":"chat.completion.chunk","created":NOW,"choices":\
[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null,"native_finish_reason":null,"logprobs":null}],\
"usage":{"prompt_tokens":8,"completion_tokens":4,"total_tokens":12,"cost":0.00001,"is_byok":false,\
"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"cost_details":{"upstream_inference_cost":0.00001,\
"upstream_inference_prompt_cost":0.000004,"upstream_inference_completions_cost":0.000006},\
"completion_tokens_details":{"reasoning_tokens":0,"image_tokens":0}}}

data: [DONE]

"""


def post(sandbox: Sandbox, body: dict[str, object], key: str | None = "sk-or-v1-acme") -> httpx.Response:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    with httpx.Client(trust_env=False) as client:
        return client.post(
            f"{sandbox.openrouter_url}/chat/completions",
            json={"messages": HELLO, "model": "a/model"} | body,
            headers=headers,
        )


def test_the_stream_is_byte_for_byte_the_recorded_shape(kwai_sandbox: Sandbox) -> None:
    """Comments, pieces, finish reason, then usage beside a choice whose finish reason is null again, then [DONE]."""
    answer = post(kwai_sandbox, {"stream": True})
    [identifier] = set(re.findall(r'"id":"(gen-\d{10}-[0-9a-f]{20})"', answer.text))
    text = re.sub(r'"created":\d{10}', '"created":NOW', answer.text.replace(identifier, "ID"))
    numbers = re.compile(r"\d+e-\d+|0\.0+\d+")
    assert numbers.sub(lambda found: format(float(found[0]), "f"), STREAM) == numbers.sub(
        lambda found: format(float(found[0]), "f"), text
    )
    assert identifier == answer.headers["x-generation-id"]
    assert answer.headers["content-type"] == "text/event-stream"


def test_the_openai_sdk_reads_both_ways(kwai_sandbox: Sandbox) -> None:
    """Unary and streamed answers parse in the OpenAI SDK, and whoever is authorised pays."""
    with openai.OpenAI(base_url=kwai_sandbox.openrouter_url, api_key="sk-or-v1-acme", max_retries=0) as client:
        completion = client.chat.completions.create(model="a/model", messages=HELLO, user="user-7")
        with client.chat.completions.create(model="a/model", messages=HELLO, stream=True) as stream:
            chunks = list(stream)
    first, second = kwai_sandbox.calls(wait=2, route="openrouter")
    assert completion.choices[0].message.content == "Hello you there"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello you there"
    assert {"source": "authorization", "fingerprint": Secret("sk-or-v1-acme").fingerprint} == first["paid_by"]
    assert (None, "user-7", False, True) == (first["logged_by"], first["customer"], first["stream"], second["stream"])


def test_the_openrouter_sdk_reads_both_ways(kwai_sandbox: Sandbox) -> None:
    """Unary and streamed answers validate against the OpenRouter SDK's own types, sync and async."""
    with openrouter.OpenRouter(api_key="sk-or-v1-acme", server_url=kwai_sandbox.openrouter_url) as client:
        completion = client.chat.send(model="sandbox/byok", messages=HELLO)
        with client.chat.send(model="sandbox/reasoning", messages=HELLO, stream=True) as stream:
            chunks = list(stream)

    async def asynchronously() -> str:
        async with openrouter.OpenRouter(api_key="sk-or-v1-acme", server_url=kwai_sandbox.openrouter_url) as client:
            stream = await client.chat.send_async(model="a/model", messages=HELLO, stream=True)
            async with stream:
                return "".join([event.choices[0].delta.content or "" async for event in stream])

    assert completion.usage is not None
    assert (True, 5e-07, 1e-05) == (
        completion.usage.is_byok,
        completion.usage.cost,
        completion.usage.cost_details.upstream_inference_cost,
    )
    assert "I repeat them." in "".join(str(chunk.choices[0].delta.reasoning or "") for chunk in chunks)
    assert chunks[-1].usage.completion_tokens_details.reasoning_tokens == 11
    assert asyncio.run(asynchronously()) == "Hello you there"


def test_numbers_follow_from_the_texts(kwai_sandbox: Sandbox) -> None:
    """The same texts cost the same; longer ones cost more; half of a long prompt was cached."""
    short, again, long = (
        post(kwai_sandbox, {"messages": [{"role": "user", "content": text}]}).json()["usage"]
        for text in ("Hello", "Hello", "Hello " * 100)
    )
    assert short == again
    assert short["cost"] < long["cost"]
    assert (154, 77, 150) == (
        long["prompt_tokens"],
        long["prompt_tokens_details"]["cached_tokens"],
        long["completion_tokens"],
    )
    assert round(154 * 0.5e-6 + 150 * 1.5e-6, 10) == long["cost"]


@pytest.mark.parametrize(
    ("key", "status", "error_type", "names_account"),
    [
        (None, 401, "authentication", False),
        ("sk-or-v1-dead", 401, "authentication", False),
        ("sk-or-v1-broke", 402, "payment_required", True),
        ("sk-or-v1-spent", 403, "permission_denied", True),
        ("sk-or-v1-slow", 429, "rate_limit_exceeded", True),
    ],
)
def test_errors_have_openrouters_shape(
    kwai_sandbox: Sandbox, key: str | None, status: int, error_type: str, names_account: bool
) -> None:
    """A refused key answers `error` with code and type, and beside it the account when it is known."""
    answer = post(kwai_sandbox, {}, key)
    error = answer.json()["error"]
    assert (status, status, error_type) == (answer.status_code, error["code"], error["metadata"]["error_type"])
    assert names_account == ("user_id" in answer.json())
    limits = {"retry-after", "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"}
    assert (limits if status == 429 else set()) == limits & answer.headers.keys()
    assert (json.loads(answer.request.content)["model"], status) == tuple(
        kwai_sandbox.calls(wait=1)[0][name] for name in ("model", "status")
    )


def test_the_openrouter_sdk_raises_the_typed_error(kwai_sandbox: Sandbox) -> None:
    """The SDK recognises the error body of a dead key."""
    with (
        openrouter.OpenRouter(api_key="sk-or-v1-dead", server_url=kwai_sandbox.openrouter_url) as client,
        pytest.raises(UnauthorizedResponseError, match="User not found"),
    ):
        client.chat.send(model="a/model", messages=HELLO)


def test_content_parts_are_read(kwai_sandbox: Sandbox) -> None:
    """A message of parts is echoed by its text, other parts by their type."""
    parts = [{"type": "text", "text": "Look:"}, {"type": "image_url", "image_url": {"url": "data:,"}}, "no object"]
    answers = [
        post(kwai_sandbox, {"messages": [message]}).json()["choices"][0]["message"]["content"]
        for message in ({"role": "user", "content": parts}, {"role": "user", "content": None}, "no object")
    ]
    assert ["Look: [image_url]", "(nothing was said)", "(nothing was said)"] == answers


def test_a_long_text_is_streamed_in_few_pieces(kwai_sandbox: Sandbox) -> None:
    """However long the text, it comes back whole in at most 64 pieces."""
    text = "  word\n" * 5000
    answer = post(kwai_sandbox, {"messages": [{"role": "user", "content": text}], "stream": True})
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    pieces = [event["choices"][0]["delta"]["content"] for event in events]
    assert text == "".join(pieces)
    assert len(pieces) <= 64 + 3
