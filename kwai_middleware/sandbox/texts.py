"""The texts of formats that have no messages."""

from __future__ import annotations

from typing import Final

from kwai_middleware.sandbox.json_types import is_array, is_object

__all__ = ["texts_of"]

_WORD: Final = "word"


def texts_of(asked: object) -> list[object]:
    """Return what is asked, as contents of messages.

    Args:
        asked: A text, tokens, or an array of texts, of tokens, or of objects with a `content` or a `text`; tokens
            count as a text of so many.
    """
    if isinstance(asked, str):
        return [asked] if asked else []
    items = asked if is_array(asked) else []
    if items and all(type(item) is int for item in items):
        return [_WORD * len(items)]
    return [_text_of(item) for item in items]


def _text_of(item: object) -> object:
    if is_array(item):
        return _WORD * len(item)
    return item.get("content", item.get("text")) if is_object(item) else item
