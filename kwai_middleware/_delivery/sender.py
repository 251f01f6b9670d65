"""Posts one record to the request-logs API."""

from __future__ import annotations

import time
import urllib.request
from typing import Final

import httpx

from kwai_middleware._delivery.verdict import Fate, Verdict, clipped, judge
from kwai_middleware._secret import Secret

__all__ = ["Sender"]

_MOST_OF_AN_ANSWER: Final = 8 * 1024


class Sender:
    """One connection to one destination, kept alive between records.

    A bare transport and not a client: there are no redirects to follow, no cookies to keep, and no
    line in the app's log for each record. Built at the first record, on the thread that sends.

    Args:
        base_url: Of the vendor's API, without a trailing slash.
        api_key: The app's own.
    """

    def __init__(self, base_url: str, api_key: Secret) -> None:
        self._url = httpx.URL(f"{base_url}/request-logs/create/")
        self._api_key = api_key
        self._transport: httpx.HTTPTransport | None = None

    def send(self, entry: bytes, timeout: float) -> Verdict:
        """Post one encoded record.

        Args:
            entry: The record.
            timeout: Seconds for connecting, for sending, for each wait for the answer, and for
                reading all of the answer's body.
        """
        try:
            if self._transport is None:
                self._transport = httpx.HTTPTransport(limits=httpx.Limits(max_connections=1), proxy=_proxy(self._url))
            # No variable of this frame holds the request: it has the key in it.
            response = self._transport.handle_request(self._request(entry, timeout))
            try:
                body = _beginning(response, time.monotonic() + timeout)
            finally:
                response.close()
        except (httpx.TransportError, OSError) as error:
            return Verdict(Fate.FAILED, clipped(f"{type(error).__name__}: {error}", (self._api_key,)))
        retry_after = response.headers.get("retry-after")
        return judge(response.status_code, retry_after, body, now=time.time(), secrets=(self._api_key,))

    def close(self) -> None:
        """Close the connection. A later `send` opens another."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def _request(self, entry: bytes, timeout: float) -> httpx.Request:
        return httpx.Request(
            "POST",
            self._url,
            content=entry,
            headers={
                "authorization": f"Bearer {self._api_key.reveal()}",
                "content-type": "application/json",
                "accept": "application/json",
                # What is read of an answer is read as it comes: a small one could unpack to a large one.
                "accept-encoding": "identity",
                "user-agent": "kwai-middleware",
            },
            extensions={"timeout": httpx.Timeout(timeout).as_dict()},
        )


def _beginning(response: httpx.Response, until: float) -> bytes:
    """Read an answer to its end, where it is short and comes in time: then the connection can be used again."""
    body = bytearray()
    for chunk in response.iter_raw():
        body += chunk[:_MOST_OF_AN_ANSWER]
        if len(body) > _MOST_OF_AN_ANSWER or time.monotonic() > until:
            break
    return bytes(body[:_MOST_OF_AN_ANSWER])


def _proxy(url: httpx.URL) -> str | None:
    """Return the proxy that the environment names for `url`, as `httpx.Client` would use it."""
    if urllib.request.proxy_bypass(url.netloc.decode()):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    return proxy if proxy is None or "://" in proxy else f"http://{proxy}"
