"""Transcriptions: forms and JSON that ask for them, and texts, subtitles and events that answer."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._delivery.media import replaced
from kwai_middleware._outbound.formats import Received, Request, transcription
from kwai_middleware._outbound.formats.multipart import form_parts
from kwai_middleware._outbound.observation import Ending
from kwai_middleware._outbound.records import completed
from kwai_middleware._outbound.routes import Endpoint
from kwai_middleware._outbound.sent_bodies import Sent
from kwai_middleware._record import CompletedCall
from tests.support.observations import CREDENTIAL, JSON, STREAM, observed, stream_of
from tests.support.vendor_logs import logged

ENDPOINT = Endpoint("direct", "openrouter", "openrouter.ai", "/api/v1/audio/transcriptions", "transcription")
PLAIN = ((b"Content-Type", b"text/plain; charset=utf-8"),)
TOKENS = {
    "type": "tokens",
    "input_tokens": 14,
    "input_token_details": {"text_tokens": 0, "audio_tokens": 14},
    "output_tokens": 45,
    "total_tokens": 59,
}
DONE = {"type": "transcript.text.done", "text": "Grüße an alle", "usage": TOKENS, "logprobs": [{"token": "G"}]}


def form_of(fields: Any = (), files: Any = None, boundary: str = "b0und") -> bytes:
    """A form as httpx writes it."""
    files = {"file": ("speech.wav", b"RIFF" * 25, "audio/wav")} if files is None else files
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
    return httpx.Request("POST", "http://x", data=dict(fields), files=files, headers=headers).read()


def sent(body: bytes, head: int = 65536, end: int = 4096) -> Sent:
    return Sent(body[:head], body[-end:], len(body), True)


def answered(body: Any, *, form: bytes | None = None, **members: Any) -> CompletedCall:
    body = json.dumps(body).encode() if isinstance(body, dict) else body
    if "request" not in members:
        form = form_of({"model": "whisper-1"}) if form is None else form
        members |= {"request_sent": sent(form), "request": b""}
    return completed(observed(body, **({"endpoint": ENDPOINT} | members)))


def streamed(*events: Any, **members: Any) -> CompletedCall:
    return answered([stream_of(event) for event in events], **({"headers": STREAM} | members))


def said(call: CompletedCall) -> Any:
    return None if call.output is None else json.loads(call.output)


def asked(body: bytes, **ends: int) -> Request:
    whole = sent(body, **ends)
    return transcription.form(whole.head, whole.end, whole.size)


# --- what answers


def test_a_form_and_its_transcript() -> None:
    """The log has the text, the file's name, type and size, and the fields; nothing of the sound."""
    fields = {"model": "gpt-4o-transcribe", "language": "de", "temperature": "0.2", "prompt": "Namen: Müller"}
    call = answered({"text": "Grüße an alle", "usage": TOKENS}, form=form_of(fields))

    assert ("complete", "gpt-4o-transcribe", False) == (call.outcome, call.model, call.stream)
    assert "[file speech.wav, audio/wav, 100 bytes]" == json.loads(call.input or b"")
    assert "Grüße an alle" == said(call)
    assert {"language": '"de"', "temperature": "0.2", "prompt": '"Namen: Müller"'} == {
        name: raw.decode() for name, raw in call.parameters.items()
    }
    assert (14, 45, 59, None) == (
        call.prompt_tokens, call.completion_tokens, call.total_tokens, call.time_to_first_token,
    )  # fmt: skip
    assert not call.truncated
    entry = logged(call)
    assert ("transcription", "Grüße an alle", 0.2) == (entry["log_type"], entry["output"], entry["temperature"])
    assert "[file speech.wav, audio/wav, 100 bytes]" == entry["input"]
    assert {"text_tokens": 0, "audio_tokens": 14} == entry["usage"]["prompt_tokens_details"]
    assert "completion_message" not in entry


def test_what_is_paid_by_the_second() -> None:
    """Seconds are no tokens: they stay in the record's usage, and stand in the log's metadata."""
    call = answered({"text": "a", "usage": {"type": "duration", "seconds": 9.5, "cost": 0.001}})
    assert (None, 0.001) == (call.total_tokens, call.cost)
    entry = logged(call)
    assert ("9.5", False) == (entry["metadata"]["audio_seconds"], "usage" in entry)


