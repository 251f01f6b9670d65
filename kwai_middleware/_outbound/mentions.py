"""Whether a body that is no JSON object names one of the doors, however it is encoded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from kwai_middleware._pace import WINDOW

__all__ = ["mentions_door", "mentions_door_async"]

_MENTIONS: Final = re.compile(
    "customer_|credential_override|respan_params|keywordsai_params|load_?balance_|group_identifier|extra_headers"
)
_MENTIONS_PAYER: Final = re.compile(f"{_MENTIONS.pattern}|models|fallback|route_provider")
_NOT_VISIBLE: Final = bytes(each for each in range(256) if not 0x20 <= each < 0x7F)
_BACKSLASHES: Final = re.compile(r"\\{2,}")
_ESCAPES: Final = re.compile(r"\\u00([2-7][0-9A-Fa-f])|%([2-7][0-9A-Fa-f])")

_AT_ONCE: Final = 4
"""Windows between two turns of others: about as much as an HTTP library sends of an upload between two of them."""

_LONGEST: Final = 256
"""More than a name has characters: the longest has 19, and each of them takes six where it is escaped."""


def mentions_door(body: bytes, *, payers: bool = False) -> bool:
    """Say whether a body that is no JSON object names one of the doors.

    Args:
        body: All of it.
        payers: Ways to end on yet another bill count too.
    """
    return any(_looks(body, payers))


async def mentions_door_async(body: bytes, *, payers: bool = False) -> bool:
    """The same while the event loop goes on: to look into an upload of 20 MB takes half a second."""
    from anyio.lowlevel import checkpoint  # most apps upload nothing through a gateway

    for number, is_found in enumerate(_looks(body, payers)):
        if is_found:
            return True
        if number % _AT_ONCE == 0:
            await checkpoint()
    return False


def _looks(body: bytes, payers: bool) -> Iterator[bool]:
    """Say of one window after the other whether a name ends in it: one look at all would hold the interpreter."""
    mentions = _MENTIONS_PAYER if payers else _MENTIONS
    before = ""
    for start in range(0, len(body), WINDOW):
        # UTF-16 too, and what a careless decoder skips.
        visible = body[start : start + WINDOW].translate(None, _NOT_VISIBLE).decode("ascii")
        # However often an escape is itself escaped.
        text = _BACKSLASHES.sub(r"\\", before + visible)
        yield bool(mentions.search(text) or mentions.search(_ESCAPES.sub(_meant, text)))
        before = text[-_LONGEST:]


def _meant(escape: re.Match[str]) -> str:
    return chr(int(escape[1] or escape[2], 16))
