"""Every text that a value holds or shows: what a log, an error reporter or an exporter could send of it."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from types import (
    BuiltinFunctionType,
    CodeType,
    FrameType,
    FunctionType,
    MethodType,
    ModuleType,
    NoneType,
    TracebackType,
)
from typing import Any, Final, cast

from kwai_middleware._secret import Secret

__all__ = ["Unsearched", "shown", "texts_in"]

Found = Iterator[tuple[str, str]]
"""Pairs of a path such as `.headers['x-key']` and a text."""


class Unsearched:
    """What belongs to the canary itself: it holds the key because it should.

    Attributes:
        is_sent: It is what a client sends; what the client does with it is not searched either.
    """

    is_sent = False


_OPAQUE: Final = (
    NoneType,
    int,
    float,
    complex,
    Secret,
    Unsearched,
    ModuleType,
    type,
    FunctionType,
    MethodType,
    BuiltinFunctionType,
    CodeType,
    FrameType,
    TracebackType,
)

_DEPTH: Final = 3
_MOST_VALUES: Final = 50_000
"""Values that are looked at in one search: an app that hangs on a local of a frame is not searched to its end."""

_MOST_INFLATED: Final = 64 * 1024 * 1024


def texts_in(value: object, seen: set[int] | None = None, *, depth: int = _DEPTH) -> Found:
    """Yield every text in `value`: what containers hold, so many levels of attributes, and each object's `repr`.

    A `Secret` is not opened: it is there to hold a key.

    Args:
        value: Anything.
        seen: Ids of objects that were searched already; shared by searches of one thing.
        depth: How many levels of attributes are followed. Containers do not count.
    """
    yield from _within("", value, set() if seen is None else seen, depth)


def shown(value: object) -> str:
    """The `repr` of a value; empty when it has none that works."""
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - whatever a stranger's repr raises, it shows nothing
        return ""


def _within(path: str, value: object, seen: set[int], depth: int) -> Found:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, bytes | bytearray | memoryview):
        yield from _in_bytes(path, bytes(cast("bytes", value)))
    elif not isinstance(value, _OPAQUE) and id(value) not in seen and len(seen) < _MOST_VALUES:
        seen.add(id(value))
        if not _is_container(value):
            yield path, shown(value)
        for name, part, cost in _parts(value):
            if cost <= depth:
                yield from _within(path + name, part, seen, depth - cost)


def _is_container(value: object) -> bool:
    return isinstance(value, Mapping | Sequence | Set)


def _in_bytes(path: str, content: bytes) -> Found:
    yield path, content.decode("latin-1")
    if content[:2] == b"\x1f\x8b":
        try:
            inflated = zlib.decompressobj(wbits=31).decompress(content, _MOST_INFLATED)
        except (zlib.error, gzip.BadGzipFile):
            return
        yield f"{path} (gzip)", inflated.decode("latin-1")


def _parts(value: object) -> Iterator[tuple[str, object, int]]:
    """What hangs on a value: how it is reached, what it is, and how many levels of attributes that takes."""
    with contextlib.suppress(Exception):  # a stranger's container that cannot be read may still have attributes
        for path, part in _contents(value):
            yield path, part, 0
    with contextlib.suppress(Exception):  # and reading those may run a stranger's code
        for name, part in _attributes(value):
            yield f".{name}", part, 1


def _contents(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for name, part in list(cast("Mapping[object, object]", value).items()):
            yield f" name {shown(name)}", name
            yield f"[{shown(name)}]", part
    elif isinstance(value, Sequence | Set) and not isinstance(value, range):
        for index, part in enumerate(list(cast("Collection[object]", value))):
            yield f"[{index}]", part


def _attributes(value: Any) -> Iterator[tuple[str, object]]:
    yield from list(getattr(value, "__dict__", _NOTHING).items())
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else tuple(slots):
            private = slot.startswith("__") and not slot.endswith("__")
            name = f"_{kind.__name__.lstrip('_')}{slot}" if private else slot
            if name not in ("__dict__", "__weakref__"):
                yield name, getattr(value, name, None)


_NOTHING: Final[dict[str, object]] = {}
