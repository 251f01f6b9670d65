"""Reads a request body that comes in pieces, so that it can be looked into before it goes out."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import Final

from kwai_middleware._outbound.budget import Reservation
from kwai_middleware._settings import Settings
from kwai_middleware.errors import CannotAttribute

__all__ = ["MOST_BYTES", "Held", "gathered", "gathered_async"]

MOST_BYTES: Final = 32 * 1024 * 1024
"""The largest upload that the vendors document is an audio file of 25 MB."""


def gathered(pieces: Iterable[bytes], settings: Settings) -> bytes:
    """Return a body as a whole.

    Args:
        pieces: Of the body; what they raise passes through.
        settings: The bound on the memory of all calls that are under way.

    Raises:
        CannotAttribute: It is too large, or too many are being read at once.
    """
    held = Held(settings)
    for piece in pieces:
        held.add(piece)
    return held.whole()


async def gathered_async(pieces: AsyncIterable[bytes], settings: Settings) -> bytes:
    """The same for a body that comes asynchronously."""
    held = Held(settings)
    async for piece in pieces:
        held.add(piece)
    return held.whole()


class Held:
    """The pieces so far; what they take is given back as soon as nobody holds this."""

    def __init__(self, settings: Settings) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._reservation = Reservation(settings.max_open_bytes)

    def whole(self) -> bytes:
        """Return all of it."""
        return b"".join(self._pieces)

    def add(self, piece: bytes | bytearray | memoryview) -> None:
        """Hold one more piece.

        Raises:
            CannotAttribute: It is too much.
        """
        if type(piece) is not bytes:
            piece = memoryview(piece).tobytes()  # a copy: uploads that fill one buffer again and again hand out views
        self._size += len(piece)
        if self._size > MOST_BYTES or not self._reservation.grow(len(piece)):
            raise CannotAttribute(
                f"the request's body comes in pieces of together more than {MOST_BYTES} bytes, or too many such bodies"
                " are under way, so it cannot be looked into for another customer or key than the bound one; send it"
                " as bytes, or set on_conflict='body'"
            )
        self._pieces.append(piece)
