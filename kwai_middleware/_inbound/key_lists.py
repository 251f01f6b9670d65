"""Several weighted keys in one header: a list as RFC 9651 (structured field values) has it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

from kwai_middleware._inbound.values import MAX_HEADER
from kwai_middleware._secret import Secret
from kwai_middleware._slot import WeightedKey
from kwai_middleware.errors import ConfigurationError, InvalidHeader

__all__ = ["MAX_KEYS", "keys_from", "list_parser"]

MAX_KEYS: Final = 16
"""Most keys that one list may have."""

_WEIGHT_NAMES: Final = frozenset({"w", "weight"})
_EXPECTED: Final = f'expected are 1 to {MAX_KEYS} keys as an RFC 9651 list, such as: key-one;w=3, "2nd=key";w=0.5'

Members = Sequence[tuple[str | None, Mapping[str, object]]]
"""Of each member the text, None when it is something else, and its parameters."""


@functools.cache
def list_parser() -> Callable[[bytes], Members]:
    """Return the parser of RFC 9651 lists, which raises a ValueError for anything else.

    Raises:
        ConfigurationError: The extra that brings it is not installed.
    """
    try:
        import http_sf
    except ImportError:
        raise ConfigurationError(
            "HeaderCredentials.lists, request.secrets: lists of keys need an extra; pip install"
            " 'kwai-middleware[keylists]'"
        ) from None

    def refuse(name: str, kind: str) -> None:
        raise ValueError  # the RFC lets the last one of two weights win; here that is a mistake

    def parse(value: bytes) -> Members:
        members: Any = http_sf.parse(value, tltype="list", on_duplicate_key=refuse)
        return [
            (str(member) if isinstance(member, http_sf.Token | str) else None, parameters)
            for member, parameters in members
        ]

    return parse


def keys_from(name: str, value: bytes) -> tuple[WeightedKey, ...] | InvalidHeader:
    """Return the keys in a header's value, or what is wrong with it; the caller raises that.

    Not raised here, so that no traceback ever leads to a frame that holds the value.

    Args:
        name: Of the header.
        value: As received; several values are joined with commas.
    """
    if len(value) > MAX_HEADER:
        return InvalidHeader(f"The header {name} is longer than {MAX_HEADER} bytes.", header=name)
    try:
        members = list_parser()(value.strip(b" \t"))
    except ValueError:
        return _refusal(name, "is not a list of keys")
    if not 1 <= len(members) <= MAX_KEYS:
        return _refusal(name, f"has {len(members)} keys")
    keys: list[WeightedKey] = []
    for text, parameters in members:
        if text is None:
            return _refusal(name, "has something in its list that is neither a token nor a quoted string")
        weight = _weight(parameters)
        if weight is None:
            return _refusal(name, "has a key with something else beside it than a weight above 0 (w=3, w=0.5)")
        try:
            keys.append(WeightedKey(Secret(text), weight))
        except ValueError:
            return _refusal(name, "has a key that is empty or has a blank in it")
    if len({key for key, _ in keys}) < len(keys):
        return _refusal(name, "has a key twice")
    return tuple(keys)


def _weight(parameters: Mapping[str, object]) -> float | None:
    if not parameters:
        return 1.0
    if len(parameters) > 1 or not _WEIGHT_NAMES.issuperset(parameters):
        return None
    (number,) = parameters.values()
    if isinstance(number, bool) or not isinstance(number, int | Decimal) or number <= 0:
        return None
    return float(number)


def _refusal(name: str, problem: str) -> InvalidHeader:
    return InvalidHeader(f"The header {name} {problem}; {_EXPECTED}", header=name)
