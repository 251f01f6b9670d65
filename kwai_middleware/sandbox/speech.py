"""Speech of both vendors: a text said aloud, as sound or as events that carry it."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from kwai_middleware.sandbox.answers import Answer, Question
from kwai_middleware.sandbox.completions import event, filler_of, tokens
from kwai_middleware.sandbox.flavours import AtOpenRouter, Flavoured, ThroughGateway
from kwai_middleware.sandbox.forwarding import OPENROUTER_SPEECH_MEMBERS
from kwai_middleware.sandbox.inference import Inference
from kwai_middleware.sandbox.texts import texts_of
from kwai_middleware.sandbox.vendors import Gateway, OpenRouter

__all__ = ["GatewaySpeech", "OpenRouterSpeech"]

_RATE: Final = 24_000
_BYTES_PER_TOKEN: Final = 480
"""A hundredth of a second in 16 bits; so that an answer's size follows from its text."""

_SILENCE: Final = b"\0" * _BYTES_PER_TOKEN
_HEADS: Final = {
    "mp3": ("audio/mpeg", b"ID3\x04\0\0\0\0\0\0\xff\xfb\x90\x64"),
    "opus": ("audio/opus", b"OggS\0\x02"),
    "aac": ("audio/aac", b"\xff\xf1\x50\x80"),
    "flac": ("audio/flac", b"fLaC\0\0\0\x22"),
    "wav": ("audio/wav", b""),
    "pcm": ("audio/pcm", b""),
}
"""Content type of each format, and how its files begin; a wave's beginning says how long it is."""

_BROKEN: Final = b'data: {"type":"speech.audio.delta","audio":"bro\n\n'


class SpokenText(Flavoured):
    """A text said aloud, in as much silence as it has tokens; only events tell what it used."""

    id_prefix = ""
    usual_format: str

    def __init__(self, question: Question, answer: Answer) -> None:
        super().__init__(question, answer)
        asked = question.body.get("response_format")
        self._format = asked if isinstance(asked, str) and asked in _HEADS else self.usual_format
        self.content_type = _HEADS[self._format][0] if answer.failure is None else "application/json"

    def whole(self) -> bytes:
        """Return the answer in one piece; one that failed is nothing but the error."""
        if self.answer.failure is not None:
            return msgspec.json.encode({"error": self.error()})
        return b"".join(self._sound((self.answer.words,)))

    def parts(self) -> Iterator[bytes]:
        """Yield the answer in pieces, however long it is."""
        yield self.whole()
        yield from filler_of(self.answer.filler, _SILENCE * 64)

    def events(self) -> Iterator[bytes]:
        """Yield the events of an answer that is not silent."""
        answer = self.answer
        for sound in self._sound(answer.streamed or (answer.words,)):
            yield event({"type": "speech.audio.delta", "audio": base64.b64encode(sound).decode()})
        for filler in filler_of(answer.filler, _SILENCE * 64):
            yield event({"type": "speech.audio.delta", "audio": base64.b64encode(filler).decode()})
        if answer.is_malformed:
            yield _BROKEN
        if answer.failure is not None:
            yield event({"type": "error", "error": self.error()})
        elif answer.is_finished:
            bill = self.bill
            usage = {
                "input_tokens": bill.prompt_tokens,
                "output_tokens": bill.completion_tokens,
                "total_tokens": bill.total_tokens,
            }
            yield event({"type": "speech.audio.done", "usage": {**usage, **self.costs()}})

    def _sound(self, pieces: tuple[str, ...]) -> Iterator[bytes]:
        length = _BYTES_PER_TOKEN * sum(map(tokens, pieces))
        yield _wave_head(length) if self._format == "wav" else _HEADS[self._format][1]
        for piece in pieces:
            yield _SILENCE * tokens(piece)


class GatewaySpokenText(ThroughGateway, SpokenText):
    """A text said aloud through the gateway."""

    usual_format = "mp3"


class OpenRouterSpokenText(AtOpenRouter, SpokenText):
    """A text said aloud by OpenRouter."""

    usual_format = "pcm"


class Speech(Inference):
    """Speech, as far as the vendors agree."""

    def is_streamed(self, body: Mapping[str, object]) -> bool:
        """Say whether the answer is to come as events."""
        return body.get("stream_format") == "sse"

    def lacks(self, body: Mapping[str, object]) -> str | None:
        """Return what is wrong with a request that names a model."""
        return None if texts_of(body.get("input")) else "input: a text is required"

    def asked(self, body: Mapping[str, object]) -> Mapping[str, object]:
        """Return the request as a chat request; several turns are said in one."""
        text = " ".join(str(each) for each in texts_of(body.get("input")))
        return {**body, "messages": [{"role": "user", "content": text}], "n": 1}


class GatewaySpeech(Speech, Gateway):
    """`POST /api/audio/speech` of the gateway."""

    completion = GatewaySpokenText


class OpenRouterSpeech(Speech, OpenRouter):
    """`POST /api/v1/audio/speech` of OpenRouter."""

    completion = OpenRouterSpokenText
    members = OPENROUTER_SPEECH_MEMBERS


def _wave_head(length: int) -> bytes:
    described = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, _RATE, _RATE * 2, 2, 16)
    return struct.pack("<4sI4s", b"RIFF", 36 + length, b"WAVE") + described + struct.pack("<4sI", b"data", length)
