"""The input of the Responses API as chat messages."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from kwai_middleware._pace import breathe

__all__ = ["Prompt", "prompt_of"]

_items_decoder: Final = msgspec.json.Decoder(list[msgspec.Raw])
_members_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NULL: Final = msgspec.Raw(b"null")
_CALLS: Final = {b'"function_call"': ("function", "arguments"), b'"custom_tool_call"': ("custom", "input")}
"""Calls of the app's own tools, and the kind and the text of such a call in a chat message."""

_RESULTS: Final = (b'"function_call_output"', b'"custom_tool_call_output"')
_FORMALITIES: Final = frozenset(("type", "id", "status", "phase"))
"""Members of an item that is a message, which chat messages do not have."""


class Prompt(NamedTuple):
    """What is asked.

    Attributes:
        messages: As chat messages, JSON; None where there is nothing of the kind.
        written: As the app wrote it, where the messages do not hold all of it.
    """

    messages: bytes | None
    written: bytes | None


def prompt_of(instructions: msgspec.Raw | None, given: msgspec.Raw | None) -> Prompt:
    """Return instructions and input as chat messages; a list of chat messages byte for byte.

    Args:
        instructions: They become the first message.
        given: A text, or a list of items. Calls of tools and their results become messages, and items
            that are nothing of the kind are left out.
    """
    written = b"" if given is None or given == _NULL else bytes(given)
    messages: list[bytes] = []
    if instructions is not None and instructions != _NULL:
        messages.append(b'{"role":"system","content":%b}' % bytes(instructions))
    is_whole = True
    if written.startswith(b'"'):
        messages.append(b'{"role":"user","content":%b}' % written)
    elif written.startswith(b"["):
        others, is_whole = _messages_in(written)
        messages += (others,) if others else ()
    elif written:
        is_whole = False
    return Prompt(b"[%b]" % b",".join(messages) if messages else None, None if is_whole else written)


def _messages_in(written: bytes) -> tuple[bytes, bool]:
    """Return the chat messages that items are, commas between them, and whether that is all that the items say."""
    conversation = _Conversation()
    for item in _items_decoder.decode(written):
        conversation.add(item)
        breathe()
    if conversation.is_verbatim:
        return written[1:-1].strip(), True
    return msgspec.json.encode(conversation.messages)[1:-1], conversation.is_whole


class _Conversation:
    """Items as chat messages.

    Attributes:
        messages: They.
        is_verbatim: Each item is a chat message as it is.
        is_whole: The messages hold all that the items say.
    """

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.is_verbatim = True
        self.is_whole = True
        self._calls: list[dict[str, Any]] | None = None

    def add(self, raw: msgspec.Raw) -> None:
        """Add an item: what cannot be said in a chat message is left out."""
        item = _members_in(raw)
        kind = bytes(item.get("type", b'"message"'))
        if kind in _CALLS:
            self._add_call(item, *_CALLS[kind])
            return
        self._calls = None
        if kind == b'"message"' and "role" in item:
            self._add_message(item)
            return
        self.is_verbatim = self.is_whole = False
        if kind in _RESULTS:
            content, _ = _content_of(item.get("output", _NULL))
            self.messages.append({"role": "tool", "tool_call_id": item.get("call_id", _NULL), "content": content})

    def _add_message(self, item: dict[str, msgspec.Raw]) -> None:
        content, is_same = _content_of(item.get("content", _NULL))
        unsaid = item.keys() & _FORMALITIES
        self.is_verbatim = self.is_verbatim and is_same and not unsaid
        self.is_whole = self.is_whole and is_same and unsaid <= {"type"}
        message = {name: value for name, value in item.items() if name not in _FORMALITIES}
        self.messages.append(message | {"content": content})

    def _add_call(self, item: dict[str, msgspec.Raw], kind: str, text: str) -> None:
        self.is_verbatim = self.is_whole = False
        if self._calls is None:
            # Calls that follow each other were made at once.
            self._calls = []
            self.messages.append({"role": "assistant", "content": None, "tool_calls": self._calls})
        called = {name: item.get(name, _NULL) for name in ("name", text)}
        self._calls.append({"id": item.get("call_id", _NULL), "type": kind, kind: called})


def _content_of(raw: msgspec.Raw) -> tuple[Any, bool]:
    """Return a message's content with its parts as those of chat messages, and whether that changed nothing."""
    if not _begins(raw, b"["):
        return raw, True
    is_same = True
    parts: list[Any] = []
    for part in _items_decoder.decode(raw):
        other = _chat_part(_members_in(part))
        is_same = is_same and other is None
        parts.append(part if other is None else other)
        breathe()
    return (raw, True) if is_same else (parts, False)


def _chat_part(part: dict[str, msgspec.Raw]) -> dict[str, Any] | None:
    """Return a part as a chat message has it; None for one that is the same in both."""
    others = {name: value for name, value in part.items() if name != "type" and value != _NULL}
    match bytes(part.get("type", b"")):
        case b'"input_image"' if "image_url" in others:
            detail = {"detail": others["detail"]} if "detail" in others else {}
            return {"type": "image_url", "image_url": {"url": others["image_url"]} | detail}
        case b'"input_image"' | b'"input_file"':
            return {"type": "file", "file": others}
        case b'"output_text"' if part.keys() - {"type", "text", "annotations"}:
            return {name: part[name] for name in ("type", "text", "annotations") if name in part}
        case b'"refusal"' if "refusal" in part:
            return {"type": "output_text", "text": part["refusal"]}
        case _:
            return None


def _members_in(raw: msgspec.Raw) -> dict[str, msgspec.Raw]:
    return _members_decoder.decode(raw) if _begins(raw, b"{") else {}


def _begins(raw: msgspec.Raw, sign: bytes) -> bool:
    # Seen through a view: it may be megabytes.
    return memoryview(raw)[:1] == sign
