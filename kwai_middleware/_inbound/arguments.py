"""The arguments of a door, and what is wrong with them, said when the app starts."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from kwai_middleware._inbound.callables import Credentials, Identify, IdentityReader, KeyReader, LazyIdentity, Required
from kwai_middleware._inbound.first_of import late
from kwai_middleware._unsettled import KeySource
from kwai_middleware.errors import ConfigurationError

__all__ = ["Arguments", "check_age", "check_callables", "check_places", "check_required"]


class Arguments(NamedTuple):
    """What a door was made with, for whoever looks at it; each field is the argument of that name."""

    identify: Identify | None
    credentials: Credentials | None
    required: Required
    required_key: Required
    override: bool


def check_places(identities: tuple[Any, ...], keys: tuple[Any, ...], late_identity: object, late_keys: object) -> None:
    """Refuse sources of keys where identities are asked for, and the other way round."""
    if (
        any(isinstance(source, KeyReader) for source in identities)
        or any(isinstance(source, IdentityReader) for source in keys)
        or isinstance(late_identity, KeySource)
        or isinstance(late_keys, LazyIdentity)
    ):
        raise ConfigurationError("identify and credentials have changed places")


def check_callables(identify: object, credentials: object, required: object, required_key: object) -> None:
    """Refuse what cannot be called."""
    for label, source in (("identify", identify), ("credentials", credentials)):
        if source is not None and (isinstance(source, type) or (not callable(source) and late(source) is None)):
            raise ConfigurationError(f"{label}: a callable that takes the request, or None")
    for label, condition in (("required", required), ("required_key", required_key)):
        if not isinstance(condition, bool) and not callable(condition):
            raise ConfigurationError(f"{label}: True, False, or a callable that takes the request")


def check_required(required: object, required_key: object, late_identity: object, late_keys: object) -> None:
    """Refuse to require what is known only later."""
    if late_identity is not None and required is not False:
        raise ConfigurationError(
            "required: a UserIdentity learns who the user is from the framework, after this middleware has run, so"
            " nobody can be refused here. Leave it out and require the login where the framework does"
            " (Starlette's requires(), Flask-Login's and Django's login_required)"
        )
    if late_keys is not None and required_key is not False:
        raise ConfigurationError(
            "required_key: a KeyResolver looks for keys only when a call needs them, so nobody can be refused here."
            " Leave it out and set byok='only': then calls without a key are refused"
        )


def check_age(max_age: object) -> None:
    """Refuse what is no span of time."""
    if max_age is not None and (
        isinstance(max_age, bool) or not isinstance(max_age, int | float) or not 0 < max_age < math.inf
    ):
        raise ConfigurationError("max_age: seconds above 0, or None")
