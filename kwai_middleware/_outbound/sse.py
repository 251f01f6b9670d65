"""Server-sent events out of the bytes of a body, as the HTML standard defines them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import repeat
from typing import Final

import msgspec

from kwai_middleware._pace import WINDOW, breathe

__all__ = ["Event", "Run", "events", "runs"]

_BOM: Final = b"\xef\xbb\xbf"
_DATA: Final = b"data: "
_AROUND: Final = len(_DATA) + len(b"\n\n")
_COMMENTS: Final = re.compile(rb"(?::[^\n]*+\n|\n)++")

# The end of a line and an empty line. A carriage return and the line feed behind it are one end.
_EMPTY_LINE: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_LONGEST_EMPTY_LINE: Final = 4


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event.

    Attributes:
        data: Its data lines, joined by line feeds.
        end: The offset in the body at which it was complete: what arrived by then is enough.
        name: Its `event` field; empty when it has none.
        id: Its `id` field; empty when it has none.
    """

    data: bytes
    end: int
    name: bytes = b""
    id: bytes = b""


class Run:
    """Events that stand in a row in a body: as many as are looked at in one go.

    Attributes:
        lines: What each event says, where each is one line of data, as nearly all servers write them; else none.
    """

    __slots__ = ("_others", "_position", "_size", "lines")

    def __init__(self, lines: list[bytes], others: Iterator[Event], position: int, size: int) -> None:
        self.lines: Final = lines
        self._others: Final = others
        self._position: Final = position
        self._size: Final = size

    def end_of(self, number: int) -> int:
        """Return the offset in the body at which the event of one of the lines was complete."""
        before = sum(map(len, self.lines[: number + 1])) + (number + 1) * _AROUND
        return min(self._position + before, self._size)

    def events(self, start: int = 0) -> Iterator[Event]:
        """Yield the events, those of the first so many lines aside."""
        if not self.lines:
            yield from self._others
        end = self.end_of(start - 1)
        for line in self.lines[start:]:
            end += len(line) + _AROUND
            yield Event(line, min(end, self._size))


def events(body: bytes) -> Iterator[Event]:
    """Yield the events of a body, in linear time and from any bytes at all.

    Comments and blocks without data yield nothing. Against the standard a last event without its
    empty line counts: some servers close the stream right behind `data: [DONE]`.
    """
    for run in runs(body):
        yield from run.events()


def runs(body: bytes) -> Iterator[Run]:
    """Yield the same events, many at once."""
    position = len(_BOM) if body.startswith(_BOM) else 0
    size = len(body)
    if b"\r" in body:
        yield Run([], _events_of_any_lines(body, position), position, size)
        return
    while position < size:
        if comments := _COMMENTS.match(body, position, position + WINDOW):
            # What servers say while they have nothing to say yet.
            position = comments.end()
        # Split in windows: one call over megabytes would hold the interpreter for too long.
        border = body.rfind(b"\n\n", position, position + WINDOW)
        if border < 0:
            border = _border_behind(body, position + WINDOW - 1)
        window = body[position:] if border < 0 else body[position:border]
        yield Run(_lines_of_data(window), _events_of_blocks(window, position, size), position, size)
        position += len(window) + 2
        breathe()


def _lines_of_data(window: bytes) -> list[bytes]:
    """Return what stands behind each `data: `, if there is but one such line in each event; else nothing."""
    if len(window) > WINDOW:
        return []
    # At each line feed, and not at each pair of them: a search for one character takes a third of the time.
    lines = window.split(b"\n")
    given = lines[::2]
    if len(lines) % 2 == 0 or any(lines[1::2]) or not all(map(bytes.startswith, given, repeat(_DATA))):
        return []
    return [line[len(_DATA) :] for line in given]


def _events_of_blocks(window: bytes, position: int, size: int) -> Iterator[Event]:
    for block in window.split(b"\n\n"):
        position += len(block) + 2
        if block and (event := _event(block.split(b"\n"), min(position, size))):
            yield event


def _border_behind(body: bytes, position: int) -> int:
    while position < len(body):
        border = body.find(b"\n\n", position, position + WINDOW)
        if border >= 0:
            return border
        position += WINDOW - 1
        breathe()
    return -1


def _events_of_any_lines(body: bytes, position: int) -> Iterator[Event]:
    for start, end in _empty_lines(body, position):
        if start > position and (event := _event(_lines(body[position:start]), end)):
            yield event
        position = end
    if event := _event(_lines(body[position:]), len(body)):
        yield event


def _empty_lines(body: bytes, position: int) -> Iterator[tuple[int, int]]:
    """Yield where each empty line begins, with the end of the line before it, and where it ends; in windows."""
    size = len(body)
    end = 0
    while end < size:
        end = min(position + WINDOW, size)
        for found in _EMPTY_LINE.finditer(body, position, end):
            if found.end() == end < size:
                # The next window may have a line feed that belongs to it.
                position = found.start()
                break
            yield found.span()
            position = found.end()
        else:
            # One may begin in this window and end in the next.
            position = max(position, end - _LONGEST_EMPTY_LINE + 1)
        breathe()


def _lines(block: bytes) -> list[bytes]:
    return block.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")


def _event(lines: list[bytes], end: int) -> Event | None:
    data: list[bytes] = []
    name = identifier = b""
    for line in lines:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
        elif field == b"id":
            identifier = value
    return Event(b"\n".join(data), end, name, identifier) if data else None
