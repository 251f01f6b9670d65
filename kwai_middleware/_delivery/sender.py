"""Posts records to the request-logs API, one by one or many at once."""

from __future__ import annotations

import contextlib
import encodings.idna
import http.client
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import certifi

from kwai_middleware import _native as native
from kwai_middleware._delivery.native_http import NativeConnection
from kwai_middleware._delivery.unseen import unseen
from kwai_middleware._delivery.verdict import BulkVerdict, Fate, Verdict, clipped, judge, judge_bulk
from kwai_middleware._delivery.way import Way, way_to
from kwai_middleware._secret import Secret

__all__ = ["Sender"]

# The first look-up of a name imports the one, the first TLS context the other. An import on the shipping thread would
# hold up the app, and a process that forks meanwhile would give its child a module that never gets finished.
_IMPORTED_IN_TIME: Final = (encodings.idna, certifi)

_MOST_OF_AN_ANSWER: Final = 8 * 1024
_MOST_OF_A_BULK_ANSWER: Final = 1024 * 1024
"""It lists what is wrong with each of up to 500 records."""

_LONGEST_IDLE: Final = 15.0
"""Seconds after which a connection is not used again: something on the way may have forgotten it silently."""


class _Answer(NamedTuple):
    status: int
    retry_after: str | None
    body: bytes


class _Failure(NamedTuple):
    reason: str
    is_connected: bool


class Sender:
    """One connection to one destination, kept alive between requests.

    Not an HTTP library of the app: ours costs a fraction of the time, imports nothing on the way,
    works under gevent, follows no redirect, keeps no cookie, writes no line into the app's log for
    each record, nobody's tracing is in it, and neither can be one of our transports.

    Args:
        base_url: Of the vendor's API, without a trailing slash.
        api_key: The app's own.
    """

    def __init__(self, base_url: str, api_key: Secret) -> None:
        self._url = f"{base_url}/request-logs/"
        self._api_key = api_key
        self._way: Way | None = None
        self._used_at = 0.0

    def send(self, entry: bytes, timeout: float) -> Verdict:
        """Post one encoded record.

        Args:
            entry: The record.
            timeout: Seconds for connecting, for sending and for the answer, each.
        """
        answer = self._post("create/", (entry,), timeout, _MOST_OF_AN_ANSWER)
        if isinstance(answer, _Failure):
            return Verdict(Fate.FAILED, answer.reason, is_connected=answer.is_connected)
        return judge(*answer, now=time.time(), secrets=(self._api_key,))

    def send_bulk(self, entries: Sequence[bytes], timeout: float) -> BulkVerdict:
        """Post many encoded records in one request.

        Args:
            entries: The records, at least one and at most as many as the vendor takes.
            timeout: As for `send`.
        """
        answer = self._post("bulk/", _listed(entries), timeout, _MOST_OF_A_BULK_ANSWER)
        if isinstance(answer, _Failure):
            return BulkVerdict(Fate.FAILED, answer.reason, is_connected=answer.is_connected)
        return judge_bulk(*answer, len(entries), now=time.time(), secrets=(self._api_key,))

    def close(self) -> None:
        """Close the connection. A later `send` opens another."""
        if self._way is not None:
            self._way.connection.close()
            self._way = None

    def _post(self, endpoint: str, body: Iterable[bytes], timeout: float, most: int) -> _Answer | _Failure:
        is_connected = is_settled = False
        try:
            with unseen():
                way = self._open_way(timeout)
                is_connected = True
                cut = self._request(way, endpoint, body)
                with way.connection.getresponse() as response:
                    if cut is not None and response.status < 300:
                        # Nobody can have taken what was not sent whole.
                        raise cut
                    read = _beginning(response, most)
                    # The one is how an answer with a length ends, the other how one without does. One that
                    # only announces another is no end.
                    is_read = response.length == 0 or response.isclosed()
                    is_settled = is_read and cut is None and not response.will_close and response.status >= 200
        except (OSError, http.client.HTTPException) as error:
            return _Failure(clipped(f"{type(error).__name__}: {error}", (self._api_key,)), is_connected)
        finally:
            # On a connection whose last answer was not read to its end there is no next one.
            self._used_at = time.monotonic()
            if not is_settled:
                self.close()
        return _Answer(response.status, response.getheader("retry-after"), read)

    def _request(self, way: Way, endpoint: str, body: Iterable[bytes]) -> ConnectionError | None:
        """Send the request. Returns what cut it short: the answer may be there all the same."""
        try:
            # No variable of this frame holds the headers: they have the key in them.
            way.connection.request("POST", way.target + endpoint, body, self._headers(way))
        except ConnectionError as error:
            # Whoever finds a request too large says so and closes, without reading it to its end.
            return error
        except BaseException as error:  # noqa: BLE001 - it is raised again
            # Without the inner frames: they hold the headers, and the app's error reporter would show them.
            raise error.with_traceback(None) from None
        return None

    def _open_way(self, timeout: float) -> Way:
        if self._way is not None and not self._is_usable(self._way.connection):
            self.close()
        if self._way is None:
            self._way = way_to(self._url, timeout)
            self._way.connection.connect()
        self._way.connection.timeout = timeout
        return self._way

    def _is_usable(self, connection: NativeConnection) -> bool:
        if time.monotonic() - self._used_at > _LONGEST_IDLE:
            return False
        # Readable before anything was asked: the other side has closed, most likely.
        return not native.is_readable(connection.sock)

    def _headers(self, way: Way) -> dict[str, str]:
        return {
            **way.headers,
            "authorization": f"Bearer {self._api_key.reveal()}",
            "content-type": "application/json",
            "accept": "application/json",
            # What is read of an answer is read as it comes: a small one could unpack to a large one.
            "accept-encoding": "identity",
            "user-agent": "kwai-middleware",
        }


def _listed(entries: Iterable[bytes]) -> Iterator[bytes]:
    """The body of a bulk, in pieces."""
    before = b'{"logs":['
    for entry in entries:
        yield before
        yield entry
        before = b","
    yield b"]}"


def _beginning(response: http.client.HTTPResponse, most: int) -> bytes:
    """Read an answer to its end, where it is short and comes in time: then the connection can be used again.

    A body that breaks off takes nothing back of the status that came before it.
    """
    chunks: list[bytes] = []
    length = 0
    with contextlib.suppress(OSError, http.client.HTTPException):
        while length <= most:
            chunk = response.read1(_MOST_OF_AN_ANSWER)
            if not chunk:
                break
            chunks.append(chunk)
            length += len(chunk)
    return b"".join(chunks)
