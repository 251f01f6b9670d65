"""The other side of the calls: a model that answers at once, and a sink that takes what anybody exports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import msgspec

from benchmarks.loopback.running import Loopback, loopback
from benchmarks.loopback.sink import accepted
from benchmarks.loopback.wire import Kept, Reply, answer, streamed
from benchmarks.whole_call import conversation

__all__ = ["CALLERS_KEY", "OtherSide", "Seen", "answered", "other_side", "summed_up"]

CALLERS_KEY: Final = "sk-or-v1-0123456789abcdef0123456789abcdef"
"""The customer's own; what it pays for is counted."""

_CHAT: Final = "/chat/completions"
"""How paths end where the model answers; the path before it says whether it is a gateway's."""

_AWAY: Final = 0.02
"""Seconds until the sink answers, as a vendor's in the same region would: who sends while the calls go on finds more to
send at once."""

_KEPT: Final = 1 << 30
_WHOLE: Final = answer(conversation.UNARY)
_STREAMED: Final = streamed(conversation.EVENTS)


class _Asked(msgspec.Struct):
    stream: bool = False


def answered(request: Kept) -> Reply:
    """Answer as the model where that is asked; all else is taken by the sink."""
    if not request.path.endswith(_CHAT):
        return Reply(accepted(request).parts, after=_AWAY)
    return _STREAMED if msgspec.json.decode(request.body, type=_Asked).stream else _WHOLE


class Seen(NamedTuple):
    """What the other side got since it was asked last.

    Attributes:
        calls: Of the model.
        paid_by_caller: Those of them with the customer's own key in their header.
        injected: Those of them with the customer's key and identifier in their body.
        requests: That brought something to the sink.
        bytes: That they had, as they came over the wire.
        prompts: In all that the sink got.
        answers: In all that the sink got.
    """

    calls: int
    paid_by_caller: int
    injected: int
    requests: int
    bytes: int
    prompts: int
    answers: int


def summed_up(kept: list[Kept]) -> Seen:
    """Look into what came, in the server's process: the one that is measured has enough to do."""
    asked = [request for request in kept if request.path.endswith(_CHAT)]
    exported = [request for request in kept if not request.path.endswith(_CHAT)]
    sent = b"".join(request.unpacked() for request in exported)
    return Seen(
        calls=len(asked),
        paid_by_caller=sum(each.headers.get("authorization") == f"Bearer {CALLERS_KEY}" for each in asked),
        injected=sum(CALLERS_KEY.encode() in each.body and b'"customer_identifier"' in each.body for each in asked),
        requests=len(exported),
        bytes=sum(len(request.body) for request in exported),
        prompts=sent.count(conversation.PROMPT_MARK.encode()),
        answers=sent.count(conversation.ANSWER_MARK.encode()),
    )


class OtherSide:
    """The model and the sink; one server for both.

    Args:
        server: Of them.

    Attributes:
        url: Where it is.
        api: The base URL of a model's own API.
        gateway: The base URL of a gateway, and of its logs API.
    """

    def __init__(self, server: Loopback) -> None:
        self._server = server
        self.url: Final = server.url
        self.api: Final = f"{server.url}/api/v1"
        self.gateway: Final = f"{server.url}/gateway/api"

    def seen(self) -> Seen:
        """Return what it got, and let it begin anew."""
        return self._server.summed_up(Seen)


@contextmanager
def other_side() -> Iterator[OtherSide]:
    """Start it, and end it again."""
    with loopback(answered, sum_up=summed_up, keep=_KEPT) as server:
        yield OtherSide(server)