def test_segments_and_words_are_left_out() -> None:
    """A verbose answer is its text, its language and its length; the text again in pieces is none of it."""
    verbose = {
        "task": "transcribe", "language": "german", "duration": 8.47, "text": "Grüße",
        "segments": [{"id": 0, "text": "Grüße", "tokens": [1, 2]}], "words": [{"word": "Grüße"}],
    }  # fmt: skip
    call = answered(verbose)
    assert {"text": "Grüße", "language": "german", "duration": 8.47} == said(call)
    assert said(call) == json.loads(logged(call)["output"])


@pytest.mark.parametrize("media_type", [b"text/plain; charset=utf-8", b"text/vtt", b"application/x-subrip"])
@pytest.mark.parametrize("text", ["", "Grüße\n", "1\n00:00:00,000 --> 00:00:01,000\nGrüße\n", "{braced}", '{"a":1}'])
def test_plain_texts_and_subtitles(media_type: bytes, text: str) -> None:
    """They are what they are, and over when HTTP says so."""
    call = answered(text.encode(), headers=((b"Content-Type", media_type),))
    assert ("complete", text) == (call.outcome, said(call))
    call = answered(text.encode(), headers=((b"Content-Type", media_type),), ending=Ending.CLOSED)
    assert ("cancelled", text) == (call.outcome, said(call))


@pytest.mark.parametrize("wanted", ["text", "srt", "vtt"])
def test_subtitles_without_a_type(wanted: str) -> None:
    """No server has to know a type for them: then what was asked for says what it is."""
    form = form_of({"model": "whisper-1", "response_format": wanted})
    assert "Hi" == said(answered(b"Hi", form=form, headers=((b"Content-Type", b"application/octet-stream"),)))
    assert "Hi" == said(answered(b"Hi", form=form, headers=()))
    assert "error" == answered(b"<html>", form=form, headers=((b"Content-Type", b"text/html"),)).outcome


def test_a_long_text_whose_middle_was_not_kept() -> None:
    """What is left of a key at the gap is masked."""
    key = CREDENTIAL.api_key.reveal()
    call = answered([b"before " + key[:14].encode(), key[14:].encode() + b" after"], headers=PLAIN, gap_after=1)
    assert ("complete", True) == (call.outcome, call.truncated)
    assert said(call).startswith("before ")
    assert said(call).endswith(" after")
    assert " [...] " in said(call)
    assert key[:14] not in said(call)
    assert key[14:] not in said(call)


def test_a_long_json_answer_whose_middle_was_not_kept() -> None:
    """Its beginning and its usage are there."""
    body = json.dumps({"text": "Grüße an alle", "usage": {"total_tokens": 5}}).encode()
    call = answered([body[:15], body[-30:]], gap_after=1)
    assert ("complete", "Gr [...] ", 5) == (call.outcome, said(call).replace("ü", ""), call.total_tokens)


@pytest.mark.parametrize(
    ("body", "headers", "status", "code", "message"),
    [
        ({"error": {"code": 429, "message": "slow down"}}, JSON, 200, "429", "slow down"),
        ({"error": {"code": 429, "message": "slow down"}}, PLAIN, 200, "429", "slow down"),
        ({"error": {"code": "bad", "message": "no sound"}}, JSON, 400, "bad", "no sound"),
        (b"too large", PLAIN, 413, "413", "too large"),
        (b"no JSON", JSON, 200, "invalid_answer", "The answer is not a JSON object."),
        (b"", JSON, 200, "invalid_answer", "The answer is not a JSON object."),
    ],
)
def test_what_is_no_transcript_is_an_error(body: Any, headers: Any, status: int, code: str, message: str) -> None:
    """Errors with a status, errors in a 200, and answers that are neither."""
    call = answered(body, headers=headers, status=status)
    assert ("error", code, message) == (call.outcome, call.error_code, call.error_message)
    assert "error" == logged(call)["status"]


@pytest.mark.parametrize(("ending", "outcome"), [(Ending.CLOSED, "cancelled"), (Ending.END, "error")])
def test_a_json_answer_that_was_cut(ending: Ending, outcome: str) -> None:
    """The text is there as far as it came."""
    call = answered(b'{"text":"Hello wor', ending=ending)
    assert (outcome, "Hello wor [...] ") == (call.outcome, said(call))


