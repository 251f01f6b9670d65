"""Takes long JSON objects and arrays apart in windows: a parser passes over megabytes in one call, and that is long."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Final

import msgspec

from kwai_middleware._long_texts import pieces_of_text
from kwai_middleware._pace import WINDOW, breathe

__all__ = ["LARGE", "items_of", "look_into", "members_of"]

LARGE: Final = 4 * WINDOW
"""Bytes from which JSON is taken apart: up to here the parser takes 30 µs."""

_DEEPEST: Final = 8
_MOST_LEVELS: Final = 1000
"""The parser goes no deeper either."""

_BLANKS: Final = b" \t\r\n"

_INSIDE: Final = r'[^"\\]*+(?:\\.[^"\\]*+)*+'
_TEXT: Final = rf'"{_INSIDE}"'
_PLAIN: Final = r'[^"{}\[\]]++'


def _group(inner: str) -> str:
    return rf"[{{\[](?:{_PLAIN}|{_TEXT}{inner})*+[}}\]]"


# An object or array in which there are others, and others in those: a message with its parts.
_GROUP: Final = _group("|" + _group("|" + _group("")))
_SOME: Final = rf'(?:[^"{{}}\[\],]++|{_TEXT}|{_GROUP})*+'
# Whole items or members, up to the last comma between them; the rest is to walk through a longer one.
_ELEMENTS: Final = re.compile(f"(?:{_SOME},)*+".encode(), re.DOTALL)
_ELEMENT: Final = re.compile(_SOME.encode(), re.DOTALL)
_DEEPER: Final = re.compile(f"(?:{_PLAIN}|{_TEXT}|{_GROUP})*+".encode(), re.DOTALL)
_REST_OF_TEXT: Final = re.compile(_INSIDE.encode(), re.DOTALL)
_FIRST: Final = re.compile(rb"[ \t\r\n]*+(.)", re.DOTALL)
_BORDERS: Final = {
    opens: re.compile(closes + rb"[ \t\r\n]*+(,)[ \t\r\n]*+" + re.escape(opens))
    for opens, closes in ((b"{", rb"\}"), (b"[", rb"\]"), (b'"', b'"'))
}
_OTHER_BORDER: Final = re.compile(b"(,)")
_LEAP: Final = 2 * WINDOW
_MOST_TRIES: Final = 3
_FREE_FAILURES: Final = 20
_NAME: Final = re.compile(rf"[ \t\r\n]*+({_TEXT})[ \t\r\n]*+:[ \t\r\n]*+".encode(), re.DOTALL)

_decoder: Final = msgspec.json.Decoder(msgspec.Raw)
_text_decoder: Final = msgspec.json.Decoder(str)
_members_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items_decoder: Final = msgspec.json.Decoder(list[msgspec.Raw])


def members_of(raw: bytes | memoryview | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Return the members of a JSON object as they are written; all of it has been looked into.

    Args:
        raw: UTF-8.

    Raises:
        msgspec.DecodeError: It is none.
        RecursionError: It is nested too deeply.
    """
    if len(raw) <= LARGE:
        return _members_decoder.decode(raw)
    return _members(_within(raw, b"{", b"}"), _DEEPEST)


def items_of(raw: bytes | memoryview | msgspec.Raw) -> list[msgspec.Raw]:
    """Return the items of a JSON array as they are written; all of it has been looked into.

    Args:
        raw: UTF-8.

    Raises:
        msgspec.DecodeError: It is none.
        RecursionError: It is nested too deeply.
    """
    if len(raw) <= LARGE:
        return _items_decoder.decode(raw)
    return _items(_within(raw, b"[", b"]"), _DEEPEST)


def look_into(raw: bytes) -> None:
    """Find out whether bytes are JSON, but for texts that are no UTF-8.

    Raises:
        msgspec.DecodeError: They are none.
        RecursionError: They are nested too deeply.
    """
    try:
        _checked(memoryview(raw), _DEEPEST)
    except UnicodeDecodeError:
        _decoder.decode(raw)


def _within(raw: bytes | memoryview | msgspec.Raw, opens: bytes, closes: bytes) -> memoryview:
    """Return what stands between the brackets."""
    whole = _stripped(memoryview(raw))
    if whole[:1] != opens or whole[-1:] != closes:
        raise msgspec.DecodeError("other brackets are expected")
    return whole[1:-1]


def _stripped(raw: memoryview) -> memoryview:
    start, end = 0, len(raw)
    while start < end and raw[start] in _BLANKS:
        start += 1
    while end > start and raw[end - 1] in _BLANKS:
        end -= 1
    return raw[start:end]


def _members(inner: memoryview, levels: int) -> dict[str, msgspec.Raw]:
    members: dict[str, msgspec.Raw] = {}
    for start, end in _elements(inner, 0, _Leaps(inner)):
        head = _NAME.match(inner, start, min(start + LARGE, end)) if end - start > LARGE else None
        if head is None:
            # A name as long as a window may be no text at all.
            members |= _members_decoder.decode(b"".join((b"{", inner[start:end], b"}")))
        else:
            members[_text_decoder.decode(head[1])] = _checked(inner[head.end() : end], levels)
        breathe()
    return members


