"""The sandbox's transcriptions, read by the real SDKs: formats, events, bills, and who pays for a form."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import httpx
import openai
import pytest

from kwai_middleware._secret import Secret
from kwai_middleware.sandbox import Sandbox
from tests.support.sandbox_requests import APP_KEY, USER_KEY, encoded
from tests.support.sandbox_sdks import VENDORS, base_url, openai_sdk, openrouter_sdk, post

pytest_plugins = ["kwai_middleware.testing"]

HELLO = ("hello.wav", b"Hello you there")
PATH = "audio/transcriptions"


def ask(
    sandbox: Sandbox, vendor: str, fields: dict[str, Any], path: str = PATH, headers: dict[str, str] | None = None
) -> httpx.Response:
    """Post a form with a file, with no SDK between."""
    key = APP_KEY if vendor == "gateway" else USER_KEY
    sent = {"authorization": f"Bearer {key}", **(headers or {})}
    fields = {"model": "any", **fields}
    return httpx.post(
        base_url(sandbox, vendor) + path,
        data=fields,
        files={"file": HELLO},
        headers=sent,
        trust_env=False,
        verify=False,
    )


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    """What an answer streams, but for comments."""
    return [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(
    ("text_format", "told"),
    [
        ("text", "Hello you there\n"),
        ("srt", "1\n00:00:00,000 --> 00:00:01,000\nHello you there\n\n"),
        ("vtt", "WEBVTT\n\n00:00:00.000 --> 00:00:01.000\nHello you there\n\n"),
    ],
)
def test_a_transcript_may_be_a_text(kwai_sandbox: Sandbox, vendor: str, text_format: Any, told: str) -> None:
    """OpenAI's SDK hands it on as it is."""
    with openai_sdk(kwai_sandbox, vendor) as llm:
        assert told == llm.audio.transcriptions.create(model="any", file=HELLO, response_format=text_format)


@pytest.mark.parametrize("vendor", VENDORS)
def test_tokens_are_counted(kwai_sandbox: Sandbox, vendor: str) -> None:
    """A file that is a text is heard as its words, so the bill follows from them and from the prompt."""
    with openai_sdk(kwai_sandbox, vendor) as llm:
        answer = llm.audio.transcriptions.create(model="any", file=HELLO, prompt="Listen!!")
    usage: Any = answer.usage
    assert ("Hello you there", "tokens") == (answer.text, usage.type)
    assert (14, 4, 18) == (usage.input_tokens, usage.output_tokens, usage.total_tokens)
    assert (1.3e-05 if vendor == "openrouter" else None) == getattr(usage, "cost", None)
    [call] = kwai_sandbox.calls(wait=1, route=vendor)
    assert ("any", False, 200, "sent", []) == tuple(
        call[name] for name in ("model", "stream", "status", "outcome", "forwarded")
    )
    assert {"model": "any", "prompt": "Listen!!", "file": "(15 bytes)"} == {
        name: call["body"][name] for name in ("model", "prompt", "file")
    }


@pytest.mark.parametrize("vendor", VENDORS)
def test_whisper_is_billed_by_the_second(kwai_sandbox: Sandbox, vendor: str) -> None:
    """So is every verbose answer; 16,000 bytes are a second, and what is no text is heard as its size."""
    sound = ("hello.wav", b"\xff" * 20_000)
    with openai_sdk(kwai_sandbox, vendor) as llm:
        plain: Any = llm.audio.transcriptions.create(model="whisper-1", file=sound)
        verbose: Any = llm.audio.transcriptions.create(
            model="any", file=sound, response_format="verbose_json", timestamp_granularities=["word", "segment"]
        )
        brief: Any = llm.audio.transcriptions.create(model="any", file=sound, response_format="verbose_json")
    assert ("duration", 2, "(20000 bytes of sound)") == (plain.usage.type, plain.usage.seconds, plain.text)
    assert (2.0, 2.0, "duration") == (verbose.duration, verbose.segments[0].end, verbose.usage.type)
    assert [("(20000", 0.0), ("bytes", 0.5), ("of", 1.0), ("sound)", 1.5)] == [
        (word.word, word.start) for word in verbose.words
    ]
    assert (None, 2.0) == (brief.words, brief.segments[0].end)


