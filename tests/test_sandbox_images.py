"""The sandbox's images, and the formats that nobody reads, all of them OpenRouter's."""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any
from urllib.parse import urlsplit

import httpx
import openai
import pytest

from kwai_middleware._outbound.routes import RouteTable
from kwai_middleware.sandbox import Sandbox
from tests.support.sandbox_sdks import openai_sdk, openrouter_sdk, post

pytest_plugins = ["kwai_middleware.testing"]

CAT = "A cat on a mat"
PATHS = ["images", "images/generations"]


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    """What an answer streams, but for comments."""
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]


def test_openais_sdk_gets_pictures(kwai_sandbox: Sandbox) -> None:
    """As many as asked for, each another one; each costs what the prompt costs, said in that choice."""
    with openai_sdk(kwai_sandbox, "openrouter") as llm:
        answer: Any = llm.images.generate(model="any", prompt=CAT, n=2)
        [linked] = llm.images.generate(model="any", prompt=CAT, response_format="url").data or []
    pictures = [b64decode(each.b64_json) for each in answer.data]
    assert (2, True) == (len(set(pictures)), all(picture.startswith(b"\x89PNG") for picture in pictures))
    assert (None, True) == (linked.b64_json, str(linked.url).startswith("https://sandbox.example/gen-"))
    assert (8, 11, 19) == (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens)
    assert round(8 * 0.5e-6 + 11 * 1.5e-6, 10) == answer.usage.cost
    assert ["/api/v1/images/generations"] * 2 == [call["path"] for call in kwai_sandbox.calls(wait=2)]


def test_openais_sdk_reads_sketches(kwai_sandbox: Sandbox) -> None:
    """So many as asked for, then the picture with the usage."""
    with (
        openai_sdk(kwai_sandbox, "openrouter") as llm,
        llm.images.generate(model="any", prompt=CAT, stream=True, partial_images=2) as stream,
    ):
        read: list[Any] = list(stream)
    *sketches, done = read
    assert [("image_generation.partial_image", index) for index in range(2)] == [
        (event.type, event.partial_image_index) for event in sketches
    ]
    assert ("image_generation.completed", 8, "png") == (done.type, done.usage.input_tokens, done.output_format)
    assert kwai_sandbox.calls(wait=1)[0]["stream"]


def test_openrouters_own_sdk_reads_pictures(kwai_sandbox: Sandbox) -> None:
    """In its own words for the usage, whole and streamed."""
    with openrouter_sdk(kwai_sandbox) as llm:
        whole: Any = llm.images.generate(model="any", prompt=CAT, stream=False, user="acme")
        with llm.images.generate(model="any", prompt=CAT, stream=True) as stream:
            sketch, done = (getattr(event, "data", event) for event in stream)
    assert ("image/png", 8, 4, 1e-05) == (
        whole.data[0].media_type,
        whole.usage.prompt_tokens,
        whole.usage.completion_tokens,
        whole.usage.cost,
    )
    assert (whole.data[0].b64_json, whole.usage) == (done.b64_json, done.usage)
    assert 0 == sketch.partial_image_index
    assert [] == kwai_sandbox.calls(wait=1, customer="acme")[0]["forwarded"]


def test_what_several_streamed_pictures_used_is_told_once(kwai_sandbox: Sandbox) -> None:
    """Beside the last one, so that whoever sums up counts nothing twice."""
    answer = post(kwai_sandbox, "openrouter", "images", {"model": "any", "prompt": CAT, "n": 2, "stream": True})
    assert [False, False, True] == ["usage" in event for event in events(answer)]


@pytest.mark.parametrize("path", PATHS)
def test_trouble_comes_in_this_format_too(kwai_sandbox: Sandbox, path: str) -> None:
    """An error instead of the picture, in the stream, a broken event, silence, no end, and more than was asked for."""

    def answered(scenario: str, **members: object) -> httpx.Response:
        body = {"model": f"sandbox/{scenario}", "prompt": CAT, **members}
        return post(kwai_sandbox, "openrouter", path, body)

    assert 502 == answered("error-in-200").json()["error"]["code"]
    error = {"type": "server_error", "code": "502", "message": "Provider returned error", "param": None}
    assert {"type": "error", "error": error} == events(answered("stream-error", stream=True))[-1]
    with pytest.raises(ValueError):
        events(answered("malformed", stream=True))
    assert [] == events(answered("comments", stream=True))
    assert ["image_generation.partial_image"] == [event["type"] for event in events(answered("no-done", stream=True))]
    assert [] == events(answered("no-done", stream=True, partial_images=0))
    assert 100_000 < len(answered("huge-0.1", stream=True).content)
    assert 100_000 < len(answered("huge-0.1").content)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("prompt", [None, "", ["A cat"]])
