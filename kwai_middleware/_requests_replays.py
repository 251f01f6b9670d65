"""Answers of requests of which the beginning has been looked into: who reads one finds all of it, as it came."""

from __future__ import annotations

import contextlib
import io
from typing import Any

from requests import Response
from urllib3.response import HTTPResponse

from kwai_middleware._outbound.failover import Seen
from kwai_middleware._outbound.replays import MOST_BYTES

__all__ = ["dismiss", "look"]


class _ReplayedFile:
    """What urllib3 reads an answer from: what was seen of it, and what follows. Nothing has been counted there yet.

    It has no `fp`: by that urllib3 would begin behind what was seen.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._error: Exception | None = None
        self.seen = b""
        try:
            self.seen = file.read(MOST_BYTES)
        except Exception as error:  # noqa: BLE001 - whatever it is, the app gets it, when it comes to there
            self._error = error
        except BaseException:
            file.close()
            raise
        self._left = io.BytesIO(self.seen)
        self._was_asked = False
        self.is_whole = self._error is None and len(self.seen) < MOST_BYTES

    def __getattr__(self, name: str) -> Any:
        if name == "fp":
            raise AttributeError(name)
        return getattr(self._file, name)

    def read(self, amt: int | None = None) -> bytes:
        """Read so much, or all."""
        self._was_asked = True
        read = self._left.read(-1 if amt is None else amt)
        if amt is not None and (len(read) == amt or (read and self.is_whole)):
            return read
        if self._error is not None:
            raise self._error
        rest: bytes = self._file.read() if amt is None else self._file.read(amt - len(read))
        return read + rest

    def read1(self, amt: int = -1) -> bytes:
        """Read what is there."""
        self._was_asked = True
        read = self._left.read(amt)
        if read or amt == 0:
            return read
        if self._error is not None:
            raise self._error
        rest: bytes = self._file.read1(amt)
        return rest

    def isclosed(self) -> bool:
        """Say whether there is nothing more to read."""
        file_is_closed = getattr(self._file, "isclosed", None)
        return self._is_read and bool(self._file.closed if file_is_closed is None else file_is_closed())

    @property
    def closed(self) -> bool:
        """Whether it has been closed."""
        return self._is_read and bool(self._file.closed)

    def close(self) -> None:
        """Close it; what was seen is gone as well."""
        self._left, self._was_asked = io.BytesIO(), True
        self._file.close()

    @property
    def _is_read(self) -> bool:
        # A file knows that it is at its end when it has been asked for more than there is.
        return self._was_asked and self._left.tell() == len(self._left.getbuffer())


def look(response: Response) -> Seen:
    """Look into an answer that nobody has read yet; of one that urllib3 has not given nothing is seen."""
    if getattr(response, "_content_consumed", False):
        return Seen(response.content or b"", is_whole=True, is_decoded=True)
    raw: Any = response.raw
    if not isinstance(response.raw, HTTPResponse):
        return Seen(b"", is_whole=False)
    raw._fp = file = _ReplayedFile(raw._fp)
    return Seen(file.seen, file.is_whole)


def dismiss(response: Response, seen: Seen) -> None:
    """Close an answer that the app does not get; a connection that has nothing more to say may serve again."""
    with contextlib.suppress(Exception):
        if seen.is_whole:
            response.raw.release_conn()
        response.close()
