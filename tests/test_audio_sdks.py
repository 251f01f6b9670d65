"""Speech and transcription through the SDKs: they get their sound and their text, and each call is seen whole."""

from __future__ import annotations

import hashlib
import io
import json
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from kwai_middleware import CompletedCall, bind_caller
from kwai_middleware.sandbox import Sandbox
from tests.support.callers import caller
from tests.support.examples import HOUSE_KEY, sandbox_process
from tests.support.flavours import Flavour
from tests.support.vendor_logs import logged

TEXT = "one two three"
SOUND = TEXT.encode() + b" " * 100_000
"""What the sandbox hears is what can be read in a file; this one is larger than what we keep of it."""


@pytest.fixture(scope="module")
def vendors() -> Iterator[Sandbox]:
    with sandbox_process() as sandbox:
        yield sandbox


class Ears:
    """openai's SDK with a client of ours, and what is recorded of its calls.

    Attributes:
        audio: The SDK's own.
        paid_by_caller: Whether the route shows who paid.
    """

    def __init__(self, flavour: Flavour, vendors: Sandbox, base_url: str) -> None:
        self.flavour = flavour
        self._calls: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._http_client = flavour.client(settings=vendors.settings(), deliver=self._calls.put)
        make: Any = openai.AsyncOpenAI if flavour.asynchronous else openai.OpenAI
        self.audio = make(base_url=base_url, api_key=HOUSE_KEY, http_client=self._http_client, max_retries=0).audio

    def record(self) -> CompletedCall:
        """The next record; waits for it."""
        call = self._calls.get(timeout=30)
        call.release()
        record: CompletedCall = call.build()
        logged(record)
        return record

    def run(self, value: Any) -> Any:
        with bind_caller(caller()):
            return self.flavour.run(value() if callable(value) else value)

    def close(self) -> None:
        self.flavour.close(self._http_client)


@pytest.fixture(params=["gateway", "openrouter"])
def ears(request: pytest.FixtureRequest, flavour: Flavour, vendors: Sandbox) -> Iterator[Ears]:
    vendors.reset()
    ears = Ears(flavour, vendors, vendors.gateway_url if request.param == "gateway" else vendors.openrouter_url)
    yield ears
    ears.close()


def test_text_becomes_sound(ears: Ears, vendors: Sandbox) -> None:
    """The SDK gets its sound, the caller pays, and the record describes the sound."""
    made = ears.run(lambda: ears.audio.speech.create(model="gpt-4o-mini-tts", voice="alloy", input=TEXT))
    record = ears.record()
    assert ("complete", "gpt-4o-mini-tts", False) == (record.outcome, record.model, record.stream)
    digest = hashlib.sha256(made.content).hexdigest()
    kind = made.response.headers["content-type"]
    assert f"[{kind}, {len(made.content)} bytes, sha256:{digest}]" == json.loads(record.output or b"")
    assert TEXT == json.loads(record.input or b"")
    assert record.time_to_first_token is not None
    assert 1 == len(vendors.calls(wait=1))


@pytest.mark.parametrize("leaves", [False, True], ids=["to its end", "left"])
def test_sound_that_is_read_while_it_comes(ears: Ears, leaves: bool) -> None:
    """Read to its end it is complete; left before, it is cancelled."""
    model = "sandbox/endless" if leaves else "gpt-4o-mini-tts"
    options: dict[str, Any] = {"model": model, "voice": "alloy", "input": TEXT}

    def read() -> bytes:
        with ears.audio.speech.with_streaming_response.create(**options) as response:
            return next(iter(response.iter_bytes())) if leaves else b"".join(response.iter_bytes())

    async def read_async() -> bytes:
        async with ears.audio.speech.with_streaming_response.create(**options) as response:
            if leaves:
                return await anext(response.iter_bytes())
            return b"".join([chunk async for chunk in response.iter_bytes()])

    sound = ears.run(read_async if ears.flavour.asynchronous else read)
    record = ears.record()
    words = json.loads(record.output or b"")
    assert ("cancelled" if leaves else "complete") == record.outcome
    assert ("at least" if leaves else hashlib.sha256(sound).hexdigest()) in words


