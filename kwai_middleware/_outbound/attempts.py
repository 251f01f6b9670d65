"""Which call an attempt belongs to: SDKs repeat failed calls, and authentication and redirects send one again."""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import Final
from weakref import ref

import msgspec

from kwai_middleware._outbound.routes import Endpoint
from kwai_middleware._slot import Slot

__all__ = ["RETRY_COUNT", "Attempt", "attempt_at"]

RETRY_COUNT: Final = "x-stainless-retry-count"
"""The SDKs of OpenAI and Anthropic count in it; 0 is the first attempt."""


class Attempt(msgspec.Struct, frozen=True):
    """One attempt at a call.

    Attributes:
        call_id: The same for all attempts of one call; 32 hexadecimal digits.
        number: Counts from 1.
    """

    call_id: str
    number: int


class _Call(msgspec.Struct, eq=False):
    endpoint: Endpoint
    size: int | None
    slot: ref[Slot]  # what outlives the unit of work must not keep its caller's keys
    identifier: str
    number: int = 0


class _Sent(ref[object]):
    """A body that has gone out."""

    __slots__ = ("call", "place")

    call: _Call
    place: int


def _forget(sent: _Sent) -> None:
    _sent_before.pop(sent.place, None)


# A request that is sent again has the body it had: after a challenge, a redirect that keeps the body, and by
# whoever repeats the same request object. By its identity, since an app's own stream may equal another one, or
# have no hash.
_sent_before: Final[dict[int, _Sent]] = {}

# An SDK repeats a call as a new request, in the same task or on the same thread.
_latest: Final[ContextVar[_Call | None]] = ContextVar("kwai_middleware_latest_call", default=None)


def attempt_at(endpoint: Endpoint, stream: object, size: int | None, retry_count: bytes, slot: Slot) -> Attempt:
    """Say which call the request that is about to leave belongs to.

    Args:
        endpoint: Where it goes.
        stream: The request's body.
        size: Bytes of that; None when it is not known.
        retry_count: Value of the header `RETRY_COUNT`; empty without one.
        slot: The unit of work that the call is part of.
    """
    place = id(stream)
    before = _sent_before.get(place)
    call = before.call if before is not None and before() is stream else None
    if call is None and retry_count not in (b"", b"0"):
        latest = _latest.get()
        if latest is not None and latest.endpoint == endpoint and latest.size == size:
            call = latest
    if call is None or call.slot() is not slot:  # calls of two callers are never attempts of one
        call = _Call(endpoint, size, ref(slot), os.urandom(16).hex())
    try:
        sent: _Sent | None = _Sent(stream, _forget)
    except TypeError:
        sent = None
    if sent is not None:  # where nothing tells when it ends, sending it again is a call of its own
        sent.call, sent.place = call, place
        _sent_before[place] = sent
    _latest.set(call)
    call.number += 1
    return Attempt(call.identifier, call.number)
