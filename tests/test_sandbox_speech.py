"""The sandbox's speech, read by the real SDKs: sound, events that carry it, errors, who pays."""

from __future__ import annotations

import io
import json
import wave
from base64 import b64decode
from typing import Any

import httpx
import openai
import pytest

from kwai_middleware._secret import Secret
from kwai_middleware.sandbox import Sandbox
from tests.support.sandbox_requests import USER_KEY, encoded
from tests.support.sandbox_sdks import VENDORS, openai_sdk, openrouter_sdk, post

pytest_plugins = ["kwai_middleware.testing"]

HELLO = "Hello you there"
SOUND = 4 * 480
"""Bytes for the four tokens of it."""


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    """What an answer streams, but for comments."""
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(
    ("sound", "content_type", "head"),
    [
        ("mp3", "audio/mpeg", b"ID3"),
        ("opus", "audio/opus", b"OggS"),
        ("aac", "audio/aac", b"\xff\xf1"),
        ("flac", "audio/flac", b"fLaC"),
        ("pcm", "audio/pcm", b"\0"),
    ],
)
def test_sound_comes_in_the_format_that_was_asked_for(
    kwai_sandbox: Sandbox, vendor: str, sound: Any, content_type: str, head: bytes
) -> None:
    """OpenAI's SDK gets its bytes and their type."""
    with openai_sdk(kwai_sandbox, vendor) as llm:
        answer = llm.audio.speech.create(model="any", voice="alloy", input=HELLO, response_format=sound)
    assert (content_type, True) == (answer.response.headers["content-type"], answer.content.startswith(head))
    assert SOUND <= len(answer.content) < SOUND + 16
    [call] = kwai_sandbox.calls(wait=1, route=vendor)
    assert (False, "any", 200, "sent") == tuple(call[name] for name in ("stream", "model", "status", "outcome"))


def test_a_wave_says_how_long_it_is(kwai_sandbox: Sandbox) -> None:
    """It can be played: a hundredth of a second for each token."""
    with (
        openai_sdk(kwai_sandbox, "gateway") as llm,
        llm.audio.speech.with_streaming_response.create(
            model="any", voice="alloy", input=HELLO, response_format="wav"
        ) as answer,
    ):
        sound = b"".join(answer.iter_bytes())
    with wave.open(io.BytesIO(sound)) as played:
        assert (SOUND // 2, 24_000, 1) == (played.getnframes(), played.getframerate(), played.getnchannels())


@pytest.mark.parametrize(("vendor", "usual"), [("gateway", "audio/mpeg"), ("openrouter", "audio/pcm")])
@pytest.mark.parametrize("asked", [None, "odd", 7])
def test_each_vendor_has_its_usual_format(kwai_sandbox: Sandbox, vendor: str, usual: str, asked: object) -> None:
    """Where none is named, or none that is known."""
    answer = post(kwai_sandbox, vendor, "audio/speech", {"model": "any", "input": "Hi", "response_format": asked})
    assert usual == answer.headers["content-type"]


def test_openrouters_own_sdk_hears_several_turns(kwai_sandbox: Sandbox) -> None:
    """They are said in one go."""
    with openrouter_sdk(kwai_sandbox) as llm:
        answer = llm.tts.create_speech(model="any", input=[{"text": "Hello you"}, {"text": "there"}])
        assert SOUND == len(answer.read())


@pytest.mark.parametrize("vendor", VENDORS)
def test_events_carry_the_sound_and_the_usage(kwai_sandbox: Sandbox, vendor: str) -> None:
    """A piece for each word behind the beginning of the file; what it used comes last."""
    with (
        openai_sdk(kwai_sandbox, vendor) as llm,
        llm.audio.speech.with_streaming_response.create(
            model="any", voice="alloy", input=HELLO, response_format="wav", stream_format="sse"
        ) as answer,
    ):
        lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
    *told, done = (json.loads(line.removeprefix("data: ")) for line in lines)
    assert ["speech.audio.delta"] * 4 == [event["type"] for event in told]
    assert 44 + 5 * 480 == len(b"".join(b64decode(event["audio"]) for event in told))
    usage = {"input_tokens": 8, "output_tokens": 4, "total_tokens": 12}
    assert ("speech.audio.done", usage.items() <= done["usage"].items()) == (done["type"], True)
    assert (1e-05 if vendor == "openrouter" else None) == done["usage"].get("cost")
    [call] = kwai_sandbox.calls(wait=1, route=vendor)
    assert (True, []) == (call["stream"], call["forwarded"])


@pytest.mark.parametrize("vendor", VENDORS)
def test_trouble_comes_in_this_format_too(kwai_sandbox: Sandbox, vendor: str) -> None:
    """An error instead of the sound, in mid-stream, a broken event, silence, no end, and more than was asked for."""

    def answered(scenario: str, **members: object) -> httpx.Response:
        body = {"model": f"sandbox/{scenario}", "input": HELLO, **members}
        return post(kwai_sandbox, vendor, "audio/speech", body)

    failed = answered("error-in-200", response_format="mp3")
    assert ("application/json", "Provider returned error") == (
        failed.headers["content-type"],
        failed.json()["error"]["message"],
    )
    assert ["speech.audio.delta", "error"] == [
        event["type"] for event in events(answered("stream-error", stream_format="sse"))
    ][-2:]
    with pytest.raises(ValueError):
        events(answered("malformed", stream_format="sse"))
    assert [] == events(answered("comments", stream_format="sse"))
    assert {"speech.audio.delta"} == {event["type"] for event in events(answered("no-done", stream_format="sse"))}
    assert 100_000 < len(answered("huge-0.1").content)
    assert 130_000 < len(answered("huge-0.1", stream_format="sse").content)
    assert len(answered("refusal").content) > len(answered("echo").content)


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("asked", [None, "", 7])
def test_a_request_needs_a_text(kwai_sandbox: Sandbox, vendor: str, asked: object) -> None:
    """There is nothing to say without one."""
    answer = post(kwai_sandbox, vendor, "audio/speech", {"model": "any", "input": asked})
    assert (400, "input: a text is required") == (answer.status_code, answer.json()["error"]["message"])


@pytest.mark.parametrize(("ending", "status"), [("dead", 401), ("broke", 402), ("slow", 429)])
def test_a_bad_key_is_refused(kwai_sandbox: Sandbox, ending: str, status: int) -> None:
    """In JSON, by its ending."""
    with (
        openai_sdk(kwai_sandbox, "openrouter", f"sk-or-v1-acme-{ending}") as llm,
        pytest.raises(openai.APIStatusError) as refused,
    ):
        llm.audio.speech.create(model="any", voice="alloy", input=HELLO)
    assert (status, str(status)) == (refused.value.status_code, refused.value.code)


@pytest.mark.parametrize("door", ["body", "header"])
def test_the_customers_key_pays_at_the_gateway(kwai_sandbox: Sandbox, door: str) -> None:
    """Parameters stand among the members or in the header; the journal shows each door."""
    params = {"customer_credentials": {"openrouter": {"api_key": USER_KEY}}, "customer_identifier": "acme"}
    body = {"model": "any", "input": HELLO, **(params if door == "body" else {})}
    headers = {"X-Data-Respan-Params": encoded(params)} if door == "header" else {}
    post(kwai_sandbox, "gateway", "audio/speech", body, headers)
    [call] = kwai_sandbox.calls(wait=1, customer="acme")
    assert {"source": "customer_credentials", "fingerprint": Secret(USER_KEY).fingerprint} == call["paid_by"]
    assert 2 == len(call["doors"])
