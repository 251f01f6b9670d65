"""Server-sent events out of the bytes of a body, as the HTML standard defines them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

__all__ = ["Event", "events"]

_WINDOW: Final = 64 * 1024
_BOM: Final = b"\xef\xbb\xbf"

# The end of a line and an empty line. A carriage return and the line feed behind it are one end.
_EMPTY_LINE: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r)")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")


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
        border = body.rfind(b"\n\n", position, position + _WINDOW)
        if border < 0:
            border = body.find(b"\n\n", position)
        window = body[position:] if border < 0 else body[position:border]
        for block in window.split(b"\n\n"):
            position += len(block) + 2
            end = position if position < size else size
            if block.startswith(b"data: ") and b"\n" not in block:
                yield Event(block[6:], end)
            elif block and (event := _event(block.split(b"\n"), end)):
                yield event


def _events_of_any_lines(body: bytes, position: int) -> Iterator[Event]:
    for found in _EMPTY_LINE.finditer(body, position):
        if event := _event(_LINE_END.split(body[position : found.start()]), found.end()):
            yield event
        position = found.end()
    if event := _event(_LINE_END.split(body[position:]), len(body)):
        yield event


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