def test_a_request_needs_a_prompt(kwai_sandbox: Sandbox, path: str, prompt: object) -> None:
    """There is nothing to draw without one."""
    answer = post(kwai_sandbox, "openrouter", path, {"model": "any", "prompt": prompt})
    assert (400, "prompt: a text is required") == (answer.status_code, answer.json()["error"]["message"])


@pytest.mark.parametrize(("ending", "status"), [("dead", 401), ("broke", 402), ("slow", 429)])
def test_a_bad_key_is_refused(kwai_sandbox: Sandbox, ending: str, status: int) -> None:
    """By its ending, in OpenRouter's shape."""
    with (
        openai_sdk(kwai_sandbox, "openrouter", f"sk-or-v1-acme-{ending}") as llm,
        pytest.raises(openai.APIStatusError) as refused,
    ):
        llm.images.generate(model="any", prompt=CAT)
    assert (status, str(status)) == (refused.value.status_code, refused.value.code)


def test_documents_are_ranked_by_shared_words(kwai_sandbox: Sandbox) -> None:
    """OpenRouter's SDK reads the best first, and what it cost."""
    with openrouter_sdk(kwai_sandbox) as llm:
        answer: Any = llm.rerank.rerank(model="any", query="a cat", documents=["a dog", "no", "a cat"], top_n=2)
    assert [(2, 1.0, "a cat"), (0, 0.5, "a dog")] == [
        (each.index, each.relevance_score, each.document.text) for each in answer.results
    ]
    # Four texts of 2, 2, 1 and 2 tokens, and 4 for each.
    assert (23, 1.15e-05, 1) == (answer.usage.total_tokens, answer.usage.cost, answer.usage.search_units)
    [call] = kwai_sandbox.calls(wait=1)
    assert ("/api/v1/rerank", []) == (call["path"], call["forwarded"])


@pytest.mark.parametrize("members", [{"query": "a cat"}, {"documents": ["a cat"]}, {"query": " ", "documents": ["x"]}])
def test_a_ranking_needs_both(kwai_sandbox: Sandbox, members: dict[str, object]) -> None:
    """A query and documents."""
    answer = post(kwai_sandbox, "openrouter", "rerank", {"model": "any", **members})
    assert (400, True) == (answer.status_code, answer.json()["error"]["message"].startswith("query: "))


def test_a_ranking_is_never_streamed(kwai_sandbox: Sandbox) -> None:
    """Whatever the request says; all documents come where no number is named."""
    body = {"model": "any", "query": "a cat", "documents": ["x", {"text": "a cat"}], "stream": True, "top_n": 0}
    assert [1, 0] == [each["index"] for each in post(kwai_sandbox, "openrouter", "rerank", body).json()["results"]]


def test_a_video_is_a_job(kwai_sandbox: Sandbox) -> None:
    """It is accepted, and pending for ever."""
    with openrouter_sdk(kwai_sandbox) as llm:
        job = llm.video_generation.generate(model="any", prompt=CAT)
    assert ("pending", True) == (job.status, job.polling_url.endswith(job.id))
    streamed = post(kwai_sandbox, "openrouter", "videos", {"model": "any", "prompt": CAT, "stream": True})
    assert (202, "application/json") == (streamed.status_code, streamed.headers["content-type"])
    assert 400 == post(kwai_sandbox, "openrouter", "videos", {"model": "any"}).status_code


def test_the_index_names_every_endpoint(kwai_sandbox: Sandbox) -> None:
    """Each is one that we touch, and there under that address, with a slash at its end or without."""
    listed = httpx.get(f"{kwai_sandbox.url}/sandbox/", trust_env=False, verify=False).json()["endpoints"]
    assert (8, 11) == (len(listed["gateway"]), len(listed["openrouter"]))
    table = RouteTable(kwai_sandbox.settings())
    for url in [*listed["gateway"], *listed["openrouter"]]:
        parts = urlsplit(url)
        assert table.find(b"http", b"127.0.0.1", parts.port, parts.path.encode())
        for slash in ("", "/"):
            assert 401 == httpx.post(url + slash, json={}, trust_env=False, verify=False).status_code
    without_api = [url.replace("/api/", "/", 1) for url in listed["gateway"]]
    assert {401} == {httpx.post(url, json={}, trust_env=False, verify=False).status_code for url in without_api}
