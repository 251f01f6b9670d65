"""The content of an answer of aiohttp, watched while it is read."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiohttp import StreamReader

from kwai_middleware._outbound.departure import Departure
from kwai_middleware._outbound.observation import Ending
from kwai_middleware._outbound.replays import MOST_BYTES

__all__ = ["ObservedContent", "beginning"]

ReadT = TypeVar("ReadT")


class ObservedContent(StreamReader):
    """Reads from another reader, and tells what was read.

    It has no state of a reader itself: whatever is not here is looked up in the one inside. The
    iterators and `readexactly` are inherited, and read by what is here.
    """

    __slots__ = ("_departure", "_inner", "_was_cancelled")

    def __init__(self, inner: StreamReader, departure: Departure) -> None:
        self._inner = inner
        self._departure = departure
        self._was_cancelled = False
        if inner.at_eof():
            departure.finished(Ending.END)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __repr__(self) -> str:
        return repr(self._inner)

    def __del__(self) -> None:
        error = self._inner.exception()
        if error is not None:
            self._departure.failed(error)
        self._departure.finished(Ending.CANCELLED if self._was_cancelled else Ending.ABANDONED)

    async def readany(self) -> bytes:
        """Read what is there."""
        return self._noted(await self._told(self._inner.readany()))

    async def read(self, n: int = -1) -> bytes:
        """Read up to `n` bytes, or all."""
        if n >= 0:
            return self._noted(await self._told(self._inner.read(n)))
        # Piece by piece, so that what had come is known if the rest does not come.
        self.set_read_chunk_size(sys.maxsize)
        pieces: list[bytes] = []
        while piece := await self.readany():
            pieces.append(piece)
        return b"".join(pieces)

    async def readexactly(self, n: int) -> bytes:
        """Read `n` bytes, no fewer."""
        pieces: list[bytes] = []
        left = n
        while left > 0:
            piece = await self.read(left)
            if not piece:
                raise asyncio.IncompleteReadError(b"".join(pieces), n)
            pieces.append(piece)
            left -= len(piece)
        return b"".join(pieces)

    async def readline(self, **options: Any) -> bytes:
        """Read a line."""
        return self._noted(await self._told(self._inner.readline(**options)))

    async def readuntil(self, separator: bytes = b"\n", **options: Any) -> bytes:
        """Read until a separator."""
        return self._noted(await self._told(self._inner.readuntil(separator, **options)))

    async def readchunk(self) -> tuple[bytes, bool]:
        """Read a chunk as the server cut it, or a part of one."""
        chunk, is_whole = await self._told(self._inner.readchunk())
        return self._noted(chunk), is_whole

    def read_nowait(self, n: int = -1) -> bytes:
        """Read what is there, without waiting."""
        return self._noted(self._inner.read_nowait(n))

    async def _told(self, reading: Awaitable[ReadT]) -> ReadT:
        try:
            return await reading
        except asyncio.CancelledError:
            # Not the end: aiohttp lets one read on after a wait that was given up.
            self._was_cancelled = True
            raise
        except BaseException as error:
            self._departure.failed(error)
            raise

    def _noted(self, chunk: bytes) -> bytes:
        self._was_cancelled = False
        if chunk:
            self._departure.received(chunk)
        if self._inner.at_eof():
            self._departure.finished(Ending.END)
        return chunk

    def exception(self) -> BaseException | None:
        """Return what has gone wrong."""
        return self._inner.exception()

    def set_exception(self, exc: BaseException, *cause: Any, **named_cause: Any) -> None:
        """Whoever closes or releases the response says so here."""
        self._departure.finished(Ending.CANCELLED if self._was_cancelled else Ending.CLOSED)
        self._inner.set_exception(exc, *cause, **named_cause)

    def on_eof(self, callback: Callable[[], None]) -> None:
        """Have a function called when all has come."""
        self._inner.on_eof(callback)

    def is_eof(self) -> bool:
        """Say whether all has come."""
        return self._inner.is_eof()

    def at_eof(self) -> bool:
        """Say whether all has been read."""
        return self._inner.at_eof()

    async def wait_eof(self) -> None:
        """Wait until all has come."""
        await self._told(self._inner.wait_eof())

    def unread_data(self, data: bytes) -> None:
        """Put something back, to be read again."""
        self._inner.unread_data(data)

    def get_read_buffer_limits(self) -> tuple[int, int]:
        """Return the bounds on what waits to be read."""
        return self._inner.get_read_buffer_limits()

    def set_read_chunk_size(self, n: int) -> None:
        """Make room for reading so much at once; older readers know no such bound."""
        make_room = getattr(self._inner, "set_read_chunk_size", None)
        if make_room is not None:
            make_room(n)


async def beginning(content: StreamReader) -> bytes:
    """Return the beginning of an answer, as soon as it is there; it stays there for who reads.

    What goes wrong meanwhile does so again for who reads.

    Raises:
        TimeoutError: The time for the whole call is over.
    """
    reader: Any = content
    try:
        while not (content.is_eof() or reader.total_bytes >= MOST_BYTES or reader._protocol._reading_paused):
            await reader._wait("look")
    except Exception as error:
        if isinstance(error, TimeoutError) and content.exception() is None:
            raise
        return b""
    return b"".join(getattr(reader, "_buffer", ()))
