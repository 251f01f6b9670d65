"""What keys of known vendors look like.

Shapes begin with a literal prefix, so that text without one costs a substring search and nothing
more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from kwai_middleware._pace import WINDOW, breathe, windows

__all__ = ["MASK", "Span", "begun", "shapes"]

MASK: Final = "****"

Span = tuple[int, int]
"""Where something begins in a text, and where it ends."""


_ESCAPES: Final = (r"\\[abfnrtv0]", r"\\u[0-9A-Fa-f]{4}", r"\\x[0-9A-Fa-f]{2}", "%[0-9A-Fa-f]{2}")
_BORDER: Final = re.compile("|".join(["(?<![A-Za-z0-9])", *(f"(?<={escape})" for escape in _ESCAPES)]).encode())
"""Where a prefix is not the end of a word or of a name, as in kiosk-7: behind anything but a letter or a digit, unless
that belongs to an escape of JSON or a URL. Looked at behind the shape: a search for characters is fast, one for borders
is not. It is no part of the patterns below, which would take a millisecond more to compile at import."""

_ALNUM: Final = "[A-Za-z0-9]"
_NAME: Final = "[A-Za-z0-9_-]"
_HEX: Final = "[0-9a-f]"

# How a key begins, what it goes on with, and how much of that it has at least. OpenRouter, OpenAI, Anthropic
# and their kin; Groq; xAI; Google; Perplexity; Hugging Face; AWS.
_KINDS: Final = (
    ("sk-or-v1-", _HEX, "{32,}"),
    ("sk-ant-[a-z]{3,8}[0-9]{2}-", _NAME, "{16,}"),
    ("sk-", _NAME, "{16,}"),
    ("gsk_", _ALNUM, "{16,}"),
    ("xai-", _ALNUM, "{16,}"),
    ("AIza", _NAME, "{30,}"),
    ("pplx-", _ALNUM, "{16,}"),
    ("hf_", _ALNUM, "{16,}"),
    ("AKIA", "[A-Z0-9]", "{16}"),
)
_UNMISTAKABLE: Final = 2
"""So many of them need no border: no word goes on like these."""
_SHAPES: Final = re.compile("|".join(f"({begins}{goes_on}{times})" for begins, goes_on, times in _KINDS).encode())
_REST: Final = tuple(re.compile(f"{goes_on}{'*' if ',' in times else '{0}'}".encode()) for _, goes_on, times in _KINDS)
_PREFIXES: Final = (b"sk-", b"gsk_", b"xai-", b"AIza", b"pplx-", b"hf_", b"AKIA")
_LONGEST_REST: Final = max(map(len, _PREFIXES)) - 1
# The same prefixes by a character that is rare. Nearly every text has none, and to find that out takes a fifth of the
# time (5 instead of 27 µs for 5 KB). What is asked first keeps a text of nothing but hyphens from being slow.
_MARKS: Final = tuple(
    map(
        re.compile,
        (b"-(?<=[kix]-)(?:(?<=sk-)|(?<=xai-)|(?<=pplx-))", b"_(?<=[kf]_)(?:(?<=gsk_)|(?<=hf_))", b"A(?:Iza|KIA)"),
    )
)

_LONGEST_BEGUN: Final = 40
_BEGUN: Final = re.compile(b"(?:" + b"|".join(_PREFIXES) + rb")[A-Za-z0-9_-]{4,}\Z")


def shapes(text: bytes) -> Iterator[Span]:
    """Find all that looks like a key: from where to where each stands."""
    behind = 0
    for start, end in windows(len(text)):
        if not any(mark.search(text, start, end + _LONGEST_REST) for mark in _MARKS):
            continue
        for place in sorted(place for prefix in _PREFIXES for place in _places(text, prefix, start, end)):
            if place >= behind and (found := _shape_at(text, place)) is not None:
                behind = _end_of(found, text)
                yield place, behind
            breathe()


def _places(text: bytes, prefix: bytes, start: int, end: int) -> list[int]:
    """Find where a prefix begins in a window; it may end in the next."""
    places: list[int] = []
    border = end + len(prefix) - 1
    place = text.find(prefix, start, border)
    while place >= 0:
        places.append(place)
        place = text.find(prefix, place + 1, border)
    return places


def _shape_at(text: bytes, place: int) -> re.Match[bytes] | None:
    found = _SHAPES.match(text, place, place + WINDOW)
    if found is None or (found.lastindex or 0) <= _UNMISTAKABLE or _BORDER.match(text, place):
        return found
    return None


def _end_of(found: re.Match[bytes], text: bytes) -> int:
    """Return where what looks like a key ends, if need be behind the window in which it was found."""
    end, border = found.end(), found.endpos
    rest = _REST[(found.lastindex or 1) - 1]
    while end == border < len(text):
        border = min(end + WINDOW, len(text))
        more = rest.match(text, end, border)
        end = more.end() if more else end
        breathe()
    return end


def begun(text: bytes) -> int | None:
    """Return where the last word of a text begins to look like a key; None when it does not.

    A longer one is found by its shape.
    """
    place = max(len(text) - _LONGEST_BEGUN, 0)
    while (found := _BEGUN.search(text, place)) is not None:
        place = found.start()
        if _BORDER.match(text, place):
            return place
        place += 1
    return None
