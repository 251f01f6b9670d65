"""Reads answers as JSON: those that came at once, those that are not whole, and streams of events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple, cast

import msgspec

from kwai_middleware._outbound import sse
from kwai_middleware._outbound.formats import tolerant
from kwai_middleware._outbound.formats.beginnings import beginning_of
from kwai_middleware._outbound.formats.interface import Answer
from kwai_middleware._pace import WINDOW, breathe
from kwai_middleware._pieces import decoded_json, is_utf8
from kwai_middleware._secret import Secret

__all__ = ["Reading", "Told", "mended", "request_members", "words"]

_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_DONE: Final = b"[DONE]"
_decoder: Final = msgspec.json.Decoder()
_members_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


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


class Reading:
    """An answer's body, to be read once.

    Args:
        parts: See `Format.answer`.
        secrets: The caller's keys.

    Attributes:
        is_loose: Something in it was not whole, or no Unicode: what is made of it has to be mended.
    """

    def __init__(self, parts: tuple[bytes, ...], secrets: tuple[Secret, ...]) -> None:
        self.is_loose = False
        self._parts = parts
        self._secrets = secrets

    def whole(self) -> dict[str, Any] | None:
        """Return the members of an answer that came at once; None when it is not one whole object."""
        return self._decoded(self._parts[0]) if len(self._parts) == 1 else None

    def beginning(self) -> dict[str, Any]:
        """Return the members of an answer that should have come at once and is not whole, as far as they came."""
        self.is_loose = True
        return beginning_of(self._parts[0], self._secrets)

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

    def _decoded(self, data: bytes) -> dict[str, Any] | None:
        if not data.lstrip().startswith(b"{"):
            return None
        try:
            # A long text in it would make one long call of it.
            value = _decoder.decode(data) if len(data) <= WINDOW else decoded_json(data)
        except _UNREADABLE:
            self.is_loose = True
            value = tolerant.loads(data)
        return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def request_members(body: bytes) -> dict[str, msgspec.Raw]:
    """Return the members of a request's body as they are written, valid UTF-8; none of what is no JSON object."""
    try:
        # Members are kept as they are written, and msgspec does not look into what it only skips.
        members = _members_decoder.decode(body) if is_utf8(body) else None
    except _UNREADABLE:
        members = None
    if members is None:
        try:
            members = _members_decoder.decode(tolerant.repaired(body) or b"")
        except _UNREADABLE:
            members = {}
    breathe()
    return members


def words(raw: bytes | msgspec.Raw | None) -> str | None:
    """Return a member of a request that should be a text, decoded; None for no text and for an empty one."""
    value = tolerant.loads(bytes(raw)) if raw is not None else None
    return value if isinstance(value, str) and value else None


_TEXTS: Final = ("model", "generation_id", "provider", "finish_reason", "usage")


def mended(answer: Answer) -> Answer:
    """Make of halves of characters whole ones, or what can be encoded at least."""
    changes = {name: tolerant.paired(getattr(answer, name)) for name in _TEXTS}
    completions = tuple(tolerant.paired(list(answer.completions)) or ())
    return msgspec.structs.replace(answer, **changes, completions=completions)