@pytest.mark.parametrize("text", [None, 7, ["a"]])
def test_an_answer_without_a_text(text: Any) -> None:
    """What is no text is none."""
    call = answered({"text": text, "usage": {"total_tokens": 1}})
    assert ("complete", None, 1) == (call.outcome, call.output, call.total_tokens)


def test_halves_of_characters() -> None:
    """What cannot be encoded is replaced, and never raises."""
    call = answered(b'{"text":"a \\ud83d b","language":"\\ud83d"}')
    assert {"text": "a \ufffd b", "language": "\ufffd"} == said(call)
    assert "a \ufffd" == said(answered(b"a \xff", headers=PLAIN))
    logged(call)


def test_streamed_text() -> None:
    """The last event says all of it again; the first piece is the first content."""
    pieces = [{"type": "transcript.text.delta", "delta": text} for text in ("", "Grüße ", "an alle")]
    call = streamed(*pieces, DONE)
    assert ("complete", True, "Grüße an alle", TOKENS) == (call.outcome, call.stream, said(call), call.usage)
    assert pytest.approx(0.020) == call.time_to_first_token
    assert pytest.approx(0.040) == call.duration
    assert 45 == logged(call)["completion_tokens"]


@pytest.mark.parametrize(
    ("events", "outcome", "text", "first"),
    [
        ([{"type": "transcript.text.delta", "delta": "Hi"}], "incomplete", "Hi", 0.01),
        ([{"type": "transcript.text.delta", "delta": "Hi"}, "[DONE]"], "complete", "Hi", 0.01),
        ([{"type": "transcript.text.done"}], "complete", None, None),
        ([DONE], "complete", "Grüße an alle", 0.01),
        ([{"type": "transcript.text.segment", "text": "Hi", "speaker": "A"}, DONE], "complete", "Grüße an alle", 0.01),
        ([{"type": "transcript.text.delta", "delta": 7}, {"type": "else"}, "[DONE]"], "complete", None, None),
    ],
)
def test_streams(events: list[Any], outcome: str, text: str | None, first: float | None) -> None:
    """Whole and not whole, with and without pieces."""
    call = streamed(*events)
    assert (outcome, text) == (call.outcome, said(call))
    assert first == (None if call.time_to_first_token is None else pytest.approx(call.time_to_first_token))


@pytest.mark.parametrize(
    "error",
    [
        {"type": "error", "error": {"code": "overloaded", "message": "m"}},
        {"type": "error", "code": "overloaded", "message": "m"},
        {"error": {"code": "overloaded", "message": "m"}},
    ],
)
def test_an_error_in_a_stream(error: Any) -> None:
    """What came before it is there."""
    call = streamed({"type": "transcript.text.delta", "delta": "Hi"}, error, DONE)
    assert ("error", "overloaded", "m", "Hi") == (call.outcome, call.error_code, call.error_message, said(call))


def test_a_stream_with_a_gap() -> None:
    """The last event has the whole text; without it the gap shows."""
    events = [stream_of({"type": "transcript.text.delta", "delta": text}) for text in ("one", "two")]
    assert "one [...] two" == said(answered(events, headers=STREAM, gap_after=1))
    call = answered([*events, stream_of(DONE)], headers=STREAM, gap_after=1)
    assert ("Grüße an alle", True) == (said(call), call.truncated)


# --- what asks


def test_json_with_sound_in_it() -> None:
    """OpenRouter takes JSON: the record has the recording's type, size and digest in its place."""
    sound = {"data": base64.b64encode(b"RIFF" * 100).decode(), "format": "wav"}
    body = {"model": "openai/whisper-1", "input_audio": sound, "language": "de", "file": "AAAA", "stream": True}
    call = answered({"text": "a"}, request=body)
    assert ("openai/whisper-1", {"language": b'"de"'}) == (call.model, call.parameters)
    assert json.loads(replaced(call).input or b"")["data"].startswith("[audio/wav, 400 bytes, sha256:")
    assert transcription.request(json.dumps(body).encode()).stream
    assert Request() == transcription.request(b'{"input_audio":"AAAA"}')


def test_what_comes_in_pieces_and_is_no_form() -> None:
    """JSON that was seen whole is read; the beginning of one is nothing."""
    body = b'{"model":"m","language":"de"}'
    assert Request(model="m", parameters={"language": b'"de"'}) == asked(body)
    assert Request() == asked(body, head=10)
    assert Request() == asked(b"")


