"""Forms with files in them: read strictly, and told as the JSON that their fields stand for."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from email.message import Message
from email.utils import collapse_rfc2231_value
from typing import Final

import msgspec

from kwai_middleware.sandbox.json_types import is_array, is_object, json_or_none

__all__ = ["Form", "form_of"]

_MOST_PARTS: Final = 1000
_END: Final = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Form:
    """What a form holds.

    Attributes:
        fields: Names and texts, as often and in the order in which they came.
        files: The bytes of each file, by the name of its field.
    """

    fields: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def members(self) -> dict[str, object]:
        """Return the fields as the members of a JSON object.

        A text that is a JSON object or array stands for it, and `a[b]` for the member `b` of `a`, which is how
        OpenAI's SDKs send one; `a[]` is one item of the array `a`.
        """
        members: dict[str, object] = {}
        for field_name, text in self.fields:
            name, value = _member(field_name, text)
            members[name] = _merged(members.get(name), value)
        return members

    def as_json(self) -> bytes:
        """Return the fields as the text of a JSON object, each as often as it came."""
        members = (_member(name, text) for name, text in self.fields)
        return b"{" + b",".join(_encoded(name) + b":" + _encoded(value) for name, value in members) + b"}"

    def described(self) -> dict[str, object]:
        """Return all that it holds; of files their size."""
        return self.members() | {name: f"({len(content)} bytes)" for name, content in self.files.items()}


def form_of(content_type: str | None, body: bytes) -> Form | None:
    """Return what a `multipart/form-data` body holds; None when it is none, or not whole."""
    kind, boundary = _parsed(content_type, "boundary")
    if kind != "multipart/form-data" or not boundary:
        return None
    delimiter = b"\r\n--" + boundary.encode("latin-1", "replace")
    opening, *parts, closing = (b"\r\n" + body).split(delimiter, _MOST_PARTS)
    if opening or not parts or closing.rstrip() != b"--":
        return None
    form = Form()
    for part in parts:
        head, separator, content = part.partition(_END)
        if not separator or not _add(form, head, content):
            return None
    return form


def _add(form: Form, head: bytes, content: bytes) -> bool:
    """Add one part, and say whether it is one."""
    disposition = re.search(rb"(?im)^content-disposition:(.*)\r?$", head)
    raw = disposition[1].decode("utf-8", "replace").strip() if disposition else None
    kind, name = _parsed(raw, "name")
    if kind != "form-data" or not name:
        return False
    if _parsed(raw, "filename")[1] is None:
        form.fields.append((name, content.decode("utf-8", "replace")))
    else:
        form.files[name] = content
    return True


def _parsed(header: str | None, parameter: str) -> tuple[str, str | None]:
    """A header's value in lower case, and one of its parameters."""
    message = Message()
    message["content-type"] = header or ""
    value = message.get_param(parameter)
    return (header or "").partition(";")[0].strip().lower(), None if value is None else collapse_rfc2231_value(value)


def _member(name: str, text: str) -> tuple[str, object]:
    read = json_or_none(text.encode()) if text[:1] in ("{", "[") else None
    value: object = text if read is None else read
    top, *inner = re.split(r"[\[\]]+", name.rstrip("]")) if re.fullmatch(r"[^\[\]]+(\[[^\[\]]*\])+", name) else [name]
    for key in reversed(inner):
        value = {key: value} if key else [value]
    return top, value


def _merged(before: object, value: object) -> object:
    """What two fields of one name stand for: members of one object, items of one array, or the later text."""
    if is_object(before) and is_object(value):
        return before | {name: _merged(before.get(name), each) for name, each in value.items()}
    return before + value if is_array(before) and is_array(value) else value


def _encoded(value: object) -> bytes:
    return msgspec.json.encode(value)
