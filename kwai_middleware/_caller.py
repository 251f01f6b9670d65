"""Who a request is for, and whose keys pay."""

from __future__ import annotations

import functools
import math
import operator
import re
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, cast

import msgspec

from kwai_middleware._secret import Secret
from kwai_middleware._signing import ReferenceContent, Secrets, checked_age, reference_signer

__all__ = [
    "IDENTITY",
    "MAX_IDENTIFIER",
    "TEXT_LIMITS",
    "Byok",
    "Caller",
    "Capture",
    "Credential",
    "MetadataValue",
    "caller_of",
    "checked_credential",
    "credential_maker",
    "new_caller",
    "set_checked",
    "stated",
]

Byok = Literal["prefer", "only", "off"]
"""Whose key pays: the caller's, else the app's · the caller's only · the app's (attribution only)."""

Capture = Literal["full", "metadata", "none"]
"""What is recorded: everything · all but prompt and answer · nothing."""

MetadataValue = str | int | float | bool

MAX_IDENTIFIER: Final = 120
"""Longest identifier, in characters. The older of the vendor's types raises above it
(keywordsai_sdk 0.5.2); the newer one cuts at 254."""

TEXT_LIMITS: Final[Mapping[str, int]] = MappingProxyType(
    {
        "identifier": MAX_IDENTIFIER,
        "name": 4096,
        "email": 4096,
        "group": MAX_IDENTIFIER,
        "thread": 254,
        "issuer": 2048,
    }
)
"""Longest text of each field of a `Caller`, in characters."""

IDENTITY: Final = (*TEXT_LIMITS, "metadata")
"""The fields of a `Caller` that say who it is."""

_PROVIDER: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # the last two end a line as well
_NO_METADATA: Final[Mapping[str, MetadataValue]] = MappingProxyType({})


