"""The items of an answer of the Responses API: growing in a stream, and as a chat message."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, cast

from kwai_middleware._outbound.formats import tolerant
from kwai_middleware._outbound.formats.growing import joined_text
from kwai_middleware._outbound.formats.interface import GAP
from kwai_middleware._pace import breathe
from kwai_middleware._secret import Secret

__all__ = ["Item", "kind_of_item"]


class _Place(NamedTuple):
    """Where in an item a text stands.

    Attributes:
        parts: The list whose part it is in; empty where it is the item's own.
        member: Its name there.
        kind: The type of the part, or of the item whose own it is.
    """

    parts: str
    member: str
    kind: str


_TEXTS: Final = {
    "response.output_text": _Place("content", "text", "output_text"),
    "response.refusal": _Place("content", "refusal", "refusal"),
    "response.reasoning_text": _Place("content", "text", "reasoning_text"),
    "response.reasoning_summary_text": _Place("summary", "text", "summary_text"),
    "response.function_call_arguments": _Place("", "arguments", "function_call"),
    "response.custom_tool_call_input": _Place("", "input", "custom_tool_call"),
    "response.mcp_call_arguments": _Place("", "arguments", "mcp_call"),
    "response.code_interpreter_call_code": _Place("", "code", "code_interpreter_call"),
}
"""The texts that grow, by what the names of their events begin with."""

_PARTS: Final = {"response.content_part": "content", "response.reasoning_summary_part": "summary"}
_ANNOTATION: Final = "response.output_text.annotation"
_INDEXES: Final = {"content": "content_index", "summary": "summary_index", "": ""}


def kind_of_item(stem: str) -> str | None:
    """Return the type of the items that an event of this name, its last word aside, is about; None for no such."""
    if stem.startswith("response.reasoning"):
        return "reasoning" if stem in _TEXTS or stem in _PARTS else None
    if stem in _PARTS or stem == _ANNOTATION:
        return "message"
    place = _TEXTS.get(stem)
    return None if place is None else (place.kind if not place.parts else "message")


class Item:
    """One item, put together of the pieces that a stream sends.

    Args:
        opening: The item as it was opened, or as it is in the end.
        is_whole: Nothing is missing in it: what else comes is no news.
        is_skipped: Pieces before may be missing, since they were not kept.
    """

    __slots__ = ("_is_skipped", "_is_whole", "_members", "_parts", "_texts")

    def __init__(self, opening: dict[str, Any], *, is_whole: bool = False, is_skipped: bool = False) -> None:
        self._is_skipped = is_skipped
        self._is_whole = is_whole
        self._members = dict(opening)
        self._parts: dict[tuple[str, int], dict[str, Any]] = {}
        self._texts: dict[tuple[str, int, str], list[str]] = {}
        if is_whole:
            return
        self._open("", 0, self._members)
        for parts in ("summary", "content"):
            for index, part in enumerate(tolerant.items_of(opening.get(parts))):
                self._add_part(parts, index, "added", part)

    def add(self, stem: str, verb: str, event: dict[str, Any]) -> bool:
        """Add what an event brings; say whether it is content.

        Args:
            stem: The event's name but for its last word.
            verb: That word.
            event: What it says.
        """
        if self._is_whole:
            return False
        if (place := _TEXTS.get(stem)) is not None:
            return self._add_text(place, _index_in(event, place.parts), verb, event)
        parts = _PARTS.get(stem, "content")
        index = _index_in(event, parts)
        if stem in _PARTS:
            return self._add_part(parts, index, verb, event.get("part"))
        part = self._parts.setdefault((parts, index), {"type": "output_text"})
        if not isinstance(part.get("annotations"), list):
            part["annotations"] = []
        cast("list[Any]", part["annotations"]).append(event.get("annotation"))
        return False

    def skip(self) -> None:
        """Note that pieces may be missing from here on."""
        self._is_skipped = True
        for texts in self._texts.values():
            texts.append(GAP)

    def joined(self, secrets: tuple[Secret, ...]) -> dict[str, Any]:
        """Return the item as far as it came; `secrets` are masked beside a gap."""
        for (parts, index, member), texts in self._texts.items():
            self._holder(parts, index)[member] = joined_text(texts, secrets)
            breathe()
        for parts in ("summary", "content"):
            indexes = sorted(index for each, index in self._parts if each == parts)
            if indexes:
                self._members[parts] = [self._parts[parts, index] for index in indexes]
        return self._members

    def _add_text(self, place: _Place, index: int, verb: str, event: dict[str, Any]) -> bool:
        key = (place.parts, index, place.member)
        text = event.get("delta" if verb == "delta" else place.member)
        if not isinstance(text, str):
            return False
        if place.parts:
            self._parts.setdefault((place.parts, index), {"type": place.kind})
        if verb == "delta":
            self._texts.setdefault(key, [GAP] if self._is_skipped else []).append(text)
        else:
            self._holder(place.parts, index)[place.member] = text
            self._texts.pop(key, None)
        return bool(text)

    def _add_part(self, parts: str, index: int, verb: str, part: object) -> bool:
        if not (members := tolerant.members_of(part)):
            return False
        self._parts[parts, index] = members
        for member in _GROWING:
            self._texts.pop((parts, index, member), None)
        if verb == "added":
            self._open(parts, index, members)
        return any(members.get(member) for member in ("text", "refusal"))

    def _open(self, parts: str, index: int, holder: dict[str, Any]) -> None:
        for member in _GROWING:
            if isinstance(text := holder.get(member), str):
                self._texts[parts, index, member] = [text]

    def _holder(self, parts: str, index: int) -> dict[str, Any]:
        return self._parts[parts, index] if parts else self._members


_GROWING: Final = ("text", "refusal", "arguments", "input", "code")


def _index_in(event: dict[str, Any], parts: str) -> int:
    index = event.get(_INDEXES[parts])
    return index if type(index) is int else 0
