"""Texts that prove who made them: a part that anyone can read, and a signature over it with a shared secret."""

from __future__ import annotations

import base64
import hmac
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from kwai_middleware._secret import Secret
from kwai_middleware.errors import ConfigurationError

__all__ = ["REFERENCE_SECRETS", "ReferenceContent", "Secrets", "Signer", "checked_age", "reference_signer"]

Content = TypeVar("Content", bound=msgspec.Struct)
Secrets = Iterable[str | Secret]

REFERENCE_SECRETS: Final = "KWAI_REFERENCE_SECRETS"
"""The environment variable with the secrets for references, separated by commas."""

_SHORTEST: Final = 32
_HOW_TO_MAKE_ONE: Final = "python -c 'import secrets; print(secrets.token_urlsafe(32))' prints one"


class Signer:
    """Signs texts of one kind, and tells those that were signed so from all others.

    A text has three parts, joined by dots: its kind, its content, and the signature over both and over
    what the text is bound to. The signature is over the very characters, so nothing about a text can be
    changed, and one of another kind or another version never holds.

    Args:
        kind: What the texts are, and in which version; without a dot.
        secrets: The first one signs, each of them verifies.
    """

    __slots__ = ("_kind", "_secrets")

    def __init__(self, kind: str, secrets: tuple[Secret, ...]) -> None:
        self._kind: Final = kind
        self._secrets: Final = secrets

    def signed(self, content: msgspec.Struct, *bound_to: str) -> str:
        """Return the text: URL-safe ASCII.

        Args:
            content: Of plain values.
            bound_to: What the text does not hold, and without which it does not hold.
        """
        # Not msgspec's encoder: metadata may have numbers that it writes as null.
        plain = json.dumps(msgspec.structs.asdict(content), ensure_ascii=False, separators=(",", ":"))
        payload = _encoded(plain.encode())
        return f"{self._kind}.{payload}.{self._signature(self._secrets[0], payload, bound_to)}"

    def verified(self, text: object, content: type[Content], *bound_to: str) -> Content | None:
        """Return the content of a text; None when it does not hold, for whatever reason."""
        if not isinstance(text, str) or not text.isascii():
            return None
        kind, _, rest = text.partition(".")
        payload, _, signature = rest.partition(".")
        if kind != self._kind or not any(
            hmac.compare_digest(self._signature(secret, payload, bound_to), signature) for secret in self._secrets
        ):
            return None
        try:
            return msgspec.convert(_decoded(payload), content)
        except ValueError:
            return None  # signed by something else that knows the secret

    def _signature(self, secret: Secret, payload: str, bound_to: tuple[str, ...]) -> str:
        # Each part after its length, so that no two lists of parts are one message. A path may have half a character.
        parts = [part.encode("utf-8", "surrogatepass") for part in (self._kind, payload, *bound_to)]
        message = b"".join(b"%d:%b" % (len(part), part) for part in parts)
        return _encoded(hmac.digest(secret.reveal().encode(), message, "sha256"))


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _decoded(payload: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def checked_secrets(label: str, secrets: Secrets) -> tuple[Secret, ...]:
    """Return the secrets of a setting.

    Raises:
        ConfigurationError: There is none, or one of them is too short, not a secret, or there twice.
    """
    listed = None if isinstance(secrets, str | bytes | Mapping) or not isinstance(secrets, Iterable) else [*secrets]
    if not listed:
        raise ConfigurationError(f"{label}: a list of one secret or more, such as [Secret(...)]; {_HOW_TO_MAKE_ONE}")
    checked = tuple(_checked_secret(label, secret) for secret in listed)
    if len(set(checked)) < len(checked):
        raise ConfigurationError(f"{label}: one secret is there twice")
    return checked


def _checked_secret(label: str, secret: object) -> Secret:
    try:
        checked = secret if isinstance(secret, Secret) else Secret(secret)  # type: ignore[arg-type]  # Secret checks it
    except (TypeError, ValueError):
        checked = None
    if checked is None or len(checked.reveal()) < _SHORTEST:
        raise ConfigurationError(
            f"{label}: a secret has {_SHORTEST} or more characters, visible ASCII without blanks; {_HOW_TO_MAKE_ONE}"
        )
    return checked


def checked_age(label: str, max_age: float) -> float:
    """Return for how many seconds something holds.

    Raises:
        ConfigurationError: It is no such number.
    """
    if isinstance(max_age, bool) or not isinstance(max_age, int | float) or not 0 < max_age < float("inf"):
        raise ConfigurationError(f"{label}: a number of seconds above 0")
    return max_age


class ReferenceContent(msgspec.Struct, forbid_unknown_fields=True):
    """What a caller's reference says.

    Attributes:
        caller: The fields of the caller.
        until: When it expires, in seconds since 1970.
    """

    caller: dict[str, Any]
    until: float


def reference_signer(label: str, secrets: Secrets | None) -> Signer:
    """Return what signs the references of callers.

    Args:
        label: Who asks, for the message.
        secrets: None for those of the environment, as it is now.

    Raises:
        ConfigurationError: There are none, or one of them is too short.
    """
    if secrets is not None:
        return Signer(_REFERENCE, checked_secrets(f"{label}: secrets", secrets))
    variable = os.environ.get(REFERENCE_SECRETS, "").strip()
    if not variable:
        raise ConfigurationError(
            f"{label}: set {REFERENCE_SECRETS} to a secret of {_SHORTEST} or more characters, the same where references"
            f" are made and where they are bound (several, for rotation, are separated by commas), or pass"
            f" secrets=[...]; {_HOW_TO_MAKE_ONE}"
        )
    return Signer(_REFERENCE, checked_secrets(REFERENCE_SECRETS, [each.strip() for each in variable.split(",")]))


_REFERENCE: Final = "kwai-reference-1"