def test_fields_of_all_shapes() -> None:
    """Lists and objects are what they would be as JSON; what may carry a key or sound is left out."""
    fields = {
        "model": ["m", "n"], "stream": "true", "temperature": "warm", "include[]": ["logprobs"],
        "timestamp_granularities[]": ["word", "segment"], "language": ["de", "en", "fr"],
        "chunking_strategy[type]": "server_vad", "chunking_strategy[threshold]": "0.5", "chunking_strategy": "auto",
        "customer_credentials[openai][api_key]": "sk-secret", "customer_params[customer_identifier]": "x",
        "respan_params": "{}", "known_speaker_references[]": ["data:audio/wav;base64,AAAA"], "a[b]": "1", "": "empty",
    }  # fmt: skip
    read = asked(form_of(fields))
    assert ("m", True) == (read.model, read.stream)
    assert {
        "temperature": "warm",
        "include": ["logprobs"],
        "timestamp_granularities": ["word", "segment"],
        "language": ["de", "en", "fr"],
        "chunking_strategy": [{"type": "server_vad", "threshold": "0.5"}, "auto"],
        "a": {"b": "1"},
        "": "empty",
    } == {name: json.loads(raw) for name, raw in read.parameters.items()}
    assert {"a": b'"1"'} == asked(form_of({"a": "1", "a[b]": "2", "model[x]": "m"})).parameters


@pytest.mark.parametrize("temperature", ["0", "-1.5", "0.2", "10"])
def test_a_number_is_a_number(temperature: str) -> None:
    """The vendor's types take a temperature as a number alone."""
    assert {"temperature": temperature.encode()} == asked(form_of({"temperature": temperature})).parameters


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        (b'name="file"; filename="speech.wav"', "[file speech.wav, 4 bytes]"),
        (b"name=file; filename=speech.wav ; x=y", "[file speech.wav, 4 bytes]"),
        (b'name="file"; filename="a; name=\\"x\\".wav"', '[file a; name="x".wav, 4 bytes]'),
        (b'name="file"; filename="C:\\dir\\a.wav"', "[file C:\\dir\\a.wav, 4 bytes]"),
        (b'name="file"; filename="a.wav"; filename="b.wav"', "[file a.wav, 4 bytes]"),
        (b"name=\"file\"; filename*=utf-8''na%C3%AFve%FF.wav", "[file naïve\ufffd.wav, 4 bytes]"),
        (b'name="file"; filename="gr\xfc\xdfe.wav"', "[file gr\ufffd\ufffde.wav, 4 bytes]"),
        (b'name="file"; filename=""', "[file, 4 bytes]"),
        (b'name="file"', "[file, 4 bytes]"),
        (b'name="file"; filename="' + b"a" * 300 + b'"', "[file, 4 bytes]"),
        (b'name="file"; filename="a.wav"\r\ncontent-type: Audio/WAV; rate=1', "[file a.wav, audio/wav, 4 bytes]"),
        (b'name="file"; filename="a.wav"\r\ncontent-type: <b>', "[file a.wav, 4 bytes]"),
        (b'name="file"; filename="a.wav"\r\ncontent-type', "[file a.wav, 4 bytes]"),
        (b'name="file"; filename="unclosed', "[file, 4 bytes]"),
    ],
)
def test_names_of_files(headers: bytes, words: str) -> None:
    """Quoted, nested, encoded, unfinished: what can be read of a name stands in the record."""
    body = b"--x\r\nContent-Disposition: form-data; " + headers + b"\r\n\r\nRIFF\r\n--x--\r\n"
    assert words == json.loads(asked(body).input or b"")


def test_more_than_one_file() -> None:
    """Each of them is named."""
    files = [("file", ("a.wav", b"1")), ("other", ("b.wav", b"22", "audio/wav"))]
    words = "[file a.wav, audio/x-wav, 1 bytes] [file b.wav, audio/wav, 2 bytes]"
    assert words == json.loads(asked(form_of(files=files)).input or b"").replace("audio/vnd.wave", "audio/x-wav")


def large(behind: bytes = b"") -> bytes:
    """A form with a file that is in no record as a whole, and perhaps a field behind it."""
    whole = form_of({"model": "m"}, {"file": ("speech.wav", b"RIFF\r\n--b0" * 10_000, "audio/wav")})
    return whole.removesuffix(b"--\r\n") + behind if behind else whole


