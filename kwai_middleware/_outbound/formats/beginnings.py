"""Reads the beginning of a JSON object whose rest is missing or broken."""

from __future__ import annotations

import codecs
import json
import re
from typing import Any, Final

from kwai_middleware._outbound.formats.interface import GAP
from kwai_middleware._pace import breathe
from kwai_middleware._redaction import mask_end
from kwai_middleware._secret import Secret

__all__ = ["beginning_of"]

_DEEPEST: Final = 8
_MOST_ITEMS: Final = 10_000
_LONGEST_ESCAPE: Final = 6
_decoder: Final = json.JSONDecoder()
_spaces: Final = re.compile(r"[ \t\r\n]*")


def beginning_of(data: bytes, secrets: tuple[Secret, ...] = ()) -> dict[str, Any]:
    """Return the members of an object as far as they came; of anything else, none.

    A text that was cut ends in a mark, and what is left of a key there is masked. Values are looked
    for in the eight outermost levels, so that it takes linear time; never raises.

    Args:
        data: UTF-8, its last character perhaps cut.
        secrets: Keys of any shape.
    """
    # Not the end for the decoder: half of a character there is left out.
    text = codecs.getincrementaldecoder("utf-8")("replace").decode(data)
    start = _skipped(text, 0)
    return _Beginning(text, secrets).members(start, _DEEPEST) if text.startswith("{", start) else {}


class _Beginning:
    def __init__(self, text: str, secrets: tuple[Secret, ...]) -> None:
        self._text = text
        self._secrets = secrets

    def members(self, start: int, levels: int) -> dict[str, Any]:
        """Return the members of the object at `start` that came."""
        found: dict[str, Any] = {}
        place = _skipped(self._text, start + 1)
        while self._text.startswith('"', place) and len(found) < _MOST_ITEMS:
            try:
                name, place = _decoder.raw_decode(self._text, place)
            except ValueError:
                break
            place = _skipped(self._text, place)
            if not self._text.startswith(":", place):
                break
            values, place = self._value(_skipped(self._text, place + 1), levels)
            found.update((name, value) for value in values)
            place = self._behind_comma(place)
        return found

    def items(self, start: int, levels: int) -> list[Any]:
        """Return the items of the array at `start` that came."""
        found: list[Any] = []
        place = _skipped(self._text, start + 1)
        while place < len(self._text) and len(found) < _MOST_ITEMS:
            values, place = self._value(place, levels)
            found += values
            place = self._behind_comma(place)
        return found

    def _value(self, start: int, levels: int) -> tuple[list[Any], int]:
        """Return the value at `start`, or nothing, and where it ends; one that is cut ends where all ends."""
        breathe()
        try:
            value, end = _decoder.raw_decode(self._text, start)
        except (ValueError, RecursionError):
            return self._cut_value(start, levels), len(self._text)
        return [value], end

    def _cut_value(self, start: int, levels: int) -> list[Any]:
        first = self._text[start : start + 1]
        if first == '"':
            return [self._cut_text(start)]
        if first == "{" and levels > 1:
            return [self.members(start, levels - 1)]
        if first == "[" and levels > 1:
            return [self.items(start, levels - 1)]
        return []

    def _behind_comma(self, place: int) -> int:
        """Return where the next value begins; the end of the text when there is none."""
        place = _skipped(self._text, place)
        return _skipped(self._text, place + 1) if self._text.startswith(",", place) else len(self._text)

    def _cut_text(self, start: int) -> str:
        # The cut may have gone through an escape.
        for end in range(len(self._text), max(len(self._text) - _LONGEST_ESCAPE, start), -1):
            try:
                text: str = json.loads(self._text[start:end] + '"', strict=False)
            except ValueError:
                continue
            # Or between two escapes that are one character.
            whole = text[:-1] if "\ud800" <= text[-1:] <= "\udbff" else text
            return mask_end(whole, self._secrets) + GAP
        return GAP


def _skipped(text: str, place: int) -> int:
    """Return the place of the first character from `place` on that is no white space."""
    spaces = _spaces.match(text, place)
    return spaces.end() if spaces else place
