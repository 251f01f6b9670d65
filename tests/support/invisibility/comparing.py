"""What differs between a script with a plain client and the same with a wrapped one."""

from __future__ import annotations

import base64
import json
import re
from typing import Any, Final

from tests.support.callers import key_of
from tests.support.invisibility.cells import Cell
from tests.support.invisibility.running import Observed

__all__ = ["differences"]

Path = tuple[Any, ...]

KEY: Final = key_of("acme").encode()

_OURS: Final = ("customer_credentials", "customer_params")
_MEMBERS: Final = {
    "customer_credentials": {"openrouter": {"api_key": key_of("acme")}},
    "customer_params": {"customer_identifier": "acme"},
}
_FIRST: Final = re.compile(rb'[{,]"customer_(credentials|params)":')
_LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: (\d+)")
_PARAMETERS: Final = re.compile(rb"(?i)\r\nx-data-respan-params: ([^\r]*)")
_AUTHORIZATION: Final = re.compile(rb"(?i)\r\nauthorization: ([^\r]*)")


def differences(plain: Observed, wrapped: Observed, cell: Cell) -> dict[str, dict[str, Any]]:
    """Return for each step the places that differ, with both sides.

    Where the caller's key goes out, three things are meant to differ, and nothing else is forgiven:
    the members of a gateway call's body with its length, the `Authorization` of a direct call, and
    the frames below our transport, which an exception leaves without.
    """
    assert list(plain) == list(wrapped)
    found = {}
    keyed = 0
    for name, expected in plain.items():
        different: dict[str, Any] = {}
        pair = expected, wrapped[name]
        if cell.copies:
            pair = _without_inner_frames(pair[0]), _without_inner_frames(pair[1])
            keyed += _forgive_on_the_wire(pair[0]["wire"], pair[1]["wire"], cell)
        _compare((), *pair, different)
        if different:
            found[name] = different
    assert (keyed > len(plain) // 2) is cell.copies
    return found


def _compare(path: Path, plain: Any, wrapped: Any, found: dict[str, Any]) -> None:
    if isinstance(plain, dict) and isinstance(wrapped, dict) and plain.keys() == wrapped.keys():
        for name in plain:
            _compare((*path, name), plain[name], wrapped[name], found)
    elif isinstance(plain, (list, tuple)) and isinstance(wrapped, (list, tuple)) and len(plain) == len(wrapped):
        for number, pair in enumerate(zip(plain, wrapped, strict=True)):
            _compare((*path, number), *pair, found)
    elif plain != wrapped:
        found["/".join(map(str, path))] = {"plain": plain, "wrapped": wrapped}


def _without_inner_frames(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_inner_frames(each) for name, each in value.items() if name != "inner frames"}
    if isinstance(value, list):
        return [_without_inner_frames(each) for each in value]
    return value


def _forgive_on_the_wire(plain: list[Any], wrapped: list[Any], cell: Cell) -> int:
    """Take what is ours out of the requests that carry a key, and its counterpart out of the others; count them."""
    forgiven = 0
    for number in range(min(len(plain), len(wrapped))):
        for_key, (connection, head, body, whole) = plain[number], wrapped[number]
        if cell.kind == "direct" and KEY in head:
            assert [b"Bearer " + KEY] == _AUTHORIZATION.findall(head)
            plain[number] = (for_key[0], _AUTHORIZATION.sub(b"", for_key[1]), *for_key[2:])
            wrapped[number] = connection, _AUTHORIZATION.sub(b"", head), body, whole
            forgiven += 1
        elif cell.kind == "gateway" and (KEY in body or not whole):
            # Blanks after an object are no part of it; of a body that was not taken to its end, any part may have come.
            own = for_key[2].rstrip() if whole else b""
            plain[number] = for_key[0], _without_length(for_key[1], for_key[2], whole), own, for_key[3]
            wrapped[number] = connection, _without_length(head, body, whole), _without_members(body, whole), whole
            forgiven += 1
        elif cell.kind == "gateway" and _PARAMETERS.search(head):
            [parameters] = _PARAMETERS.findall(head)
            assert json.loads(base64.b64decode(parameters)) == _MEMBERS
            wrapped[number] = connection, _PARAMETERS.sub(b"", head), body, whole
            forgiven += 1
    return forgiven


def _without_length(head: bytes, body: bytes, whole: bool) -> bytes:
    """The header stays in its place; that its value is right is seen here."""
    assert not whole or [str(len(body)).encode()] == _LENGTH.findall(head)
    return _LENGTH.sub(b"\r\ncontent-length:", head)


def _without_members(body: bytes, whole: bool) -> bytes:
    """The app's own bytes, which come first, all but the closing brace."""
    if not whole:
        return b""
    members = json.loads(body)
    assert {name: members.pop(name) for name in _OURS} == _MEMBERS
    start = min(found.start() for found in _FIRST.finditer(body))
    own = body[:start] + (b"}" if body[start:].startswith(b",") else b"{}")
    assert members == json.loads(own)
    return own
