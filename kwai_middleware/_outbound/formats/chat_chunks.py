"""The members of chat completions that are read, and reading them where they are of odd types."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, Literal

import msgspec

from kwai_middleware._outbound.formats import tolerant

__all__ = ["Choice", "Chunk", "Delta", "TextChunk", "TextDelta", "loose_chunk", "text_chunks"]


class Delta(msgspec.Struct):
    """What a chunk adds to the message of one choice."""

    role: str | None = None
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    function_call: dict[str, Any] | None = None
    reasoning_details: list[dict[str, Any]] | None = None
    annotations: list[Any] | None = None
    images: list[Any] | None = None
    audio: dict[str, Any] | None = None


class Choice(msgspec.Struct):
    """One choice: with a delta in a stream, with a message in an answer that came at once."""

    index: int = 0
    delta: Delta | None = None
    message: dict[str, Any] | None = None
    finish_reason: str | None = None
    error: Any = None


class Chunk(msgspec.Struct):
    """One chunk of a stream, or a whole answer."""

    id: str | None = None
    model: str | None = None
    provider: str | None = None
    choices: list[Choice] | None = None
    usage: dict[str, Any] | None = None
    error: Any = None


# The members of these stand as most servers write them, which is where the parser looks first. What does not fit is
# refused by the parser itself: that takes a third of the time of a look at each member of each chunk.
class TextDelta(msgspec.Struct, gc=False):
    """A `Delta` with nothing but content, as nearly all are: each other member is null, if it is there at all."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning: None = None
    reasoning_content: None = None
    refusal: None = None
    tool_calls: None = None
    function_call: None = None
    reasoning_details: None = None
    annotations: None = None
    images: None = None
    audio: None = None


class TextChoice(msgspec.Struct, gc=False, kw_only=True):
    """The first choice, going on."""

    index: Literal[0] = 0
    delta: TextDelta
    message: None = None
    finish_reason: None = None
    error: None = None


class TextChunk(msgspec.Struct, gc=False, kw_only=True):
    """A `Chunk` that brings a piece of text, and no other news."""

    id: str | None = None
    provider: str | None = None
    model: str | None = None
    choices: tuple[TextChoice]
    usage: None = None
    error: None = None


_text_decoder: Final = msgspec.json.Decoder(TextChunk)


def text_chunks(lines: list[bytes]) -> list[TextChunk]:
    """Decode chunks, from the first on, as long as each is a `TextChunk`."""
    chunks: list[TextChunk] = []
    # Those before the first that is none are in the list then.
    with suppress(*tolerant.UNREADABLE):
        chunks.extend(map(_text_decoder.decode, lines))
    return chunks


def loose_chunk(value: Any) -> Chunk:
    """Take what fits of a chunk whose members are not all of the documented types."""
    members = tolerant.fitting(value, Chunk)
    if "choices" not in members:
        choices = tolerant.items_of(tolerant.members_of(value).get("choices"))
        members["choices"] = [_loose_choice(choice) for choice in choices]
    return Chunk(**members)


def _loose_choice(value: Any) -> Choice:
    members = tolerant.fitting(value, Choice)
    if "delta" not in members:
        delta = tolerant.members_of(value).get("delta")
        members["delta"] = Delta(**tolerant.fitting(delta, Delta))
    return Choice(**members)
