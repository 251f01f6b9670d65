"""Every way in which an answer can fail or be no answer: what the record and the vendor's log say of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from kwai_middleware import bind_caller, httpx2_transport
from kwai_middleware.sandbox.scenarios import ERROR_STATUSES
from tests.support.callers import caller
from tests.support.examples import sandbox_process
from tests.support.flavours import SYNC_FLAVOURS, Flavour
from tests.support.recording import QUESTION, Recording, ask

HALF, WHOLE = "one two", "one two three four"
FAILED = ("error", 200, "502", "Provider returned error")
NO_ANSWER = ("error", 200, "invalid_answer", "The answer is not a JSON object.")
PAGE = ("error", 502, "502", "502 Proxy")
HTML_200 = "sandbox/html-error-200"

ENDINGS: list[Any] = [
    # Model, streamed, and then: outcome, status, code, message, text, status in the log.
    ("sandbox/error-in-200", False, *FAILED, HALF, 502),
    ("sandbox/error-in-200", True, *FAILED, HALF, 502),
    ("sandbox/error-in-200-at-top", False, *FAILED, None, 502),
    ("sandbox/error-in-200-at-top", True, *FAILED, HALF, 502),
    ("sandbox/stream-error", True, *FAILED, HALF, 502),
    ("sandbox/malformed", False, *NO_ANSWER, WHOLE, 502),
    ("sandbox/malformed", True, "complete", 200, None, None, WHOLE, 200),
    ("sandbox/html-error", False, *PAGE, None, 502),
    ("sandbox/html-error", True, *PAGE, None, 502),
    (HTML_200, False, *NO_ANSWER, None, 502),
    (HTML_200, True, *NO_ANSWER, None, 502),
    ("sandbox/empty", False, *NO_ANSWER, None, 502),
    ("sandbox/empty", True, *NO_ANSWER, None, 502),
    ("sandbox/comments", False, "complete", 200, None, None, WHOLE, 200),
    ("sandbox/comments", True, "incomplete", 200, None, None, None, 200),
    ("sandbox/no-done", True, "incomplete", 200, None, None, WHOLE, 200),
]


@pytest.fixture(scope="module")
def recording() -> Iterator[Recording]:
    with sandbox_process() as vendors:
        recording = Recording(vendors)
        yield recording
        assert recording.delivery.close()


@pytest.mark.parametrize("flavour", SYNC_FLAVOURS, indirect=True)
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "streamed"])
@pytest.mark.parametrize("status", [*ERROR_STATUSES, 529, 599])
def test_every_status_is_recorded(recording: Recording, flavour: Flavour, status: int, stream: bool) -> None:
    """A refusal of OpenRouter's is an error with its status, code and sentence, for which nobody pays."""
    response = ask(recording, flavour, f"sandbox/error-{status}", stream=stream)

    call, log = recording.latest()
    assert status == response.status_code
    assert ("error", status, str(status), f"The sandbox was asked for {status}") == (
        call.outcome, call.status_code, call.error_code, call.error_message,
    )  # fmt: skip
    assert (status, "error", call.error_message, str(status)) == (
        log["status_code"], log["status"], log["error_message"], log["metadata"]["error_code"],
    )  # fmt: skip
    assert call.error_type
    assert call.error_type == log["metadata"]["error_type"]
    assert (None, None, (), stream) == (call.cost, call.usage, call.completions, call.stream)
    assert f"sandbox/error-{status}" == call.model == log["model"]
    assert json.loads(json.dumps(QUESTION)) == log["prompt_messages"]


@pytest.mark.parametrize("status", [400, 429, 502, 503])
def test_a_providers_own_words_are_recorded(recording: Recording, flavour: Flavour, status: int) -> None:
    """OpenRouter says that a provider failed; the record says which one, and what it said."""
    ask(recording, flavour, f"sandbox/provider-error-{status}", stream=False)

    call, log = recording.latest()
    assert (str(status), "Sandbox") == (call.error_code, call.provider)
    assert (call.error_message or "").startswith("Provider returned error: {")
    assert f"The provider's own words for {status}" in log["error_message"]
    assert "Sandbox" == log["metadata"]["provider"]


def test_what_was_flagged_is_recorded(recording: Recording, flavour: Flavour) -> None:
    """A refusal by moderation says what was found."""
    ask(recording, flavour, "sandbox/moderated", stream=False)

    call, log = recording.latest()
    assert ("error", 403) == (call.outcome, call.status_code)
    assert log["error_message"].endswith("your input was flagged: violence, harassment")


@pytest.mark.parametrize(
    ("model", "stream", "outcome", "status", "code", "words", "text", "logged"),
    [pytest.param(*ending, id=f"{ending[0]} {'streamed' if ending[1] else 'unary'}") for ending in ENDINGS],
)
def test_an_answer_that_is_none_or_fails(
    recording: Recording, flavour: Flavour, model: str, stream: bool, outcome: str, status: int, code: str | None,
    words: str | None, text: str | None, logged: int,
) -> None:  # fmt: skip
    """An error inside a 200, broken JSON, a page, nothing at all: the record says which, and keeps what came."""
    ask(recording, flavour, model, stream=stream)

    call, log = recording.latest()
    assert (outcome, status, code, words) == (call.outcome, call.status_code, call.error_code, call.error_message)
    assert [text] == [message["content"] or None for message in call.completions or ({"content": None},)]
    assert (logged, "success" if logged == 200 else "error") == (log["status_code"], log["status"])
    assert (outcome, words) == (log["metadata"]["outcome"], log.get("error_message"))
    assert (outcome == "incomplete") == ("warnings" in log)
    if text is not None:
        assert text in (
            log["completion_message"]["content"],
            json.loads(log.get("output", '{"content":""}'))["content"],
        )
    if stream and model in ("sandbox/error-in-200", "sandbox/stream-error"):
        # What was said until then is paid for.
        assert call.cost == log["cost"]
        assert call.cost is not None
        assert call.time_to_first_token is not None


@pytest.mark.parametrize("model", ["sandbox/error-in-200", "sandbox/stream-error", "sandbox/malformed"])
def test_an_sdk_that_gives_up_in_mid_stream_is_recorded(recording: Recording, model: str) -> None:
    """Where the SDK raises, the record has what came until then; broken JSON ends the app's call, not the model's."""
    recording.begin()
    said: list[str] = []
    with httpx2_transport.client(settings=recording.settings, deliver=recording.deliver) as http_client:
        llm = openai.OpenAI(
            base_url=recording.vendors.openrouter_url, api_key="house", http_client=http_client, max_retries=0
        )
        with (
            bind_caller(caller()),
            llm.chat.completions.create(model=model, messages=QUESTION, stream=True) as stream,
            pytest.raises((openai.APIError, json.JSONDecodeError)),
        ):
            for chunk in stream:
                said.append(chunk.choices[0].delta.content or "")

    call, log = recording.latest()
    [message] = call.completions
    assert HALF in "".join(said)
    assert message["content"].startswith("".join(said))
    assert log["completion_message"]["content"] == message["content"]
    # Broken JSON: whether the rest had come by then is up to the network.
    assert call.outcome in (("complete", "cancelled") if model == "sandbox/malformed" else ("error",))