def _items(inner: memoryview, levels: int) -> list[msgspec.Raw]:
    items: list[msgspec.Raw] = []
    leaps = _Leaps(inner)
    start = 0
    while True:
        start = leaps.from_(start, items)
        # One step at a time where it is not to be seen from afar where an item ends.
        start, end = next(_elements(inner, start, leaps))
        if end - start <= LARGE:
            items += _listed(inner[start:end])
        else:
            items.append(_checked(inner[start:end], levels))
        if end == len(inner):
            return items
        start = end + 1
        breathe()


class _Leaps:
    """Passes over many items at one go."""

    __slots__ = ("_failures", "_inner")

    def __init__(self, inner: memoryview) -> None:
        self._inner = inner
        self._failures = 0

    def from_(self, start: int, items: list[msgspec.Raw] | None = None) -> int:
        """Go from the beginning of an item as far as that is easy; return where the next begins.

        What looks like the border between two items may stand in a text, or deeper. It is the border if
        what stands before it can be read: a text would have no end there, and brackets would not match.
        """
        # Each failure may have read for nothing as much as a leap passes over: not more often than it would have paid.
        while self._failures <= _FREE_FAILURES + start // _LEAP:
            for comma in self._candidates(start):
                try:
                    passed = _listed(self._inner[start:comma])
                except msgspec.DecodeError:
                    breathe()
                    continue
                if items is not None:
                    items += passed
                start = comma + 1
                breathe()
                break
            else:
                self._failures += 1
                break
        return start

    def _candidates(self, start: int) -> Iterator[int]:
        first = _FIRST.match(self._inner, start, start + WINDOW)
        border = _BORDERS.get(first[1], _OTHER_BORDER) if first else _OTHER_BORDER
        found = border.finditer(self._inner, start + _LEAP, start + _LEAP + WINDOW)
        return (candidate.start(1) for candidate in islice(found, _MOST_TRIES))


def _listed(items: memoryview) -> list[msgspec.Raw]:
    return _items_decoder.decode(b"".join((b"[", items, b"]")))


def _checked(raw: memoryview, levels: int) -> msgspec.Raw:
    """Look into a long value of any kind, and return it without the blanks around it."""
    value = _stripped(raw)
    if len(value) <= LARGE or not levels:
        return _decoder.decode(value)
    kind = bytes(value[:1]) + bytes(value[-1:])
    if kind == b"{}":
        _members(value[1:-1], levels - 1)
    elif kind == b"[]":
        _items(value[1:-1], levels - 1)
    elif kind == b'""':
        for piece in pieces_of_text(value):
            _decoder.decode(piece)
    else:
        return _decoder.decode(value)
    return msgspec.Raw(value)


def _elements(inner: memoryview, start: int, leaps: _Leaps) -> Iterator[tuple[int, int]]:
    """Yield where what stands between commas begins and ends: short elements together, a long one alone.

    Each is right if the whole is JSON, and the whole is JSON if each is: that is for the caller to find out.
    """
    size = len(inner)
    while True:
        behind = _passed(_ELEMENTS, inner, start)
        end = behind - 1 if behind > start else _end_of_element(inner, start, leaps)
        if end - start < WINDOW and not bytes(inner[start:end]).strip(_BLANKS) and (start or end < size):
            raise msgspec.DecodeError("something is missing beside a comma")
        yield start, end
        if end == size:
            return
        start = end + 1
        breathe()


def _end_of_element(inner: memoryview, start: int, leaps: _Leaps) -> int:
    """Return where the next comma stands that is in no bracket; else where all ends."""
    depth, place, size = 0, start, len(inner)
    breathe()
    while True:
        place = _passed(_DEEPER if depth else _ELEMENT, inner, place)
        breathe()
        sign = bytes(inner[place : place + 1])
        if sign == b'"':
            place = _end_of_text(inner, place + 1)
        elif sign in (b"{", b"["):
            depth += 1
            if depth > _MOST_LEVELS:
                raise RecursionError
            if sign == b"[":
                place = leaps.from_(place + 1) - 1
        elif sign in (b"}", b"]") and depth:
            depth -= 1
        elif place == size and not depth:
            return size
        elif sign == b"," and not depth:
            return place
        elif place == size or sign in (b"}", b"]"):
            raise msgspec.DecodeError("brackets do not match")
        else:
            # A window has ended here.
            continue
        place += 1


def _end_of_text(inner: memoryview, place: int) -> int:
    """Return where the quote stands that ends a text."""
    while True:
        window = bytes(inner[place : place + WINDOW])
        if (len(window) - len(window.rstrip(b"\\"))) % 2:
            window = window[:-1]
        if not window:
            raise msgspec.DecodeError("a text has no end")
        # A pattern that looks at each character takes five times as long.
        if b'"' in window and b'"' in window.replace(b"\\\\", b"").replace(b'\\"', b""):
            return place + _passed(_REST_OF_TEXT, memoryview(window), 0)
        place += len(window)
        breathe()


def _passed(pattern: re.Pattern[bytes], inner: memoryview, start: int) -> int:
    """Return how far a pattern that may also match nothing goes within a window."""
    found = pattern.match(inner, start, min(start + WINDOW, len(inner)))
    return found.end() if found else start