# `gc=False`, here and of a caller: nothing in either leads back to it, and a request is 0.03 µs cheaper.
class Credential(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One provider's key.

    Args:
        provider: The vendor's name of the provider, such as `openrouter` or `openai`.
        api_key: The key. A plain `str` is refused: it would show in every log of this object.
        weight: How often this key is chosen among several of one provider, in proportion to the
            others; finite and above 0.

    Raises:
        TypeError: `api_key` is not a `Secret`.
        ValueError: `provider` or `weight` is out of bounds.
    """

    api_key: Secret
    provider: str = "openrouter"
    weight: float = 1.0

    def __post_init__(self) -> None:
        if type(self.api_key) is not Secret:
            raise TypeError("Credential.api_key: expected kwai_middleware.Secret(...), not a plain value")
        if not isinstance(self.provider, str) or not _is_provider(self.provider):
            raise ValueError("Credential.provider: 1 to 64 characters of a-z, 0-9, '_', '.' and '-'")
        if self.weight != 1.0 and not (
            isinstance(self.weight, (int, float)) and math.isfinite(self.weight) and self.weight > 0
        ):
            raise ValueError("Credential.weight: a finite number above 0")


def checked_credential(alike: Any, key: Secret) -> Credential:
    """Make a credential that is like another one, which has been checked, but for its key: in half the time."""
    credential: Credential = alike.__copy__()
    _set_field(credential, "api_key", key)
    return credential


def credential_maker(alike: Any) -> Callable[[], Credential]:
    """Return what makes credentials like another one, which whoever makes them gives their key by `set_checked`."""
    return cast("Callable[[], Credential]", alike.__copy__)


@functools.lru_cache(maxsize=256)
def _is_provider(name: str) -> bool:
    return _PROVIDER.fullmatch(name) is not None


class Caller(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Who a request is for and whose keys pay. Immutable.

    Args:
        identifier: The customer's id in the app, at most 120 characters. None when only a key is
            known: the call is then billed to that key and attributed to nobody.
        name: Shown by the vendor beside the identifier.
        email: Shown by the vendor beside the identifier.
        group: The customer's organisation.
        thread: The conversation this request belongs to.
        issuer: Who vouches for the identifier, such as the issuer of a token; never sent. Two issuers may each have
            a customer 42, and the keys of one are not the other's.
        metadata: Plain values that go into each record of this caller.
        credentials: The caller's keys, of one or several providers.
        byok: Overrides the setting of the same name where that is `prefer`: `only` lets no other key
            pay for this caller, `off` never sends the caller's own.
        capture: Overrides the setting of the same name for this caller; it may only tighten it.

    Raises:
        TypeError: A field is of another type than named here.
        ValueError: A text is empty, has a control character, or is too long.
    """

    identifier: str | None = None
    name: str | None = None
    email: str | None = None
    group: str | None = None
    thread: str | None = None
    issuer: str | None = None
    metadata: Mapping[str, MetadataValue] = _NO_METADATA
    credentials: tuple[Credential, ...] = ()
    byok: Byok | None = None
    capture: Capture | None = None

    def __post_init__(self) -> None:
        if self.identifier is not None:
            _check_text(self, "identifier", self.identifier)
        if self.name is not None:
            _check_text(self, "name", self.name)
        if self.email is not None:
            _check_text(self, "email", self.email)
        if self.group is not None:
            _check_text(self, "group", self.group)
        if self.thread is not None:
            _check_text(self, "thread", self.thread)
        if self.issuer is not None:
            _check_text(self, "issuer", self.issuer)
        if self.metadata is not _NO_METADATA:
            _set_field(self, "metadata", _frozen_metadata(self.metadata))
        if self.credentials != ():
            _set_field(self, "credentials", _checked_credentials(self.credentials))
        if self.byok is not None and self.byok not in ("prefer", "only", "off"):
            raise ValueError("Caller.byok: one of 'prefer', 'only', 'off' or None")
        if self.capture is not None and self.capture not in ("full", "metadata", "none"):
            raise ValueError("Caller.capture: one of 'full', 'metadata', 'none' or None")

    def __deepcopy__(self, memo: object) -> Caller:
        return self

    def with_credentials(self, credentials: tuple[Credential, ...]) -> Caller:
        """Return the same caller with these keys instead of its own.

        Raises:
            TypeError: One of them is not a `Credential`.
        """
        twin = _copy(self)  # its other fields have been checked
        _set_field(twin, "credentials", _checked_credentials(credentials))
        return twin

    def reference(
        self, *, secrets: Secrets | None = None, max_age: float = 86400.0, clock: Callable[[], float] = time.time
    ) -> str:
        """Return a text that stands for this caller in a task queue, to be bound with `bind_reference`.

        It has all of the caller but its keys, signed and not encrypted: whoever reads the queue reads who the
        caller is, and nobody without a secret makes or changes one. The worker looks the keys up again. It may be
        used any number of times until it expires, since queues deliver a task again.

        Args:
            secrets: The first one signs; each of 32 or more characters. None stands for those in the environment
                variable `KWAI_REFERENCE_SECRETS`, separated by commas.
            max_age: For how many seconds it can be bound; longer than a task may wait, its retries included.
            clock: Seconds since 1970.

        Returns:
            URL-safe ASCII.

        Raises:
            ConfigurationError: There is no secret, or an argument is none of these.

        Example:
            >>> from kwai_middleware import bind_reference, current_caller
            >>> secrets = ["an-example-of-a-secret-0123456789"]
            >>> reference = Caller(identifier="acme").reference(secrets=secrets)
            >>> with bind_reference(reference, secrets=secrets):
            ...     current_caller().identifier
            'acme'
        """
        until = clock() + checked_age("Caller.reference: max_age", max_age)
        content = ReferenceContent(stated(self, (*IDENTITY, "byok", "capture")), until)
        return reference_signer("Caller.reference", secrets).signed(content)


def stated(caller: Caller, fields: Iterable[str]) -> dict[str, Any]:
    """Return these fields of a caller as plain values, of those that it has."""
    values = {field: getattr(caller, field) for field in fields}
    plain = {field: dict(value) if field == "metadata" else value for field, value in values.items()}
    return {field: value for field, value in plain.items() if value not in (None, {})}


def caller_of(fields: Mapping[str, Any], allowed: Iterable[str]) -> Caller | None:
    """Return the caller that was stated so; None when a field is not allowed or not as a caller has it."""
    try:
        return Caller(**fields) if fields.keys() <= {*allowed} else None
    except (TypeError, ValueError):
        return None


_copy: Final[Callable[[Caller], Caller]] = operator.methodcaller("__copy__")
_nobody: Final[Any] = Caller()
_set_field: Final = msgspec.structs.force_setattr

new_caller: Final[Callable[[], Caller]] = _nobody.__copy__
"""Makes a caller without anything, which whoever makes it may complete with `set_checked`."""

set_checked: Final[Callable[[Caller | Credential, str, object], None]] = _set_field
"""Sets a field of a caller or credential that nobody else has seen yet to what was checked by the same rules already.

So a caller is made in a third of the time."""


def _checked_credentials(credentials: Iterable[Credential]) -> tuple[Credential, ...]:
    checked = tuple(credentials)
    for credential in checked:
        if type(credential) is not Credential:
            raise TypeError("Caller.credentials: expected kwai_middleware.Credential objects")
    return checked


def _check_text(caller: Caller, field: str, text: object) -> None:
    if not isinstance(text, str):
        raise TypeError(f"Caller.{field}: expected a str or None, got {type(text).__name__}")
    limit = TEXT_LIMITS[field]
    if not text or len(text) > limit:
        raise ValueError(f"Caller.{field}: 1 to {limit} characters, or None")
    # isprintable() is the fast answer for nearly all; it also says no to harmless format characters.
    if not text.isprintable() and _CONTROL.search(text):
        raise ValueError(f"Caller.{field}: no control characters")
    if not text.isascii() and not _is_encodable(text):
        raise ValueError(f"Caller.{field}: not valid Unicode (a lone surrogate)")
    if type(text) is not str:
        _set_field(caller, field, _exact(text))


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _frozen_metadata(metadata: Mapping[str, MetadataValue]) -> Mapping[str, MetadataValue]:
    if not isinstance(metadata, Mapping):
        raise TypeError("Caller.metadata: expected a mapping")
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str | int | float | bool):
            raise TypeError("Caller.metadata: keys are str, values are str, int, float or bool")
        if not _is_encodable(key) or (isinstance(value, str) and not _is_encodable(value)):
            raise ValueError("Caller.metadata: not valid Unicode (a lone surrogate)")
    return MappingProxyType({_exact(key): _exact(value) for key, value in metadata.items()})


def _exact(value: Any) -> Any:
    """Return a value of a subclass as one of the built-in type: JSON encoders refuse the others."""
    if type(value) in (str, int, float, bool):
        return value
    return next(convert(value) for kind, convert in _CONVERSIONS.items() if isinstance(value, kind))


# Not the types themselves: a subclass may have its own idea of what it is as text or as a number.
_CONVERSIONS: Final[Mapping[type, Callable[[Any], Any]]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
}