def test_sound_as_events(ears: Ears) -> None:
    """Its pieces are one sound, and its usage is there."""
    options: dict[str, Any] = {"model": "m", "voice": "alloy", "input": TEXT, "stream_format": "sse"}
    ears.run(lambda: ears.audio.speech.create(**options))
    record = ears.record()
    assert ("complete", True) == (record.outcome, record.stream)
    assert record.completion_tokens
    assert "sha256" in json.loads(record.output or b"")


@pytest.mark.parametrize("kind", ["bytes", "open file", "path", "no length"])
def test_sound_becomes_text(ears: Ears, kind: str, tmp_path: Path) -> None:
    """Whatever the app has its sound in: the SDK gets its text, the record the file's name, type and size."""
    path = tmp_path / "speech.wav"
    path.write_bytes(SOUND)
    with path.open("rb") as opened:
        file: Any = {
            "bytes": ("speech.wav", SOUND, "audio/wav"),
            "open file": opened,
            "path": path,
            "no length": ("speech.wav", Pipe(SOUND), "audio/wav"),
        }[kind]
        made = ears.run(
            lambda: ears.audio.transcriptions.create(model="whisper-1", file=file, language="en", temperature=0.5)
        )
    assert TEXT == made.text
    record = ears.record()
    assert ("complete", "whisper-1", TEXT) == (record.outcome, record.model, json.loads(record.output or b""))
    words = json.loads(record.input or b"")
    assert words.startswith("[file speech.wav, audio/")
    assert words.endswith(f", {len(SOUND)} bytes]")
    assert {"language": b'"en"', "temperature": b"0.5"}.items() <= record.parameters.items()
    assert record.usage


class Pipe(io.RawIOBase):
    """A file that can be read once, and whose length nobody knows before."""

    def __init__(self, content: bytes) -> None:
        self._rest = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._rest.readinto(buffer)


@pytest.mark.parametrize("wanted", ["text", "srt", "vtt", "verbose_json"])
def test_texts_of_other_shapes(ears: Ears, wanted: Any) -> None:
    """Plain text and subtitles are the record's output as they are; a verbose answer without its segments."""
    file = ("speech.wav", SOUND)
    made = ears.run(lambda: ears.audio.transcriptions.create(model="whisper-1", file=file, response_format=wanted))
    record = ears.record()
    assert "complete" == record.outcome
    said = json.loads(record.output or b"")
    if wanted == "verbose_json":
        assert (TEXT, made.language, made.duration) == (said["text"], said["language"], said["duration"])
        assert "segments" not in said
    else:
        assert made == said


def test_text_as_events(ears: Ears) -> None:
    """The pieces come as they are heard; the last event says all of it."""

    def read() -> list[Any]:
        return list(ears.audio.transcriptions.create(model="m", file=("a.wav", SOUND), stream=True))

    async def read_async() -> list[Any]:
        return [
            each async for each in await ears.audio.transcriptions.create(model="m", file=("a.wav", SOUND), stream=True)
        ]

    events = ears.run(read_async if ears.flavour.asynchronous else read)
    assert TEXT == events[-1].text
    record = ears.record()
    assert ("complete", True, TEXT) == (record.outcome, record.stream, json.loads(record.output or b""))
    assert record.time_to_first_token is not None


def test_errors_are_the_sdks_own(ears: Ears) -> None:
    """A refused file is the SDK's typed error, and the record says why."""
    with pytest.raises(openai.RateLimitError):
        ears.run(lambda: ears.audio.transcriptions.create(model="sandbox/error-429", file=("a.wav", SOUND)))
    record = ears.record()
    assert ("error", 429) == (record.outcome, record.status_code)
    assert record.error_message
    assert json.loads(record.input or b"").startswith("[file a.wav")
    with pytest.raises(openai.RateLimitError):
        ears.run(lambda: ears.audio.speech.create(model="sandbox/error-429", voice="alloy", input=TEXT))
    assert ("error", 429, None) == ((record := ears.record()).outcome, record.status_code, record.output)
