"""Content-encodings, undone chunk by chunk."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from typing import Any

import brotli
import pytest
import zstandard
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._outbound import decoding
from kwai_middleware._outbound.decoding import codings_of, decoded

TEXT = b"".join(b'data: {"choices":[{"delta":{"content":"word %d"}}]}\n\n' % number for number in range(300))


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


ENCODERS: dict[str, tuple[list[str], Callable[[bytes], bytes]]] = {
    "identity": ([], bytes),
    "gzip": (["gzip"], gzip.compress),
    "x-gzip": (["x-gzip"], gzip.compress),
    "two gzip members": (["gzip"], lambda data: gzip.compress(data[:99]) + gzip.compress(data[99:])),
    "deflate": (["deflate"], zlib.compress),
    "bare deflate": (["deflate"], raw_deflate),
    "brotli": (["br"], brotli.compress),
    "zstd": (["zstd"], zstandard.compress),
    "two zstd frames": (["zstd"], lambda data: zstandard.compress(data[:99]) + zstandard.compress(data[99:])),
    "gzip then brotli": (["gzip", "br"], lambda data: brotli.compress(gzip.compress(data))),
}
codings = pytest.mark.parametrize(("names", "encode"), ENCODERS.values(), ids=ENCODERS.keys())


def cut(data: bytes, places: list[int]) -> list[bytes]:
    borders = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(borders)]


@codings
@given(places=st.lists(st.integers(0, 1 << 20), max_size=12), text=st.sampled_from([TEXT, b"", b"x", TEXT[:200]]))
def test_any_chunks_decode_to_the_text(
    names: list[str], encode: Callable[[bytes], bytes], places: list[int], text: bytes
) -> None:
    """An encoded body, cut anywhere, decodes to the text, with one piece for each chunk."""
    chunks = cut(encode(text), places)

    pieces, whole = decoded(chunks, names)

    assert (text, len(chunks), True) == (b"".join(pieces), len(pieces), whole)


@codings
def test_single_bytes_decode_to_the_text(names: list[str], encode: Callable[[bytes], bytes]) -> None:
    """A body that arrives byte by byte decodes all the same."""
    body = encode(TEXT)

    assert TEXT == b"".join(decoded([body[place : place + 1] for place in range(len(body))], names).pieces)


@codings
@given(size=st.integers(0, 4000))
def test_a_body_that_ends_early_gives_what_came(names: list[str], encode: Callable[[bytes], bytes], size: int) -> None:
    """Of a body cut off anywhere, what can be read is a beginning of the text; an early end is no damage."""
    pieces, whole = decoded([encode(TEXT)[:size]], names)

    assert whole
    assert TEXT.startswith(b"".join(pieces))


@codings
@given(junk=st.binary(min_size=1, max_size=50), place=st.integers(0, 4000))
def test_damage_never_raises(names: list[str], encode: Callable[[bytes], bytes], junk: bytes, place: int) -> None:
    """A body with anything in its middle still gives one piece for each chunk."""
    body = encode(TEXT)

    assert 3 == len(decoded([body[:place], junk, body[place:]], names).pieces)


def test_parts_are_known_by_the_chunk_they_came_in() -> None:
    """A server that flushes each event gives each chunk the piece that it brought."""
    compressor = zlib.compressobj(wbits=zlib.MAX_WBITS | 16)
    parts = [b"data: one\n\n", b"data: two\n\n", b"data: three\n\n"]
    chunks = [compressor.compress(part) + compressor.flush(zlib.Z_SYNC_FLUSH) for part in parts]

    assert (parts, True) == decoded(chunks, ["gzip"])


def test_what_comes_before_a_damage_is_kept() -> None:
    """A damaged second member costs what follows, not what came before it."""
    pieces, whole = decoded([gzip.compress(b"good"), b"damage", gzip.compress(b"more")], ["gzip"])

    assert ([b"good", b"", b""], False) == (pieces, whole)


@pytest.mark.parametrize(
    ("name", "bomb"),
    [
        pytest.param("gzip", gzip.compress(bytes(1 << 26)), id="gzip"),
        pytest.param("br", brotli.compress(bytes(1 << 26)), id="brotli"),
        pytest.param("zstd", zstandard.compress(bytes(1 << 26)), id="zstd"),
    ],
)
def test_bombs_stop_at_the_limit(name: str, bomb: bytes) -> None:
    """A few bytes that stand for 64 MiB give the limit and no more, and the rest is not looked at."""
    pieces, whole = decoded([bomb, bomb], [name])

    assert ([decoding.MOST_BYTES, 0], False) == (list(map(len, pieces)), whole)


@pytest.mark.parametrize("names", [pytest.param(["compress"], id="unknown"), pytest.param(["gzip"] * 5, id="too many")])
def test_what_cannot_be_undone_is_left_out(names: list[str]) -> None:
    """A coding we do not know, or a pile of them, leaves nothing, and says so."""
    assert ([b"", b""], False) == decoded([b"one", b"two"], names)


@pytest.mark.parametrize(
    ("maker", "body"),
    [
        pytest.param(decoding._zstd(zstandard), zstandard.compress(TEXT), id="zstandard"),
        pytest.param(decoding._zstd(zstd), zstandard.compress(TEXT), id="backports.zstd"),
        pytest.param(decoding._brotli(brotli), brotli.compress(TEXT), id="brotli"),
        pytest.param(decoding._brotli(import_module("brotlicffi")), brotli.compress(TEXT), id="brotlicffi"),
    ],
)
def test_every_module_that_httpx_knows_will_do(maker: Any, body: bytes) -> None:
    """Each module that httpx or httpx2 may have for a coding decodes it here too."""
    assert TEXT == decoding._Step(*maker).feed(body)


def test_without_a_module_there_is_no_decoder() -> None:
    """A coding whose modules are all absent counts as unknown."""
    absent = decoding._first_module("kwai_no_such_module", "kwai_nor_this")

    assert [None, None] == [decoding._brotli(absent), decoding._zstd(absent)]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param([], [], id="none"),
        pytest.param([(b"content-encoding", b"identity")], [], id="identity"),
        pytest.param([(b"Content-Encoding", b" GZIP ,, br")], ["gzip", "br"], id="a list"),
        pytest.param([(b"content-encoding", b"gzip"), (b"content-encoding", b"br")], ["gzip", "br"], id="two lines"),
        pytest.param([(b"accept-encoding", b"gzip")], [], id="another header"),
    ],
)
def test_codings_are_read_from_the_headers(headers: list[tuple[bytes, bytes]], expected: list[str]) -> None:
    """Codings are named in any case, in one header line or in several, in the order they were applied."""
    assert expected == codings_of(headers)


def test_deflate_that_says_nothing_for_megabytes_takes_linear_time() -> None:
    """Empty blocks give no output; what is fed of them is not joined over and over."""
    silent = zlib.compress(b"")[:2] + b"\x00\x00\x00\xff\xff" * 1_600_000

    assert [b"", b"whole"] == decoded([silent, b"\x01\x05\x00\xfa\xffwhole"], ["deflate"]).pieces
