"""Server-sent events out of the bytes of a body, as the HTML standard defines them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from kwai_middleware._pace import WINDOW, breathe

__all__ = ["Event", "events"]

_BOM: Final = b"\xef\xbb\xbf"

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


def events(body: bytes) -> Iterator[Event]:
    """Yield the events of a body, in linear time and from any bytes at all.

    Comments and blocks without data yield nothing. Against the standard a last event without its
    empty line counts: some servers close the stream right behind `data: [DONE]`.
    """
    position = len(_BOM) if body.startswith(_BOM) else 0
    if b"\r" in body:
        yield from _events_of_any_lines(body, position)
        return
    size = len(body)
    while position < size:
        # Split in windows: one call over megabytes would hold the interpreter for too long.
        border = body.rfind(b"\n\n", position, position + WINDOW)
        if border < 0:
            border = _border_behind(body, position + WINDOW - 1)
        window = body[position:] if border < 0 else body[position:border]
        for block in window.split(b"\n\n"):
            position += len(block) + 2
            end = position if position < size else size
            if block.startswith(b"data: ") and b"\n" not in block:
                yield Event(block[6:], end)
            elif block and (event := _event(block.split(b"\n"), end)):
                yield event
        breathe()


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
