"""Long texts and long JSON, read and written in windows: one call over megabytes holds the interpreter too long."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from typing import Any, Final, cast

import msgspec

from kwai_middleware._joining import joined
from kwai_middleware._long_texts import texts_in
from kwai_middleware._pace import WINDOW, breathe, windows
from kwai_middleware._splitting import items_of, members_of

__all__ = ["as_text", "decoded_json", "encoded_members", "encoded_object", "is_text", "is_utf8", "outline"]

_Piece = bytes | msgspec.Raw
_SHORT: Final[dict[type, int]] = {str: WINDOW, msgspec.Raw: WINDOW, list: 0}
"""What may be long, and the size up to which it is not."""

_FEW: Final = 64
"""Items of a list that are not looked at one by one."""

_EMPTY: Final = msgspec.Raw(b'""')
_BLANKS: Final = b" \t\r\n"
_DEEPEST: Final = 6
"""Objects within objects that are taken apart to reach a long text; in messages none is deeper."""

_decoder_class: Final = codecs.getincrementaldecoder("utf-8")
_decoder: Final = msgspec.json.Decoder()


def is_utf8(raw: bytes) -> bool:
    """Say whether all of `raw` is UTF-8."""
    if len(raw) <= WINDOW and raw.isascii():
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
        for _ in texts_in(memoryview(raw)):
            pass
    except msgspec.DecodeError:
        return False
    return True


def as_text(raw: bytes) -> msgspec.Raw:
    """Return bytes as a JSON text that says the same; what is no UTF-8 is replaced."""
    text = _as_read(raw)
    return _encoded(text) if len(text) <= WINDOW else msgspec.Raw(joined([*_spelled(text)]))


def encoded_members(members: dict[str, Any]) -> msgspec.Raw:
    """Encode an object as JSON, of whose members some may be long texts."""
    return msgspec.Raw(encoded_object(members))


def encoded_object(members: dict[str, Any]) -> bytes:
    """Encode an object as JSON, of whose members some may be long texts, long JSON, or lists of that."""
    # For nearly all objects this is all that is done here: to call a function for each member would take longer than
    # to encode them.
    sized = [value for value in members.values() if type(value) in _SHORT and len(value) > _SHORT[type(value)]]
    if not any(map(_is_long, sized)) or not all(isinstance(name, str) for name in members):
        return msgspec.json.encode(members)
    pieces: list[_Piece] = [b"{"]
    for name, value in members.items():
        if len(pieces) > 1:
            pieces.append(b",")
        pieces += msgspec.json.encode(name), b":"
        if _is_long(value):
            pieces += _spelled(value)
        else:
            pieces.append(msgspec.json.encode(value))
        breathe()
    pieces.append(b"}")
    return joined(pieces)


def _is_long(value: object) -> bool:
    if isinstance(value, list):
        items = cast("list[object]", value)
        return len(items) > _FEW or any(_is_long_text(item) for item in items)
    return _is_long_text(value)


def _is_long_text(value: object) -> bool:
    return isinstance(value, str | msgspec.Raw) and len(value) > WINDOW


def _spelled(value: str | msgspec.Raw | list[object]) -> Iterator[_Piece]:
    """Yield the pieces of a long value as JSON."""
    if isinstance(value, msgspec.Raw):
        yield value
    elif isinstance(value, str):
        yield b'"'
        for start, end in windows(len(value)):
            yield msgspec.json.encode(value[start:end])[1:-1]
        yield b'"'
    else:
        before = b"["
        for item in value:
            yield before
            if isinstance(item, str | msgspec.Raw):
                yield from _spelled(item)
            else:
                yield msgspec.json.encode(item)
            before = b","
            breathe()
        yield b"]"


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
            return "".join(texts_in(whole))
        case b"{":
            members = members_of(whole)
            return {name: _decoded_json(value, levels - 1) for name, value in members.items()}
        case b"[":
            return [_decoded_json(value, levels - 1) for value in items_of(whole)]
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
            members = members_of(whole)
            return _encoded({name: _outline(value, levels - 1) for name, value in members.items()})
        case b"[":
            return _encoded([_outline(item, levels - 1) for item in items_of(whole)])
        case _:
            return raw


def _encoded(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