@pytest.mark.parametrize("vendor", VENDORS)
def test_a_stream_tells_the_text_in_pieces(kwai_sandbox: Sandbox, vendor: str) -> None:
    """OpenAI's SDK reads the events; the last one has the whole text and the usage."""
    with (
        openai_sdk(kwai_sandbox, vendor) as llm,
        llm.audio.transcriptions.create(model="any", file=HELLO, stream=True) as stream,
    ):
        read: list[Any] = list(stream)
    *told, done = read
    assert ["Hello", " you", " there"] == [event.delta for event in told]
    assert ("transcript.text.done", "Hello you there", 8) == (done.type, done.text, done.usage.input_tokens)
    assert kwai_sandbox.calls(wait=1, route=vendor)[0]["stream"]


def test_openrouters_own_sdk_sends_either(kwai_sandbox: Sandbox) -> None:
    """It takes a form, or JSON with the sound in base64, and tells both usages in one."""
    with openrouter_sdk(kwai_sandbox) as llm:
        sound = b64encode(HELLO[1]).decode()
        by_json = llm.stt.create_transcription(model="any", input_audio={"data": sound, "format": "wav"}, user="acme")
        by_form = llm.stt.create_transcription_multipart(
            model="any", file={"file_name": HELLO[0], "content": HELLO[1]}, user="acme"
        )
    assert by_json == by_form
    assert by_json.usage
    assert ("Hello you there", 8, 1.0, 1e-05) == (
        by_json.text,
        by_json.usage.input_tokens,
        by_json.usage.seconds,
        by_json.usage.cost,
    )
    assert [[], []] == [call["forwarded"] for call in kwai_sandbox.calls(wait=2, customer="acme")]


@pytest.mark.parametrize("vendor", VENDORS)
def test_trouble_comes_in_this_format_too(kwai_sandbox: Sandbox, vendor: str) -> None:
    """An error instead of the text, in mid-stream, a broken event, silence, no end, and more than was said."""

    def answered(scenario: str, **fields: str) -> httpx.Response:
        return ask(kwai_sandbox, vendor, {"model": f"sandbox/{scenario}", **fields})

    failed = answered("error-in-200", response_format="text")
    assert ("application/json", "Provider returned error") == (
        failed.headers["content-type"],
        failed.json()["error"]["message"],
    )
    assert ["transcript.text.delta", "transcript.text.delta", "error"] == [
        event["type"] for event in events(answered("stream-error", stream="true"))
    ]
    with pytest.raises(ValueError):
        events(answered("malformed", stream="true"))
    with pytest.raises(ValueError):
        answered("malformed").json()
    assert [] == events(answered("comments", stream="true"))
    assert {"transcript.text.delta"} == {event["type"] for event in events(answered("no-done", stream="true"))}
    assert "Hello you there" == answered("huge-0.1").json()["text"]
    *told, done = events(answered("huge-0.1", stream="true"))
    assert (100_015, True) == (len(done["text"]), done["text"] == "".join(event["delta"] for event in told))
    assert "I cannot help with that." == answered("refusal").json()["text"]


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ({"data": {"model": "any"}, "files": {"sound": HELLO}}, "file: a file is required"),
        ({"data": {"model": "any", "file": '{"text": "Hi"}'}, "files": {"sound": HELLO}}, "file: a file is required"),
        ({"data": {}, "files": {"file": HELLO}}, "model: a non-empty string is required"),
        ({"data": {"model": "any"}}, "Invalid request format"),
        ({"content": b"--b\r\n", "headers": {"content-type": "multipart/form-data; boundary=b"}}, "Invalid request"),
    ],
)
def test_a_request_is_a_form_with_a_file(
    kwai_sandbox: Sandbox, vendor: str, body: dict[str, Any], complaint: str
) -> None:
    """Everything else is refused, and stands in the journal."""
    body["headers"] = {**body.get("headers", {}), "authorization": "Bearer any"}
    answer = httpx.post(base_url(kwai_sandbox, vendor) + PATH, trust_env=False, verify=False, **body)
    assert (400, True) == (answer.status_code, answer.json()["error"]["message"].startswith(complaint))
    assert 400 == kwai_sandbox.calls(wait=1, route=vendor)[0]["status"]


