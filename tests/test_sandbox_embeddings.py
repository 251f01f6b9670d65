"""The sandbox's embeddings, read by the real SDKs: vectors, bills, errors, who pays."""

from __future__ import annotations

import math
import struct
from base64 import b64decode

import openai
import pytest

from kwai_middleware._secret import Secret
from kwai_middleware.sandbox import Sandbox
from tests.support.sandbox_requests import USER_KEY
from tests.support.sandbox_sdks import VENDORS, openai_sdk, openrouter_sdk, post

pytest_plugins = ["kwai_middleware.testing"]


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_text_has_one_vector_in_either_encoding(kwai_sandbox: Sandbox, vendor: str) -> None:
    """OpenAI's SDK asks for base64 unless told otherwise; the numbers are the same, and of length 1."""
    with openai_sdk(kwai_sandbox, vendor) as llm:
        [packed] = llm.embeddings.create(model="any", input="Hello you there").data
        [plain] = llm.embeddings.create(model="any", input="Hello you there", encoding_format="float").data
        [other] = llm.embeddings.create(model="any", input="Hello").data
    assert packed.embedding == plain.embedding
    assert (16, True) == (len(packed.embedding), math.isclose(1, math.hypot(*packed.embedding), rel_tol=1e-6))
    assert packed.embedding != other.embedding


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(
    ("asked", "count", "tokens"),
    [
        ("Hello you there", 1, 8),
        (["Hello you there", "x"], 2, 13),
        ([1, 2, 3], 1, 7),
        ([[1, 2, 3], [4]], 2, 12),
        ([{"content": [{"type": "text", "text": "Hello you there"}]}], 1, 8),
    ],
)
def test_everything_that_is_embedded_counts(
    kwai_sandbox: Sandbox, vendor: str, asked: object, count: int, tokens: int
) -> None:
    """Texts, tokens and lists of them cost what a message costs, and nothing is charged for the vectors."""
    body = {"model": "any", "input": asked, "dimensions": 3, "encoding_format": "base64", "stream": True}
    answer = post(kwai_sandbox, vendor, "embeddings", body).json()
    vectors = [struct.unpack("<3f", b64decode(each["embedding"])) for each in answer["data"]]
    assert (count, list(range(count))) == (len(set(vectors)), [each["index"] for each in answer["data"]])
    assert (tokens, tokens) == (answer["usage"]["prompt_tokens"], answer["usage"]["total_tokens"])
    cost = round(tokens * 0.5e-6, 10)
    money = {
        "cost": cost,
        "is_byok": False,
        "cost_details": {
            "upstream_inference_cost": cost,
            "upstream_inference_prompt_cost": cost,
            "upstream_inference_completions_cost": 0.0,
        },
    }
    assert (money if vendor == "openrouter" else {}) == {
        name: value for name, value in answer["usage"].items() if "token" not in name
    }
    [call] = kwai_sandbox.calls(wait=1, route=vendor)
    assert (False, "any", 200) == (call["stream"], call["model"], call["status"])


@pytest.mark.parametrize("dimensions", [0, -1, 5000, True, "3"])
def test_dimensions_out_of_reason_are_the_usual_ones(kwai_sandbox: Sandbox, dimensions: object) -> None:
    """Only a whole number from 1 on is taken, up to what a model may have."""
    body = {"model": "any", "input": "x", "dimensions": dimensions}
    assert 16 == len(post(kwai_sandbox, "gateway", "embeddings", body).json()["data"][0]["embedding"])


def test_openrouters_own_sdk_reads_vectors(kwai_sandbox: Sandbox) -> None:
    """OpenRouter's SDK checks every member, and its id is also in the header."""
    with openrouter_sdk(kwai_sandbox) as llm:
        answer = llm.embeddings.generate(model="any", input=["Hello", "you"])
    assert 2 == len(answer.data)
    raw = post(kwai_sandbox, "openrouter", "embeddings", {"model": "any", "input": "x"})
    assert raw.json()["id"] == raw.headers["x-generation-id"]


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("asked", [None, "", [], {}, 7])
def test_a_request_needs_something_to_embed(kwai_sandbox: Sandbox, vendor: str, asked: object) -> None:
    """A text, tokens or a list."""
    answer = post(kwai_sandbox, vendor, "embeddings", {"model": "any", "input": asked})
    assert (400, True) == (answer.status_code, answer.json()["error"]["message"].startswith("input: "))


@pytest.mark.parametrize("vendor", VENDORS)
def test_trouble_comes_in_this_format_too(kwai_sandbox: Sandbox, vendor: str) -> None:
    """An error takes the place of the vectors, JSON breaks off, and a huge answer is still JSON."""
    failed, broken, huge = (
        post(kwai_sandbox, vendor, "embeddings", {"model": f"sandbox/{scenario}", "input": "x"})
        for scenario in ("error-in-200", "malformed", "huge-0.1")
    )
    assert (200, "Provider returned error") == (failed.status_code, failed.json()["error"]["message"])
    with pytest.raises(ValueError):
        broken.json()
    assert (True, 1) == (len(huge.content) > 100_000, len(huge.json()["data"]))


@pytest.mark.parametrize(("ending", "status"), [("dead", 401), ("broke", 402), ("slow", 429)])
def test_a_bad_key_is_refused(kwai_sandbox: Sandbox, ending: str, status: int) -> None:
    """By OpenRouter, and by the gateway where the customer's key pays."""
    key = f"sk-or-v1-acme-{ending}"
    credentials = {"customer_credentials": {"openrouter": {"api_key": key}}}
    with openai_sdk(kwai_sandbox, "openrouter", key) as llm, pytest.raises(openai.APIStatusError) as refused:
        llm.embeddings.create(model="any", input="x")
    with openai_sdk(kwai_sandbox, "gateway") as llm, pytest.raises(openai.APIStatusError) as handed_on:
        llm.embeddings.create(model="any", input="x", extra_body=credentials)
    assert (status, status) == (refused.value.status_code, handed_on.value.status_code)


def test_the_customers_key_pays_at_the_gateway(kwai_sandbox: Sandbox) -> None:
    """All parameters stand at the top level; the journal shows who pays, for whom, and each door."""
    params = {"customer_credentials": {"openrouter": {"api_key": USER_KEY}}, "customer_identifier": "acme"}
    with openai_sdk(kwai_sandbox, "gateway") as llm:
        llm.embeddings.create(model="any", input="x", extra_body=params)
    [call] = kwai_sandbox.calls(wait=1, customer="acme")
    assert {"source": "customer_credentials", "fingerprint": Secret(USER_KEY).fingerprint} == call["paid_by"]
    places = ["customer_credentials.openrouter.api_key", "customer_identifier"]
    assert places == [each["door"] for each in call["doors"]]


def test_parameters_that_come_to_openrouter_go_on_to_the_provider(kwai_sandbox: Sandbox) -> None:
    """What OpenRouter's endpoint does not know is shown."""
    body = {"model": "any", "input": "x", "user": "acme", "input_type": "query", "customer_identifier": "acme"}
    post(kwai_sandbox, "openrouter", "embeddings", body)
    [call] = kwai_sandbox.calls(wait=1, customer="acme")
    assert ["customer_identifier"] == call["forwarded"]
