"""Masks what is left of a key where a text was cut in two."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from kwai_middleware._redaction.as_bytes import as_bytes, as_text
from kwai_middleware._redaction.readings import Reading, readings
from kwai_middleware._redaction.shapes import MASK, Span, begun
from kwai_middleware._redaction.spellings import SHORTEST_KEY, Keys, Spelling
from kwai_middleware._secret import Secret

__all__ = ["mask_end", "mask_start"]

_LONGEST_ESCAPE: Final = 8
"""Characters that stand for one."""

_ENOUGH_FOR_SHAPES: Final = 64

# What is left of an escape that was cut, too.
_CUT_ESCAPE: Final = re.compile(rb"(?:%[0-9A-Fa-f]?|\\+(?:u[0-9A-Fa-f]{0,3})?)\Z")
_REST_OF_ESCAPE: Final = re.compile(rb"\\{0,8}u?[0-9A-Fa-f]{0,4}")


def mask_end(text: str, secrets: Iterable[Secret] | Keys) -> str:
    """Return a text that was cut with the beginning of a key masked, where it ends in one of 8 characters or more.

    The key is found in whichever form `mask_text` finds it.
    """
    spellings = Keys.of(secrets).spellings()
    left_out = max(len(text) - _nearby(spellings), 0)
    near = as_bytes(text[left_out:])
    starts: list[int] = []
    for reading in _all_readings(near):
        size = len(reading.text)
        cut = _CUT_ESCAPE.search(reading.text)
        for end in (size,) if cut is None else (size, cut.start()):
            pieces = (_begun(reading.text, spelling, end) for spelling in spellings)
            starts += [reading.origin(piece)[0] for piece in pieces if piece]
    start = min(starts) if starts else begun(near)
    return text if start is None else text[:left_out] + as_text(near[:start]) + MASK


def mask_start(text: str, secrets: Iterable[Secret] | Keys) -> str:
    """Return a text that was cut with the end of a key masked, where it begins with one of 8 characters or more.

    The key is found in whichever form `mask_text` finds it.
    """
    spellings = Keys.of(secrets).spellings()
    nearby = _nearby(spellings)
    near = as_bytes(text[:nearby])
    ends: list[int] = []
    for reading in _all_readings(near):
        rest = _REST_OF_ESCAPE.match(reading.text)
        for start in range((rest.end() if rest else 0) + 1):
            pieces = (_ended(reading.text, spelling, start) for spelling in spellings)
            ends += [reading.origin(piece)[1] for piece in pieces if piece]
    return MASK + as_text(near[max(ends) :]) + text[nearby:] if ends else text


def _nearby(spellings: Iterable[Spelling]) -> int:
    """How many characters may be a key."""
    sizes = (_LONGEST_ESCAPE * len(spelling.text) for spelling in spellings)
    return max(sizes, default=_ENOUGH_FOR_SHAPES)


def _all_readings(text: bytes) -> Iterator[Reading]:
    yield Reading(text)
    yield from readings(text)


def _begun(text: bytes, spelling: Spelling, end: int) -> Span | None:
    """Find the longest beginning of a spelling that ends at `end`; what follows there is the rest of it."""
    last = text[max(end - SHORTEST_KEY, 0) : end]
    size = _end_of_last(last, spelling.text)
    while size and not text.endswith(spelling.text[:size], 0, end):
        size = _end_of_last(last, spelling.text[: size - 1])
    return spelling.extent(text, end - size, len(text)) if size else None


def _end_of_last(piece: bytes, text: bytes) -> int:
    place = text.rfind(piece) if len(piece) == SHORTEST_KEY else -1
    return place + SHORTEST_KEY if place >= 0 else 0


def _ended(text: bytes, spelling: Spelling, start: int) -> Span | None:
    """Find the longest end of a spelling that begins at `start`; what stands before is the rest of it."""
    first = text[start : start + SHORTEST_KEY]
    place = spelling.text.find(first) if len(first) == SHORTEST_KEY else -1
    while place >= 0 and not text.startswith(spelling.text[place:], start):
        place = spelling.text.find(first, place + 1)
    return spelling.extent(text, 0, start + len(spelling.text) - place) if place >= 0 else None
