"""Content encodings of an answer, so that each piece can be decoded as soon as it arrives."""

from __future__ import annotations

import zlib
from importlib import import_module
from typing import Any

__all__ = ["ContentEncoder", "content_encoder"]


class ContentEncoder:
    """Encodes a body piece by piece; this one leaves it as it is."""

    def piece(self, data: bytes) -> bytes:
        """Return what is sent for `data`, so that the client can decode it at once."""
        return data

    def end(self) -> bytes:
        """Return what ends the body."""
        return b""


class _Gzip(ContentEncoder):
    def __init__(self) -> None:
        self._compressor = zlib.compressobj(wbits=31)

    def piece(self, data: bytes) -> bytes:
        return self._compressor.compress(data) + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def end(self) -> bytes:
        return self._compressor.flush()


class _Zstd(ContentEncoder):
    def __init__(self, zstandard: Any) -> None:
        self._compressor = zstandard.ZstdCompressor().compressobj()
        self._block = zstandard.COMPRESSOBJ_FLUSH_BLOCK

    def piece(self, data: bytes) -> bytes:
        sent: bytes = self._compressor.compress(data) + self._compressor.flush(self._block)
        return sent

    def end(self) -> bytes:
        last: bytes = self._compressor.flush()
        return last


def content_encoder(encoding: str, accepted: str) -> ContentEncoder | None:
    """Return an encoder if the client accepts it and this machine has it."""
    if encoding not in [word.partition(";")[0].strip() for word in accepted.split(",")]:
        return None
    if encoding == "gzip":
        return _Gzip()
    try:
        return _Zstd(import_module("zstandard"))
    except ModuleNotFoundError:
        return None
