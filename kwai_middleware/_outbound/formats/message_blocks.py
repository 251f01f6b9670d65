"""The blocks of content of an Anthropic message: growing in a stream, and as a chat message."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from kwai_middleware._outbound.formats import tolerant
from kwai_middleware._outbound.formats.growing import joined_text
from kwai_middleware._outbound.formats.interface import GAP
from kwai_middleware._secret import Secret

__all__ = ["Block", "completion_of", "is_whole_as_completion"]

_PIECES: Final = {"text": "text", "thinking": "thinking", "signature": "signature", "partial_json": "input"}
"""The members of a delta that are pieces of a text, and the members of the block that they make up."""

_TEXTS: Final = ("text", "thinking", "signature")


class Block:
    """One block, put together of the pieces that a stream sends.

    Args:
        opening: The block as it was opened.
        is_skipped: Pieces before may be missing, since they were not kept.
    """

    __slots__ = ("_citations", "_is_skipped", "_members", "_texts")

    def __init__(self, opening: dict[str, Any], *, is_skipped: bool = False) -> None:
        self._members = dict(opening)
        self._is_skipped = is_skipped
        self._citations = [*tolerant.items_of(opening.get("citations"))]
        self._texts = {name: [text] for name in _TEXTS if isinstance(text := opening.get(name), str)}

    def add(self, delta: dict[str, Any]) -> bool:
        """Add a piece; say whether it is content."""
        has_content = False
        for name, value in delta.items():
            if name in _PIECES and isinstance(value, str):
                self._texts.setdefault(_PIECES[name], [GAP] if self._is_skipped else []).append(value)
                has_content = has_content or (bool(value) and name != "signature")
            elif name == "citation":
                self._citations.append(value)
        return has_content

    def skip(self) -> None:
        """Note that pieces may be missing from here on."""
        self._is_skipped = True
        for texts in self._texts.values():
            texts.append(GAP)

    def joined(self, secrets: tuple[Secret, ...]) -> dict[str, Any]:
        """Return the block as an answer that came at once has it; a tool's input as far as it came."""
        members = self._members | {name: joined_text(texts, secrets) for name, texts in self._texts.items()}
        if self._citations:
            members["citations"] = self._citations
        if "input" in self._texts:
            members["input"] = self._input(members["input"])
        return members

    def _input(self, pieces: str) -> Any:
        if not pieces:
            # An input without members comes as one empty piece: the block was opened with all of it.
            return self._members.get("input")
        given = tolerant.loads(pieces.encode(errors="replace"))
        return pieces if given is None else given


def completion_of(blocks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a message in Anthropic's format as a chat message: texts joined, tools' inputs as JSON texts."""
    texts = [block["text"] for block in blocks if block.get("type") == "text" and isinstance(block.get("text"), str)]
    thoughts = [block for block in blocks if block.get("type") in ("thinking", "redacted_thinking")]
    thought = [text for block in thoughts if isinstance(text := block.get("thinking"), str)]
    calls = [_tool_call(block) for block in blocks if block.get("type") == "tool_use"]
    others = {"reasoning_content": "\n\n".join(thought), "thinking_blocks": thoughts, "tool_calls": calls}
    return {
        "role": "assistant",
        "content": "".join(texts) or None,
        **{name: value for name, value in others.items() if value},
    }


def is_whole_as_completion(blocks: list[dict[str, Any]]) -> bool:
    """Say whether the chat message holds all that the blocks say."""
    return all(
        block.get("type") in ("thinking", "redacted_thinking", "tool_use")
        or (block.get("type") == "text" and isinstance(block.get("text"), str) and not block.get("citations"))
        for block in blocks
    )


def _tool_call(block: dict[str, Any]) -> dict[str, Any]:
    given = block.get("input", "")
    arguments = given if isinstance(given, str) else msgspec.json.encode(tolerant.paired(given)).decode()
    return {"id": block.get("id"), "type": "function", "function": {"name": block.get("name"), "arguments": arguments}}
