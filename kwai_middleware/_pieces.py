"""Long texts and long JSON, read and written in windows: one call over megabytes holds the interpreter too long."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from kwai_middleware._pace import WINDOW, breathe, windows

__all__ = ["as_text", "decoded_json", "encoded_members", "is_text", "is_utf8", "outline"]

_LONGEST_ESCAPE: Final = 6
_LONGEST_CHARACTER: Final = 4
_LAST_CHARACTER: Final = re.compile(rb"[\xc0-\xff][\x80-\xbf]*\Z")
_FIRST_HALF: Final = re.compile(rb"\\u[dD][89abAB]")
_EMPTY: Final = msgspec.Raw(b'""')
_BLANKS: Final = b" \t\r\n"
_DEEPEST: Final = 6
"""Objects within objects that are taken apart to reach a long text; in messages none is deeper."""

_decoder_class: Final = codecs.getincrementaldecoder("utf-8")
_decoder: Final = msgspec.json.Decoder()
_text_decoder: Final = msgspec.json.Decoder(str)
_members_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
_items_decoder: Final = msgspec.json.Decoder(list[msgspec.Raw])


def is_utf8(raw: bytes) -> bool:
    """Say whether all of `raw` is UTF-8."""
    if raw.isascii():
        return True
    try:
        for _ in _decoded(raw, "strict"):
            pass
    except UnicodeDecodeError:
        return False
    return True


def _as_read(raw: bytes) -> str:
    return raw.decode() if raw.isascii() else "".join(_decoded(raw, "replace"))


def _decoded(raw: bytes, errors: str) -> Iterator[str]:
    decoder = _decoder_class(errors)
    for start, end in windows(len(raw)):
        yield decoder.decode(raw[start:end], end == len(raw))


def is_text(raw: bytes) -> bool:
    """Say whether UTF-8 is one JSON text, with nothing around it."""
    if len(raw) < len(_EMPTY) or not raw.startswith(b'"') or not raw.endswith(b'"'):
        return False
    try:
        for _ in _texts(memoryview(raw)):
            pass
    except msgspec.DecodeError:
        return False
    return True


def as_text(raw: bytes) -> msgspec.Raw:
    """Return bytes as a JSON text that says the same; what is no UTF-8 is replaced."""
    spelled = bytearray()
    _spell(_as_read(raw), spelled)
    return msgspec.Raw(spelled)


def encoded_members(members: dict[str, Any]) -> msgspec.Raw:
    """Encode an object as JSON, of whose members some may be long texts."""
    has_long = any(isinstance(value, str) and len(value) > WINDOW for value in members.values())
    if not has_long or not all(isinstance(name, str) for name in members):
        return _encoded(members)
    spelled = bytearray(b"{")
    for name, value in members.items():
        if len(spelled) > 1:
            spelled += b","
        spelled += msgspec.json.encode(name)
        spelled += b":"
        if isinstance(value, str):
            _spell(value, spelled)
        else:
            spelled += msgspec.json.encode(value)
        breathe()
    spelled += b"}"
    return msgspec.Raw(spelled)


def _spell(text: str, spelled: bytearray) -> None:
    """Add a text as JSON. Not joined of its pieces, which would take the memory twice."""
    spelled += b'"'
    for start, end in windows(len(text)):
        spelled += msgspec.json.encode(text[start:end])[1:-1]
    spelled += b'"'


def decoded_json(raw: bytes) -> Any:
    """Decode JSON in which texts may be long.

    Raises:
        msgspec.DecodeError: It is none.
        UnicodeDecodeError: A text is no UTF-8.
        RecursionError: It is nested too deeply.
    """
    return _decoded_json(raw.strip(_BLANKS), _DEEPEST)


def _decoded_json(raw: bytes | msgspec.Raw, levels: int) -> Any:
    breathe()
    if len(raw) <= WINDOW or not levels:
        return _decoder.decode(raw)
    # A view: at each level a copy would take the memory once more.
    whole = memoryview(raw)
    match whole[:1]:
        case b'"':
            return "".join(_texts(whole))
        case b"{":
            members = _members_decoder.decode(whole)
            return {name: _decoded_json(value, levels - 1) for name, value in members.items()}
        case b"[":
            return [_decoded_json(value, levels - 1) for value in _items_decoder.decode(whole)]
        case _:
            return _decoder.decode(whole)


def outline(raw: msgspec.Raw) -> msgspec.Raw:
    """Return JSON in which long texts are empty, for its shape to be looked at.

    Args:
        raw: UTF-8 that msgspec has read or passed over: it looks into all that it passes over, but
            for what is no UTF-8.
    """
    return _outline(raw, _DEEPEST)


def _outline(raw: msgspec.Raw, levels: int) -> msgspec.Raw:
    breathe()
    if len(raw) <= WINDOW or not levels:
        return raw
    whole = memoryview(raw)
    match whole[:1]:
        case b'"':
            return _EMPTY
        case b"{":
            members = _members_decoder.decode(whole)
            return _encoded({name: _outline(value, levels - 1) for name, value in members.items()})
        case b"[":
            return _encoded([_outline(item, levels - 1) for item in _items_decoder.decode(whole)])
        case _:
            return raw


def _encoded(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _texts(raw: memoryview) -> Iterator[str]:
    """Decode one JSON text, given from quote to quote, in windows."""
    start, last = 1, len(raw) - 1
    while start < last:
        window = bytes(raw[start : min(start + WINDOW, last)])
        if start + WINDOW < last:
            window = window[: _end_of_whole(window)]
        yield _text_decoder.decode(b'"%b"' % window)
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
