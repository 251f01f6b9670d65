"""What must never leave the process: masks API keys in text.

Shapes begin with a literal prefix, so that text without one costs a substring search and nothing
more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from kwai_middleware._secret import Secret

__all__ = ["MASK", "mask_bytes", "mask_text"]

MASK: Final = "****"

# OpenRouter, OpenAI, Anthropic and their kin; Groq; xAI; Google; Perplexity; Hugging Face; AWS; bearer headers.
_SHAPES: Final = (
    r"sk-[A-Za-z0-9_-]{16,}"
    r"|gsk_[A-Za-z0-9]{16,}"
    r"|xai-[A-Za-z0-9]{16,}"
    r"|AIza[A-Za-z0-9_-]{30,}"
    r"|pplx-[A-Za-z0-9]{16,}"
    r"|hf_[A-Za-z0-9]{16,}"
    r"|AKIA[A-Z0-9]{16}"
)
_TEXT_SHAPES: Final = re.compile(_SHAPES)
_BYTE_SHAPES: Final = re.compile(_SHAPES.encode())
_PREFIXES: Final = ("sk-", "gsk_", "xai-", "AIza", "pplx-", "hf_", "AKIA")
_BYTE_PREFIXES: Final = tuple(prefix.encode() for prefix in _PREFIXES)


def mask_text(text: str, secrets: Iterable[Secret] = ()) -> str:
    """Return `text` with everything that looks like a key, and each of `secrets`, masked."""
    for secret in secrets:
        text = text.replace(secret.reveal(), MASK)
    if any(prefix in text for prefix in _PREFIXES):
        text = _TEXT_SHAPES.sub(MASK, text)
    return text


def mask_bytes(data: bytes, secrets: Iterable[Secret] = ()) -> bytes:
    """Return UTF-8 `data` with everything that looks like a key, and each of `secrets`, masked."""
    for secret in secrets:
        data = data.replace(secret.reveal().encode(), MASK.encode())
    if any(prefix in data for prefix in _BYTE_PREFIXES):
        data = _BYTE_SHAPES.sub(MASK.encode(), data)
    return data
