"""From the object that a framework has for its user to a `Caller`: which attribute is which field."""

from __future__ import annotations

import inspect
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Final
from uuid import UUID

from kwai_middleware._caller import Caller
from kwai_middleware._user_source import Unreadable
from kwai_middleware.errors import ConfigurationError

__all__ = ["UserFields"]

_FIELDS: Final = ("identifier", "name", "email", "group", "thread")
_EXAMPLE: Final = 'such as {"identifier": "pk", "email": "email", "group": "organisation.id"}'


class UserFields:
    """Reads the fields of a caller from a user object.

    Args:
        attributes: For each field an attribute of the user, a dotted path of them, or a function of it.

    Raises:
        ConfigurationError: They are something else, or there is none for the identifier.
    """

    __slots__ = ("_sources",)

    def __init__(self, attributes: Mapping[str, str | Callable[[Any], Any]]) -> None:
        if not isinstance(attributes, Mapping) or "identifier" not in attributes:
            raise ConfigurationError(f"UserIdentity: a mapping that names at least the identifier, {_EXAMPLE}")
        for field, source in attributes.items():
            if field not in _FIELDS:
                raise ConfigurationError(f"UserIdentity: no field {field!r}; there are {', '.join(_FIELDS)}")
            is_path = isinstance(source, str) and all(part.isidentifier() for part in source.split("."))
            if not is_path and (isinstance(source, str | type) or not callable(source)):
                raise ConfigurationError(
                    f"UserIdentity.{field}: the name of an attribute, a dotted path of them, or a function of the user"
                )
        self._sources: Final = dict(attributes)

    def caller_of(self, user: object) -> Caller | None:
        """Return who a user is; None for nobody, and for one without an identifier.

        Raises:
            Unreadable: The user is not what the attributes say.
            Exception: Whatever the user's own code raises.
        """
        if user is None or not _is_authenticated(user):
            return None
        texts: dict[str, Any] = {}
        for field, source in self._sources.items():
            text = _as_text(field, _value(field, source, user))
            if text:
                texts[field] = text
            elif field == "identifier":
                return None
        try:
            return Caller(**texts)
        except ValueError as error:
            raise Unreadable(f"UserIdentity: {error}") from None  # that names the field, and no value

    def __repr__(self) -> str:
        shown = (f"{field!r}: {_name_of(source)}" for field, source in self._sources.items())
        return f"{{{', '.join(shown)}}}"


def _is_authenticated(user: object) -> bool:
    answer = getattr(user, "is_authenticated", True)
    if callable(answer):
        answer = answer()
    return bool(_answered("is_authenticated", answer))


def _value(field: str, source: str | Callable[[Any], Any], user: object) -> object:
    if not isinstance(source, str):
        return _answered(field, source(user))
    value: Any = user
    for name in source.split("."):
        try:
            value = getattr(value, name)
        except AttributeError as error:
            raise Unreadable(f"UserIdentity.{field}: the user has no {source!r}") from error
        if inspect.isroutine(value):
            value = _answered(field, value())
        if value is None:
            break
    return value


def _answered(field: str, answer: object) -> object:
    """Return an answer; one that would have to be waited for is none, and true of everybody."""
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise Unreadable(f"UserIdentity: {field} of the user is async, and nothing waits for it here")
    return answer


def _as_text(field: str, value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        return unicodedata.normalize("NFC", str.__str__(value))
    if isinstance(value, UUID):
        return UUID.__str__(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < _TOO_LARGE:
        return int.__repr__(value)  # a subclass has its own idea of its text
    raise Unreadable(f"UserIdentity.{field}: expected a str, an int, a UUID or None, got {type(value).__name__}")


_TOO_LARGE: Final = 10**120


def _name_of(source: object) -> str:
    if isinstance(source, str):
        return repr(source)
    return str(getattr(source, "__qualname__", type(source).__qualname__))
