"""The fields of a form as members of a request, and its files in words."""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

import msgspec

from kwai_middleware._description import described
from kwai_middleware._outbound.formats.multipart import Part, form_parts
from kwai_middleware._pieces import as_text

__all__ = ["SentForm", "sent_form"]

_LONGEST_NAME: Final = 255
_NUMBER: Final = re.compile(rb"-?(?:0|[1-9][0-9]{0,8})(?:[.][0-9]{1,9})?")
_NUMBERS: Final = ("n", "temperature")
_DATA_URL: Final = b"data:"
_FILES: Final = ("file", "image", "mask")


class SentForm(NamedTuple):
    """A form.

    Attributes:
        members: Its fields, as JSON each.
        files: For each file its name, type and size.
    """

    members: dict[str, msgspec.Raw]
    files: list[str]

    def first(self, name: str) -> bytes:
        """Return a field that should stand once, as JSON; nothing without one."""
        try:
            each = msgspec.json.decode(self.members.get(name, b""), type=list[msgspec.Raw])
        except msgspec.DecodeError:
            return bytes(self.members.get(name, b""))
        return bytes(each[0])


def sent_form(head: bytes, end: bytes, size: int) -> SentForm:
    """Read a form of which the two ends are there; see `FormFormat.form`."""
    fields: dict[str, Any] = {}
    files: list[str] = []
    for part in form_parts(head, end, size):
        if part.file is not None or part.name.partition("[")[0] in _FILES:
            files.append(_file_in_words(part))
        elif part.is_whole and len(part.value) == part.size and not part.value.startswith(_DATA_URL):
            _add_field(fields, part.name, part.value)
    return SentForm({name: msgspec.Raw(msgspec.json.encode(value)) for name, value in fields.items()}, files)


def _file_in_words(part: Part) -> str:
    # A longer name is none that anybody reads, and to cut it could cut a key in two.
    name = part.file if part.file and len(part.file) <= _LONGEST_NAME else ""
    kinds = (f"file {name}".strip(), *filter(None, (part.media_type,)))
    return described(*kinds, size=part.size, is_whole=part.is_whole)


def _add_field(fields: dict[str, Any], name: str, value: bytes) -> None:
    """Add a field under its name, as JSON: `a[]` is an item of a list, `a[b]` a member of an object."""
    name, bracket, inner = name.partition("[")
    inner = inner.removesuffix("]")
    is_number = name in _NUMBERS and _NUMBER.fullmatch(value)
    written = msgspec.Raw(value) if is_number else as_text(value)
    known = fields.get(name)
    if bracket and inner:
        if known is None:
            known = fields[name] = {}
        if isinstance(known, dict):
            known[inner] = written
    elif bracket or known is not None:
        fields[name] = [*(known if isinstance(known, list) else () if known is None else (known,)), written]
    else:
        fields[name] = written
