"""Answers of which the beginning has been looked into: who reads one finds all of it, as it came."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Final

from kwai_middleware._outbound.failover import Seen

__all__ = ["MOST_BYTES", "Replay"]

MOST_BYTES: Final = 64 * 1024
"""What is looked into of an answer: one that refuses a key says so in a few words."""


class Replay:
    """Stands for a response's stream, synchronous or asynchronous, and can be looked into before it is read.

    Args:
        stream: Of the HTTP library.
        content: What it held, where it has been read already; then there is nothing to replay.
    """

    def __init__(self, stream: Any, content: bytes | None = None) -> None:
        self._stream = stream
        self._seen: list[bytes] = [] if content is None else [content]
        self._rest: Any = None
        self._error: Exception | None = None
        self._is_read = self._is_whole = content is not None

    def look(self) -> Seen:
        """Read the beginning. What goes wrong is there again for who reads; closed if it is no `Exception`."""
        if self._is_read:
            return self._what_was_seen()
        try:
            self._rest = iter(self._stream)
            while self._has_room():
                self._seen.append(next(self._rest))
        except StopIteration:
            self._is_whole = True
        except Exception as error:  # noqa: BLE001 - whatever it is, the app gets it, when it comes to there
            self._error = error
        except BaseException:
            self._stream.close()
            raise
        return self._what_was_seen()

    async def look_async(self) -> Seen:
        """The same for an asynchronous stream."""
        if self._is_read:
            return self._what_was_seen()
        try:
            self._rest = self._stream.__aiter__()
            while self._has_room():
                self._seen.append(await self._rest.__anext__())
        except StopAsyncIteration:
            self._is_whole = True
        except Exception as error:  # noqa: BLE001 - as above
            self._error = error
        except BaseException:
            await self._stream.aclose()
            raise
        return self._what_was_seen()

    def __iter__(self) -> Iterator[bytes]:
        seen, rest, error = self._taken()
        yield from seen
        if error is not None:
            raise error
        yield from iter(self._stream) if rest is None else rest

    def __aiter__(self) -> AsyncIterator[bytes]:
        seen, rest, error = self._taken()
        return _ReplayedChunks(seen, error, self._stream.__aiter__() if rest is None else rest)

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    async def aclose(self) -> None:
        """Close the asynchronous stream."""
        if self._rest is not None:
            await _close(self._rest)
        await self._stream.aclose()

    def _what_was_seen(self) -> Seen:
        return Seen(b"".join(self._seen), self._is_whole, self._is_read)

    def _has_room(self) -> bool:
        return sum(map(len, self._seen)) < MOST_BYTES

    def _taken(self) -> tuple[list[bytes], Any, Exception | None]:
        """Hand over what was seen to the first who iterates; a second one is the stream's own affair."""
        taken = self._seen, self._rest, self._error
        self._seen, self._rest, self._error = [], None, None
        return taken


class _ReplayedChunks(AsyncIterator[bytes]):
    """One iteration of an asynchronous stream; no generator, for the reason that `_ObservedChunks` has."""

    def __init__(self, seen: list[bytes], error: Exception | None, rest: Any) -> None:
        self._seen = iter(seen)
        self._error = error
        self._rest = rest

    async def __anext__(self) -> bytes:
        for seen in self._seen:
            return seen
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        chunk: bytes = await self._rest.__anext__()
        return chunk

    async def aclose(self) -> None:
        """The one who iterates has stopped: pass it on to a generator below."""
        await _close(self._rest)


async def _close(chunks: Any) -> None:
    close: Callable[[], Awaitable[None]] | None = getattr(chunks, "aclose", None)
    if close is not None:
        await close()
