"""Tokens and JSON, read strictly: what two readers could understand in two ways is refused."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from typing import Final, NoReturn, cast

__all__ = ["header_of", "strict_json"]

# Three parts, none of them empty: a token without a signature is none.
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


def header_of(token: str) -> dict[str, object]:
    """Return what a token says of itself in its first part. Nothing has proved it yet.

    Raises:
        ValueError: This is no signed token, or one that is not written in the one way there is.
    """
    if not _TOKEN.fullmatch(token):
        raise ValueError
    header, *others = (_decoded(part) for part in token.split("."))
    del others  # looked at for their spelling: bits that nobody reads would make two tokens of one
    return strict_json(header)


def strict_json(text: bytes) -> dict[str, object]:
    """Return a JSON object, in UTF-8, in which no member stands twice and every number is one.

    Raises:
        ValueError: It is something else.
    """
    try:
        found: object = json.loads(text.decode(), object_pairs_hook=_members, parse_constant=_no_number)
    except RecursionError:
        raise ValueError from None
    if not isinstance(found, dict):
        raise ValueError
    return cast("dict[str, object]", found)


def _decoded(part: str) -> bytes:
    decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(decoded).decode().rstrip("=") != part:
        raise ValueError
    return decoded


def _members(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError
    return members


def _no_number(name: str) -> NoReturn:
    raise ValueError
