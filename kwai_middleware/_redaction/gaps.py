"""Masks what is left of a key where a text was cut in two."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

from kwai_middleware._redaction.readings import Reading, readings
from kwai_middleware._redaction.shapes import MASK, begun
from kwai_middleware._redaction.spellings import SHORTEST_KEY, Keys, Spelling
from kwai_middleware._secret import Secret

__all__ = ["mask_end", "mask_start"]

_LONGEST_ESCAPE: Final = 8
"""Of one character, as far as the space in which to look is concerned."""

# What is left of an escape that was cut, too.
_CUT_ESCAPE: Final = re.compile(r"(?:%[0-9A-Fa-f]?|\\+(?:u[0-9A-Fa-f]{0,3})?)\Z")
_REST_OF_ESCAPE: Final = re.compile(r"\\*u?[0-9A-Fa-f]{0,4}|\\*/")


def mask_end(text: str, secrets: Iterable[Secret] | Keys) -> str:
    """Return a text that was cut with the beginning of a key masked, where it ends in one of 8 characters or more.

    The key is found in whichever form `mask_text` finds it.
    """
    spellings = Keys.of(secrets).spellings()
    nearby = _LONGEST_ESCAPE * max((len(spelling.text) for spelling in spellings), default=0)
    left_out = max(len(text) - nearby, 0)
    starts = [
        reading.origin(span)[0]
        for reading in _all_readings(text[left_out:])
        for spelling in spellings
        for span in _begun(reading.text, spelling)
    ]
    if starts:
        return text[: left_out + min(starts)] + MASK
    start = begun(text)
    return text if start is None else text[:start] + MASK


def mask_start(text: str, secrets: Iterable[Secret] | Keys) -> str:
    """Return a text that was cut with the end of a key masked, where it begins with one of 8 characters or more.

    The key is found in whichever form `mask_text` finds it.
    """
    spellings = Keys.of(secrets).spellings()
    nearby = _LONGEST_ESCAPE * max((len(spelling.text) for spelling in spellings), default=0)
    ends = [
        reading.origin(span)[1]
        for reading in _all_readings(text[:nearby])
        for spelling in spellings
        for span in _ended(reading.text, spelling)
    ]
    return MASK + text[max(ends) :] if ends else text


def _all_readings(text: str) -> Iterator[Reading]:
    yield Reading(text)
    yield from readings(text)


def _begun(text: str, spelling: Spelling) -> Iterator[tuple[int, int]]:
    """Find the longest beginning of a spelling that the text ends in."""
    cut = _CUT_ESCAPE.search(text)
    for end in {len(text), len(text) if cut is None else cut.start()}:
        for size in range(len(spelling.text), SHORTEST_KEY - 1, -1):
            if text.endswith(spelling.text[:size], 0, end):
                yield spelling.extent(text, end - size, len(text))
                break


def _ended(text: str, spelling: Spelling) -> Iterator[tuple[int, int]]:
    """Find the longest end of a spelling that the text begins with."""
    rest = _REST_OF_ESCAPE.match(text)
    for start in range((rest.end() if rest else 0) + 1):
        for size in range(len(spelling.text), SHORTEST_KEY - 1, -1):
            if text.startswith(spelling.text[-size:], start):
                yield spelling.extent(text, 0, start + size)
                break
