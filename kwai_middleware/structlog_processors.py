"""Two processors for structlog: one says who an event is about, one keeps keys out of it."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from typing import Any, Final, cast

from structlog.typing import EventDict, WrappedLogger

from kwai_middleware._context import current_slot
from kwai_middleware._redaction import MASK, mask_text
from kwai_middleware._secret import Secret

__all__ = ["add_caller", "mask_keys"]

_DEEPEST: Final = 20


def add_caller(logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:
    """Add `customer_id`, `group` and `thread` of the current caller to an event, as far as they are known.

    What the app has put under these names stays. Name and e-mail address are not added.

    Example:
        >>> from kwai_middleware import Caller, bind_caller
        >>> with bind_caller(Caller(identifier="acme", thread="t1")):
        ...     add_caller(None, "info", {"event": "hello"})
        {'event': 'hello', 'customer_id': 'acme', 'thread': 't1'}
    """
    caller = current_slot().caller
    if caller is not None:
        for name, text in (("customer_id", caller.identifier), ("group", caller.group), ("thread", caller.thread)):
            if text is not None:
                event_dict.setdefault(name, text)
    return event_dict


def mask_keys(logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:
    """Mask API keys in an event: everything that looks like one, and the current caller's own.

    Looks into texts, bytes, containers, and into what other objects show of themselves. Put it last,
    right before the renderer. An exception that is not rendered yet is rendered here, to the text
    under `exception`, since what a later processor makes of it could show a key.

    Example:
        >>> mask_keys(None, "info", {"event": "called with sk-or-v1-0123456789abcdef"})
        {'event': 'called with ****'}
    """
    secrets = _current_secrets()
    exc_info = event_dict.pop("exc_info", None)
    if exc_info:
        text = _rendered(exc_info)
        if text is not None:
            event_dict.setdefault("exception", text)
    for name, value in list(event_dict.items()):
        masked_name = mask_text(name, secrets)
        masked = _masked(value, secrets, 0)
        if masked_name != name:
            del event_dict[name]
        if masked is not value or masked_name != name:
            event_dict[masked_name] = masked
    return event_dict


def _current_secrets() -> tuple[Secret, ...]:
    slot = current_slot()
    credentials = () if slot.caller is None else slot.caller.credentials
    return (*(credential.api_key for credential in credentials), *(slot.withheld or {}).values())


def _masked(value: Any, secrets: tuple[Secret, ...], depth: int) -> Any:
    """Return `value` without keys; the very same object when there is none in it."""
    if value is None or isinstance(value, bool | int | float | Secret):
        return value
    if isinstance(value, str):
        masked = mask_text(value, secrets)
        return value if masked == value else masked
    if isinstance(value, bytes):
        masked_bytes = mask_text(value.decode("latin-1"), secrets).encode("latin-1")  # a key is ASCII
        return value if masked_bytes == value else masked_bytes
    if depth < _DEEPEST:
        if isinstance(value, Mapping):
            return _masked_mapping(cast("Any", value), secrets, depth + 1)
        if isinstance(value, list | tuple | set | frozenset):
            return _masked_items(value, secrets, depth + 1)
    return _masked_object(value, secrets)


def _masked_mapping(mapping: Any, secrets: tuple[Secret, ...], depth: int) -> Any:
    masked: dict[Any, Any] = {}
    is_same = True
    for name, value in mapping.items():
        new_name, new_value = _masked(name, secrets, depth), _masked(value, secrets, depth)
        is_same = is_same and new_name is name and new_value is value
        masked[new_name] = new_value
    return mapping if is_same else masked


def _masked_items(items: Any, secrets: tuple[Secret, ...], depth: int) -> Any:
    masked = [_masked(item, secrets, depth) for item in items]
    if all(new is old for new, old in zip(masked, items, strict=True)):
        return items
    if isinstance(items, tuple):
        return tuple(masked)
    return masked if isinstance(items, list) else set(masked)


def _masked_object(value: object, secrets: tuple[Secret, ...]) -> object:
    """A renderer shows an object as its repr() or str()."""
    try:
        shown = (repr(value), str(value))
    except Exception:  # noqa: BLE001 - whatever it raises, it would raise in the renderer too
        return MASK
    masked = mask_text(shown[0], secrets)
    return value if masked == shown[0] and mask_text(shown[1], secrets) == shown[1] else masked


def _rendered(exc_info: Any) -> str | None:
    error: object = exc_info
    if isinstance(exc_info, tuple):
        error = cast("tuple[object, ...]", exc_info)[1]
    elif not isinstance(exc_info, BaseException):
        error = sys.exc_info()[1]
    if not isinstance(error, BaseException):
        return None
    return "".join(traceback.format_exception(error)).rstrip("\n")
