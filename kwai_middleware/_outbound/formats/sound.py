"""Sound in answers: counted and digested while it is read, described, and kept nowhere."""

from __future__ import annotations

import binascii
import hashlib
from typing import Final

from kwai_middleware._description import described
from kwai_middleware._pace import windows
from kwai_middleware._pieces import as_text

__all__ = ["Sound", "described_whole"]

_QUANTUM: Final = 4
"""Characters of base64 that are whole bytes."""


class Sound:
    """Bytes that come one after another."""

    def __init__(self) -> None:
        self._size = 0
        self._digest = hashlib.sha256()
        self._is_whole = True
        self._rest = b""

    def skip(self) -> None:
        """Note that something is missing from here on."""
        self._is_whole = False

    def add(self, part: bytes) -> None:
        """Add what comes next."""
        for start, end in windows(len(part)):
            self._digest.update(part[start:end])
        self._size += len(part)

    def add_base64(self, text: str) -> None:
        """Add what comes next, as base64: a whole one, or a piece of one that was cut anywhere."""
        spelled = self._rest + text.encode("ascii", "replace")
        usable = len(spelled) - len(spelled) % _QUANTUM
        self._rest = spelled[usable:]
        try:
            for start, end in windows(usable):
                self.add(binascii.a2b_base64(spelled[start:end], strict_mode=True))
        except binascii.Error:
            self.skip()

    def in_words(self, kind: str, *, is_whole: bool) -> bytes:
        """Describe it, as a JSON text.

        Args:
            kind: What it is.
            is_whole: That was all, as far as the caller knows.
        """
        is_whole = is_whole and self._is_whole and not self._rest
        digest = self._digest.hexdigest() if is_whole else None
        return bytes(as_text(described(kind, size=self._size, is_whole=is_whole, digest=digest).encode()))


def described_whole(kind: str, parts: tuple[bytes, ...], *, is_whole: bool) -> bytes:
    """Describe an answer's body that is nothing but sound or a picture, as a JSON text."""
    sound = Sound()
    for part in parts:
        sound.add(part)
    return sound.in_words(kind, is_whole=is_whole)