@pytest.mark.parametrize("sound", [{}, {"url": "https://sandbox.example"}, {"data": "no base64"}, {"data": "ö"}])
def test_openrouters_json_needs_sound(kwai_sandbox: Sandbox, sound: dict[str, str]) -> None:
    """Nothing is fetched from anywhere: a URL is as silent as an empty file."""
    answer = post(kwai_sandbox, "openrouter", PATH, {"model": "any", "input_audio": sound})
    heard = "url" in sound
    assert (200 if heard else 400) == answer.status_code
    assert not heard or "(0 bytes of sound)" == answer.json()["text"]


@pytest.mark.parametrize("path", ["audio/transcription", "audio/transcriptions"])
@pytest.mark.parametrize("door", ["json", "brackets", "respan_params", "header"])
def test_the_customers_key_pays_at_the_gateway(kwai_sandbox: Sandbox, path: str, door: str) -> None:
    """Parameters stand in form fields, as JSON or as OpenAI's SDKs nest them, or in the header."""
    credentials, customer = {"openrouter": {"api_key": USER_KEY}}, {"customer_identifier": "acme", "name": "Acme"}
    params = {"customer_credentials": credentials, "customer_params": customer}
    fields = {
        "json": {name: json.dumps(value) for name, value in params.items()},
        "brackets": {
            "customer_credentials[openrouter][api_key]": USER_KEY,
            "customer_params[customer_identifier]": "acme",
            "customer_params[name]": "Acme",
        },
        "respan_params": {"respan_params": json.dumps(params)},
        "header": {},
    }
    headers = {"X-Data-Respan-Params": encoded(params)} if door == "header" else {}
    assert 200 == ask(kwai_sandbox, "gateway", fields[door], path, headers).status_code
    [call] = kwai_sandbox.calls(wait=1, customer="acme")
    assert {"source": "customer_credentials", "fingerprint": Secret(USER_KEY).fingerprint} == call["paid_by"]
    assert customer == call["customer_params"]
    prefix = {"respan_params": "respan_params.", "header": "header X-Data-Respan-Params: "}.get(door, "")
    places = ["customer_credentials.openrouter.api_key", "customer_params.customer_identifier", "customer_params.name"]
    assert [prefix + place for place in places] == [each["door"] for each in call["doors"]]
    assert USER_KEY not in json.dumps(call)


def test_each_of_two_fields_of_one_name_is_a_door(kwai_sandbox: Sandbox) -> None:
    """Readers differ in which one they take, so both are shown, and that they disagree."""
    ask(kwai_sandbox, "gateway", {"customer_identifier": ["acme", "other"]})
    [call] = kwai_sandbox.calls(wait=1, customer="other")
    assert (["acme", "other"], ["identifier"]) == ([door["value"] for door in call["doors"]], call["doors_disagree"])


def test_parameters_that_come_to_openrouter_go_on_to_the_provider(kwai_sandbox: Sandbox) -> None:
    """A key in a form shows as a door, and its field as what goes on."""
    ask(kwai_sandbox, "openrouter", {"customer_credentials[openrouter][api_key]": USER_KEY})
    [call] = kwai_sandbox.calls(wait=1, route="openrouter")
    assert ["customer_credentials"] == call["forwarded"]
    assert "customer_credentials.openrouter.api_key" in [door["door"] for door in call["doors"]]


@pytest.mark.parametrize(("ending", "status"), [("dead", 401), ("broke", 402), ("slow", 429)])
def test_a_bad_key_is_refused(kwai_sandbox: Sandbox, ending: str, status: int) -> None:
    """By OpenRouter, and by the gateway where the customer's key pays."""
    key = f"sk-or-v1-acme-{ending}"
    credentials = {"customer_credentials": {"openrouter": {"api_key": key}}}
    with openai_sdk(kwai_sandbox, "openrouter", key) as llm, pytest.raises(openai.APIStatusError) as refused:
        llm.audio.transcriptions.create(model="any", file=HELLO)
    with openai_sdk(kwai_sandbox, "gateway") as llm, pytest.raises(openai.APIStatusError) as handed_on:
        llm.audio.transcriptions.create(model="any", file=HELLO, extra_body=credentials)
    assert (status, status) == (refused.value.status_code, handed_on.value.status_code)
