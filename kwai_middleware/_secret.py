"""A key that cannot be shown by accident."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, Final, NoReturn, Self, final

__all__ = ["Secret", "secret_of"]

_CLOSED: Final = "a Secret is never serialised; call .reveal() where the key itself is really needed"


@final
class Secret:
    """An API key, masked wherever a program shows its values.

    Deliberately not a `str` and without a `__dict__`: an encoder that knows neither can only fail,
    while `json` and `orjson` would print a `str` subclass in clear and `jsonable_encoder` whatever
    it finds in `__dict__`. Equality takes the same time wherever two keys differ.

    Args:
        value: The key: one or more visible ASCII characters, so that it fits an HTTP header.

    Raises:
        TypeError: `value` is not a `str`.
        ValueError: `value` is empty, or has a blank, a control or a non-ASCII character. The
            message does not hold the value.

    Example:
        >>> key = Secret("sk-or-v1-example")
        >>> print(key, repr(key))
        **** Secret('****', fingerprint='2403a800')
        >>> key.reveal()
        'sk-or-v1-example'
    """

    __slots__ = ("_value",)
    _value: str

    def __init__(self, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError(f"Secret: expected a str, got {type(value).__name__}")
        if not value:
            raise ValueError("Secret: the value is empty")
        if not value.isascii() or not value.isprintable() or " " in value:
            raise ValueError(
                "Secret: the value has a blank, a control or a non-ASCII character;"
                " a key is visible ASCII only (was it copied with a line end or quotes?)"
            )
        # A subclass of `str` may show itself in its own way, and JSON encoders refuse some of them.
        _set_value(self, value if type(value) is str else str.__str__(value))

    def reveal(self) -> str:
        """Return the key itself. The one way out: search for `.reveal(` to audit a program."""
        return self._value

    @property
    def fingerprint(self) -> str:
        """First 8 hexadecimal digits of the key's SHA-256: for people to tell keys apart by."""
        return hashlib.sha256(self._value.encode()).hexdigest()[:8]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._value, other._value)

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __repr__(self) -> str:
        return f"Secret('****', fingerprint={self.fingerprint!r})"

    def __str__(self) -> str:
        return "****"

    def __format__(self, format_spec: str) -> str:
        return format("****", format_spec)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("a Secret cannot be changed")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("a Secret cannot be changed")

    def __getstate__(self) -> NoReturn:
        raise TypeError(_CLOSED)

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise TypeError(_CLOSED)


_set_value: Final = Secret.__dict__["_value"].__set__
_new: Final = Secret.__new__


def secret_of(text: str) -> Secret:
    """Make a secret of one or more characters that are known to be visible ASCII, in a third of the time."""
    secret = _new(Secret)
    _set_value(secret, text)
    return secret
