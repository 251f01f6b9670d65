"""Base64 media in prompts and answers: a record has their type, size and digest in their place."""

from __future__ import annotations

import binascii
import hashlib
import operator
import re
from collections.abc import Sequence
from itertools import repeat
from typing import Any, Final, NamedTuple, cast

import msgspec

from kwai_middleware._description import described
from kwai_middleware._pace import WINDOW, breathe, windows
from kwai_middleware._record import CompletedCall

__all__ = ["replaced", "without_media"]

_SHORTEST: Final = 256
"""Characters of base64; less is hardly longer than what would take its place."""

_LONGEST_HEAD: Final = 1024 + _SHORTEST
"""Bytes that tell whether something is media: its member's name, its type, and as much of it."""

_NEARBY: Final = 256
_DEEPEST: Final = 8
_MOST_PIECES: Final = 10_000

_TYPE: Final = r"[a-z]{1,20}/[A-Za-z0-9.+-]{1,80}"
_URL: Final = rf"data:({_TYPE})(?:;[A-Za-z0-9.+=_-]{{1,80}}){{0,4}};base64,"
_URL_NAMES: Final = ("url", "image_url", "video_url", "file_data")
_BLANKS: Final = r"[ \t\r\n]{0,64}"
# The beginning of a member that may hold media. In JSON nothing else looks like this: in a text its
# quotes would stand behind backslashes. Whether base64 follows is found out here, since a hostile
# prompt may have a million of these.
_HEAD: Final = re.compile(
    rf'[{{,]{_BLANKS}"(?:(?:{"|".join(_URL_NAMES)})"{_BLANKS}:{_BLANKS}"{_URL}|(data|b64_json|result)"{_BLANKS}:{_BLANKS}")'
    rf"(?=[A-Za-z0-9+/=]{{{_SHORTEST}}})".encode()
)
_MARKS: Final = (b";base64,", b'"data"', b'"b64_json"', b'"result"')
_PICTURE: Final = re.compile(rf'"type"{_BLANKS}:{_BLANKS}"image_generation_call"'.encode())
_PICTURE_FORMAT: Final = re.compile(rf'"output_format"{_BLANKS}:{_BLANKS}"([a-z]{{1,10}})"'.encode())
_whole_type: Final = re.compile(_TYPE)
_whole_url: Final = re.compile(_URL)
_format: Final = re.compile("[a-z0-9_]{1,20}")


class _Beside(msgspec.Struct):
    """What stands beside base64 in `data` or `b64_json`, and tells what it is."""

    type: str | None = None
    media_type: str | None = None
    output_format: str | None = None
    format: str | None = None
    expires_at: float | None = None


_beside_decoder: Final = msgspec.json.Decoder(_Beside)


class _Summary(NamedTuple):
    """What base64 says, and where it ends."""

    end: int
    size: int
    digest: str


def replaced(call: CompletedCall) -> CompletedCall:
    """Return a record in whose prompt and answer a short text stands for each piece of base64 media."""
    if call.capture != "full":
        return call
    changes: dict[str, Any] = {}
    for name, raw in (("messages", call.messages), ("input", call.input), ("output", call.output)):
        if raw is not None and (kept := without_media(raw)) is not raw:
            changes[name] = kept
    completions = [_without_media(completion, "", {}, _DEEPEST) for completion in call.completions]
    if any(map(operator.is_not, completions, call.completions)):
        changes["completions"] = tuple(completions)
    return msgspec.structs.replace(call, **changes) if changes else call


def without_media(raw: bytes) -> bytes:
    """Return JSON in which a text such as `[image/png, 48211 bytes, sha256:...]` stands for each piece of media.

    Media is base64 of 256 characters and more: as a `data:` URL under the names that vendors have for
    one, in `b64_json`, or in `data` and `result`, where what stands beside it says so. All else is the same byte
    for byte, and without media it is the very same object. It is taken for what it is and not decoded;
    what is no JSON gives something that is none either.
    """
    parts: list[bytes] = []
    behind = 0
    for start, end in windows(len(raw)):
        if max(map(raw.find, _MARKS, repeat(max(start, behind)), repeat(end + _LONGEST_HEAD))) < 0:
            continue
        for head in _HEAD.finditer(raw, max(start, behind), end + _LONGEST_HEAD):
            if not behind <= head.start() < end:
                continue
            name = head[2]
            begins = head.start(1) - len("data:") if name is None else head.end()
            summary = _summary(raw, head.end())
            if summary is None:
                continue
            kind = head[1].decode() if name is None else _kind_of(raw, head.start(), summary.end, name)
            if kind:
                parts += raw[behind:begins], _words(kind, summary).encode()
                behind = summary.end
            breathe()
    return b"".join((*parts, raw[behind:])) if parts else raw


