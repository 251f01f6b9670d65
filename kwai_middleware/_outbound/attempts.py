"""Which call an attempt belongs to: SDKs repeat failed calls, and authentication and redirects send one again."""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

from kwai_middleware._outbound.routes import Endpoint

__all__ = ["RETRY_COUNT", "Attempt", "attempt_at"]

RETRY_COUNT: Final = "x-stainless-retry-count"
"""The SDKs of OpenAI and Anthropic count in it; 0 is the first attempt."""


class Attempt(NamedTuple):
    """One attempt at a call.

    Attributes:
        call_id: The same for all attempts of one call; 32 hexadecimal digits.
        number: Counts from 1.
    """

    call_id: str
    number: int


class _Call:
    __slots__ = ("endpoint", "identifier", "number", "size")

    def __init__(self, endpoint: Endpoint, size: int | None) -> None:
        self.identifier = os.urandom(16).hex()
        self.number = 0
        self.endpoint = endpoint
        self.size = size


# A request that is sent again has the body it had: after a challenge, a redirect that keeps the body, and by
# whoever repeats the same request object.
_sent_before: Final[WeakKeyDictionary[object, _Call]] = WeakKeyDictionary()

# An SDK repeats a call as a new request, in the same task or on the same thread.
_latest: Final[ContextVar[_Call | None]] = ContextVar("kwai_middleware_latest_call", default=None)


def attempt_at(endpoint: Endpoint, stream: object, size: int | None, retry_count: bytes) -> Attempt:
    """Say which call the request that is about to leave belongs to.

    Args:
        endpoint: Where it goes.
        stream: The request's body.
        size: Bytes of that; None when it is not known.
        retry_count: Value of the header `RETRY_COUNT`; empty without one.
    """
    call = _sent_before.get(stream)
    if call is None and retry_count not in (b"", b"0"):
        latest = _latest.get()
        if latest is not None and latest.endpoint == endpoint and latest.size == size:
            call = latest
    if call is None:
        call = _Call(endpoint, size)
    _sent_before[stream] = call
    _latest.set(call)
    call.number += 1
    return Attempt(call.identifier, call.number)
