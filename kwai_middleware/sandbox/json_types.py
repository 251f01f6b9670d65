"""JSON that came from outside: read, and narrowed to what it turned out to be."""

from __future__ import annotations

from typing import TypeGuard

import msgspec

__all__ = ["is_array", "is_object", "json_or_none", "object_or_empty"]


def json_or_none(raw: bytes) -> object:
    """Decode JSON; None when it is none."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def is_object(value: object) -> TypeGuard[dict[str, object]]:
    """Say whether a decoded value is a JSON object."""
    return isinstance(value, dict)


def is_array(value: object) -> TypeGuard[list[object]]:
    """Say whether a decoded value is a JSON array."""
    return isinstance(value, list)


def object_or_empty(value: object) -> dict[str, object]:
    """Return a decoded value if it is an object, else an empty one."""
    return value if is_object(value) else {}
