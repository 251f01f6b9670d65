"""The top level of a JSON object: read once, and new members spliced onto the bytes as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Final

import msgspec

__all__ = [
    "Changed",
    "Members",
    "extended",
    "has_each_once",
    "joined",
    "read_object",
    "read_text",
    "spliced",
    "string_in",
]

Members = dict[str, msgspec.Raw]
"""Each top-level member with the JSON of its value, as it stands in the body."""

Changed = Mapping[str, bytes | None]
"""For each name the JSON of its new value, or None to take the member out."""

# msgspec finds every member, also one whose name is escaped or stands there twice, and accepts one
# JSON object and nothing else: no trailing data, no byte order mark, no NaN.
_decoder: Final = msgspec.json.Decoder(Members)

_JOINED_BELOW: Final = 128 * 1024
"""Bytes up to which head and tail are joined: copying them is cheaper than sending two parts."""


def read_object(body: bytes) -> tuple[bytes, Members] | None:
    """Return a JSON object and its members; None when `body` is anything else.

    What is not valid UTF-8 is none, wherever the fault is: msgspec does not look into what it skips.
    The object is `body` itself; for what only a lenient parser reads, such as a vendor's server may
    have, it is the same text as UTF-8: half an emoji in a prompt must not hide whose call it is.
    """
    try:
        if not body.isascii():
            body.decode()
        return body, _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _read_leniently(body)


def read_text(value: bytes) -> Members:
    """Return the members of a JSON object, also of one that is written as a JSON string; none of anything else."""
    read = read_object(string_in(value) if value.startswith(b'"') else value)
    return {} if read is None else read[1]


def string_in(value: bytes) -> bytes:
    """Return what a JSON string says, as UTF-8."""
    text: str = json.loads(value.decode("utf-8", "surrogatepass"), strict=False)
    return text.encode("utf-8", "surrogatepass")


def spliced(body: bytes, members: Members, changes: Changed, *, whole: bool = False) -> tuple[bytes | memoryview, ...]:
    """Return the parts of `body` with `changes` made to its top level.

    Args:
        body: A JSON object.
        members: Its members, as `read_object` gave them.
        changes: What becomes of them.
        whole: Make one part of it, whatever its size.
    """
    if members.keys().isdisjoint(changes):
        tail: list[bytes] = []
        for name, value in changes.items():
            if value is not None:
                tail += b",", _named(name), value
        if not tail:
            return (body,)
        if not members:
            del tail[0]
        return extended(body, b"".join(tail), whole=whole)
    # The body brings a member of that name itself. It is taken out and not merely followed by ours:
    # some parsers let the first of two members win, some the last.
    return (joined(members, changes),)


def extended(body: bytes, tail: bytes, *, whole: bool = False) -> tuple[bytes | memoryview, ...]:
    """Return the parts of `body` with something more before its end.

    Args:
        body: A JSON object.
        tail: More members, as they are written behind its last one.
        whole: Make one part of it, whatever its size.
    """
    head = memoryview(body)[: body.rindex(b"}")]
    if whole or len(head) < _JOINED_BELOW:
        return (b"".join((head, tail, b"}")),)
    return head, tail + b"}"


def joined(members: Mapping[str, bytes | msgspec.Raw], changes: Changed) -> bytes:
    """Return `members` with `changes` made to them as one JSON object, in which each name stands once."""
    merged: dict[str, bytes | msgspec.Raw | None] = {**members, **changes}
    return b"{%b}" % b",".join([_named(name) + bytes(value) for name, value in merged.items() if value is not None])


def has_each_once(body: bytes, members: Members) -> bool:
    """Say whether it is certain that no name stands twice in `body`: it is as short as its members can be written.

    That is so for what SDKs write. For anything with a blank between two members the answer is no.
    """
    shortest = 1 + sum(len(name.encode("utf-8", "surrogatepass")) + len(value) + 4 for name, value in members.items())
    return len(body) == max(shortest, 2)


def _named(name: str) -> bytes:
    return b'"%b":' % name.encode() if name.isidentifier() else json.dumps(name).encode() + b":"


_lenient: Final = json.JSONDecoder(strict=False)
_blank: Final = re.compile(r"[ \t\n\r]*")


def _read_leniently(body: bytes) -> tuple[bytes, Members] | None:
    """Read what Python's own parser would: lone surrogates, NaN, a byte order mark, UTF-16, control characters."""
    try:
        text = body.decode(json.detect_encoding(body), "surrogatepass")
        return text.encode("utf-8", "surrogatepass"), _scanned(text)
    except (ValueError, RecursionError, StopIteration):
        return None


def _scanned(text: str) -> Members:
    """Return the top-level members, the last of several with one name.

    Raises:
        ValueError: The text is not one JSON object.
    """
    members: Members = {}
    place = _after(text, _skipped(text, 0), "{")
    if text.startswith("}", place):
        place += 1
    else:
        while True:
            name, end = _lenient.raw_decode(text, place)
            if not isinstance(name, str):
                raise ValueError("a name is a string")
            start = _after(text, _skipped(text, end), ":")
            _, end = _lenient.raw_decode(text, start)
            members[name] = msgspec.Raw(text[start:end].encode("utf-8", "surrogatepass"))
            place = _skipped(text, end)
            if text.startswith("}", place):
                place += 1
                break
            place = _after(text, place, ",")
    if _skipped(text, place) != len(text):
        raise ValueError("something follows the object")
    return members


def _skipped(text: str, place: int) -> int:
    match = _blank.match(text, place)
    return place if match is None else match.end()


def _after(text: str, place: int, mark: str) -> int:
    if not text.startswith(mark, place):
        raise ValueError(f"{mark} is missing")
    return _skipped(text, place + 1)
