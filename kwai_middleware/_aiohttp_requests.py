"""What goes out through aiohttp: bodies that may hold a key, and what traces are told: the app's, and one of ours."""

from __future__ import annotations

from typing import Any

from aiohttp import BytesPayload, ClientRequest, Payload
from aiohttp.abc import AbstractStreamWriter

from kwai_middleware._outbound.departure import Departure
from kwai_middleware._outbound.gathering import Held
from kwai_middleware._outbound.wire import WireBody
from kwai_middleware._settings import Settings

__all__ = ["AppsTrace", "SentTrace", "WirePayload", "gathered_payload", "held"]


class WirePayload(Payload):
    """A body that may hold a key."""

    _autoclose = True

    def __init__(self, body: WireBody) -> None:
        super().__init__(body)
        self._size = body.size

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return it as text, for middlewares inside that sign."""
        return b"".join(self._value).decode(encoding, errors)

    async def as_bytes(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        """Return it as bytes, for the same."""
        return b"".join(self._value)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write all of it."""
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Write so much of it."""
        for part in self._value:
            some = part if content_length is None else part[:content_length]
            if content_length is not None:
                content_length -= len(some)
            await writer.write(some)


async def held(body: Any, declared: int | None) -> bytes | None:
    """Return a body that is held in memory, as far as it goes to the wire; None for one that has to be read.

    Args:
        body: The request's.
        declared: Its length by the request's header: aiohttp sends no more than that.
    """
    if isinstance(body, Payload):
        # What a payload of the app's own kind writes is known when it writes.
        kind = type(body)
        if not isinstance(body, BytesPayload) or kind.write_with_length is not BytesPayload.write_with_length:
            return None
        body = await body.as_bytes()
    whole = body if type(body) is bytes else memoryview(body).tobytes()
    return whole if declared is None else whole[:declared]


async def gathered_payload(body: Payload, declared: int | None, settings: Settings) -> bytes:
    """Return a body that comes in pieces as a whole, read as it would be written to the wire.

    Raises:
        CannotAttribute: It is too large, or too many are being read at once.
    """
    writer = _Gatherer(settings)
    await body.write_with_length(writer, declared)
    return writer.held.whole()


class _Gatherer(AbstractStreamWriter):
    """Keeps what a payload writes."""

    def __init__(self, settings: Settings) -> None:
        self.held = Held(settings)

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        self.held.add(chunk)

    async def write_eof(self, chunk: bytes = b"") -> None:
        self.held.add(chunk)

    async def drain(self) -> None:
        """Nothing waits here."""

    def enable_compression(self, encoding: str = "deflate", strategy: int | None = None) -> None:
        """What is gathered is not compressed yet."""

    def enable_chunking(self) -> None:
        """What is gathered has no framing."""

    async def write_headers(self, status_line: str, headers: Any) -> None:
        """A body has none."""


class AppsTrace:
    """Stands between the wire and a trace of the app's: that hears of the app's own headers and body.

    Args:
        trace: The app's.
        request: The app's own.
        body: The app's bytes, when others go out.
    """

    def __init__(self, trace: Any, request: ClientRequest, body: bytes | None) -> None:
        self._trace = trace
        self._request = request
        self._body = body
        self._is_told = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trace, name)

    async def send_request_headers(self, method: str, url: Any, headers: Any) -> None:
        """The head has gone out."""
        await self._trace.send_request_headers(method, url, self._request.headers)

    async def send_request_chunk_sent(self, method: str, url: Any, chunk: bytes) -> None:
        """A part of the body has gone out."""
        if self._body is None:
            await self._trace.send_request_chunk_sent(method, url, chunk)
        elif not self._is_told:
            self._is_told = True
            await self._trace.send_request_chunk_sent(method, url, self._body)


class SentTrace:
    """A trace of ours, for bodies that are watched: aiohttp tells it of each part as the app's payload writes it.

    So the payload stays the app's very own, and nothing stands between it and the wire.
    """

    def __init__(self, departure: Departure) -> None:
        self._departure = departure

    async def send_request_headers(self, method: str, url: Any, headers: Any) -> None:
        """The head goes out, and the body after it: for the first time, or again."""
        self._departure.sending()

    async def send_request_chunk_sent(self, method: str, url: Any, chunk: bytes) -> None:
        """A part of the body goes out, which is not compressed yet."""
        self._departure.sent(chunk)

    async def send_response_chunk_received(self, method: str, url: Any, chunk: bytes) -> None:
        """Answers are watched where they are read."""
