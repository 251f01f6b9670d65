"""Prompt and answer of a record in the vendor's log: messages where it keeps them, text where it does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, cast

import msgspec

from kwai_middleware._delivery import vendor_types
from kwai_middleware._pace import WINDOW, breathe
from kwai_middleware._pieces import as_text, encoded_members, is_text, is_utf8
from kwai_middleware._splitting import items_of

__all__ = ["answer_of", "prompt_of"]

_members_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


def prompt_of(messages: bytes | None, whole: bytes | None) -> dict[str, Any]:
    """Return the prompt as messages where the vendor keeps them, and as text where it would not.

    Args:
        messages: What of it is chat messages.
        whole: All of it, where they are not that.
    """
    members: dict[str, Any] = {} if whole is None else {"input": _words(whole)}
    if messages is None:
        return members
    # msgspec does not look into what it only skips.
    is_readable = is_utf8(messages)
    if is_readable and len(messages) <= WINDOW and vendor_types.all_kept_whole(messages):
        return {"prompt_messages": msgspec.Raw(messages)} | members
    try:
        each = items_of(messages) if is_readable else None
    except (msgspec.DecodeError, RecursionError):
        each = None
    breathe()
    if each is None:
        return {"input": as_text(messages)} | members
    fitted = [vendor_types.fitted_message(message) for message in each]
    if all(message is not None and message.whole for message in fitted):
        return {"prompt_messages": msgspec.Raw(messages)} | members
    members = {"input": as_text(messages)} | members
    if None not in fitted:
        members["prompt_messages"] = [message.message for message in fitted if message]
    return members


def answer_of(completions: tuple[dict[str, Any], ...], output: bytes | None) -> dict[str, Any]:
    """Return the answer as messages where the vendor keeps them, and as text beside where it would not.

    Args:
        completions: What of it is chat messages.
        output: All of it, where they are not that.
    """
    members: dict[str, Any] = {} if output is None else {"output": _words(output)}
    if not completions:
        return members
    fitted = [vendor_types.fitted_message(_raw(_in_the_vendors_words(message))) for message in completions]
    kept = [message.message for message in fitted if message]
    if fitted[0] is not None:
        members["completion_message"] = kept[0]
    if len(kept) == len(completions) > 1:
        members["completion_messages"] = kept
    if output is None and not all(message is not None and message.whole for message in fitted):
        whole = [_raw(message) for message in completions]
        members["output"] = as_text(bytes(whole[0]) if len(whole) == 1 else msgspec.json.encode(whole))
    if fitted[0] is not None and completions[0].get("tool_calls"):
        # What fits has a list of objects here, as the vendor's member wants it.
        members["tool_calls"] = _members_decoder.decode(fitted[0].message)["tool_calls"]
    return members


def _words(document: bytes) -> msgspec.Raw:
    """Return JSON as the text that the vendor shows: a text as it is, all else as it is written."""
    return msgspec.Raw(document) if is_utf8(document) and is_text(document) else as_text(document)


def _raw(message: dict[str, Any]) -> msgspec.Raw:
    breathe()
    return encoded_members(message)


def _in_the_vendors_words(message: dict[str, Any]) -> dict[str, Any]:
    """Give OpenRouter's `reasoning` the vendor's name, and leave out what it numbers tool calls with."""
    reasoning, calls = message.get("reasoning"), message.get("tool_calls")
    renamed = dict(message)
    if isinstance(reasoning, str) and "reasoning_content" not in message:
        renamed["reasoning_content"] = renamed.pop("reasoning")
    if isinstance(calls, list):
        renamed["tool_calls"] = [
            _without_place(call, place) for place, call in enumerate(cast("Sequence[object]", calls))
        ]
    return renamed


def _without_place(call: object, place: int) -> object:
    """Leave out the `index` of a tool call that only says where in the list it stands."""
    if not isinstance(call, dict):
        return call
    members = cast("dict[str, Any]", call)
    return {name: value for name, value in members.items() if name != "index" or value != place}
