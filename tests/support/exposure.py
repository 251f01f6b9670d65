"""Finds a key in whatever an exception carries out: text, chain, frames, their locals, and what hangs on those."""

from __future__ import annotations

from collections.abc import Mapping
from types import FrameType, ModuleType
from typing import Any

from urllib3._collections import RecentlyUsedContainer

from kwai_middleware._caller import Caller
from kwai_middleware._secret import Secret
from kwai_middleware.testing._exceptions import chain, frames


def exposures(error: BaseException, key: str, *, below: str, attributes: bool = True) -> list[str]:
    """Where `key` can be found in `error`: in the frames at and below the function `below`, and in all texts.

    Searched is what an error reporter would send, the repr of every local and what containers hold,
    and with `attributes` more than any of them sends: whatever hangs on the objects. The kept
    `Secret` and the `Caller` that holds it are what the app itself has bound, and are not searched.
    """
    found = []
    for origin in chain(error):
        if (
            key in repr(origin)
            or key in str(origin)
            or any(key in str(note) for note in getattr(origin, "__notes__", ()))
        ):
            found.append(f"text of {type(origin).__name__}")
        started = origin is not error
        for frame in frames(origin.__traceback__):
            started = started or frame.f_code.co_name == below
            if started:
                for name, value in frame.f_locals.items():
                    if _holds(value, key, set(), 8 if attributes else 0) or key in repr(value):
                        found.append(f"{frame.f_code.co_filename}:{frame.f_code.co_name}: {name}")
    return found


def _holds(value: Any, key: str, seen: set[int], depth: int) -> bool:
    if id(value) in seen or isinstance(value, Secret | Caller | ModuleType | type | FrameType):
        return False
    seen.add(id(value))
    if isinstance(value, str):
        return key in value
    if isinstance(value, bytes | bytearray | memoryview):
        return key.encode() in bytes(value)
    if isinstance(value, Mapping) and not isinstance(
        value, RecentlyUsedContainer
    ):  # that one refuses to be looked through
        return any(_holds(part, key, seen, depth) for pair in list(value.items()) for part in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return any(_holds(part, key, seen, depth) for part in list(value))
    if depth == 0:
        return False
    attributes = list(getattr(value, "__dict__", {}).values())
    attributes += [
        getattr(value, name)
        for kind in type(value).__mro__
        for name in getattr(kind, "__slots__", ())
        if isinstance(name, str) and hasattr(value, name)
    ]
    return any(_holds(part, key, seen, depth - 1) for part in attributes)
