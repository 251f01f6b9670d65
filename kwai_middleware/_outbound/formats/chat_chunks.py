"""The members of chat completions that are read, and reading them where they are of odd types."""

from __future__ import annotations

from typing import Any

import msgspec

from kwai_middleware._outbound.formats import tolerant

__all__ = ["Choice", "Chunk", "Delta", "loose_chunk"]


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
