"""Long JSON texts in pieces that are JSON texts themselves: no character, escape or pair of escapes is torn apart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from kwai_middleware._pace import WINDOW, breathe

__all__ = ["pieces_of_text", "texts_in"]

_LONGEST_ESCAPE: Final = 6
_LONGEST_CHARACTER: Final = 4
_LAST_CHARACTER: Final = re.compile(rb"[\xc0-\xff][\x80-\xbf]*\Z")
_FIRST_HALF: Final = re.compile(rb"\\u[dD][89abAB]")

_text_decoder: Final = msgspec.json.Decoder(str)


def texts_in(raw: memoryview) -> Iterator[str]:
    """Decode one JSON text, given from quote to quote, in windows."""
    return map(_text_decoder.decode, pieces_of_text(raw))


def pieces_of_text(raw: memoryview) -> Iterator[bytes]:
    """Yield a JSON text in pieces, each a text of its own."""
    start, last = 1, len(raw) - 1
    while start < last:
        window = bytes(raw[start : min(start + WINDOW, last)])
        if start + WINDOW < last:
            window = window[: _end_of_whole(window)]
        yield b'"%b"' % window
        start += len(window)
        breathe()


def _end_of_whole(window: bytes) -> int:
    """Return where in a piece of a JSON text the last whole character ends, be it an escape or a pair of escapes."""
    end = len(window)
    last = _LAST_CHARACTER.search(window, end - _LONGEST_CHARACTER)
    if last is not None:
        return last.start()
    sign = window.rfind(b"\\", end - _LONGEST_ESCAPE + 1)
    if sign >= 0 and _begins_escape(window, sign):
        size = _LONGEST_ESCAPE if window[sign + 1 : sign + 2] == b"u" else 2
        end = sign if sign + size > end else end
    half = end - _LONGEST_ESCAPE
    return half if _FIRST_HALF.match(window, half) and _begins_escape(window, half) else end


def _begins_escape(window: bytes, sign: int) -> bool:
    """Say whether a backslash begins an escape: an even number of them stands before."""
    before = window[:sign]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 0