FIELD = b'\r\nContent-Disposition: form-data; name="language"\r\n\r\nde'


@pytest.mark.parametrize("head", [300, 1000, 65536])
@pytest.mark.parametrize("end", [100, 4096, 65536])
def test_a_file_whose_middle_was_not_kept(head: int, end: int) -> None:
    """Its size is known all the same, and so are fields behind it."""
    words = "[file speech.wav, audio/wav, 100000 bytes]"
    read = asked(large(), head=head, end=end)
    assert ("m", words) == (read.model, json.loads(read.input or b""))
    read = asked(large(FIELD + b"\r\n--b0und--\r\n"), head=head, end=end)
    assert (words, {"language": b'"de"'}) == (json.loads(read.input or b""), read.parameters)


def test_a_file_that_did_not_go_out_as_a_whole() -> None:
    """A server that answers early leaves it at that: the record does not say more than was seen."""
    words = json.loads(asked(large()[:90_000]).input or b"")
    assert words.startswith("[file speech.wav, audio/wav, at least 89")
    assert words.endswith(" bytes]")
    read = asked(large(FIELD)[:-1], head=300)
    assert ("[file speech.wav, audio/wav, 100000 bytes]", {}) == (json.loads(read.input or b""), read.parameters)


HOSTILE = {
    "no boundary": b"-",
    "an endless boundary": b"--" + b"x" * 100_000,
    "an empty boundary": b"--\r\n" * 20_000,
    "nothing but boundaries": b"--x\r\n" + b"\r\n--x" * 20_000,
    "a megabyte of headers": b"--x\r\n" + b"a: b\r\n" * 170_000 + b"\r\n\r\n1\r\n--x--",
    "one long header": b'--x\r\ncontent-disposition: form-data; name="' + b'\\"' * 3_000 + b"\r\n\r\n1\r\n--x--",
    "many parameters": b"--x\r\ncontent-disposition: " + b";a=" * 2_000 + b"\r\n\r\n1\r\n--x--",
    "blanks": b"--x\r\ncontent-disposition: ;" + b" " * 8_000 + b"\r\n\r\n1\r\n--x--",
    "many parts": b"--x" + b'\r\ncontent-disposition: a; name="n"\r\n\r\n1\r\n--x' * 1_000,
    "a huge field": b'--x\r\ncontent-disposition: a; name="prompt"\r\n\r\n' + b"a" * 1_000_000 + b"\r\n--x--",
    "no end of headers": b"--x\r\ncontent-disposition: a",
    "a preamble": b"preamble\r\n--x\r\n",
    "other ends of lines": b'--x\ncontent-disposition: a; name="model"\n\nm\n--x--\n',
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE)
def test_hostile_forms(body: bytes) -> None:
    """Whatever a form is, reading it takes linear time, never raises, and keeps little."""
    began = time.process_time()
    for head in (len(body), 65536, 10):
        read = asked(body, head=head)
        assert (None, None) == (read.model, read.input)
        assert 20_000 > sum(map(len, read.parameters.values()))
    assert 1 > time.process_time() - began


def test_a_boundary_inside_the_file() -> None:
    """A form that contradicts itself is read as a server would read it."""
    body = form_of({"model": "m"}, {"file": ("a.wav", b"abc\r\n--b0und\r\nx", "audio/wav")})
    assert "[file a.wav, audio/wav, 3 bytes]" == json.loads(asked(body).input or b"")


@given(st.binary(max_size=300), st.integers(0, 300), st.integers(1, 300), st.integers(0, 400))
def test_any_bytes_are_a_request(noise: bytes, head: int, end: int, at: int) -> None:
    """Nothing that an app sends raises."""
    body = form_of({"model": "m", "a[b]": "c"})
    body = body[:at] + noise + body[at:]
    for each in (noise, b"--" + noise, body):
        asked(each, head=head, end=end)
        form_parts(each, noise, at)


@given(st.lists(st.binary(max_size=200), max_size=2), st.booleans(), st.sampled_from(("", "text/plain", "a/json")))
def test_any_bytes_are_an_answer(parts: list[bytes], is_stream: bool, media_type: str) -> None:
    """Nothing that a server sends raises."""
    transcription.answer(Received((*parts, b"")[:2], streamed=is_stream, media_type=media_type), Request())
