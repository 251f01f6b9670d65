"""Exceptions of a request that carried a key: what the app gets must not show the frames that held it."""

from __future__ import annotations

import inspect
from types import FrameType
from typing import Final, cast

__all__ = ["drop_inner_frames"]

_DEEPEST: Final = 100


def drop_inner_frames(error: BaseException) -> None:
    """Take the frames below the calling one out of `error` and of every exception it came from.

    On a write time-out, say, the HTTP library's frames hold the request's bytes in their locals,
    and error reporters send locals along. Type, text and chain of the exceptions stay. An exception
    that the app was handling when it made the call is in the chain too; it is the app's own and
    keeps its frames: the frame that caught it is still running.
    """
    running = _running_frames(inspect.currentframe())
    error.__traceback__ = None
    seen = {id(error)}
    waiting = _origins(error)
    while waiting and len(seen) < _DEEPEST:
        origin = waiting.pop()
        if id(origin) in seen:
            continue
        seen.add(id(origin))
        if origin.__traceback__ is not None and id(origin.__traceback__.tb_frame) in running:
            continue
        origin.__traceback__ = None
        waiting += _origins(origin)


def _running_frames(frame: FrameType | None) -> set[int]:
    running: set[int] = set()
    while frame is not None:
        running.add(id(frame))
        frame = frame.f_back
    return running


def _origins(error: BaseException) -> list[BaseException]:
    # Of requests and urllib3, an exception carries the one it came from as an argument as well.
    origins = [
        origin for origin in (error.__cause__, error.__context__, *error.args) if isinstance(origin, BaseException)
    ]
    if isinstance(error, BaseExceptionGroup):
        origins += cast("BaseExceptionGroup[BaseException]", error).exceptions
    return origins
