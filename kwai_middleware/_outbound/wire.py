"""A request on its way out: the one place where the app's bytes and a key meet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, NoReturn, Self

from kwai_middleware._outbound.attribution import credentials_member
from kwai_middleware._outbound.changes import Changes
from kwai_middleware._outbound.doors import CREDENTIALS
from kwai_middleware._outbound.json_members import Members, extended, joined, spliced
from kwai_middleware._outbound.parameter_header import parameters_to

__all__ = ["WireBody", "WireParts", "WireRequest", "wire_header", "wire_parts"]


class WireParts:
    """Hands out the parts of a body asynchronously, and leaves no suspended frame behind."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts = parts

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return next(self._parts)
        except StopIteration:
            raise StopAsyncIteration from None


class WireRequest:
    """A request whose body is held: it can be read at any time, and is not before somebody looks at it.

    Mixed into the HTTP library's own class of requests.
    """

    @property
    def content(self) -> bytes:
        """The body."""
        request: Any = self
        content: bytes = request.read()
        return content


class WireBody:
    """A body that may hold a key: it shows nothing of itself, and can be sent more than once.

    Mixed into a class that inherits from the HTTP library's own stream types.

    Args:
        parts: Of the body.
        whole: Whoever sends it wants bytes, in one piece; it is joined when it is sent.

    Attributes:
        size: Its length in bytes.
    """

    def __init__(self, parts: tuple[bytes | memoryview, ...], whole: bool = False) -> None:
        self._parts = parts
        self._whole = whole
        self.size = len(parts[0]) if len(parts) == 1 else sum(map(len, parts))

    def __iter__(self) -> Iterator[bytes]:
        # The HTTP libraries send a memoryview as they send bytes: a large body is not copied here
        # for the sake of a few bytes more.
        if self._whole and len(self._parts) > 1:
            self._parts = (b"".join(self._parts),)
        parts: tuple[Any, ...] = self._parts
        return iter(parts)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return WireParts(iter(self))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.size} bytes>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a request on its way out is never serialised")


def wire_parts(changes: Changes, body: bytes, *, whole: bool = False) -> tuple[bytes | memoryview, ...]:
    """Return the body that goes out, with the caller's keys in it where they travel there.

    Args:
        changes: What becomes of the request.
        body: The app's bytes.
        whole: Make one part of it, whatever its size.
    """
    if changes.tail is not None:
        before, behind = changes.tail
        key = credentials_member(changes.attribution) if changes.sends_key else b""
        return extended(body, b"".join((before, key, behind)), whole=whole)
    if changes.body is None:
        return (body,)
    added: Mapping[str, bytes] = {} if changes.in_header is not None else _added(changes)
    for name, beside in reversed(changes.nest):
        added = {name: joined(beside, added)}
    changed = {**changes.changed, **added} if changes.changed else added
    return spliced(changes.body, changes.members, changed, whole=whole)


def wire_header(changes: Changes, beside: Members) -> str:
    """Return the value of the parameter header, with the caller's keys in it, and with what else it says."""
    return parameters_to(joined(beside, _added(changes)))


def _added(changes: Changes) -> Mapping[str, bytes]:
    if not changes.sends_key:
        return changes.added
    return {CREDENTIALS: credentials_member(changes.attribution), **changes.added}
