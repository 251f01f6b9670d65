"""Everything that can be seen of a response, a request and an exception, as plain values that compare."""

from __future__ import annotations

import datetime
import functools
import hashlib
import itertools
import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

__all__ = ["described", "plain_value", "steady"]

_CHANGING: Final = re.compile(
    r"""(0x(?=[0-9a-f])|cancel\ scope\ (?=[0-9a-f])|cnonce="|response="|fd=|port=|Task-|connect\ to\ 127.0.0.1:"""
    r"""|[lr]addr=\()"""
    r"""(?:[0-9a-f]+|'[^)]*)"""
)
"""What differs between two runs of the same program: addresses, sockets and the client's own random numbers."""

_LONGEST: Final = 4000

_RESPONSE: Final[Mapping[str, Callable[[Any], Any]]] = {
    "repr": repr,
    "status": lambda response: (response.status_code, response.reason_phrase, response.http_version),
    "kind": lambda response: [
        getattr(response, f"is_{name}")
        for name in ("informational", "success", "redirect", "client_error", "server_error", "error")
    ],
    "headers": lambda response: response.headers.raw,
    "url": lambda response: str(response.url),
    "charset": lambda response: response.charset_encoding,
    "encoding": lambda response: response.encoding,
    "default encoding": lambda response: response.default_encoding,
    "state": lambda response: (response.is_closed, response.is_stream_consumed),
    "downloaded": lambda response: response.num_bytes_downloaded,
    "elapsed": lambda response: response.elapsed > datetime.timedelta(0),
    "stream": lambda response: type(response.stream).__name__,
    "extensions": lambda response: sorted(response.extensions),
    "content": lambda response: response.content,
    "text": lambda response: response.text,
    "json": lambda response: response.json(),
    "cookies": lambda response: [(each.name, each.value, each.domain, each.path) for each in response.cookies.jar],
    "links": lambda response: response.links,
    "raised": lambda response: response.raise_for_status() is response,
    "request": lambda response: _request(response.request),
    "history": lambda response: [
        (each.status_code, str(each.url), each.headers.raw, each.is_closed) for each in response.history
    ],
    "next": lambda response: None if response.next_request is None else _request(response.next_request),
}

_REQUEST: Final[Mapping[str, Callable[[Any], Any]]] = {
    "repr": repr,
    "line": lambda request: (request.method, str(request.url)),
    "headers": lambda request: request.headers.raw,
    "stream": lambda request: type(request.stream).__name__,
    "content": lambda request: request.content,
    "extensions": lambda request: {
        name: value if isinstance(value, (str, bytes, dict)) else type(value).__name__
        for name, value in request.extensions.items()
    },
    "pickled": lambda request: {
        name: value for name, value in vars(pickle.loads(pickle.dumps(request))).items() if name != "extensions"
    },
}


def described(thing: Any) -> Any:
    """Return what can be seen of a thing that a step got or caught."""
    if isinstance(thing, BaseException):
        return _error(thing, set())
    if hasattr(thing, "status_code") and hasattr(thing, "stream"):
        return _members(thing, _RESPONSE)
    if hasattr(thing, "method") and hasattr(thing, "stream"):
        return _request(thing)
    return plain_value(thing)


def plain_value(value: Any) -> Any:
    """Return `value` without what differs between two runs of the same program; long bytes and texts as digests."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
        if len(data) > _LONGEST:
            return f"{len(data)} bytes, {hashlib.sha256(data).hexdigest()[:16]}"
        return plain_value(data.decode("latin-1")).encode("latin-1")
    if isinstance(value, str):
        if len(value) > _LONGEST:
            return f"{len(value)} characters, {hashlib.sha256(value.encode()).hexdigest()[:16]}"
        return steady(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain_value(each) for each in value]
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        return {plain_value(name): plain_value(each) for name, each in value.items()}
    return plain_value(repr(value))


@functools.lru_cache(maxsize=20_000)
def steady(text: str) -> str:
    """Return a text without what differs between two runs of the same program."""
    return _CHANGING.sub(r"\1", text)


def _members(thing: Any, members: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    return {name: _seen(look, thing) for name, look in members.items()}


def _seen(look: Callable[[Any], Any], thing: Any) -> Any:
    try:
        return plain_value(look(thing))
    except Exception as error:  # noqa: BLE001 - that it raises, and what, is what is to be seen
        return plain_value([type(error).__name__, str(error)])


def _request(request: Any) -> Any:
    return _members(request, _REQUEST)


def _error(error: BaseException | None, above: set[int]) -> Any:
    if error is None or id(error) in above:
        return None
    above = above | {id(error)}
    outer, inner = _frames(error.__traceback__)
    if len(above) > 1:
        # An exception that was turned into another on its way has all its frames below.
        outer, inner = [], outer + inner
    return {
        "type": f"{type(error).__module__}.{type(error).__qualname__}",
        "text": plain_value(str(error)),
        "arguments": plain_value(error.args),
        "notes": plain_value(getattr(error, "__notes__", [])),
        "request": _seen(lambda each: _request(each.request), error),
        "response": _seen(lambda each: each.response.status_code, error),
        "pickled": _seen(lambda each: repr(pickle.loads(pickle.dumps(each))), error),
        "cause": _error(error.__cause__, above),
        "context": _error(error.__context__, above),
        "without context": error.__suppress_context__,
        "parts": [_error(part, above) for part in getattr(error, "exceptions", ())],
        "frames": outer,
        "inner frames": inner,
    }


def _frames(traceback: TracebackType | None) -> tuple[list[str], list[str]]:
    """The functions that an exception passed: those of the app and the client, and those of the transports below."""
    frames = list(_functions(traceback))
    outer = list(itertools.takewhile(lambda frame: not _is_transport(*frame), frames))
    return _names(outer), _names(frames[len(outer) :])


def _functions(traceback: TracebackType | None) -> Iterable[tuple[Path, str]]:
    while traceback is not None:
        code = traceback.tb_frame.f_code
        yield Path(code.co_filename), code.co_name
        traceback = traceback.tb_next


def _is_transport(file: Path, function: str) -> bool:
    below = {"kwai_middleware", "_transports", "httpcore", "httpcore2"}
    return function in ("handle_request", "handle_async_request") or not below.isdisjoint(file.parts)


def _names(frames: Iterable[tuple[Path, str]]) -> list[str]:
    return [f"{file.name}:{name}" for file, name in frames if "kwai_middleware" not in file.parts]
