"""Whose call it is and whose key pays, before the request has had its say: decided from caller and settings. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from kwai_middleware._caller import Byok, Caller, Capture, Credential
from kwai_middleware._outbound.routes import Endpoint
from kwai_middleware._record import BilledTo
from kwai_middleware._settings import Settings
from kwai_middleware._unsettled import NO_ORIGINS, Origins
from kwai_middleware.errors import CannotAttribute, MissingCredential

__all__ = ["Attribution", "attribute", "credentials_member", "sends_keys", "with_one_key_each"]

_CAPTURES: Final[Sequence[Capture]] = ("full", "metadata", "none")
_DIGITS: Final = 13
"""Hexadecimal digits that a float holds exactly."""


class Attribution(msgspec.Struct, frozen=True):
    """Who one call is for and who pays it.

    Attributes:
        caller: Who it is for; None for nobody.
        credential: The caller's key that pays, of the route's own provider first; None when the
            app's own key pays.
        credentials: All of the caller's keys that may be sent; once the call is known, one for each
            provider.
        billed_to: Whose bill it goes on, as far as this side can know.
        capture: How much of it may be logged.
        pinned: The gateway may use the caller's key and nothing else.
        origins: Where identity and keys came from.
    """

    caller: Caller | None
    credential: Credential | None
    credentials: tuple[Credential, ...]
    billed_to: BilledTo
    capture: Capture
    pinned: bool
    origins: Origins = NO_ORIGINS


def attribute(
    endpoint: Endpoint, caller: Caller | None, settings: Settings, origins: Origins = NO_ORIGINS
) -> Attribution:
    """Decide whose key pays for a call to `endpoint`.

    Args:
        endpoint: Where it goes.
        caller: Who it is for, with all keys that are known.
        settings: What the app prefers.
        origins: Where identity and keys came from.

    Raises:
        MissingCredential: Only the caller's key may pay, and there is none for this destination.
        CannotAttribute: Only the caller's key may pay, and this endpoint takes none.
    """
    policy = _policy(caller, settings)
    credentials = () if caller is None or policy == "off" else caller.credentials
    credential = next((each for each in credentials if each.provider == endpoint.provider), None)
    if endpoint.kind == "gateway":
        credential = credential or next(iter(credentials), None)
    else:
        credentials = _of_provider(credentials, credential)
    if policy == "only" and credential is None:
        raise MissingCredential(
            f"no key of the caller for {endpoint.host}, and byok='only' lets no other key pay;"
            " send the caller's key with the request, or set byok='prefer'"
        )
    pinned = policy == "only" and endpoint.kind == "gateway"
    if pinned and endpoint.place == "metadata":
        raise CannotAttribute(
            f"the vendor documents no way by which only the caller's key pays at {endpoint.path}, and byok='only'"
            " lets no other key pay; call its chat completions, or the provider itself"
        )
    if pinned:
        credentials = _of_provider(credentials, credential)
    return Attribution(
        caller=caller,
        credential=credential,
        credentials=credentials,
        billed_to=_billed_to(endpoint, credential, pinned=pinned),
        capture=_capture(caller, settings),
        pinned=pinned,
        origins=origins,
    )


def sends_keys(caller: Caller | None, settings: Settings) -> bool:
    """Return whether a key of this caller is ever sent; of nobody, whether one of anybody is."""
    return _policy(caller, settings) != "off"


def with_one_key_each(attribution: Attribution, call_id: str) -> Attribution:
    """Choose one key of each provider, by weight.

    Args:
        attribution: With all keys that may be sent.
        call_id: What the choice is drawn from, so that each attempt at one call is paid by the same key.
    """
    if len(attribution.credentials) < 2:
        return attribution
    draw = int(call_id[:_DIGITS], 16) / 16**_DIGITS
    by_provider: dict[str, list[Credential]] = {}
    for each in attribution.credentials:
        by_provider.setdefault(each.provider, []).append(each)
    credentials = {provider: _drawn(several, draw) for provider, several in by_provider.items()}
    credential = attribution.credential
    return msgspec.structs.replace(
        attribution,
        credential=None if credential is None else credentials[credential.provider],
        credentials=tuple(credentials.values()),
    )


def credentials_member(attribution: Attribution) -> bytes:
    """Return the caller's keys as the vendor's `customer_credentials`. Holds them in clear."""
    return msgspec.json.encode({each.provider: {"api_key": each.api_key.reveal()} for each in attribution.credentials})


def _policy(caller: Caller | None, settings: Settings) -> Byok:
    # A caller may tighten what the app prefers, in either direction: no other key than its own, or
    # its own never. What the app insists on, stays.
    if settings.byok == "prefer" and caller is not None and caller.byok is not None:
        return caller.byok
    return settings.byok


def _capture(caller: Caller | None, settings: Settings) -> Capture:
    if caller is None or caller.capture is None:
        return settings.capture
    return _CAPTURES[max(_CAPTURES.index(settings.capture), _CAPTURES.index(caller.capture))]


def _billed_to(endpoint: Endpoint, credential: Credential | None, *, pinned: bool) -> BilledTo:
    if endpoint.kind != "gateway" or pinned:
        return "app" if credential is None else "caller"
    return "unknown"  # the gateway may fall back to another key, and does not say so


def _of_provider(credentials: tuple[Credential, ...], credential: Credential | None) -> tuple[Credential, ...]:
    return tuple(each for each in credentials if credential is not None and each.provider == credential.provider)


def _drawn(several: list[Credential], draw: float) -> Credential:
    left = draw * sum(each.weight for each in several)
    for each in several[:-1]:
        left -= each.weight
        if left < 0:
            return each
    return several[-1]
