"""Reads requests as JSON: their members as they are written, and what those of many formats have in common."""

from __future__ import annotations

from typing import Final

import msgspec

from kwai_middleware._joining import joined
from kwai_middleware._outbound.formats import tolerant
from kwai_middleware._outbound.formats.interface import Request
from kwai_middleware._outbound.formats.parameters import without_keys
from kwai_middleware._pace import breathe
from kwai_middleware._pieces import is_utf8
from kwai_middleware._splitting import members_of

__all__ = ["count", "request_members", "request_of", "words", "written"]

_text_decoder: Final = msgspec.json.Decoder(str)


def request_members(body: bytes) -> dict[str, msgspec.Raw]:
    """Return the members of a request's body as they are written, valid UTF-8; none of what is no JSON object."""
    try:
        # Members are kept as they are written, and msgspec does not look into what it only skips.
        members = members_of(body) if is_utf8(body) else None
    except tolerant.UNREADABLE:
        members = None
    if members is None:
        try:
            members = members_of(tolerant.repaired(body) or b"")
        except tolerant.UNREADABLE:
            members = {}
    breathe()
    return members


def words(raw: bytes | msgspec.Raw | None) -> str | None:
    """Return a member of a request that should be a text, decoded; None for no text and for an empty one."""
    if raw is None:
        return None
    try:
        return _text_decoder.decode(raw) or None
    except tolerant.UNREADABLE:
        value = tolerant.loads(bytes(raw))
        return value if isinstance(value, str) and value else None


def count(raw: bytes | msgspec.Raw | None) -> int:
    """Return a member of a request that says how many answers it asks for; 1 when it says nothing of the kind."""
    value = tolerant.loads(bytes(raw)) if raw is not None else None
    return value if type(value) is int else 1


def written(raw: bytes | msgspec.Raw | None) -> bytes | None:
    """Return a member of a request as the app wrote it."""
    return None if raw is None else joined((raw,))


def request_of(
    members: dict[str, msgspec.Raw],
    *,
    messages: bytes | msgspec.Raw | None = None,
    prompt: bytes | msgspec.Raw | None = None,
    choices: int = 1,
) -> Request:
    """Return a request that names its model, and may ask for a stream, as nearly all formats do.

    Args:
        members: All that the format has not taken out for itself; the other parameters remain in it.
        messages: The prompt as chat messages.
        prompt: The prompt as the app wrote it, where it is no messages, or more than they say.
        choices: How many answers are asked for.
    """
    model, stream = words(members.pop("model", None)), members.pop("stream", b"")
    return Request(
        model=model,
        stream=bytes(stream) == b"true",
        choices=choices,
        messages=written(messages),
        input=written(prompt),
        parameters=without_keys(members),
    )
