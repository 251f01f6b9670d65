"""Reads answers as JSON: those that came at once, those that are not whole, and streams of events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, Protocol, cast

import msgspec

from kwai_middleware._outbound import sse
from kwai_middleware._outbound.formats import tolerant
from kwai_middleware._outbound.formats.beginnings import beginning_of
from kwai_middleware._outbound.formats.interface import Answer, Received
from kwai_middleware._pace import WINDOW, breathe
from kwai_middleware._pieces import decoded_json

__all__ = ["Assembly", "Reading", "Told", "mended"]

_DONE: Final = b"[DONE]"
_decoder: Final = msgspec.json.Decoder()


class Told(NamedTuple):
    """One event of a stream.

    Attributes:
        members: What it says; nothing when it is no JSON object.
        end: How many bytes of the stream there were when it was complete.
        is_done: It is the mark that nothing follows.
    """

    members: dict[str, Any]
    end: int
    is_done: bool = False


class Assembly(Protocol):
    """What an answer is put together in."""

    def skip(self) -> None:
        """Note that events are missing from here on, which were not kept."""
        ...

    def add(self, told: Told) -> bool:
        """Add an event; say whether nothing counts that follows it."""
        ...

    def add_at_once(self, members: dict[str, Any], size: int | None) -> None:
        """Add an answer that came at once, of `size` bytes; None for what came of one that is not whole."""
        ...

    def add_end(self, end: bytes) -> object:
        """Add the end of an answer that came at once and is not whole; nothing when its end is missing too."""
        ...


class Reading:
    """An answer's body, to be read once.

    Args:
        received: What came.

    Attributes:
        is_loose: Something in it was not whole, or no Unicode: what is made of it has to be mended.
    """

    def __init__(self, received: Received) -> None:
        self.is_loose = False
        self._parts = received.parts
        self._streamed = received.streamed
        self._secrets = received.secrets

    def fill(self, assembly: Assembly) -> None:
        """Add all that counts of the answer."""
        if self._streamed:
            for told in self.events(assembly.skip):
                if assembly.add(told):
                    break
            return
        members, size = self.at_once()
        assembly.add_at_once(members, size)
        if size is None:
            assembly.add_end(self.end)

    def at_once(self) -> tuple[dict[str, Any], int | None]:
        """Return what an answer says that should have come at once, and its size; None when it is not whole."""
        whole = self.whole()
        return (self._beginning(), None) if whole is None else (whole, len(self._parts[0]))

    def whole(self) -> dict[str, Any] | None:
        """Return the members of an answer that came at once; None when it is not one whole object."""
        return self._decoded(self._parts[0]) if len(self._parts) == 1 else None

    @property
    def end(self) -> bytes:
        """The end of an answer whose middle is missing; nothing when its end is missing too."""
        return self._parts[-1] if len(self._parts) > 1 else b""

    def events(self, skip: Callable[[], object]) -> Iterator[Told]:
        """Yield the events of a stream.

        Args:
            skip: Called where events are missing that were not kept.
        """
        start = 0
        for number, part in enumerate(self._parts):
            if number:
                skip()
            for event in sse.events(part):
                if event.data == _DONE:
                    yield Told({}, start + event.end, is_done=True)
                else:
                    yield Told(self._decoded(event.data) or {}, start + event.end)
                breathe()
            start += len(part)

    def mended(self, answer: Answer) -> Answer:
        """Return what was made of the body, mended where that is needed."""
        return mended(answer) if self.is_loose else answer

    def _beginning(self) -> dict[str, Any]:
        """Return the members of an answer that should have come at once and is not whole, as far as they came."""
        self.is_loose = True
        return beginning_of(self._parts[0], self._secrets)

    def _decoded(self, data: bytes) -> dict[str, Any] | None:
        if not data.lstrip().startswith(b"{"):
            return None
        try:
            # A long text in it would make one long call of it.
            value = _decoder.decode(data) if len(data) <= WINDOW else decoded_json(data)
        except tolerant.UNREADABLE:
            self.is_loose = True
            value = tolerant.loads(data)
        return cast("dict[str, Any]", value) if isinstance(value, dict) else None


_TEXTS: Final = ("model", "generation_id", "provider", "finish_reason", "usage")


def mended(answer: Answer) -> Answer:
    """Make of halves of characters whole ones, or what can be encoded at least."""
    changes = {name: tolerant.paired(getattr(answer, name)) for name in _TEXTS}
    completions = tuple(tolerant.paired(list(answer.completions)) or ())
    return msgspec.structs.replace(answer, **changes, completions=completions)
