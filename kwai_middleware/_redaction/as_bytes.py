"""Texts as bytes, in which all searching is done: a document of megabytes comes as such, and is not copied for it."""

from __future__ import annotations

from kwai_middleware._joining import joined
from kwai_middleware._pace import WINDOW, windows

__all__ = ["as_bytes", "as_text"]


def as_bytes(text: str) -> bytes:
    """Return the UTF-8 of a text, also of one with halves of surrogate pairs in it."""
    if len(text) <= WINDOW:
        return text.encode("utf-8", "surrogatepass")
    return joined([text[start:end].encode("utf-8", "surrogatepass") for start, end in windows(len(text))])


def as_text(raw: bytes) -> str:
    """Return the text that `as_bytes` was given."""
    return raw.decode("utf-8", "surrogatepass")
