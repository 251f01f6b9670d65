"""A request body on its way out: the one place where the app's bytes and a key meet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import NoReturn, Self, cast

__all__ = ["WireBody", "WireParts"]


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


class WireBody:
    """A body that may hold a key: it shows nothing of itself, and can be sent more than once.

    Mixed into a class that inherits from the HTTP library's own stream types.

    Attributes:
        size: Its length in bytes.
    """

    def __init__(self, parts: tuple[bytes | memoryview, ...]) -> None:
        self._parts = parts
        self.size = sum(len(part) for part in parts)

    def __iter__(self) -> Iterator[bytes]:
        # The HTTP libraries send a memoryview as they send bytes: a large body is not copied here
        # for the sake of a few bytes more.
        return iter(cast("tuple[bytes, ...]", self._parts))

    def __aiter__(self) -> AsyncIterator[bytes]:
        return WireParts(iter(self))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.size} bytes>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a request on its way out is never serialised")
