"""Speech made of text: bytes of sound, or events with pieces of them."""

from __future__ import annotations

import re
from typing import Any, Final

from kwai_middleware._outbound.formats import tolerant, usage
from kwai_middleware._outbound.formats.asking import request_members, words, written
from kwai_middleware._outbound.formats.failures import failure_in
from kwai_middleware._outbound.formats.interface import Answer, Failure, Received, Request
from kwai_middleware._outbound.formats.parameters import without_keys
from kwai_middleware._outbound.formats.reading import Reading
from kwai_middleware._outbound.formats.sound import Sound

__all__ = ["answer", "request"]

_SOUND: Final = re.compile(r"audio/[a-z0-9.+-]{1,80}")
_FORMAT: Final = re.compile(rb'"([a-z0-9_]{1,20})"')
_SAMPLES: Final = "input_references"
"""OpenRouter's: recordings of somebody's voice."""


def request(body: bytes) -> Request:
    """Read a request's body; see `Format`. The text is the input, as the app wrote it."""
    members = request_members(body)
    members.pop(_SAMPLES, None)
    text = written(members.pop("input", None))
    return Request(
        model=words(members.pop("model", None)),
        stream=words(members.get("stream_format")) == "sse",
        input=text,
        parameters=without_keys(members),
    )


def answer(received: Received, request: Request) -> Answer:
    """Read an answer's body; see `Format`."""
    media_type = received.media_type
    kind = _kind(request, media_type)
    reading = Reading(received)
    if received.streamed:
        return _of_events(reading, kind)
    if "json" in media_type or media_type.startswith("text/"):
        return _of_words(reading, media_type)
    if not _SOUND.fullmatch(media_type) and tolerant.members_of(reading.whole()).get("error"):
        return _of_words(reading, media_type)
    return Answer(media=kind, first_content=1 if any(received.parts) else None, ends_with_body=True)


def _kind(request: Request, media_type: str) -> str:
    if _SOUND.fullmatch(media_type):
        return media_type
    wanted = _FORMAT.fullmatch(request.parameters.get("response_format", b""))
    return "audio" if wanted is None else f"audio/{wanted[1].decode()}"


def _of_words(reading: Reading, media_type: str) -> Answer:
    """Read what should have been sound: an error, or an object that nobody documents."""
    members, size = reading.at_once()
    if error := members.get("error"):
        return Answer(failure=failure_in(error))
    return Answer() if size is None else Answer(media=media_type, ends_with_body=True)


def _of_events(reading: Reading, kind: str) -> Answer:
    sound = Sound()
    failure: Failure | None = None
    first_content: int | None = None
    finished: int | None = None
    used: dict[str, Any] | None = None
    for told in reading.events(sound.skip):
        members, name = told.members, told.members.get("type")
        piece = members.get("audio")
        if name == "speech.audio.delta" and isinstance(piece, str) and piece:
            sound.add_base64(piece)
            first_content = first_content or told.end
        if given := tolerant.members_of(members.get("usage")):
            used = usage.merged(used, given)
        if name == "error" or members.get("error"):
            failure = failure_in(members.get("error") or members)
        if told.is_done or failure is not None or name == "speech.audio.done":
            finished = told.end
            break
    answer = Answer(
        output=sound.in_words(kind, is_whole=finished is not None and failure is None),
        usage=used,
        tokens=usage.tokens_in(used or {}),
        failure=failure,
        first_content=first_content,
        finished=finished,
    )
    return reading.mended(answer)
