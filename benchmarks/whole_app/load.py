"""Load: connections that each send their next request when the last one is answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Final, cast

__all__ = ["load"]

_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length:"


class _Client(asyncio.Protocol):
    def __init__(self, requests: Sequence[bytes], first: int, until: float, expected: bytes) -> None:
        self.took: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests = requests
        self._next = first
        self._until = until
        self._expected = expected
        self._received = b""
        self._sent_at = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(_END)
        if not end or len(body) < int(head.lower().partition(_LENGTH)[2].partition(b"\r\n")[0]):
            return
        now = time.perf_counter()
        self.took.append(now - self._sent_at)
        if b" 200 " not in head[:20] or self._expected not in body:
            self._finish(RuntimeError(f"not an answer: {self._received[:500]!r}"))
        elif now < self._until:
            self._received = b""
            self._send()
        else:
            self._finish(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(exc or ConnectionError("the server has hung up"))

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(self._requests[self._next % len(self._requests)])
        self._next += 1

    def _finish(self, failure: Exception | None) -> None:
        if self.done.done():
            return
        if failure is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(failure)
        self._transport.close()


def _given(client: _Client) -> _Client:
    return client


async def load(
    port: int, requests: Sequence[bytes], *, connections: int, seconds: float, expected: bytes
) -> tuple[list[float], float]:
    """Return how long each request took, and all of them together, in seconds.

    Args:
        port: Of the server.
        requests: Sent one after the other, each connection begins with another one.
        connections: How many at a time.
        seconds: For how long a next request is sent.
        expected: What each answer has to hold.
    """
    loop = asyncio.get_running_loop()
    begun = time.perf_counter()
    clients: list[_Client] = []
    for number in range(connections):
        first = number * len(requests) // connections
        client = _Client(requests, first, begun + seconds, expected)
        clients.append(client)
        await loop.create_connection(partial(_given, client), "127.0.0.1", port)
    await asyncio.gather(*(client.done for client in clients))
    return [took for client in clients for took in client.took], time.perf_counter() - begun
