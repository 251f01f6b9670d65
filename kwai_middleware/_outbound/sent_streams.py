"""Request bodies that are watched while they go out. A chunk is noted and handed on as it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from kwai_middleware._outbound.exchange import Exchange

__all__ = ["SentStream"]


class SentStream:
    """Passes on a body, and can be sent as often as that. Mixed into a class of the library's own stream types."""

    def __init__(self, stream: Any, exchange: Exchange) -> None:
        self._stream = stream
        self._exchange = exchange

    def __iter__(self) -> Iterator[bytes]:
        self._exchange.sending()
        sent = self._exchange.sent
        for chunk in self._stream:
            sent(chunk)
            yield chunk

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._exchange.sending()
        return _SentChunks(self._stream.__aiter__(), self._exchange)


class _SentChunks(AsyncIterator[bytes]):
    """One sending of an asynchronous body; no generator, for the reason that `_ObservedChunks` has."""

    def __init__(self, chunks: AsyncIterator[bytes], exchange: Exchange) -> None:
        self._chunks = chunks
        self._sent = exchange.sent

    async def __anext__(self) -> bytes:
        chunk = await self._chunks.__anext__()
        self._sent(chunk)
        return chunk

    async def aclose(self) -> None:
        """Whoever sends has stopped: pass it on to a generator below."""
        close: Callable[[], Awaitable[None]] | None = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()
