"""What must never leave the process: masks API keys in text.

Shapes begin with a literal prefix, so that text without one costs a substring search and nothing
more.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, TypeAlias

import msgspec

from kwai_middleware._secret import Secret

__all__ = ["MASK", "mask_json", "mask_text"]

MASK: Final = "****"

_Json: TypeAlias = str | float | bool | list["_Json"] | dict[str, "_Json"] | None

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


_SHORTEST_KEY: Final = 8


def mask_text(text: str, secrets: Iterable[Secret] = ()) -> str:
    """Return `text` with everything that looks like a key, and each of `secrets`, masked.

    Args:
        text: Any text.
        secrets: Keys of any shape. One of fewer than 8 characters is no key of any vendor, but may
            well be a piece of a word, and is left alone.
    """
    for key in _exact(secrets):
        text = text.replace(key, MASK)
    if any(prefix in text for prefix in _PREFIXES):
        text = _TEXT_SHAPES.sub(MASK, text)
    return text


def mask_json(document: bytes, secrets: Iterable[Secret] = ()) -> bytes:
    """Return a JSON document with everything that looks like a key, and each of `secrets`, masked.

    It is a JSON document still, whatever characters a key is made of. Without a key in it, it is
    returned as it is, neither decoded nor copied.

    Args:
        document: UTF-8, one JSON value.
        secrets: As for `mask_text`.
    """
    secrets = tuple(secrets)
    masked = document
    for key in _exact(secrets):
        masked = masked.replace(key.encode(), MASK.encode())
        # How JSON spells it, where it has a quote or a backslash.
        masked = masked.replace(msgspec.json.encode(key)[1:-1], MASK.encode())
    if masked != document and not _is_json(masked):
        # A key such as `","model":"` or `17000000` has hit what is not text.
        masked = msgspec.json.encode(_masked(msgspec.json.decode(document), secrets))
    if any(prefix in masked for prefix in _BYTE_PREFIXES):
        masked = _BYTE_SHAPES.sub(MASK.encode(), masked)
    return masked


def _exact(secrets: Iterable[Secret]) -> list[str]:
    """The keys themselves, the longest first: one may be the beginning of another."""
    keys = (secret.reveal() for secret in secrets)
    return sorted((key for key in keys if len(key) >= _SHORTEST_KEY), key=len, reverse=True)


def _is_json(document: bytes) -> bool:
    try:
        msgspec.json.decode(document)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True


def _masked(value: _Json, secrets: tuple[Secret, ...]) -> _Json:
    if isinstance(value, str):
        return mask_text(value, secrets)
    if isinstance(value, list):
        return [_masked(each, secrets) for each in value]
    if isinstance(value, dict):
        return {mask_text(name, secrets): _masked(each, secrets) for name, each in value.items()}
    return value
