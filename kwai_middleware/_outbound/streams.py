"""Response streams that are watched while they pass. A chunk is noted and handed on; it is not looked into."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from types import TracebackType
from typing import Any

from kwai_middleware._outbound.departure import Departure
from kwai_middleware._outbound.observation import Ending

__all__ = ["AsyncObservedStream", "ObservedStream"]


class ObservedStream:
    """Passes on a synchronous stream. Mixed into a class that inherits from the library's stream type.

    It may be iterated more than once, as SDKs do, and closed before, during or without iteration.
    """

    def __init__(self, stream: Any, departure: Departure) -> None:
        self._stream = stream
        self._departure = departure
        self._exchange = departure.exchange

    def __iter__(self) -> Iterator[bytes]:
        received = self._exchange.received
        try:
            for chunk in self._stream:
                received(chunk)
                yield chunk
        except BaseException as error:
            self._departure.failed(error)
            raise
        self._exchange.finished(Ending.END)

    def close(self) -> None:
        """Close the stream below; the exchange is over first."""
        if not self._exchange.has_ended:
            self._exchange.finished(Ending.CLOSED)
        try:
            self._stream.close()
        except BaseException as error:
            self._departure.failed(error)
            raise

    def __del__(self) -> None:
        if not self._exchange.has_ended:
            self._exchange.finished(Ending.ABANDONED)


class AsyncObservedStream:
    """Passes on an asynchronous stream. Mixed into a class that inherits from the library's stream type."""

    def __init__(self, stream: Any, departure: Departure) -> None:
        self._stream = stream
        self._departure = departure
        self._exchange = departure.exchange

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _ObservedChunks(self._stream.__aiter__(), self._departure)

    async def aclose(self) -> None:
        """Close the stream below; the exchange is over first, without waiting for anything."""
        if not self._exchange.has_ended:
            self._exchange.finished(Ending.CLOSED)
        try:
            await self._stream.aclose()
        except BaseException as error:
            self._departure.failed(error)
            raise

    def __del__(self) -> None:
        if not self._exchange.has_ended:
            self._exchange.finished(Ending.ABANDONED)


class _ObservedChunks(AsyncGenerator[bytes, None]):
    """One iteration of an asynchronous stream.

    A class and not an `async def` with `yield`: a suspended generator of ours would be finished by
    the event loop some time after it was dropped, and would then wait for the one below.
    """

    def __init__(self, chunks: AsyncIterator[bytes], departure: Departure) -> None:
        self._chunks = chunks
        self._next = chunks.__anext__
        self._departure = departure
        self._received = departure.received

    async def __anext__(self) -> bytes:
        # To call what an attribute holds is slower than to call what a name holds: together 20 ns.
        following, received = self._next, self._received
        try:
            chunk = await following()
        except StopAsyncIteration:
            self._departure.finished(Ending.END)
            raise
        except BaseException as error:
            self._departure.failed(error)
            raise
        received(chunk)
        return chunk

    async def asend(self, value: None) -> bytes:
        """A stream takes nothing in: the same as the next chunk."""
        return await self.__anext__()

    async def athrow(self, typ: Any, val: Any = None, tb: TracebackType | None = None) -> bytes:
        """The one who iterates has failed: the stream below is closed, and the failure goes on."""
        await self.aclose()
        raise typ if val is None else val

    async def aclose(self) -> None:
        """The one who iterates has stopped: say so, and pass it on to a generator below."""
        self._departure.finished(Ending.CLOSED)
        close: Callable[[], Awaitable[None]] | None = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()
