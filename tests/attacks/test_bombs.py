"""Answers of a few kilobytes that stand for gigabytes: the app gets its bytes, and recording them stays small."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import brotli
import httpx
import pytest
import zstandard

from kwai_middleware import bind_caller
from kwai_middleware._delivery.log_entry import encode
from kwai_middleware.httpx_transport import KwaiTransport
from tests.support.callers import OPENROUTER, caller, settings

GIGABYTE = 1 << 30
PART = 1 << 20
MOST_MEMORY = 64 * 1024 * 1024
"""What making one record may take: far less than the bomb."""


def deflated(part: bytes, wbits: int) -> bytes:
    """A gigabyte of `part` in zlib's format: the same block over and over, without an end."""
    compressor = zlib.compressobj(9, wbits=wbits)
    first = compressor.compress(part) + compressor.flush(zlib.Z_FULL_FLUSH)
    again = compressor.compress(part) + compressor.flush(zlib.Z_FULL_FLUSH)
    return first + again * (GIGABYTE // len(part))


def members(part: bytes) -> bytes:
    """A gigabyte in members of gzip, each whole."""
    return gzip.compress(part, 9) * (GIGABYTE // len(part))


def frames(part: bytes) -> bytes:
    """A gigabyte in frames of zstd."""
    return zstandard.ZstdCompressor(write_content_size=False).compress(part) * (GIGABYTE // len(part))


ZEROS = bytes(PART)
BLANKS = b" " * PART
EVENTS = b"data: {}\n\n" * (PART // 10)
DEEP = b"[" * PART
BOMBS: dict[str, tuple[str, str, Callable[[], bytes]]] = {
    "gzip": ("gzip", "application/json", lambda: deflated(ZEROS, 31)),
    "members": ("gzip", "application/json", lambda: members(BLANKS)),
    "deflate": ("deflate", "application/json", lambda: deflated(BLANKS, 15)),
    "bare deflate": ("deflate", "application/json", lambda: deflated(ZEROS, -15)),
    "brotli": ("br", "application/json", lambda: brotli.compress(bytes(GIGABYTE // 4), quality=1)),
    "zstd": ("zstd", "application/json", lambda: frames(ZEROS)),
    "deep": ("gzip", "application/json", lambda: deflated(DEEP, 31)),
    "twice": ("gzip, gzip", "application/json", lambda: gzip.compress(deflated(ZEROS, 31))),
    "three times": ("gzip, br, gzip", "application/json", lambda: gzip.compress(brotli.compress(members(ZEROS)))),
    "four kinds": (
        "zstd, br, deflate, gzip",
        "text/event-stream",
        lambda: gzip.compress(zlib.compress(brotli.compress(frames(EVENTS), quality=1))),
    ),
    "too many": (", ".join(["gzip"] * 50), "application/json", lambda: gzip.compress(ZEROS)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_recorded_in_little_memory(name: str) -> None:
    """The app gets every byte as it was sent; the record has what fits, says that it is not all, and is small."""
    codings, kind, make = BOMBS[name]
    bomb = make()
    calls: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        headers = {"content-encoding": codings, "content-type": kind}
        return httpx.Response(200, headers=headers, content=iter([bomb[:5000], bomb[5000:]]))

    transport = KwaiTransport(httpx.MockTransport(handler), settings=settings(), deliver=calls.append)
    asked = {"model": "m", "stream": kind == "text/event-stream"}
    with (
        httpx.Client(transport=transport) as client,
        bind_caller(caller()),
        client.stream("POST", OPENROUTER, json=asked) as response,
    ):
        assert bomb == b"".join(response.iter_raw())
    [pending] = calls
    if kind != "text/event-stream":  # measuring each of two million events would take a minute
        tracemalloc.start()
    try:
        call = pending.build()
        entry = encode(call)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        pending.release()
    assert call.truncated
    assert ("acme", 200) == (call.caller.identifier, call.status_code)
    assert peak < MOST_MEMORY
    assert len(entry) < 1024 * 1024
