"""What is kept of a request's body that goes out in pieces and holds files: its two ends, and its size."""

from __future__ import annotations

from typing import Final

import msgspec

from kwai_middleware._outbound.budget import Reservation

__all__ = ["END", "HEAD", "Sent", "SentBody"]

HEAD: Final = 64 * 1024
"""SDKs put a form's fields first, and then the file with its name and type."""

END: Final = 4 * 1024
"""Where the file ends, and fields that stand behind it."""


class Sent(msgspec.Struct, frozen=True):
    """What was seen of a body.

    Attributes:
        head: Its first bytes.
        end: Its last bytes; where it is short, some of the first ones too.
        size: How many bytes it has, as far as it went out.
        is_kept: Its ends were kept.
    """

    head: bytes
    end: bytes
    size: int
    is_kept: bool


class SentBody:
    """Keeps the ends of what goes out, and counts all of it.

    Args:
        reservation: Where the memory is accounted for; when it says no, bytes are only counted.
    """

    __slots__ = ("_end", "_head", "_is_kept", "_reservation", "_size")

    def __init__(self, reservation: Reservation) -> None:
        self._reservation = reservation
        self._is_kept: bool | None = None
        self.begin()

    def begin(self) -> None:
        """Forget what went out so far: the body is sent again."""
        self._head = bytearray()
        self._end = b""
        self._size = 0

    def add(self, chunk: bytes | bytearray | memoryview) -> None:
        """Note what goes out, a view of memory too that will hold something else next."""
        if self._is_kept is None:
            self._is_kept = self._reservation.grow(HEAD + END)
        if isinstance(chunk, memoryview):
            chunk = chunk.cast("B")  # of items that are no bytes, it would count the items
        self._size += len(chunk)
        if self._is_kept:
            self._head += chunk[: HEAD - len(self._head)]
            self._end = (self._end + chunk[-END:])[-END:]

    def seen(self) -> Sent:
        """Return what there is."""
        return Sent(bytes(self._head), self._end, self._size, self._is_kept is not False)
