"""A text as it reads once escapes stand for what they mean, and where each piece of it came from."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

__all__ = ["Reading", "readings"]

Span = tuple[int, int]
"""Where something begins in a text, and where it ends."""


class Reading:
    """A text, as it is or with its escapes undone.

    Args:
        text: What it reads.
        source: What it is a reading of; None for a text as it is.
        escapes: What was undone; each stands for one character.
    """

    __slots__ = ("_ends", "_escapes", "_source", "_surpluses", "text")

    def __init__(self, text: str, source: Reading | None = None, escapes: re.Pattern[str] | None = None) -> None:
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

    def _measure(self, source: str, escapes: re.Pattern[str]) -> None:
        """Note where each escape ends in the reading, and how much longer the source is up to there."""
        self._ends.append(0)
        self._surpluses.append(0)
        for escape in escapes.finditer(source):
            self._surpluses.append(self._surpluses[-1] + len(escape[0]) - 1)
            self._ends.append(escape.end() - self._surpluses[-1])


# Visible characters that JSON spells as escapes without need, at any depth of JSON inside JSON.
_JSON: Final = re.compile(r"(?<!\\)\\+(?:u00([2-7][0-9A-Fa-f])|/)")
_URL: Final = re.compile("%([2-7][0-9A-Fa-f])")
_LONGEST_CHAIN: Final = 3


def readings(text: str) -> Iterator[Reading]:
    """Read a text once its escapes of JSON, of URLs, and of either inside the other are undone.

    What is escaped three times over is found when one of them is the other kind; a text without
    escapes of visible characters has no reading but itself, and that is not among these.
    """
    return _further(Reading(text), "")


def _further(source: Reading, chain: str) -> Iterator[Reading]:
    if len(chain) == _LONGEST_CHAIN:
        return
    # JSON inside JSON is undone at one go.
    if not chain.endswith("J") and ("\\u00" in source.text or "\\/" in source.text) and _JSON.search(source.text):
        reading = Reading(_undone(_JSON, source.text), source, _JSON)
        yield reading
        yield from _further(reading, chain + "J")
    if not chain.endswith("UU") and "%" in source.text and _URL.search(source.text):
        reading = Reading(_undone(_URL, source.text), source, _URL)
        yield reading
        yield from _further(reading, chain + "U")


def _undone(escapes: re.Pattern[str], text: str) -> str:
    pieces = escapes.split(text)
    pieces[1::2] = map(_MEANT.__getitem__, pieces[1::2])
    return "".join(pieces)


# What two digits stand for; an escaped slash has none.
_MEANT: Final[dict[str | None, str]] = {None: "/"} | {
    digits: chr(int(digits, 16)) for high in "234567" for low in "0123456789abcdefABCDEF" for digits in (high + low,)
}
