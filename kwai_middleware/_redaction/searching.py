"""Looks for short texts in long ones, in windows: one search over megabytes would hold the interpreter too long."""

from __future__ import annotations

from collections.abc import Iterator

from kwai_middleware._pace import WINDOW, windows

__all__ = ["is_in", "places_of"]


def is_in(text: bytes, wanted: bytes) -> bool:
    """Say whether `wanted` stands anywhere in `text`."""
    if len(text) <= WINDOW:
        return wanted in text
    # What begins in a window may end in the next.
    rest = len(wanted) - 1
    return any(text.find(wanted, start, end + rest) >= 0 for start, end in windows(len(text)))


def places_of(text: bytes, wanted: bytes) -> Iterator[int]:
    """Find where `wanted` stands in `text`, from left to right, each behind the end of the one before."""
    size = len(wanted)
    behind = 0
    for start, end in windows(len(text)):
        place = text.find(wanted, max(start, behind), end + size - 1)
        while place >= 0:
            yield place
            behind = place + size
            place = text.find(wanted, behind, end + size - 1)
