"""The sandbox's legacy completions, which OpenRouter alone has, read by OpenAI's SDK."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openai
import pytest

from kwai_middleware.sandbox import Sandbox
from tests.support.sandbox_sdks import openai_sdk, post

pytest_plugins = ["kwai_middleware.testing"]


def chunks(answer: httpx.Response) -> list[dict[str, Any]]:
    """What an answer streams, but for comments and `[DONE]`."""
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def test_each_prompt_has_as_many_choices_as_asked_for(kwai_sandbox: Sandbox) -> None:
    """Prompts and choices are numbered through, and all that is said costs."""
    with openai_sdk(kwai_sandbox, "openrouter") as llm:
        answer: Any = llm.completions.create(model="any", prompt=["Hello you", "Bye"], n=2)
    told = ["Hello you", "Hello you (choice 1)", "Bye", "Bye (choice 1)"]
    assert [(index, text, "stop") for index, text in enumerate(told)] == [
        (choice.index, choice.text, choice.finish_reason) for choice in answer.choices
    ]
    # Prompts of 3 and 1 tokens and 4 for each; answers of 3, 5, 1 and 4.
    assert (12, 13, 25) == (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens)
    assert (round(12 * 0.5e-6 + 13 * 1.5e-6, 10), False) == (answer.usage.cost, answer.usage.is_byok)


def test_a_stream_tells_all_choices_in_turn(kwai_sandbox: Sandbox) -> None:
    """The SDK reads the pieces; the reasons come after them, and the usage in a chunk of its own."""
    with (
        openai_sdk(kwai_sandbox, "openrouter") as llm,
        llm.completions.create(model="any", prompt=["Hello you", "Bye"], stream=True) as stream,
    ):
        read: list[Any] = list(stream)
    pieces = [(chunk.choices[0].index, chunk.choices[0].text) for chunk in read if chunk.choices[0].text]
    assert [(0, "Hello"), (1, "Bye"), (0, " you")] == pieces
    assert ["stop", "stop", None] == [chunk.choices[0].finish_reason for chunk in read][-3:]
    assert 12 == read[-1].usage.prompt_tokens
    [call] = kwai_sandbox.calls(wait=1)
    assert ("/api/v1/completions", True, [], "sent") == tuple(
        call[name] for name in ("path", "stream", "forwarded", "outcome")
    )


@pytest.mark.parametrize("prompt", [[1, 2, 3], [[1, 2, 3]]])
def test_tokens_are_a_text_of_so_many(kwai_sandbox: Sandbox, prompt: object) -> None:
    """They are counted, though nobody here can read them."""
    answer = post(kwai_sandbox, "openrouter", "completions", {"model": "any", "prompt": prompt}).json()
    assert (7, 3) == (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"])


@pytest.mark.parametrize(
    ("scenario", "text", "reason"),
    [
        ("length", "Hello", "length"),
        ("content-filter", "Hello", "content_filter"),
        ("refusal", "I cannot help with that.", "stop"),
        ("audio", "Hello you", "stop"),
        ("reasoning", "Hello you", "stop"),
    ],
)
def test_scenarios_say_it_in_words(kwai_sandbox: Sandbox, scenario: str, text: str, reason: str) -> None:
    """What this format has no place for is told as the text, whole and streamed alike."""
    body = {"model": f"sandbox/{scenario}", "prompt": "Hello you"}
    [choice] = post(kwai_sandbox, "openrouter", "completions", body).json()["choices"]
    streamed = chunks(post(kwai_sandbox, "openrouter", "completions", {**body, "stream": True}))
    assert (text, reason, scenario == "reasoning") == (
        choice["text"],
        choice["finish_reason"],
        bool(choice["reasoning"]),
    )
    assert text == "".join(chunk["choices"][0]["text"] for chunk in streamed)
    assert reason == streamed[-2]["choices"][0]["finish_reason"]


@pytest.mark.parametrize(("scenario", "is_done"), [("stream-error", True), ("error-in-200", False)])
def test_an_error_comes_in_mid_stream(kwai_sandbox: Sandbox, scenario: str, is_done: bool) -> None:
    """After half of the text, with the usage; unary it takes the place of the choices."""
    body = {"model": f"sandbox/{scenario}", "prompt": "Hello you there"}
    answer = post(kwai_sandbox, "openrouter", "completions", {**body, "stream": True})
    *told, last = chunks(answer)
    assert "Hello you" == "".join(chunk["choices"][0]["text"] for chunk in told)
    assert (502, 8, is_done) == (last["error"]["code"], last["usage"]["prompt_tokens"], "[DONE]" in answer.text)
    assert 502 == post(kwai_sandbox, "openrouter", "completions", body).json()["error"]["code"]


def test_a_stream_may_be_long_broken_or_without_an_end(kwai_sandbox: Sandbox) -> None:
    """Filled up, with JSON that breaks off, without its last chunks, or of nothing but comments."""

    def streamed(scenario: str) -> httpx.Response:
        body = {"model": f"sandbox/{scenario}", "prompt": "Hello you there", "stream": True}
        return post(kwai_sandbox, "openrouter", "completions", body)

    assert 100_015 == sum(len(chunk["choices"][0]["text"]) for chunk in chunks(streamed("huge-0.1")))
    with pytest.raises(ValueError):
        chunks(streamed("malformed"))
    assert (3, False) == (len(chunks(streamed("no-done"))), "[DONE]" in streamed("no-done").text)
    assert ([], True) == (chunks(streamed("comments")), ": OPENROUTER" in streamed("comments").text)


@pytest.mark.parametrize("prompt", [None, "", [], 7])
def test_a_request_needs_a_prompt(kwai_sandbox: Sandbox, prompt: object) -> None:
    """A text, tokens or a list; a chat request is none."""
    body = {"model": "any", "prompt": prompt, "messages": [{"role": "user", "content": "Hi"}]}
    answer = post(kwai_sandbox, "openrouter", "completions", body)
    assert (400, True) == (answer.status_code, answer.json()["error"]["message"].startswith("prompt: "))


@pytest.mark.parametrize(("ending", "status"), [("dead", 401), ("broke", 402), ("slow", 429)])
def test_a_bad_key_is_refused(kwai_sandbox: Sandbox, ending: str, status: int) -> None:
    """By its ending, in OpenRouter's shape."""
    with (
        openai_sdk(kwai_sandbox, "openrouter", f"sk-or-v1-acme-{ending}") as llm,
        pytest.raises(openai.APIStatusError) as refused,
    ):
        llm.completions.create(model="any", prompt="Hi")
    assert (status, str(status)) == (refused.value.status_code, refused.value.code)


def test_the_gateway_has_no_such_endpoint(kwai_sandbox: Sandbox) -> None:
    """It answers 404, and the journal shows the request."""
    assert 404 == post(kwai_sandbox, "gateway", "completions", {"model": "any", "prompt": "Hi"}).status_code
    assert "unknown" == kwai_sandbox.calls(wait=1)[0]["route"]
