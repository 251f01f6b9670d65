"""The top level of a JSON object: read once, and new members spliced onto the bytes as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

__all__ = ["Members", "read_members", "spliced"]

Members = dict[str, msgspec.Raw]
"""Each top-level member with the JSON of its value, as it stands in the body."""

# msgspec finds every member, also one whose name is escaped or stands there twice, and accepts one
# JSON object and nothing else: no trailing data, no byte order mark, no NaN.
_decoder: Final = msgspec.json.Decoder(Members)

_JOINED_BELOW: Final = 128 * 1024
"""Bytes up to which head and tail are joined: copying them is cheaper than sending two parts."""


def read_members(body: bytes) -> Members | None:
    """Return the members of the JSON object that `body` is; None when it is anything else."""
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def spliced(body: bytes, members: Members, changes: Mapping[str, bytes | None]) -> tuple[bytes | memoryview, ...]:
    """Return the parts of `body` with `changes` made to its top level.

    Args:
        body: A JSON object.
        members: Its members, as `read_members` gave them.
        changes: For each name the JSON of its new value, or None to take the member out.
    """
    if members.keys().isdisjoint(changes):
        end = body.rindex(b"}")
        added = b",".join(_member(name, value) for name, value in changes.items() if value is not None)
        if not added:
            return (body,)
        tail = (b"," if members else b"") + added + b"}"
        return (body[:end] + tail,) if end < _JOINED_BELOW else (memoryview(body)[:end], tail)
    # The body brings a member of that name itself. It is taken out and not merely followed by ours:
    # some parsers let the first of two members win, some the last.
    merged: dict[str, bytes | msgspec.Raw | None] = {**members, **changes}
    return (b"{" + b",".join(_member(name, value) for name, value in merged.items() if value is not None) + b"}",)


def _member(name: str, value: bytes | msgspec.Raw) -> bytes:
    return msgspec.json.encode(name) + b":" + bytes(value)
