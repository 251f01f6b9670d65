"""Answers and retries of urllib3, which requests stands on, watched while they pass."""

from __future__ import annotations

import copy
import functools
import io
from collections.abc import Callable, Generator, Mapping
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any, Final, Protocol, cast

from requests import PreparedRequest, Response
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests.utils import get_encoding_from_headers
from urllib3.exceptions import MaxRetryError
from urllib3.response import HTTPResponse
from urllib3.util.retry import Retry

from kwai_middleware._outbound.departure import Departure
from kwai_middleware._outbound.observation import Ending

__all__ = ["answer", "observed", "retries_are_told_to", "with_attempts_told"]


class ObservedResponse(HTTPResponse):
    """What an answer of urllib3 becomes: it reads as before, and tells what was read.

    It is the same object, of a class below its own: what the user, a cookie jar or a cache finds in
    it is what it would find without us.
    """

    _departure: Departure
    _is_reading = False
    _is_coded: bool
    _can_be_decoded: bool

    def read(self, amt: int | None = None, decode_content: bool | None = None, cache_content: bool = False) -> bytes:
        """Read up to `amt` bytes, or all."""
        chunk: bytes = self._told(super().read, amt, decode_content, cache_content)
        self._note(chunk, decode_content, amt, is_all=amt is None or amt < 0)
        return chunk

    def read1(self, amt: int | None = None, decode_content: bool | None = None) -> bytes:
        """Read what is there, up to `amt` bytes."""
        chunk: bytes = self._told(super().read1, amt, decode_content)
        self._note(chunk, decode_content, amt, is_all=False)
        return chunk

    def read_chunked(self, amt: int | None = None, decode_content: bool | None = None) -> Generator[bytes, None, None]:
        """Iterate over the chunks of an answer that comes in chunks."""
        chunks = super().read_chunked(amt, decode_content)
        try:
            while (chunk := self._told(next, chunks, None)) is not None:
                self._note(chunk, decode_content, amt, is_all=False)
                yield chunk
            if amt != 0:
                self._departure.finished(Ending.END)
        finally:
            chunks.close()
            if self.closed:  # left in the middle, urllib3 closes the connection
                self._departure.finished(Ending.CLOSED)

    def stream(self, amt: int | None = 2**16, decode_content: bool | None = None) -> Generator[bytes, None, None]:
        """Iterate over all of it."""
        yield from super().stream(amt, decode_content)
        if amt != 0:
            self._departure.finished(Ending.END)

    def close(self) -> None:
        """Close the connection; the exchange is over first."""
        if not self._is_reading:
            self._departure.finished(Ending.CLOSED)
        super().close()

    def __del__(self) -> None:
        self._departure.finished(Ending.ABANDONED)
        super().__del__()

    def _told(self, read: Callable[..., Any], *arguments: Any) -> Any:
        self._is_reading = True
        try:
            return read(*arguments)
        except BaseException as error:
            self._departure.failed(error)
            raise
        finally:
            self._is_reading = False

    def _note(self, chunk: bytes, decode_content: bool | None, amt: int | None, *, is_all: bool) -> None:
        decodes = self.decode_content if decode_content is None else decode_content
        if chunk:
            if decodes and self._can_be_decoded:
                self._departure.arrives_decoded()
            self._departure.received(chunk)
        # What was decoded may be waiting though everything has been read from the wire.
        if is_all or (self.closed and amt != 0 and (not chunk or not self._is_coded)):
            self._departure.finished(Ending.END)


class _ObservedFile:
    """What any other kind of answer is handed over in: adapters may give whatever can be read."""

    def __init__(self, file: Any, departure: Departure) -> None:
        self._file = file
        self._departure = departure

    def read(self, *arguments: Any) -> bytes:
        """Read as the file does."""
        try:
            chunk: bytes = self._file.read(*arguments)
        except BaseException as error:
            self._departure.failed(error)
            raise
        if chunk:
            self._departure.received(chunk)
        if not chunk or arguments in ((), (None,), (-1,)):
            self._departure.finished(Ending.END)
        return chunk

    def close(self) -> None:
        """Close the file; the exchange is over first."""
        self._departure.finished(Ending.CLOSED)
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __del__(self) -> None:
        self._departure.finished(Ending.ABANDONED)


def observed(raw: Any, departure: Departure) -> Any:
    """Return what stands in for the answer `raw` and tells what is read of it."""
    if not isinstance(raw, HTTPResponse):
        return _ObservedFile(raw, departure)
    response: Any = raw
    codings = [each.strip() for each in raw.headers.get("content-encoding", "").lower().split(",")]
    response._is_coded = any(codings)
    response._can_be_decoded = any(coding in raw.CONTENT_DECODERS for coding in codings)
    response._departure = departure
    response.__class__ = _below(ObservedResponse, type(raw))
    return response


def answer(request: PreparedRequest, adapter: BaseAdapter, said: Mapping[str, Any]) -> Response:
    """Return an answer that no server gave.

    Args:
        request: What it answers.
        adapter: Whose answer it is.
        said: Its `status_code`, `headers` and `content`.
    """
    response = Response()
    response.status_code = said["status_code"]
    response.headers = CaseInsensitiveDict(said["headers"])
    response.encoding = get_encoding_from_headers(response.headers)
    response.reason = HTTPStatus(response.status_code).phrase
    response.raw = HTTPResponse(
        io.BytesIO(said["content"]),
        said["headers"],
        response.status_code,
        reason=response.reason,
        preload_content=False,
    )
    response.url = cast("str", request.url)
    response.request = request
    response.connection = cast("HTTPAdapter", adapter)
    return response


class _Tells(Protocol):
    """Wants to know of attempts that are made below it."""

    def tried(self, response: HTTPResponse | None, error: Exception | None) -> None: ...
    def drained(self, response: HTTPResponse) -> object: ...


retries_are_told_to: Final[ContextVar[_Tells | None]] = ContextVar("kwai_middleware_requests_under_way", default=None)
"""The call that is being sent in this context."""


class _TellingRetry(Retry):
    """Tells of each attempt that is followed by another one, and of an answer that the app does not get."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: Any = None,
        error: Exception | None = None,
        *more: Any,
        **named: Any,
    ) -> Any:
        """Count an attempt; raises where it was the last one."""
        call = retries_are_told_to.get()
        try:
            retry = super().increment(method, url, response, error, *more, **named)
        except MaxRetryError:
            if call is not None and response is not None and self.raise_on_status:
                call.drained(response)  # the app gets an exception in its place
            raise
        if call is not None:
            call.tried(response, error)
        return retry


_TellingRetry.__name__ = Retry.__name__  # urllib3 logs the rules by their name


def with_attempts_told(retry: Retry) -> Retry:
    """Return the same rules for retries, which tell of each attempt."""
    if isinstance(retry, _TellingRetry):
        return retry
    telling: Any = copy.copy(retry)
    kind: Any = type(retry)
    telling.__class__ = _below(_TellingRetry, kind)
    return cast("Retry", telling)


@functools.lru_cache(maxsize=64)
def _below(ours: type[Any], theirs: type[Any]) -> type[Any]:
    """Return a class that is `theirs` and does what `ours` does."""
    return ours if theirs in ours.__mro__ else type(theirs.__name__, (ours, theirs), {})
