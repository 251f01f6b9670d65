"""Speech: what is asked for, the sound that answers, its events, and all that is no sound."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._outbound.formats import Received, Request, speech
from kwai_middleware._outbound.formats.sound import Sound
from kwai_middleware._outbound.observation import Ending
from kwai_middleware._outbound.records import completed
from kwai_middleware._outbound.routes import Endpoint
from kwai_middleware._record import CompletedCall
from tests.support.observations import JSON, STREAM, observed, stream_of
from tests.support.vendor_logs import logged

ENDPOINT = Endpoint("direct", "openrouter", "openrouter.ai", "/api/v1/audio/speech", "speech")
REQUEST = {"model": "openai/gpt-4o-mini-tts", "input": "Grüße an alle", "voice": "alloy", "speed": 1.5}
MP3 = ((b"Content-Type", b"audio/mpeg"),)
SOUND = bytes(range(256)) * 100
WORDS = f"[audio/mpeg, 25600 bytes, sha256:{hashlib.sha256(SOUND).hexdigest()}]"
USAGE = {"input_tokens": 4, "output_tokens": 90, "total_tokens": 94}
DONE = {"type": "speech.audio.done", "usage": USAGE}


def answered(body: bytes | list[bytes] = SOUND, **members: Any) -> CompletedCall:
    members = {"headers": MP3, "request": REQUEST, "endpoint": ENDPOINT} | members
    return completed(observed(body, **members))


def delta(sound: bytes) -> dict[str, Any]:
    return {"type": "speech.audio.delta", "audio": base64.b64encode(sound).decode()}


def streamed(*events: Any, **members: Any) -> CompletedCall:
    return answered(
        [stream_of(event) for event in events],
        **{"headers": STREAM, "request": REQUEST | {"stream_format": "sse"}, **members},
    )


def said(call: CompletedCall) -> Any:
    return None if call.output is None else json.loads(call.output)


def test_sound_is_described_and_not_kept() -> None:
    """The log has the text that was spoken, and in place of the sound its type, size and digest."""
    call = answered([SOUND[:1000], SOUND[1000:]])

    assert ("complete", "openai/gpt-4o-mini-tts", False) == (call.outcome, call.model, call.stream)
    assert "Grüße an alle" == json.loads(call.input or b"")
    assert {"voice": b'"alloy"', "speed": b"1.5"} == call.parameters
    assert WORDS == said(call)
    assert pytest.approx(0.010) == call.time_to_first_token
    entry = logged(call)
    assert ("speech", "Grüße an alle", WORDS) == (entry["log_type"], entry["input"], entry["output"])
    assert ('"alloy"', "1.5") == tuple(entry["metadata"][name] for name in ("request.voice", "request.speed"))
    assert "completion_message" not in entry


@pytest.mark.parametrize(
    ("media_type", "wanted", "kind"),
    [
        (b"audio/mpeg", "wav", "audio/mpeg"),
        (b"Audio/L16; rate=24000", None, "audio/l16"),
        (b"application/octet-stream", "opus", "audio/opus"),
        (b"application/octet-stream", None, "audio"),
        (b"audio/<script>", "<script>", "audio"),
        (b"", "pcm", "audio/pcm"),
    ],
)
def test_the_kind_of_sound(media_type: bytes, wanted: str | None, kind: str) -> None:
    """It is what the answer says, or what was asked for, in letters that can do no harm."""
    request = REQUEST | ({} if wanted is None else {"response_format": wanted})
    call = answered(b"{sound", headers=((b"Content-Type", media_type),), request=request)
    assert said(call).startswith(f"[{kind}, 6 bytes, sha256:")
    assert "complete" == call.outcome


@pytest.mark.parametrize(
    ("ending", "outcome", "words"),
    [
        (Ending.END, "complete", WORDS),
        (Ending.CLOSED, "cancelled", "[audio/mpeg, at least 25600 bytes]"),
        (Ending.CANCELLED, "cancelled", "[audio/mpeg, at least 25600 bytes]"),
        (Ending.TIMEOUT, "timeout", "[audio/mpeg, at least 25600 bytes]"),
        (Ending.ERROR, "error", "[audio/mpeg, at least 25600 bytes]"),
        (Ending.ABANDONED, "abandoned", "[audio/mpeg, at least 25600 bytes]"),
    ],
)
def test_sound_that_was_cut_has_no_digest(ending: Ending, outcome: str, words: str) -> None:
    """HTTP alone says that it is over: before that nobody knows how much there is."""
    call = answered(ending=ending)
    assert (outcome, words) == (call.outcome, said(call))


def test_sound_whose_middle_was_not_kept() -> None:
    """The call is complete, and the log does not say more than is known."""
    call = answered([SOUND, SOUND], gap_after=1)
    assert ("complete", True, "[audio/mpeg, at least 51200 bytes]") == (call.outcome, call.truncated, said(call))


def test_no_sound_at_all() -> None:
    """An empty answer has no first sound."""
    call = answered(b"")
    assert ("complete", None) == (call.outcome, call.time_to_first_token)
    assert f"[audio/mpeg, 0 bytes, sha256:{hashlib.sha256().hexdigest()}]" == said(call)


@pytest.mark.parametrize(
    ("body", "headers", "status", "code", "message"),
    [
        (b'{"error":{"code":429,"message":"slow down"}}', JSON, 200, "429", "slow down"),
        (b'{"error":{"code":429,"message":"slow down"}}', (), 200, "429", "slow down"),
        (b'{"error":{"message":"no \\ud83d voice"}}', JSON, 200, None, "no ? voice"),
        (b'{"error":{"message":"cut o', JSON, 200, None, "cut o [...] "),
        (b'{"error":{"code":"invalid_voice","message":"no"}}', JSON, 400, "invalid_voice", "no"),
        (b"busy", ((b"Content-Type", b"text/plain"),), 503, "503", "busy"),
        (b"<html>", ((b"Content-Type", b"text/html"),), 200, "invalid_answer", "The answer is not a JSON object."),
    ],
)
def test_what_is_no_sound_is_an_error(body: bytes, headers: Any, status: int, code: str, message: str) -> None:
    """Errors with a status, errors in a 200, and pages of a proxy."""
    call = answered(body, headers=headers, status=status)
    assert ("error", code, message) == (call.outcome, call.error_code, call.error_message)
    assert (None, None) == (call.output, call.time_to_first_token)
    assert "error" == logged(call)["status"]


def test_an_object_that_nobody_documents() -> None:
    """Whatever it is, it is no error, and the log says what came."""
    call = answered(b'{"audio":"AAAA"}', headers=JSON)
    assert ("complete", None) == (call.outcome, call.time_to_first_token)
    assert said(call).startswith("[application/json, 16 bytes, sha256:")


def test_an_error_that_the_app_did_not_wait_for() -> None:
    """What was cut before it said anything is cancelled, and nothing else."""
    call = answered(b'{"err', headers=JSON, ending=Ending.CLOSED)
    assert ("cancelled", None) == (call.outcome, call.error_code)


def test_streamed_sound() -> None:
    """Pieces of base64 are one sound; usage comes at the end."""
    call = streamed({"type": "speech.audio.delta", "audio": ""}, delta(SOUND[:1001]), delta(SOUND[1001:]), DONE)

    assert ("complete", True, USAGE) == (call.outcome, call.stream, call.usage)
    assert (4, 90, 94) == (call.prompt_tokens, call.completion_tokens, call.total_tokens)
    assert f"[audio, 25600 bytes, sha256:{hashlib.sha256(SOUND).hexdigest()}]" == said(call)
    assert pytest.approx(0.020) == call.time_to_first_token
    assert pytest.approx(0.040) == call.duration
    entry = logged(call)
    assert (90, 94) == (entry["completion_tokens"], entry["usage"]["total_tokens"])


def test_base64_that_was_cut_anywhere() -> None:
    """A server may cut one base64 text where it likes."""
    text = base64.b64encode(SOUND).decode()
    events = [{"type": "speech.audio.delta", "audio": text[place : place + 37]} for place in range(0, len(text), 37)]
    request = REQUEST | {"response_format": "wav", "stream_format": "sse"}
    call = streamed(*events, "[DONE]", request=request)
    assert f"[audio/wav, 25600 bytes, sha256:{hashlib.sha256(SOUND).hexdigest()}]" == said(call)
    assert "complete" == call.outcome


@pytest.mark.parametrize("text", ["é", "A", "====", "QUJD!QUJ", "QUJDRA"])
def test_what_is_no_base64_has_no_digest(text: str) -> None:
    """What could not be read is not counted, and the log says so."""
    call = streamed(delta(b"abc"), {"type": "speech.audio.delta", "audio": text}, DONE)
    assert said(call).startswith("[audio, at least ")
    assert "complete" == call.outcome


@pytest.mark.parametrize(
    ("events", "outcome", "code"),
    [
        ([delta(b"abc")], "incomplete", None),
        ([delta(b"abc"), {"type": "error", "error": {"code": "overloaded", "message": "m"}}], "error", "overloaded"),
        ([delta(b"abc"), {"type": "error", "code": "overloaded", "message": "m"}], "error", "overloaded"),
        ([delta(b"abc"), {"error": {"code": 502, "message": "m"}}, DONE], "error", "502"),
    ],
    ids=["no end", "an event", "an event without members", "OpenRouter's"],
)
def test_streams_that_fail(events: list[Any], outcome: str, code: str | None) -> None:
    """What came before is described without a digest, since it is not all."""
    call = streamed(*events)
    assert (outcome, code, "[audio, at least 3 bytes]") == (call.outcome, call.error_code, said(call))


def test_a_stream_with_a_gap() -> None:
    """Events that were not kept are missing from the sound."""
    events = [stream_of(event) for event in (delta(b"abc"), delta(b"def"), DONE)]
    call = answered(events, headers=STREAM, gap_after=1)
    assert ("complete", "[audio, at least 6 bytes]", 94) == (call.outcome, said(call), call.total_tokens)


def test_a_stream_with_halves_of_characters() -> None:
    """What cannot be encoded is replaced, and never raises."""
    call = streamed(delta(b"abc"), '{"type":"speech.audio.done","usage":{"a":"\\ud83d","total_tokens":3}}')
    assert ({"a": "\ufffd", "total_tokens": 3}, "complete") == (call.usage, call.outcome)


def test_what_is_asked_for() -> None:
    """A dialogue is written down as it is; recordings of somebody's voice are not."""
    turns = b'[{"text": "Hi", "voice": "a"}]'
    samples = b'[{"type":"input_audio","input_audio":{"data":"AAAA"}}]'
    body = b'{"model":"m","input":' + turns + b',"input_references":' + samples + b',"instructions":"softly"}'
    assert Request(model="m", input=turns, parameters={"instructions": b'"softly"'}) == speech.request(body)
    assert Request() == speech.request(b"no JSON")
    assert speech.request(b'{"stream_format":"sse"}').stream


def test_much_sound_takes_linear_time() -> None:
    """A stream of many small pieces, and one huge piece, are read at the pace of a copy."""
    sound = Sound()
    began = time.process_time()
    for _ in range(20_000):
        sound.add_base64("QUJDRA")
    sound.add_base64("QUJD" * 1_000_000)
    assert 2 > time.process_time() - began


@given(st.lists(st.binary(max_size=200), max_size=2), st.booleans(), st.sampled_from(("", "audio/wav", "text/x")))
def test_any_bytes_are_an_answer(parts: list[bytes], is_stream: bool, media_type: str) -> None:
    """Nothing that a server sends raises."""
    speech.answer(
        Received((*parts, b""), streamed=is_stream, media_type=media_type), speech.request(parts[0] if parts else b"")
    )
