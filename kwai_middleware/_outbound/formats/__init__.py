"""One file for each shape of requests and answers, behind one small interface."""

from __future__ import annotations

from typing import Final

from kwai_middleware._outbound.formats import (
    chat,
    completions,
    embeddings,
    images,
    messages,
    responses,
    speech,
    transcription,
)
from kwai_middleware._outbound.formats.interface import Answer, Failure, Format, FormFormat, Received, Request, Tokens

__all__ = ["FORMATS", "Answer", "Failure", "FormFormat", "Format", "Received", "Request", "Tokens"]

FORMATS: Final[dict[str, Format]] = {
    "chat": chat,
    "completions": completions,
    "embeddings": embeddings,
    "images": images,
    "messages": messages,
    "responses": responses,
    "speech": speech,
    "transcription": transcription,
}
"""By the name that `Endpoint.format` has for it. All others are `unread`."""
