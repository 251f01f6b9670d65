"""Transcriptions of both vendors: a file of sound, written down."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping
from typing import Final

from kwai_middleware.sandbox.answers import Answer, Question
from kwai_middleware.sandbox.completions import FILLER_MARK, event, filled, filler_of
from kwai_middleware.sandbox.connection import Connection
from kwai_middleware.sandbox.entries import CallEntry
from kwai_middleware.sandbox.flavours import AtOpenRouter, OneObject, ThroughGateway
from kwai_middleware.sandbox.forms import form_of
from kwai_middleware.sandbox.forwarding import OPENROUTER_TRANSCRIPTION_MEMBERS
from kwai_middleware.sandbox.inference import Inference
from kwai_middleware.sandbox.json_types import is_array, is_object, json_or_none, object_or_empty
from kwai_middleware.sandbox.vendors import Gateway, OpenRouter

__all__ = ["GatewayTranscriptions", "OpenRouterTranscriptions"]

_BYTES_PER_SECOND: Final = 16_000
_SOUND: Final = "file"
_TEXT: Final = ("text", "srt", "vtt")
_BROKEN: Final = b'data: {"type":"transcript.text.delta","delta":"bro\n\n'


class Transcript(OneObject):
    """What was heard, in OpenAI's shape: whisper models are billed by the second, all others by the token."""

    def __init__(self, question: Question, answer: Answer) -> None:
        super().__init__(question, answer)
        size = object_or_empty(question.body.get(_SOUND)).get("size")
        self.seconds = math.ceil((size if isinstance(size, int) else 0) / _BYTES_PER_SECOND)
        self._format = question.body.get("response_format", "json")
        if self._format in _TEXT and answer.failure is None:
            self.content_type = "text/plain; charset=utf-8"

    def usage(self) -> dict[str, object]:
        """Return what it used."""
        if self._format == "verbose_json" or "whisper" in self.question.model:
            return {"type": "duration", "seconds": self.seconds}
        bill = self.bill
        return {
            "type": "tokens",
            "input_tokens": bill.prompt_tokens,
            "input_token_details": {"text_tokens": 0, "audio_tokens": bill.prompt_tokens},
            "output_tokens": bill.completion_tokens,
            "total_tokens": bill.total_tokens,
        }

    def whole(self) -> bytes:
        """Return the answer in one piece, in the format that was asked for."""
        words, end = self.answer.words, _clock(self.seconds)
        if self.answer.failure is not None or self._format not in _TEXT:
            return super().whole()
        if self._format == "srt":
            return f"1\n00:00:00,000 --> {end},000\n{words}\n\n".encode()
        return (
            f"WEBVTT\n\n00:00:00.000 --> {end}.000\n{words}\n\n" if self._format == "vtt" else f"{words}\n"
        ).encode()

    def body(self) -> dict[str, object]:
        """Return the object."""
        told: dict[str, object] = {"text": self.answer.words}
        if self._format == "verbose_json":
            told = {"task": "transcribe", "language": "english", "duration": float(self.seconds), **told}
            told["segments"] = [self._segment()]
            asked = self.question.body.get("timestamp_granularities")
            if is_array(asked) and "word" in asked:
                told["words"] = self._words()
        return told | {"usage": self.usage()}

    def events(self) -> Iterator[bytes]:
        """Yield the events of an answer that is not silent."""
        answer = self.answer
        for piece in answer.streamed or (answer.words,):
            yield event({"type": "transcript.text.delta", "delta": piece})
        for filler in filler_of(answer.filler):
            yield event({"type": "transcript.text.delta", "delta": filler.decode()})
        if answer.is_malformed:
            yield _BROKEN
        if answer.failure is not None:
            yield event({"type": "error", "error": self.error()})
        elif answer.is_finished:
            text = answer.words + (FILLER_MARK if answer.filler else "")
            done = event({"type": "transcript.text.done", "text": text, "usage": self.usage()})
            yield from filled(done, answer.filler)

    def _segment(self) -> dict[str, object]:
        return {
            "id": 0,
            "seek": 0,
            "start": 0.0,
            "end": float(self.seconds),
            "text": self.answer.words,
            "tokens": [],
            "temperature": 0.0,
            "avg_logprob": -0.1,
            "compression_ratio": 1.0,
            "no_speech_prob": 0.0,
        }

    def _words(self) -> list[dict[str, object]]:
        words = self.answer.words.split()
        each = self.seconds / max(len(words), 1)
        return [
            {"word": word, "start": round(index * each, 2), "end": round((index + 1) * each, 2)}
            for index, word in enumerate(words)
        ]


class GatewayTranscript(ThroughGateway, Transcript):
    """What was heard, through the gateway."""


class OpenRouterTranscript(AtOpenRouter, Transcript):
    """What was heard by OpenRouter, and what it cost."""

    def usage(self) -> dict[str, object]:
        """Return what it used and cost."""
        return super().usage() | {"seconds": self.seconds, "cost": self.costs()["cost"]}


class Transcriptions(Inference):
    """Transcriptions, as far as the vendors agree: a form with a file in it."""

    def read(self, connection: Connection, entry: CallEntry) -> object:
        """Return the form's fields, and what can be heard in its file."""
        entry.form = form_of(connection.header(b"content-type"), entry.raw_body)
        if entry.form is None:
            return None
        sound = entry.form.files.get(_SOUND)
        return entry.form.members() | {_SOUND: None if sound is None else _heard(sound)}

    def is_streamed(self, body: Mapping[str, object]) -> bool:
        """Say whether the answer is to come as events."""
        return body.get("stream") in (True, "true", "True")

    def lacks(self, body: Mapping[str, object]) -> str | None:
        """Return what is wrong with a request that names a model."""
        return None if is_object(body.get(_SOUND)) else "file: a file is required"

    def asked(self, body: Mapping[str, object]) -> Mapping[str, object]:
        """Return the request as a chat request: the prompt and what is heard are messages."""
        prompt = body.get("prompt")
        texts = [prompt, object_or_empty(body.get(_SOUND)).get("text")]
        return {**body, "messages": [{"role": "user", "content": text} for text in texts if isinstance(text, str)]}


class GatewayTranscriptions(Transcriptions, Gateway):
    """`POST /api/audio/transcription` of the gateway, `/api/audio/transcriptions` for OpenAI's SDKs."""

    completion = GatewayTranscript


class OpenRouterTranscriptions(Transcriptions, OpenRouter):
    """`POST /api/v1/audio/transcriptions` of OpenRouter, which takes JSON with the sound in base64 as well."""

    completion = OpenRouterTranscript
    members = OPENROUTER_TRANSCRIPTION_MEMBERS

    def read(self, connection: Connection, entry: CallEntry) -> object:
        """Return the members of the form or of the JSON, and what can be heard."""
        body = json_or_none(entry.raw_body)
        if not is_object(body):
            return super().read(connection, entry)
        sound = object_or_empty(body.get("input_audio"))
        try:
            heard = _heard(base64.b64decode(str(sound.get("data", "")), validate=True)) if sound else None
        except ValueError:
            heard = None
        return body | {_SOUND: heard}


def _heard(sound: bytes) -> dict[str, object]:
    """What can be heard in a file: its own words, if it is a text, so that tests can tell what is said."""
    try:
        text = sound.decode().strip()
    except UnicodeDecodeError:
        text = ""
    return {"text": text if text.isprintable() and text else f"({len(sound)} bytes of sound)", "size": len(sound)}


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
