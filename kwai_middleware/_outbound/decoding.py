"""Undoes content-encodings chunk by chunk, so that it stays known when each part arrived."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from functools import cache
from importlib import import_module
from typing import Any, Final, NamedTuple, Protocol

from kwai_middleware._pace import breathe

__all__ = ["MOST_BYTES", "Decoded", "codings_of", "decoded"]

MOST_BYTES: Final = 16 * 1024 * 1024
"""Decoding stops here: a few bytes can stand for gigabytes."""

_MOST_CODINGS: Final = 4
_MOST_TIMES: Final = 1024
"""About how much larger than its input an output is at most, for the codings that know their bounds."""
_MOST_UNKNOWN: Final = 4096
"""Bytes without any output after which deflate is what it was taken for: joined without end they would take
quadratic time."""


class Decoded(NamedTuple):
    """What could be decoded.

    Attributes:
        pieces: One for each chunk, in order; empty where nothing came out.
        whole: False when something was left out: damaged, of an unknown coding, or too much. A body
            that only ends early is whole in this sense.
    """

    pieces: list[bytes]
    whole: bool


def codings_of(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """Return the content codings in the order they were applied."""
    values = [value.decode("latin-1") for name, value in headers if name.lower() == b"content-encoding"]
    names = [name.strip().lower() for name in ",".join(values).split(",")]
    return [name for name in names if name and name != "identity"]


def decoded(chunks: Iterable[bytes], codings: list[str], most: int = MOST_BYTES) -> Decoded:
    """Undo `codings`, the last one first. Never raises: what comes before a damage is returned.

    Brotli and Zstandard need one of the modules that httpx and httpx2 use for them; without it the
    app could not read the answer either.
    """
    if not codings:
        return Decoded(list(chunks), True)
    makers = [_maker(coding) for coding in reversed(codings)]
    if len(makers) > _MOST_CODINGS or None in makers:
        return Decoded([b"" for _ in chunks], False)
    steps = [_Step(*maker, most) for maker in makers if maker]
    pieces: list[bytes] = []
    whole = True
    for chunk in chunks:
        if not whole:
            pieces.append(b"")
            continue
        for step in steps:
            chunk = step.feed(chunk)
        pieces.append(chunk)
        whole = not any(step.stopped for step in steps)
    return Decoded(pieces, whole)


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


class _Maker(NamedTuple):
    """How to start on a coding, and how many bytes to feed at once.

    Not every version of every module can limit its output, so the input is: fed so much at once,
    none gives more than about 16 MiB.
    """

    start: Callable[[], _Decompressor]
    at_once: int


class _Step:
    """One coding being undone; goes on with the next member or frame where one ends."""

    def __init__(self, start: Callable[[], _Decompressor], at_once: int, most: int = MOST_BYTES) -> None:
        self.stopped = False
        self._start = start
        self._at_once = min(at_once, max(most // _MOST_TIMES, 1))
        self._decompressor = start()
        self._room = most

    def feed(self, chunk: bytes) -> bytes:
        parts: list[bytes] = []
        for position in range(0, len(chunk), self._at_once):
            rest = chunk[position : position + self._at_once]
            while rest and not self.stopped:
                rest = self._feed_some(rest, parts)
                breathe()
        return b"".join(parts)

    def _feed_some(self, some: bytes, parts: list[bytes]) -> bytes:
        try:
            part = self._decompressor.decompress(some)
        except Exception:  # noqa: BLE001 - each module has an error class of its own
            self.stopped = True
            return b""
        parts.append(part[: self._room])
        self._room -= len(part)
        self.stopped = self._room < 0
        if not self._decompressor.eof:
            return b""
        rest = self._decompressor.unused_data
        self._decompressor = self._start()
        return rest


class _Deflate:
    """What is named deflate: zlib's format by the standard, and often enough the bare one."""

    unused_data = b""
    eof = False

    def __init__(self) -> None:
        self._inner = zlib.decompressobj()
        self._fed = b""
        self._is_known = False

    def decompress(self, data: bytes) -> bytes:
        if not self._is_known:
            self._fed += data
        try:
            part = self._inner.decompress(data)
        except zlib.error:
            if self._is_known:
                raise
            self._inner = zlib.decompressobj(-zlib.MAX_WBITS)
            part = self._inner.decompress(self._fed)
            self._is_known = True
        if part or len(self._fed) > _MOST_UNKNOWN:
            self._is_known = True
            self._fed = b""
        return part


class _Brotli:
    unused_data = b""
    eof = False

    def __init__(self, module: Any) -> None:
        decompressor = module.Decompressor()
        # brotli's own binding calls it process, early ones of brotlicffi decompress.
        self.decompress: Callable[[bytes], bytes] = getattr(decompressor, "process", None) or decompressor.decompress


def _maker(coding: str) -> _Maker | None:
    if coding in ("gzip", "x-gzip"):
        return _Maker(lambda: zlib.decompressobj(zlib.MAX_WBITS | 16), 4096)
    if coding == "deflate":
        return _Maker(_Deflate, 4096)
    if coding == "br":
        return _brotli(_first_module("brotli", "brotlicffi"))
    if coding == "zstd":
        return _zstd(_first_module("compression.zstd", "backports.zstd", "zstandard"))
    return None


def _brotli(module: Any) -> _Maker | None:
    return module and _Maker(lambda: _Brotli(module), 16)


def _zstd(module: Any) -> _Maker | None:
    if module and module.__name__ == "zstandard":
        return _Maker(lambda: module.ZstdDecompressor().decompressobj(), 64)
    return module and _Maker(module.ZstdDecompressor, 64)


@cache
def _first_module(*names: str) -> Any:
    for name in names:
        try:
            return import_module(name)
        except ImportError:
            continue
    return None
