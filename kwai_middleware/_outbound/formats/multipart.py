"""Takes a form apart (RFC 7578) of which perhaps only the two ends are there."""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import unquote

from kwai_middleware._pace import breathe

__all__ = ["Part", "form_parts"]

_MOST_PARTS: Final = 200
_LONGEST_BOUNDARY: Final = 200
_LONGEST_HEADERS: Final = 8 * 1024
_LINE_END: Final = b"\r\n"
_HEADERS_END: Final = b"\r\n\r\n"
_PARAMETER: Final = re.compile(r';\s*([\w*-]{1,40})\s*=\s*(?:"([^"\\]*+(?:\\.[^"\\]*+)*+)"|([^;"]*+))')
_ESCAPED: Final = re.compile(r'\\(["\\])')
_TYPE: Final = re.compile(r"[a-z]{1,20}/[a-z0-9.+-]{1,80}")


class Part(NamedTuple):
    """One field or file.

    Attributes:
        name: Of the field.
        file: The file's name; None for what is no file.
        media_type: In lower case, without parameters; empty when it has none.
        value: Its bytes, as far as they are there.
        size: How many it has.
        is_whole: It has an end: what was seen of it is `size`, or less where it is in the middle.
    """

    name: str
    file: str | None
    media_type: str
    value: bytes
    size: int
    is_whole: bool


def form_parts(head: bytes, end: bytes, size: int) -> list[Part]:
    """Return the parts of a form; of what is none, nothing. Never raises.

    Where the middle is not there, one part is taken to fill it: the only one in a form that is large is a file.

    Args:
        head: The form's first bytes.
        end: Its last bytes, some of which may be among the first.
        size: How many bytes it has.
    """
    missing = size - len(head)
    if missing <= len(end):
        head, end = head + end[len(end) - missing :], b""
    line = head[:_LONGEST_BOUNDARY].partition(_LINE_END)
    if not head.startswith(b"--") or not line[1]:
        return []
    delimiter = _LINE_END + line[0]
    parts: list[Part] = []
    seen, place = head, len(line[0])
    while len(parts) < _MOST_PARTS:
        breathe()
        # Here stands what follows a delimiter.
        headers_end = seen.find(_HEADERS_END, place, place + _LONGEST_HEADERS)
        if headers_end < 0 or not seen.startswith(_LINE_END, place):
            break
        headers, start = seen[place:headers_end], headers_end + len(_HEADERS_END)
        stop = seen.find(delimiter, start)
        left = len(seen) - start
        if stop >= 0:
            parts.append(_part(headers, seen[start:stop], stop - start, is_whole=True))
            place = stop + len(delimiter)
            continue
        if seen is head:
            left = size - start
        behind = end.find(delimiter) if seen is head else -1
        if behind < 0:
            parts.append(_part(headers, seen[start:], left, is_whole=False))
            break
        parts.append(_part(headers, seen[start:], left - len(end) + behind, is_whole=True))
        seen, place = end, behind + len(delimiter)
    return parts


def _part(headers: bytes, value: bytes, size: int, *, is_whole: bool) -> Part:
    name, file, media_type = "", None, ""
    for line in headers.decode(errors="replace").split("\r\n"):
        title, _, rest = line.partition(":")
        if title.strip().lower() == "content-type":
            media_type = rest.partition(";")[0].strip().lower()
        elif title.strip().lower() == "content-disposition":
            parameters = _parameters(rest)
            name = parameters.get("name", "")
            file = parameters.get("filename*", parameters.get("filename"))
    return Part(name, file, media_type if _TYPE.fullmatch(media_type) else "", value, size, is_whole)


def _parameters(header: str) -> dict[str, str]:
    """Return the parameters of a header; of several with one name the first."""
    found: dict[str, str] = {}
    for parameter in _PARAMETER.finditer(header):
        name, quoted, plain = parameter[1].lower(), parameter[2], parameter[3]
        value = plain.strip() if quoted is None else _ESCAPED.sub(r"\1", quoted)
        if name.endswith("*"):
            # RFC 5987, as `requests` writes what is not ASCII: utf-8''na%C3%AFve.wav
            value = unquote(value.rpartition("'")[2])
        found.setdefault(name, value)
    return found
