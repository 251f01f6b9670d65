"""A text as it reads once escapes stand for what they mean, and where each piece of it came from."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, NamedTuple

from kwai_middleware._joining import joined
from kwai_middleware._pace import WINDOW, breathe
from kwai_middleware._redaction.searching import is_in
from kwai_middleware._redaction.shapes import Span

__all__ = ["Reading", "readings"]


class _Escapes(NamedTuple):
    """One way of spelling characters.

    Attributes:
        pattern: An escape; its group is what two digits, or none, stand for.
        sign: The character that it begins with; several of it may be one sign.
        marks: What stands in each.
        reach: How many characters behind its last sign it ends at most.
    """

    pattern: re.Pattern[bytes]
    sign: bytes
    marks: tuple[bytes, ...]
    reach: int


# Visible characters that JSON spells as escapes without need, at any depth of JSON inside JSON.
_JSON: Final = _Escapes(re.compile(rb"(?<!\\)\\+(?:u00([2-7][0-9A-Fa-f])|/)"), b"\\", (b"\\u00", b"\\/"), 6)
_URL: Final = _Escapes(re.compile(b"%([2-7][0-9A-Fa-f])"), b"%", (b"%",), 3)
_LONGEST_CHAIN: Final = 3


class Reading:
    """A text, as it is or with its escapes undone.

    Args:
        text: What it reads.
        source: What it is a reading of; None for a text as it is.
        escapes: What was undone; each stands for one character.
    """

    __slots__ = ("_ends", "_escapes", "_source", "_surpluses", "text")

    def __init__(self, text: bytes, source: Reading | None = None, escapes: _Escapes | None = None) -> None:
        self.text: Final = text
        self._source: Final = source
        self._escapes: Final = escapes
        self._ends: list[int] = []
        self._surpluses: list[int] = []

    def origin(self, span: Span) -> Span:
        """Return where a piece of the reading stands in the text that was read first, with the whole of its escapes."""
        if self._source is None or self._escapes is None:
            return span
        if not self._ends:
            self._measure(self._source.text, self._escapes)
        start, end = (place + self._surpluses[bisect_right(self._ends, place) - 1] for place in span)
        return self._source.origin((start, end))

    def _measure(self, source: bytes, escapes: _Escapes) -> None:
        """Note where each escape ends in the reading, and how much longer the source is up to there."""
        self._ends.append(0)
        self._surpluses.append(0)
        for start, end in _windows(source, escapes):
            for escape in escapes.pattern.finditer(source, start, end):
                self._surpluses.append(self._surpluses[-1] + len(escape[0]) - 1)
                self._ends.append(escape.end() - self._surpluses[-1])
                breathe()


def readings(text: bytes) -> Iterator[Reading]:
    """Read a text once its escapes of JSON, of URLs, and of either inside the other are undone.

    What is escaped three times over is found when one of them is the other kind; a text without
    escapes of visible characters has no reading but itself, and that is not among these.
    """
    return _further(Reading(text), "")


def _further(source: Reading, chain: str) -> Iterator[Reading]:
    if len(chain) == _LONGEST_CHAIN:
        return
    # JSON inside JSON is undone at one go.
    if not chain.endswith("J") and (text := _undone(_JSON, source.text)) is not None:
        reading = Reading(text, source, _JSON)
        yield reading
        yield from _further(reading, chain + "J")
    if not chain.endswith("UU") and (text := _undone(_URL, source.text)) is not None:
        reading = Reading(text, source, _URL)
        yield reading
        yield from _further(reading, chain + "U")


def _undone(escapes: _Escapes, text: bytes) -> bytes | None:
    """Return a text without its escapes; None when it has none."""
    # The sign first: to look for one character takes a hundredth of the time.
    if not is_in(text, escapes.sign) or not any(is_in(text, mark) for mark in escapes.marks):
        return None
    is_changed = False
    parts: list[bytes] = []
    for start, end in _windows(text, escapes):
        piece = text[start:end]
        pieces = escapes.pattern.split(piece) if any(mark in piece for mark in escapes.marks) else [piece]
        if len(pieces) > 1:
            pieces[1::2] = map(_MEANT.__getitem__, pieces[1::2])
            piece = b"".join(pieces)
            is_changed = True
        parts.append(piece)
        breathe()
    return joined(parts) if is_changed else None


def _windows(text: bytes, escapes: _Escapes) -> Iterator[Span]:
    """Yield the borders of pieces that make up a text; none goes through an escape."""
    start, size = 0, len(text)
    while start < size:
        end = start + WINDOW
        while end < size and (sign := text.rfind(escapes.sign, end - escapes.reach + 1, end)) >= 0:
            # Several signs may be one; then it begins with the first of them.
            before = start + len(text[start:sign].rstrip(escapes.sign))
            if before > start:
                end = before
                break
            # There is nothing but signs up to here.
            end += WINDOW
        end = min(end, size)
        yield start, end
        start = end
        breathe()


# What two digits stand for; an escaped slash has none.
_MEANT: Final[dict[bytes | None, bytes]] = {None: b"/"} | {
    digits.encode(): bytes.fromhex(digits)
    for high in "234567"
    for low in "0123456789abcdefABCDEF"
    for digits in (high + low,)
}
