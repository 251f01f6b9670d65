"""Posts one record to the request-logs API."""

from __future__ import annotations

import contextlib
import encodings.idna
import http.client
import time
from typing import Final

import certifi

from kwai_middleware import _native as native
from kwai_middleware._delivery.verdict import Fate, Verdict, clipped, judge
from kwai_middleware._delivery.way import Way, way_to
from kwai_middleware._secret import Secret

__all__ = ["Sender"]

# The first look-up of a name imports the one, the first TLS context the other. An import on the shipping thread would
# hold up the app, and a process that forks meanwhile would give its child a module that never gets finished.
_IMPORTED_IN_TIME: Final = (encodings.idna, certifi)

_MOST_OF_AN_ANSWER: Final = 8 * 1024
_LONGEST_IDLE: Final = 15.0
"""Seconds after which a connection is not used again: something on the way may have forgotten it silently."""


class Sender:
    """One connection to one destination, kept alive between records.

    `http.client` and not an HTTP library of the app: it costs a quarter of the time, imports
    nothing on the way, works under gevent, follows no redirect, keeps no cookie, writes no line
    into the app's log for each record, and none of our transports can be inside of it.

    Args:
        base_url: Of the vendor's API, without a trailing slash.
        api_key: The app's own.
    """

    def __init__(self, base_url: str, api_key: Secret) -> None:
        self._url = f"{base_url}/request-logs/create/"
        self._api_key = api_key
        self._way: Way | None = None
        self._used_at = 0.0

    def send(self, entry: bytes, timeout: float) -> Verdict:
        """Post one encoded record.

        Args:
            entry: The record.
            timeout: Seconds for connecting, for each wait while sending and for the answer, and
                for all of the answer's body.
        """
        is_settled = False
        try:
            way = self._open_way(timeout)
            # No variable of this frame holds the headers: they have the key in them.
            way.connection.request("POST", way.target, entry, self._headers(way))
            with way.connection.getresponse() as response:
                body = _beginning(response, time.monotonic() + timeout)
                # The one is how an answer with a length ends, the other how one without does.
                is_settled = response.length == 0 or response.isclosed()
        except (OSError, http.client.HTTPException) as error:
            return Verdict(Fate.FAILED, clipped(f"{type(error).__name__}: {error}", (self._api_key,)))
        finally:
            # On a connection whose last answer was not read to its end there is no next one.
            self._used_at = time.monotonic()
            if not is_settled:
                self.close()
        retry_after = response.getheader("retry-after")
        return judge(response.status, retry_after, body, now=time.time(), secrets=(self._api_key,))

    def close(self) -> None:
        """Close the connection. A later `send` opens another."""
        if self._way is not None:
            self._way.connection.close()
            self._way = None

    def _open_way(self, timeout: float) -> Way:
        if self._way is not None and not self._is_usable(self._way.connection, timeout):
            self.close()
        if self._way is None:
            self._way = way_to(self._url, timeout)
        return self._way

    def _is_usable(self, connection: http.client.HTTPConnection, timeout: float) -> bool:
        if connection.sock is None or time.monotonic() - self._used_at > _LONGEST_IDLE:
            return False
        connection.sock.settimeout(timeout)
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


def _beginning(response: http.client.HTTPResponse, until: float) -> bytes:
    """Read an answer to its end, where it is short and comes in time: then the connection can be used again.

    A body that breaks off takes nothing back of the status that came before it.
    """
    body = b""
    with contextlib.suppress(OSError, http.client.HTTPException):
        while len(body) <= _MOST_OF_AN_ANSWER and time.monotonic() < until:
            chunk = response.read1(_MOST_OF_AN_ANSWER)
            if not chunk:
                break
            body += chunk
    return body
