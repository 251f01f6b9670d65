"""Reads JSON that the strict and fast way refuses: odd types, broken UTF-8, halves of surrogate pairs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any, Final, cast

import msgspec

from kwai_middleware._pace import breathe

__all__ = ["UNREADABLE", "fitting", "items_of", "loads", "members_of", "paired", "repaired"]

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What the strict and fast way raises."""


def loads(data: bytes) -> Any:
    """Decode JSON by Python's more forgiving parser; None when even that cannot."""
    try:
        return json.loads(data.decode(errors="replace"))
    except (ValueError, RecursionError):
        return None


def members_of(value: object) -> dict[str, Any]:
    """Return the members of a decoded object, and none of anything else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def items_of(value: object) -> Sequence[Any]:
    """Return the items of a decoded array, and none of anything else."""
    return cast("Sequence[Any]", value) if isinstance(value, list) else ()


def repaired(data: bytes) -> bytes | None:
    """Return JSON with the same meaning that every parser takes, or None when there is none."""
    value = paired(loads(data))
    if value is None:
        return None
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        return None


def paired(value: Any) -> Any:
    """Join halves of surrogate pairs that stand side by side, and replace those left alone, at any depth.

    Returns None for a value that is nested too deeply.
    """
    try:
        return _paired(value)
    except RecursionError:
        return None


def _paired(value: Any) -> Any:
    breathe()
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if members := members_of(value):
        return {_paired(name): _paired(member) for name, member in members.items()}
    if items := items_of(value):
        return list(map(_paired, items))
    return value


def fitting(value: object, type_: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the members of a decoded object that fit the fields of `type_`, converted."""
    members = members_of(value)
    found: dict[str, Any] = {}
    for name in members.keys() & _field_types(type_).keys():
        try:
            found[name] = msgspec.convert(members[name], _field_types(type_)[name])
        except (msgspec.ValidationError, UnicodeEncodeError, RecursionError):
            # msgspec names the member that does not fit, and half of a surrogate pair has no UTF-8.
            continue
    return found


@cache
def _field_types(type_: type[msgspec.Struct]) -> dict[str, Any]:
    # Finding them out takes longer than all the rest: a stream of nothing but odd chunks must not pay it for each.
    return {field.name: field.type for field in msgspec.structs.fields(type_)}
