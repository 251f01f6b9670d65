"""The app's own keys of providers, as settings give them: checked, or read from words."""

from __future__ import annotations

from typing import Any, cast

from kwai_middleware._caller import Credential
from kwai_middleware._secret import Secret
from kwai_middleware.errors import ConfigurationError

__all__ = ["checked_credentials", "credentials_from"]


def checked_credentials(label: str, credentials: Any) -> tuple[Credential, ...]:
    """Return the keys as a tuple.

    Raises:
        ConfigurationError: They are something else; the message begins with `label`.
    """
    is_sequence = isinstance(credentials, list | tuple)
    checked = tuple(cast("tuple[Any, ...]", credentials)) if is_sequence else (None,)
    if not all(type(credential) is Credential for credential in checked):
        raise ConfigurationError(f"{label}: expected a tuple of kwai_middleware.Credential objects")
    return cast("tuple[Credential, ...]", checked)


def credentials_from(variable: str, text: str) -> tuple[Credential, ...]:
    """Read keys from words such as `openrouter=sk-or-1;w=3`.

    Raises:
        ConfigurationError: It is something else; the message names the variable, and holds nothing of the text.
    """
    credentials: list[Credential] = []
    for word in text.replace(",", " ").split():
        named, semicolon, weight = word.partition(";")
        provider, _, key = named.partition("=")
        try:
            if semicolon and not weight.startswith("w="):
                raise ValueError
            credentials.append(
                Credential(provider=provider, api_key=Secret(key), weight=float(weight[2:]) if semicolon else 1.0)
            )
        except ValueError:
            raise ConfigurationError(
                f"{variable}: words of the form provider=key or provider=key;w=2, with a provider such as openrouter"
                " and a weight above 0"
            ) from None
    return tuple(credentials)
