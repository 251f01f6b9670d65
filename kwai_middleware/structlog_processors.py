"""Two processors for structlog: one says who an event is about, one keeps keys out of it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, Final, TypeVar, cast

from structlog.typing import EventDict, WrappedLogger

from kwai_middleware._context import current_slot
from kwai_middleware._redaction import MASK, Keys, mask_text
from kwai_middleware._secret import Secret

__all__ = ["add_caller", "mask_keys"]

Part = TypeVar("Part")

_DEEPEST: Final = 20
_MOST_PARTS: Final = 10_000


def add_caller(logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:
    """Add `customer_id`, `group` and `thread` of the current caller to an event, as far as they are known.

    What the app has put under these names stays. Name and e-mail address are not added.

    Example:
        >>> from kwai_middleware import Caller, bind_caller
        >>> with bind_caller(Caller(identifier="acme", thread="t1")):
        ...     add_caller(None, "info", {"event": "hello"})
        {'event': 'hello', 'customer_id': 'acme', 'thread': 't1'}
    """
    # Only what is known: reading a framework's user could query a database, and log again.
    caller = current_slot().settled_caller
    if caller is not None:
        for name, text in (("customer_id", caller.identifier), ("group", caller.group), ("thread", caller.thread)):
            if text is not None:
                event_dict.setdefault(name, text)
    return event_dict


def mask_keys(logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:
    """Mask API keys in an event: everything that looks like one, and the current caller's own.

    The caller's own are found as they are, escaped as in JSON or in URLs, and in base64. Looks into
    texts, bytes, containers, and into what other objects show of themselves: 20 levels deep and at
    10,000 parts of each value; what lies beyond is masked unseen. Beside a key, a container is also
    masked where it holds itself. Put it last, right before the renderer. An exception that is not
    rendered yet is rendered here, to the text under `exception`, since what a later processor makes
    of it could show a key.

    Example:
        >>> mask_keys(None, "info", {"event": "called with sk-or-v1-0123456789abcdef"})
        {'event': 'called with ****'}
    """
    keys = Keys(_current_secrets())
    exc_info = event_dict.pop("exc_info", None)
    if exc_info:
        text = _rendered(exc_info)
        if text is not None:
            event_dict.setdefault("exception", text)
    for name, value in list(event_dict.items()):
        masked_name = mask_text(name, keys)
        masked = _Masking(keys).of(value)
        if masked_name != name:
            del event_dict[name]
        if masked is not value or masked_name != name:
            event_dict[masked_name] = masked
    return event_dict


def _current_secrets() -> tuple[Secret, ...]:
    return tuple(current_slot().secrets)


class _Masking:
    """Masks one value of an event: each part of it once, so many parts and so deep, and what is beyond that unseen.

    Args:
        keys: The current caller's own.
    """

    __slots__ = ("_found", "_keys", "_left", "_seen")

    def __init__(self, keys: Keys) -> None:
        self._keys: Final = keys
        self._seen: Final[dict[int, tuple[object, Any]]] = {}  # with the part itself, so that its id stays its own
        self._left = _MOST_PARTS
        self._found = False

    def of(self, value: Any) -> Any:
        """Return `value` without keys; the very same object when there is none in it."""
        masked = self._masked(value, 0)
        return masked if self._found else value

    def _masked(self, value: Any, depth: int) -> Any:
        self._left -= 1
        if value is None or isinstance(value, bool | int | float | Secret):
            return value
        if isinstance(value, str):
            return self._kept_or_found(value, mask_text(value, self._keys))
        if isinstance(value, bytes):
            # a key is ASCII
            return self._kept_or_found(value, mask_text(value.decode("latin-1"), self._keys).encode("latin-1"))
        identity = id(cast("object", value))
        if identity in self._seen:
            return self._seen[identity][1]
        self._seen[identity] = (value, MASK)  # which stands for it wherever it holds itself
        if isinstance(value, Mapping):
            masked = self._found_unseen() if depth == _DEEPEST else self._masked_mapping(cast("Any", value), depth + 1)
        elif isinstance(value, list | tuple | set | frozenset):
            masked = self._found_unseen() if depth == _DEEPEST else self._masked_items(cast("Any", value), depth + 1)
        else:
            masked = self._masked_object(value)
        self._seen[identity] = (value, masked)
        return masked

    def _masked_mapping(self, mapping: Mapping[Any, Any], depth: int) -> Any:
        try:
            pairs = self._few(mapping.items())
        except Exception:  # noqa: BLE001 - a stranger's code; what cannot be read is not shown
            return self._found_unseen()
        masked: dict[Any, Any] = {}
        is_same = True
        for name, value in pairs:
            if self._left <= 0:
                masked[MASK] = self._found_unseen()
                return masked
            new_name, new_value = self._masked(name, depth), self._masked(value, depth)
            is_same = is_same and new_name is name and new_value is value
            masked[new_name] = new_value
        return mapping if is_same else masked

    def _masked_items(self, items: Iterable[Any], depth: int) -> Any:
        masked: list[Any] = []
        is_same = True
        for item in self._few(items):
            if self._left <= 0:
                masked.append(self._found_unseen())
                is_same = False
                break
            masked.append(self._masked(item, depth))
            is_same = is_same and masked[-1] is item
        if is_same:
            return items
        if isinstance(items, tuple):
            return tuple(masked)
        if isinstance(items, frozenset):
            return frozenset(masked)
        return set(masked) if isinstance(items, set) else masked

    def _few(self, parts: Iterable[Part]) -> list[Part]:
        """Take so many as may be looked at, and one; at once, since a repr or another thread may add more meanwhile."""
        return list(islice(parts, max(self._left, 0) + 1))

    def _masked_object(self, value: object) -> object:
        """A renderer shows an object as its repr() or str()."""
        try:
            shown = (repr(value), str(value))
        except Exception:  # noqa: BLE001 - a stranger's code; what does not show itself cannot be looked into
            return self._found_unseen()
        masked = mask_text(shown[0], self._keys)
        if masked == shown[0] and mask_text(shown[1], self._keys) == shown[1]:
            return value
        self._found = True
        return masked

    def _kept_or_found(self, value: Any, masked: Any) -> Any:
        if masked == value:
            return value
        self._found = True
        return masked

    def _found_unseen(self) -> str:
        self._found = True
        return MASK


def _rendered(exc_info: Any) -> str | None:
    error: object = exc_info
    if isinstance(exc_info, tuple):
        error = cast("tuple[object, ...]", exc_info)[1]
    elif not isinstance(exc_info, BaseException):
        error = sys.exc_info()[1]
    if not isinstance(error, BaseException):
        return None
    return "".join(traceback.format_exception(error)).rstrip("\n")
