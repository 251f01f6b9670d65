"""Every text that an exception carries out: its own, its chain's, its notes', and the locals of all its frames."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Final, cast

from kwai_middleware import asgi, wsgi
from kwai_middleware.testing._search import Unsearched, shown, texts_in

__all__ = ["chain", "frames", "texts_in_exception"]

_DOORS: Final = (asgi.__file__, wsgi.__file__)


def texts_in_exception(error: BaseException, *, attributes: int = 3) -> Iterator[tuple[str, str]]:
    """Yield what an error reporter could send of an exception, and where each text was.

    Frames of the test itself and of its client are left out: they hold the key because they send it.
    They are those outside of the middleware when the exception passed it; those that have the canary
    among their locals; and those of a call that was given the canary's headers.

    Args:
        error: The exception. Its causes, contexts, groups and notes come with it.
        attributes: How many levels of attributes of each local are followed.
    """
    # Shared: an object that many frames hold is searched once, where it is found first.
    seen: set[int] = set()
    for origin in chain(error):
        name = type(origin).__name__
        yield f"text of {name}", _text(origin)
        for note in getattr(origin, "__notes__", ()):
            yield f"note of {name}", str(note)
        for path, text in texts_in({**vars(origin), "args": origin.args}, seen, depth=attributes):
            yield f"{name}{path}", text
        for frame in _searched(list(frames(origin.__traceback__))):
            place = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno} {frame.f_code.co_qualname}"
            for local, value in list(frame.f_locals.items()):
                for path, text in texts_in(value, seen, depth=attributes):
                    yield f"{name}, {place}, local {local}{path}", text


def _text(error: BaseException) -> str:
    try:
        return f"{error}\n{shown(error)}"
    except Exception:  # noqa: BLE001 - whatever a stranger's text raises, it shows nothing
        return shown(error)


def chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception with all its causes, contexts and groups, each once."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        origin = waiting.pop()
        if origin is None or id(origin) in seen:
            continue
        seen.add(id(origin))
        yield origin
        waiting += [origin.__cause__, origin.__context__]
        if isinstance(origin, BaseExceptionGroup):
            waiting += cast("BaseExceptionGroup[BaseException]", origin).exceptions


def frames(traceback: TracebackType | None) -> Iterator[FrameType]:
    """Yield the frames that an exception has passed, from the outermost on."""
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def _searched(passed: list[FrameType]) -> list[FrameType]:
    doors = [index for index, frame in enumerate(passed) if frame.f_code.co_filename in _DOORS]
    if doors:
        return passed[doors[0] :]
    searched: list[FrameType] = []
    for frame in passed:
        own = [value for value in list(frame.f_locals.values()) if isinstance(value, Unsearched)]
        if own and all(value.is_sent for value in own):
            break  # from here on it is the client's
        if not own:
            searched.append(frame)
    return searched
