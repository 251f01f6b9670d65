"""Transcriptions of speech: forms with a file of sound, or JSON; answered by JSON, plain text or events."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from kwai_middleware._outbound.formats import tolerant, usage
from kwai_middleware._outbound.formats.asking import request_members, request_of, words
from kwai_middleware._outbound.formats.failures import failure_in
from kwai_middleware._outbound.formats.growing import joined_text
from kwai_middleware._outbound.formats.interface import GAP, Answer, Failure, Received, Request
from kwai_middleware._outbound.formats.parameters import without_keys
from kwai_middleware._outbound.formats.reading import Reading, Told
from kwai_middleware._outbound.formats.sent_form import sent_form
from kwai_middleware._pieces import as_text
from kwai_middleware._secret import Secret

__all__ = ["answer", "form", "request"]

_PLAIN: Final = ("application/x-subrip", "application/srt", "text/plain", "text/srt", "text/vtt", "text/x-srt")
_PLAIN_FORMATS: Final = (b'"text"', b'"srt"', b'"vtt"')
_TELLING: Final = {"text", "error"}
"""Members by which an answer is JSON, whatever its type says."""

_BESIDE: Final = ("language", "languages", "duration")
"""What a verbose answer says of the whole recording."""


def request(body: bytes) -> Request:
    """Read a request's body that is JSON; see `Format`. The recording is described where the record is made."""
    members = request_members(body)
    sound = bytes(members.pop("input_audio", b""))
    members.pop("file", None)
    return request_of(members, prompt=sound if sound.startswith(b"{") else None)


def form(head: bytes, end: bytes, size: int) -> Request:
    """Read a request's body that is a form; see `FormFormat`. Of its file, name, type and size are the input."""
    if not head.startswith(b"--"):
        return request(head) if len(head) == size else Request()
    sent = sent_form(head, end, size)
    return Request(
        model=words(sent.first("model")),
        stream=sent.first("stream").lower() == b'"true"',
        input=bytes(as_text(" ".join(sent.files).encode(errors="replace"))) if sent.files else None,
        parameters=without_keys({name: raw for name, raw in sent.members.items() if name not in ("model", "stream")}),
    )


def answer(received: Received, request: Request) -> Answer:
    """Read an answer's body; see `Format`."""
    reading = Reading(received)
    may_be_plain = not received.streamed and _is_plain(request, received.media_type)
    if may_be_plain and not _TELLING & (reading.whole() or {}).keys():
        return Answer(output=_plain(received), ends_with_body=True)
    transcript = _Transcript()
    reading.fill(transcript)
    return reading.mended(transcript.answer(received.secrets))


def _is_plain(request: Request, media_type: str) -> bool:
    """Say whether the answer is the text itself: subtitles have no type that all agree on."""
    if media_type in _PLAIN:
        return True
    is_other = "json" in media_type or media_type == "text/html"
    return not is_other and request.parameters.get("response_format") in _PLAIN_FORMATS


def _plain(received: Received) -> bytes:
    if len(received.parts) == 1:
        return bytes(as_text(received.parts[0]))
    head, end = (part.decode(errors="replace") for part in received.parts)
    return bytes(as_text(joined_text([head, GAP, end], received.secrets).encode()))


class _Transcript:
    """A transcript, put together of its events."""

    def __init__(self) -> None:
        self._finished: int | None = None
        self._pieces: list[str] = []
        self._whole: str | None = None
        self._beside: dict[str, Any] = {}
        self._usage: dict[str, Any] | None = None
        self._failure: Failure | None = None
        self._first_content: int | None = None

    def skip(self) -> None:
        """Note that events are missing from here on."""
        self._pieces.append(GAP)

    def add(self, told: Told) -> bool:
        """Add an event; see `Assembly`."""
        members, kind = told.members, told.members.get("type")
        if kind == "transcript.text.delta" and isinstance(piece := members.get("delta"), str) and piece:
            self._pieces.append(piece)
            self._first_content = self._first_content or told.end
        elif kind == "transcript.text.segment" and members.get("text"):
            # Who speaks is told in segments, and their text again in deltas or at the end.
            self._first_content = self._first_content or told.end
        elif kind == "transcript.text.done" or kind == "error" or members.get("error"):
            self._add_whole(members if kind != "error" else {"error": members.get("error") or members})
            if self._whole:
                self._first_content = self._first_content or told.end
            self._finished = told.end
        if told.is_done:
            self._finished = told.end
        return self._finished is not None

    def add_at_once(self, members: dict[str, Any], size: int | None) -> None:
        """Add an answer that came at once; see `Assembly`."""
        self._add_whole(members)
        self._finished = size

    def add_end(self, end: bytes) -> None:
        """Add the end of an answer whose middle is missing: token counts, or how many seconds of sound there were."""
        self._add_usage(usage.last_in(end))

    def answer(self, secrets: tuple[Secret, ...]) -> Answer:
        text = joined_text(self._pieces, secrets) if self._whole is None else self._whole
        return Answer(
            output=self._output(text) if self._pieces or self._whole is not None else None,
            usage=self._usage,
            tokens=usage.tokens_in(self._usage or {}),
            failure=self._failure,
            first_content=self._first_content,
            finished=self._finished,
        )

    def _add_whole(self, members: dict[str, Any]) -> None:
        """Add an answer that came at once, as far as it came; or the event that says all of it again."""
        if error := members.get("error"):
            self._failure = failure_in(error)
        text = members.get("text")
        self._whole = text if isinstance(text, str) else None
        self._beside = {name: members[name] for name in _BESIDE if members.get(name)}
        self._add_usage(tolerant.members_of(members.get("usage")))

    def _add_usage(self, used: dict[str, Any] | None) -> None:
        if used:
            self._usage = usage.merged(self._usage, used)

    def _output(self, text: str) -> bytes:
        """Return the text, with what was said beside it about the recording."""
        written = as_text(tolerant.paired(text).encode())
        if not self._beside:
            return bytes(written)
        return msgspec.json.encode({"text": written, **tolerant.paired(self._beside)})
