"""Whose key pays for a call to the gateway: every parameter that can bring one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from kwai_middleware.sandbox.json_types import is_array, is_object, object_or_empty
from kwai_middleware.sandbox.keys import NO_KEY_MEMBER

__all__ = ["paying_credential"]

_KEY_NAMES: Final = ("api_key", "aws_secret_access_key", "vertex_ai_credentials")
_LOAD_BALANCED: Final = ("load_balance_models", "loadbalance_models")


def paying_credential(merged: Mapping[str, object], model: str | None, provider: str | None) -> tuple[str, str] | None:
    """Return the parameter that pays and its key; None when the app's own account does.

    Args:
        merged: The request's parameters.
        model: The model that is asked for.
        provider: The one that is pinned; of `customer_credentials` only its key counts then.
    """
    # No reference orders these. Taken here: what is meant for one model, then for a choice of models,
    # then for the customer as a whole. No test may depend on that; `doors` shows all that were there.
    candidates = (
        ("credential_override", _overriding(merged.get("credential_override"), model, provider)),
        ("load_balance_group", _balanced(object_or_empty(merged.get("load_balance_group")).get("models"))),
        *((name, _balanced(merged.get(name))) for name in _LOAD_BALANCED),
        ("customer_api_keys", _of_model(merged.get("customer_api_keys"), model)),
        ("customer_credentials", _of_customer(merged.get("customer_credentials"), provider)),
    )
    return next(((name, key) for name, key in candidates if key is not None), None)


def _key(credential: object) -> str | None:
    """The key of one credential: `{"api_key": ...}` and its like, or the key as such."""
    if is_object(credential):
        credential = next((credential[name] for name in _KEY_NAMES if name in credential), None)
    return credential if isinstance(credential, str) and credential else None


def _overriding(credentials: object, model: str | None, provider: str | None) -> str | None:
    """The key for the model, says the guide, or for the provider, says the reference."""
    named = object_or_empty(credentials).get(provider or "openrouter")
    return _of_model(credentials, model) or _key(named)


def _of_model(by_model: object, model: str | None) -> str | None:
    credentials = object_or_empty(by_model)
    # The empty name stands for every model.
    names = ("",) if model is None else (model, model.removeprefix("openrouter/"), "")
    return next((key for name in names if (key := _key(credentials.get(name))) is not None), None)


def _balanced(models: object) -> str | None:
    """The first key of a choice of models; the vendor picks by weight."""
    for entry in models if is_array(models) else ():
        credentials = object_or_empty(entry).get("credentials")
        key = _key(credentials) or _of_customer(credentials, None)
        if key is not None:
            return key
    return None


def _of_customer(credentials: object, provider: str | None) -> str | None:
    """The pinned provider's key, else OpenRouter's, else the first."""
    keys: dict[str, str] = {}
    for name, key in _by_provider(credentials):
        keys.setdefault(name, key)
    if provider is not None:
        return keys.get(provider)
    return keys.get("openrouter") or next(iter(keys.values()), None)


def _by_provider(credentials: object) -> Iterator[tuple[str, str]]:
    """Provider and key of each credential, in all three forms that a document or a type of the vendor shows."""
    if is_array(credentials):
        for entry in credentials:
            yield from _by_provider(object_or_empty(object_or_empty(entry).get("credentials")))
    for name, value in object_or_empty(credentials).items():
        for each in value if is_array(value) else (value,):
            key = _key(each) or _key(object_or_empty(each).get("credentials"))
            if key is not None and not NO_KEY_MEMBER.search(name):
                yield name, key
