"""Reads answers without the long values of one member: pictures and vectors, which nobody looks into here."""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final, NamedTuple

from kwai_middleware._outbound.formats.beginnings import beginning_of
from kwai_middleware._outbound.formats.interface import GAP, Received
from kwai_middleware._outbound.formats.reading import Reading
from kwai_middleware._pace import windows

__all__ = ["ReadingWithout", "cut"]

_LONGEST_HEAD: Final = 256
_NEARBY: Final = 64


class _Cut(NamedTuple):
    rest: bytes
    values: list[memoryview]


class ReadingWithout(Reading):
    """An answer's body, to be read once, without the values of one member.

    Passing over them takes a parser one long call, reading them takes several.

    Args:
        received: What came.
        name: The member.

    Attributes:
        values: What was cut out of the document that was read last; in their places stand their numbers.
    """

    def __init__(self, received: Received, name: str) -> None:
        super().__init__(received)
        self.values: list[memoryview] = []
        self._name = name

    def _beginning(self) -> dict[str, Any]:
        """Return the members of an answer that is not whole; a value that was cut is a mark."""
        self.is_loose = True
        rest, self.values = cut(self._parts[0], self._name)
        return beginning_of(rest, self._secrets)

    def _decoded(self, data: bytes) -> dict[str, Any] | None:
        rest, self.values = cut(data, self._name)
        members = super()._decoded(rest)
        if members is None and self.values and data[-_NEARBY:].rstrip().endswith(b"}"):
            # It was no list of numbers and no plain text that was cut out, but a part of something else.
            self.values = []
            return super()._decoded(data)
        return members


def cut(body: bytes, name: str) -> _Cut:
    """Cut the values of a member out of JSON, with their quotes or brackets, and leave their numbers in their places.

    Values are texts without quotes in them, and lists of numbers; all others are left where they are.
    A value without an end is left out, with a mark in its place. In JSON nothing else looks like the
    member: in a text its quotes would stand behind backslashes. Without any it is the very same object.
    """
    pieces: list[bytes] = []
    values: list[memoryview] = []
    behind = 0
    for start, end in windows(len(body)):
        for head in _head(name).finditer(body, max(start, behind), end + _LONGEST_HEAD):
            if head.start() < behind:
                continue
            begins = head.end() - 1
            last = _place_of(b"]" if head[1] == b"[" else b'"', body, head.end())
            pieces.append(body[behind:begins])
            if last < 0:
                return _Cut(b"".join((*pieces, b'"%b"' % GAP.encode())), values)
            pieces.append(b"%d" % len(values))
            values.append(memoryview(body)[begins : last + 1])
            behind = last + 1
    return _Cut(b"".join((*pieces, body[behind:])) if pieces else body, values)


@cache
def _head(name: str) -> re.Pattern[bytes]:
    return re.compile(rb'"%b"[ \t\r\n]{0,64}:[ \t\r\n]{0,64}(["\[])' % re.escape(name).encode())


def _place_of(sign: bytes, body: bytes, place: int) -> int:
    for start, end in windows(len(body), place):
        found = body.find(sign, start, end)
        if found >= 0:
            return found
    return -1
