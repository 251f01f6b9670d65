"""Calls of SDKs that are synchronous or asynchronous, written once."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable
from typing import Any

__all__ = ["joined", "then"]


def then(value: Any, use: Callable[[Any], Any]) -> Any:
    """What `use` makes of a value, or an awaitable of it where the value is to be awaited."""
    if not inspect.isawaitable(value):
        return use(value)

    async def awaited() -> Any:
        result = use(await value)
        return await result if inspect.isawaitable(result) else result

    return awaited()


def joined(stream: Any, text_of: Callable[[Any], str | None], *, asynchronous: bool | None = None) -> Any:
    """The text of all pieces of a stream, or an awaitable of it; a stream that can be closed is closed.

    Args:
        stream: It.
        text_of: The text of a piece.
        asynchronous: For a stream that can be read in both ways.
    """
    if not (hasattr(stream, "__aiter__") if asynchronous is None else asynchronous):
        return _joined(stream, text_of)
    return _joined_async(stream, text_of)


def _joined(stream: Any, text_of: Callable[[Any], str | None]) -> str:
    if not hasattr(stream, "__enter__"):
        return "".join(text_of(piece) or "" for piece in stream)
    with stream as opened:
        return "".join(text_of(piece) or "" for piece in opened)


async def _joined_async(stream: Any, text_of: Callable[[Any], str | None]) -> str:
    context = stream if hasattr(stream, "__aenter__") else contextlib.aclosing(stream)
    async with context as opened:
        return "".join([text_of(piece) or "" async for piece in opened])
