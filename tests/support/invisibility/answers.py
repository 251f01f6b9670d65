"""What the scripted server answers: whole answers as they are on the wire, under the names that steps ask for."""

from __future__ import annotations

import gzip
import zlib
from typing import Final

import brotli
import zstandard

__all__ = ["ANSWERS", "BROKEN", "CLOSING", "chunked"]

_JSON: Final = b'{"id":"gen-1","choices":[{"message":{"role":"assistant","content":"Hello \xc3\xa9"}}],"usage":{}}'
_LINES: Final = b"first\nsecond\r\nthird\rfourth\n\nlast without end"
_SSE: Final = b': OPENROUTER PROCESSING\n\ndata: {"n":1}\n\nevent: delta\nid: 7\ndata: {"n":2}\n\ndata: [DONE]\n\n'


def chunked(*parts: bytes, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    """Return parts in the chunked encoding, with its end."""
    chunks = b"".join(f"{len(part):x}".encode() + extension + b"\r\n" + part + b"\r\n" for part in parts)
    return chunks + b"0\r\n" + trailers + b"\r\n"


def _answer(
    body: bytes = _JSON,
    *headers: str,
    status: str = "200 OK",
    version: str = "1.1",
    content_type: str = "application/json",
    framed: bool = True,
) -> bytes:
    lines = [f"HTTP/{version} {status}", f"Content-Type: {content_type}", *headers]
    if framed:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def _chunks(*parts: bytes, headers: tuple[str, ...] = (), **how: bytes) -> bytes:
    return _answer(b"", "Transfer-Encoding: chunked", *headers, framed=False) + chunked(*parts, **how)


def _raw_deflated(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


_STATUSES: Final = (
    "201 Created", "202 Accepted", "203 Non-Authoritative Information", "206 Partial Content", "226 IM Used",
    "300 Multiple Choices", "400 Bad Request", "402 Payment Required", "403 Forbidden", "404 Not Found",
    "405 Method Not Allowed", "408 Request Timeout", "409 Conflict", "413 Content Too Large", "418 I'm a teapot",
    "422 Unprocessable Content", "429 Too Many Requests", "451 Unavailable", "500 Internal Server Error",
    "501 Not Implemented", "502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout", "529 Overloaded",
    "299 Peculiar", "599 ", "200 Tr\xe8s bien",
)  # fmt: skip

_PACKED: Final = {
    "gzip": ("gzip", gzip.compress(_LINES, mtime=0)),
    "deflate": ("deflate", zlib.compress(_LINES)),
    "raw-deflate": ("deflate", _raw_deflated(_LINES)),
    "brotli": ("br", brotli.compress(_LINES)),
    "zstd": ("zstd", zstandard.ZstdCompressor().compress(_LINES)),
    "two-codings": ("deflate, gzip", gzip.compress(zlib.compress(_LINES), mtime=0)),
    "unknown-coding": ("rot13", b"uryyb"),
    "identity-coding": ("identity", _LINES),
    "broken-gzip": ("gzip", b"this was never packed"),
    "broken-brotli": ("br", b"this was never packed"),
    "broken-deflate": ("deflate", b"\xff\xff\xff\xff"),
    "cut-gzip": ("gzip", gzip.compress(_LINES, mtime=0)[:-9]),
    "empty-gzip": ("gzip", b""),
}

ANSWERS: Final[dict[str, bytes]] = {
    "ok": _answer(),
    "empty": _answer(b""),
    "chunked": _chunks(b"one ", b"two ", b"three"),
    "chunk-extensions": _chunks(b"one", b"two", extension=b";name=value"),
    "trailers": _chunks(b"one", trailers=b"X-Checksum: 7\r\nX-More: yes\r\n"),
    "sse": _answer(_SSE, content_type="text/event-stream"),
    "sse-chunked": _chunks(*(part + b"\n\n" for part in _SSE.split(b"\n\n")[:-1])),
    "lines": _answer(_LINES, content_type="text/plain"),
    "bytes": _answer(bytes(range(256)), content_type="application/octet-stream"),
    "many-chunks": _chunks(*(b"%d," % number for number in range(200))),
    "megabyte": _answer(b"0123456789abcdef" * 65536, content_type="application/octet-stream"),
    "latin-1": _answer("caf\xe9".encode("latin-1"), content_type="text/plain; charset=iso-8859-1"),
    "utf-16": _answer("café".encode("utf-16"), content_type="text/plain; charset=utf-16"),
    "unknown-charset": _answer("café".encode(), content_type="text/plain; charset=no-such"),
    "not-utf-8": _answer(b"caf\xe9 \xff", content_type="text/plain"),
    "html": _answer(b"<html>502</html>", status="502 Bad Gateway", content_type="text/html"),
    "broken-json": _answer(b'{"id": '),
    "no-content": b"HTTP/1.1 204 No Content\r\nX-Kept: yes\r\n\r\n",
    "not-modified": b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\nContent-Length: 99\r\n\r\n',
    "reset-content": b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
    "continue": b"HTTP/1.1 100 Continue\r\n\r\n" + _answer(),
    "early-hints": b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n" + _answer(),
    "many-informational": b"HTTP/1.1 102 Processing\r\n\r\n" * 5 + _answer(),
    "old-keep-alive": _answer(b"{}", "Connection: keep-alive", version="1.0"),
    "doubled-headers": _answer(b"{}", "X-Twice: 1", "X-Twice: 2", "x-twice: 3", "Set-Cookie: a=1", "Set-Cookie: b=2"),
    "many-headers": _answer(b"{}", *(f"X-Header-{number}: {number}" for number in range(90))),
    "long-header": _answer(b"{}", "X-Long: " + "x" * 16000),
    "odd-header": _answer(b"{}", "X-Odd: \xe9\xff", "X-Empty:", "X-Blank:   padded   "),
    "folded-header": b"HTTP/1.1 200 OK\r\nX-Folded: one\r\n two\r\nContent-Length: 2\r\n\r\n{}",
    "links": _answer(b"{}", 'Link: <https://a.example/2>; rel="next", <https://a.example/9>; rel="last"'),
    "rate-limited": _answer(b"{}", "Retry-After: 7", "X-Should-Retry: true", status="429 Too Many Requests"),
    "generation": _answer(_JSON, "X-Generation-Id: gen-1", "X-Request-Id: r-1"),
    "cookie": _answer(b"{}", "Set-Cookie: session=abc; Path=/", "Set-Cookie: other=1; Path=/elsewhere"),
    "cookie-again": _answer(b"{}", "Set-Cookie: session=def; Path=/"),
    "cookie-gone": _answer(b"{}", "Set-Cookie: session=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT"),
    "cookie-aged": _answer(b"{}", "Set-Cookie: session=; Path=/; Max-Age=0"),
    "cookie-abroad": _answer(b"{}", "Set-Cookie: session=x; Domain=other.example"),
    "cookie-secure": _answer(b"{}", "Set-Cookie: session=x; Path=/; Secure; HttpOnly; SameSite=Strict"),
    "cookie-junk": _answer(b"{}", "Set-Cookie: ;;=;", "Set-Cookie: \xe9=1"),
    "basic-wanted": _answer(b"{}", 'WWW-Authenticate: Basic realm="r"', status="401 Unauthorized"),
    "digest-wanted": _answer(
        b"{}",
        'WWW-Authenticate: Digest realm="r", nonce="n1", opaque="o", qop="auth", algorithm=SHA-256',
        status="401 Unauthorized",
    ),
    "digest-md5-wanted": _answer(
        b"{}", 'WWW-Authenticate: Digest realm="r", nonce="n1"', "Set-Cookie: seen=1", status="401 Unauthorized"
    ),
    "digest-broken": _answer(b"{}", "WWW-Authenticate: Digest realm", status="401 Unauthorized"),
    "digest-unknown": _answer(
        b"{}", 'WWW-Authenticate: Digest realm="r", nonce="n", qop="auth-int"', status="401 Unauthorized"
    ),
    "proxy-refuses": _answer(b"{}", 'Proxy-Authenticate: Basic realm="p"', status="407 Proxy Authentication Required"),
} | {f"status-{status[:3]}{status[4:5]}": _answer(_JSON, status=status) for status in _STATUSES}  # fmt: skip
ANSWERS |= {name: _answer(body, f"Content-Encoding: {coding}") for name, (coding, body) in _PACKED.items()}
ANSWERS |= {
    f"chunked-{name}": _chunks(body[:5], body[5:], headers=(f"Content-Encoding: {coding}",))
    for name, (coding, body) in _PACKED.items()
    if name in ("gzip", "brotli", "zstd", "broken-gzip")
}

_FRAMED: Final = b"HTTP/1.1 200 OK\r\n"

BROKEN: Final[dict[str, bytes]] = {
    "nothing": b"",
    "garbage": b"\x16\x03\x01 this is no HTTP\r\n\r\n",
    "half-a-status": b"HTTP/1.1 20",
    "half-a-head": b"HTTP/1.1 200 OK\r\nContent-Ty",
    "bad-status": b"HTTP/1.1 abc Fine\r\n\r\n",
    "status-of-two": b"HTTP/1.1 42 Short\r\n\r\n",
    "other-protocol": b"SIP/2.0 200 OK\r\n\r\n",
    "future-protocol": b"HTTP/3.7 200 OK\r\nContent-Length: 0\r\n\r\n",
    "bad-header-name": _FRAMED + b"X Y: 1\r\nContent-Length: 0\r\n\r\n",
    "bad-header-line": _FRAMED + b"no colon here\r\n\r\n",
    "nul-in-header": _FRAMED + b"X-Nul: a\x00b\r\nContent-Length: 0\r\n\r\n",
    "huge-head": _FRAMED + b"X-Huge: " + b"x" * 1_000_000 + b"\r\n\r\n",
    "bad-length": _FRAMED + b"Content-Length: some\r\n\r\n",
    "negative-length": _FRAMED + b"Content-Length: -1\r\n\r\n",
    "two-lengths": _FRAMED + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "length-and-chunks": _FRAMED + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"one"),
    "unknown-transfer": _FRAMED + b"Transfer-Encoding: gzip\r\n\r\n{}",
    "bad-chunk-size": _FRAMED + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
    "bad-chunk-end": _FRAMED + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n",
    "short-body": _FRAMED + b"Content-Length: 99\r\n\r\nonly this",
    "cut-chunks": _FRAMED + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "cut-chunk": _FRAMED + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
    "long-body": _FRAMED + b"Content-Length: 2\r\n\r\n{} and more than was announced",
    "no-length": _FRAMED + b"Content-Type: text/plain\r\n\r\nuntil the connection ends",
    "said-close": _FRAMED + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}",
    "old": b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nuntil the connection ends",
    "only-informational": b"HTTP/1.1 100 Continue\r\n\r\n",
    "http2-uninvited": b"\x00\x00\x00\x04\x00\x00\x00\x00\x00",
}
"""After these the server closes the connection."""

CLOSING: Final = frozenset(BROKEN)