def _summary(raw: bytes, start: int) -> _Summary | None:
    """Read base64 up to the next quote; None when it is none.

    It may be of several pieces, each with its own end: so are the pieces of a streamed answer, joined.
    """
    digest = hashlib.sha256()
    size = count = 0
    while count < _MOST_PIECES:
        quote = raw.find(b'"', start, start + WINDOW)
        end = start + WINDOW if quote < 0 else quote
        padding = raw.find(b"=", start, end)
        if padding >= 0:
            count += 1
            end = padding + 2 if raw[padding + 1 : padding + 2] == b"=" else padding + 1
        try:
            piece = binascii.a2b_base64(raw[start:end], strict_mode=True)
        except binascii.Error:
            return None
        digest.update(piece)
        size += len(piece)
        start = end
        if start == quote:
            return _Summary(quote, size, digest.hexdigest())
        if start >= len(raw):
            return None
        breathe()
    return None


def _kind_of(raw: bytes, start: int, end: int, name: bytes) -> str | None:
    """Say of what type base64 is, by its member's name and what stands near it; the member begins at `start`."""
    if name != b"result":
        return _kind(_beside(raw, start, end), name.decode())
    # Its prompt may stand behind it, at any length: what is near cannot be read as JSON.
    before, after = raw[max(start - _NEARBY, 0) : start], raw[end + 1 : end + 1 + _NEARBY]
    near = before[before.rfind(b"}") + 1 :] + b" " + after.partition(b"}")[0]
    format_ = _PICTURE_FORMAT.search(near)
    return (f"image/{format_[1].decode()}" if format_ else "image") if _PICTURE.search(near) else None


def _beside(raw: bytes, start: int, end: int) -> _Beside:
    """Return what stands near base64 in the same object, if that can be read; its member begins at `start`."""
    before, after = raw[max(start - _NEARBY, 0) : start], raw[end + 1 : end + 1 + _NEARBY]
    if raw[start : start + 1] == b"{":
        before = b""
    else:
        opens = before.rfind(b"{")
        before = before[opens + 1 :] if opens >= 0 else b"?"
    after = after.partition(b"}")[0].strip().removeprefix(b",")
    try:
        return _beside_decoder.decode(b"{%b}" % b",".join(members for members in (before.strip(), after) if members))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Beside()


def _kind(beside: _Beside, name: str) -> str | None:
    """Say of what type base64 is: in `b64_json` it is a picture in any case, in `data` it may be none of ours."""
    if name == "b64_json":
        if beside.media_type is not None and _whole_type.fullmatch(beside.media_type):
            return beside.media_type
        told = beside.output_format
        return f"image/{told}" if told is not None and _format.fullmatch(told) else "image"
    if beside.type == "base64" and beside.media_type is not None and _whole_type.fullmatch(beside.media_type):
        return beside.media_type
    if beside.format is not None and _format.fullmatch(beside.format):
        return f"audio/{beside.format}"
    return None if beside.expires_at is None else "audio"


def _words(kind: str, summary: _Summary) -> str:
    return described(kind, size=summary.size, digest=summary.digest)


def _without_media(value: Any, name: str, members: dict[str, Any], levels: int) -> Any:
    """Return a decoded value without media; the very same when it has none.

    Args:
        value: The value.
        name: Of the member that it is.
        members: That stand beside it.
        levels: How deep to look.
    """
    breathe()
    if isinstance(value, str):
        return _in_words(value, name, members) if len(value) >= _SHORTEST else value
    if not levels:
        return value
    if isinstance(value, dict):
        inner = cast("dict[str, Any]", value)
        found: dict[str, Any] = {}
        for name_within, each in inner.items():
            is_short = isinstance(each, str) and len(each) < _SHORTEST
            found[name_within] = each if is_short else _without_media(each, name_within, inner, levels - 1)
        return found if any(map(operator.is_not, found.values(), inner.values())) else inner
    if isinstance(value, list):
        items = cast("Sequence[Any]", value)
        kept = [_without_media(each, "", {}, levels - 1) for each in items]
        return kept if any(map(operator.is_not, kept, items)) else items
    return value


def _in_words(text: str, name: str, members: dict[str, Any]) -> str:
    start, kind = 0, None
    if name in _URL_NAMES and (head := _whole_url.match(text)):
        start, kind = head.end(), head[1]
    elif name in ("data", "b64_json"):
        try:
            beside = msgspec.convert({each: members.get(each) for each in _Beside.__struct_fields__}, _Beside)
        except msgspec.ValidationError:
            beside = _Beside()
        kind = _kind(beside, name)
    if kind is None or len(text) - start < _SHORTEST or not text.isascii():
        return text
    summary = _summary(f'{text}"'.encode(), start)
    return text if summary is None or summary.end != len(text) else _words(kind, summary)
