"""The items of an answer of the Responses API as one chat message, and as JSON where that does not hold all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, cast

import msgspec

from kwai_middleware._outbound.formats import tolerant
from kwai_middleware._pace import breathe
from kwai_middleware._pieces import encoded_members

__all__ = ["completion_of", "encoded", "has_content", "is_whole_as_completion"]

_CALLS: Final = {"function_call": ("function", "arguments"), "custom_tool_call": ("custom", "input")}
_CALL_MEMBERS: Final = frozenset(("type", "id", "call_id", "status", "name", "arguments", "input"))
_READ: Final = {"output_text": "text", "refusal": "refusal"}
_LEVELS: Final = 4
"""Down to the texts in the parts of an item: these may be long."""


def completion_of(items: list[dict[str, Any]]) -> dict[str, Any]:
    """Return items as one chat message: texts joined, calls of the app's tools, and what was thought."""
    texts: list[str] = []
    refusals: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    for item in items:
        breathe()
        kind = item.get("type")
        if kind == "message":
            texts += _texts_in(item.get("content"), "text")
            refusals += _texts_in(item.get("content"), "refusal")
        elif kind == "reasoning":
            thoughts += _summary(item) or _thought(item)
        elif kind in ("function_call", "custom_tool_call"):
            calls.append(_call(item, *_CALLS[kind]))
    others = {"refusal": "".join(refusals), "reasoning_content": "\n\n".join(thoughts), "tool_calls": calls}
    return {
        "role": "assistant",
        "content": "".join(texts) or None,
        **{name: value for name, value in others.items() if value},
    }


def is_whole_as_completion(items: list[dict[str, Any]]) -> bool:
    """Say whether the chat message holds all that anybody could read in the items."""
    messages = [item for item in items if item.get("type") == "message"]
    return len(messages) <= 1 and all(map(_is_whole, items))


def has_content(item: dict[str, Any]) -> bool:
    """Say whether there is anything in an item for a reader, a picture or the name of a tool included."""
    if item.get("type") == "image_generation_call":
        return bool(item.get("result"))
    return any(value for name, value in completion_of([item]).items() if name != "role")


def encoded(items: Sequence[Any]) -> bytes | None:
    """Return items as JSON; None when they are nested too deeply."""
    value = tolerant.paired(items)
    try:
        return None if value is None else bytes(_encoded(value, _LEVELS))
    except RecursionError:
        return None


def _encoded(value: Any, levels: int) -> msgspec.Raw:
    breathe()
    # Long texts in it would make one long call of it.
    if levels and isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return encoded_members({name: _inner(each, levels) for name, each in members.items()})
    if levels and isinstance(value, list):
        items = cast("Sequence[Any]", value)
        return msgspec.Raw(b"[%b]" % b",".join(bytes(_encoded(item, levels - 1)) for item in items))
    return msgspec.Raw(msgspec.json.encode(value))


def _inner(value: Any, levels: int) -> Any:
    return _encoded(value, levels - 1) if isinstance(value, dict | list) else value


def _is_whole(item: dict[str, Any]) -> bool:
    breathe()
    kind = item.get("type")
    if kind == "message":
        content = item.get("content")
        parts = map(tolerant.members_of, tolerant.items_of(content))
        return isinstance(content, str | list | None) and all(map(_is_plain, parts))
    if kind == "reasoning":
        # Sealed thoughts say nothing to anybody here.
        summary, thought = _summary(item), _thought(item)
        return not summary or not thought or summary == thought
    return kind in ("function_call", "custom_tool_call") and item.keys() <= _CALL_MEMBERS


def _is_plain(part: dict[str, Any]) -> bool:
    name = _READ.get(str(part.get("type")))
    is_read = name is not None and isinstance(part.get(name), str)
    return is_read and not part.get("annotations") and not part.get("logprobs")


def _summary(item: dict[str, Any]) -> list[str]:
    return list(_texts_in(item.get("summary"), "text"))


def _thought(item: dict[str, Any]) -> list[str]:
    return list(_texts_in(item.get("content"), "text"))


def _texts_in(parts: object, name: str) -> Iterator[str]:
    if isinstance(parts, str) and name == "text":
        yield parts
    for part in tolerant.items_of(parts):
        text = tolerant.members_of(part).get(name)
        if isinstance(text, str) and text:
            yield text


def _call(item: dict[str, Any], kind: str, text: str) -> dict[str, Any]:
    given = item.get(text, "")
    if not isinstance(given, str):
        given = (encoded([given]) or b"[null]")[1:-1].decode()
    return {"id": item.get("call_id"), "type": kind, kind: {"name": item.get("name"), text: given}}
