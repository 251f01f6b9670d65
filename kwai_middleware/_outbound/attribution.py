"""Whose call it is and whose key pays: decided here, from the caller, the settings and the body. Pure."""

from __future__ import annotations

import random
from collections.abc import Container, Sequence
from typing import Final

import msgspec

from kwai_middleware._caller import Byok, Caller, Capture, Credential
from kwai_middleware._outbound.json_members import Members, read_object
from kwai_middleware._outbound.routes import Endpoint
from kwai_middleware._record import BilledTo
from kwai_middleware._settings import Settings
from kwai_middleware.errors import CannotAttribute, MissingCredential

__all__ = [
    "Attribution",
    "BodyChanges",
    "attribute",
    "credentials_member",
    "gateway_changes",
    "pinned_provider",
    "refuse_parameter_headers",
]

CREDENTIALS: Final = "customer_credentials"
PARAMS: Final = "customer_params"

_IDENTITY: Final = ("customer_identifier", "name", "email", "group_identifier", "metadata")
"""Members of `customer_params` that say who the customer is; the others set limits and stay."""

_OTHER_PAYERS: Final = (
    "fallback_models", "load_balance_group", "load_balance_models", "loadbalance_models", "models",
    "credential_override", "customer_api_keys", "respan_params", "keywordsai_params",
)  # fmt: skip
"""Members with which a gateway call could end on another bill than the caller's."""

_PARAMETER_HEADERS: Final = ("x-data-respan-params", "x-data-keywordsai-params")

_CAPTURES: Final[Sequence[Capture]] = ("full", "metadata", "none")


class Attribution(msgspec.Struct, frozen=True):
    """Who one call is for and who pays it.

    Attributes:
        caller: Who it is for; None for nobody.
        credential: The caller's key that pays, of the route's own provider first; None when the
            app's own key pays.
        credentials: All of the caller's keys that are sent, one for each provider.
        billed_to: Whose bill it goes on, as far as this side can know.
        capture: How much of it may be logged.
        pinned: The gateway may use the caller's key and nothing else.
    """

    caller: Caller | None
    credential: Credential | None
    credentials: tuple[Credential, ...]
    billed_to: BilledTo
    capture: Capture
    pinned: bool


class BodyChanges(msgspec.Struct, frozen=True):
    """What must become of a request's body. Holds no key: that is put in where the wire copy is made.

    Attributes:
        body: The app's bytes, or the same text as UTF-8.
        members: The body's own members.
        changes: For each name the JSON of its new value, or None to take the member out.
        sends_key: The caller's keys go in as well.
    """

    body: bytes
    members: Members
    changes: dict[str, bytes | None]
    sends_key: bool


def attribute(endpoint: Endpoint, caller: Caller | None, settings: Settings) -> Attribution:
    """Decide whose key pays for a call to `endpoint`.

    Raises:
        MissingCredential: Only the caller's key may pay, and there is none for this destination.
    """
    policy = _policy(caller, settings)
    credentials = () if caller is None or policy == "off" else _one_of_each(caller.credentials)
    credential = next((each for each in credentials if each.provider == endpoint.provider), None)
    if endpoint.kind == "gateway":
        credential = credential or next(iter(credentials), None)
    if policy == "only" and credential is None:
        raise MissingCredential(
            f"no key of the caller for {endpoint.host}, and byok='only' lets no other key pay;"
            " send the caller's key with the request, or set byok='prefer'"
        )
    pinned = policy == "only" and endpoint.kind == "gateway"
    if pinned and credential is not None:
        credentials = (credential,)
    return Attribution(
        caller=caller,
        credential=credential,
        credentials=credentials,
        billed_to=_billed_to(endpoint, credential, pinned=pinned),
        capture=_capture(caller, settings),
        pinned=pinned,
    )


def gateway_changes(attribution: Attribution, settings: Settings, body: bytes | None) -> BodyChanges | None:
    """Return what must become of a gateway request's body; None when it cannot be read and need not be.

    Args:
        attribution: Who the call is for and who pays.
        settings: Who wins when the body has a mind of its own.
        body: The app's bytes; None when the body is a stream.

    Raises:
        CannotAttribute: The body cannot carry the caller's key, or it names another payer or
            customer where that is an error.
    """
    read = None if body is None else read_object(body)
    if read is None:
        if attribution.credential is not None:
            raise CannotAttribute(
                "the request's body is not one JSON object held in memory, so it cannot carry the caller's key and"
                " would go out on the app's bill; send it as json= or as bytes"
            )
        return None
    body, members = read
    params = _params_json(attribution.caller, members.get(PARAMS))
    changes: dict[str, bytes | None] = {}
    brings_key = bool(attribution.credentials)
    sends_key = _context_decides(members, settings, CREDENTIALS, has_one=brings_key) or attribution.pinned
    if sends_key and not brings_key:
        changes[CREDENTIALS] = None
    if _context_decides(members, settings, PARAMS, has_one=params is not None):
        changes[PARAMS] = params
    if attribution.pinned:
        _pin(changes, members)
    return BodyChanges(body, members, changes, sends_key=sends_key and brings_key)


def credentials_member(attribution: Attribution) -> bytes:
    """Return the caller's keys as the vendor's `customer_credentials`. Holds them in clear."""
    return msgspec.json.encode({each.provider: {"api_key": each.api_key.reveal()} for each in attribution.credentials})


def refuse_parameter_headers(attribution: Attribution, headers: Container[str]) -> None:
    """Refuse headers with parameters for the gateway where only the caller may pay: keys may stand in them.

    Raises:
        CannotAttribute: There is one.
    """
    for name in _PARAMETER_HEADERS:
        if attribution.pinned and name in headers:
            raise CannotAttribute(
                f"the request has the header {name}, in which another key than the caller's may stand, and byok='only'"
                " refuses that; leave it out"
            )


def pinned_provider(attribution: Attribution) -> str | None:
    """Return the provider that the gateway is pinned to, for `X-Respan-Route-Provider`."""
    if attribution.pinned and attribution.credential is not None:
        return attribution.credential.provider
    return None


def _context_decides(members: Members, settings: Settings, name: str, *, has_one: bool) -> bool:
    """Say whether the member `name` becomes what the context says, even if that is nothing."""
    if name not in members:
        return has_one
    if name == CREDENTIALS and not has_one and settings.body_credentials == "allow":
        return False
    if settings.on_conflict == "error":
        raise CannotAttribute(
            f"the request's body brings {name} of its own, and on_conflict='error' refuses that;"
            " leave it out: the bound caller decides"
        )
    return settings.on_conflict == "context"


def _pin(changes: dict[str, bytes | None], members: Members) -> None:
    for name in _OTHER_PAYERS:
        if name in members:
            raise CannotAttribute(
                f"the request's body has {name}, so that another key than the caller's could pay, and byok='only'"
                " refuses that; leave it out"
            )
    changes["disable_fallback"] = b"true"


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
    if endpoint.kind == "direct" or pinned:
        return "app" if credential is None else "caller"
    return "unknown"  # the gateway may fall back to another key, and does not say so


def _one_of_each(credentials: tuple[Credential, ...]) -> tuple[Credential, ...]:
    """One key of each provider, chosen by weight."""
    if len(credentials) < 2:
        return credentials
    by_provider: dict[str, list[Credential]] = {}
    for credential in credentials:
        by_provider.setdefault(credential.provider, []).append(credential)
    return tuple(
        # Spreading load is no secret: the quick generator will do.
        random.choices(several, [each.weight for each in several])[0]  # noqa: S311
        for several in by_provider.values()
    )


def _params_json(caller: Caller | None, brought: msgspec.Raw | None) -> bytes | None:
    """The caller as the vendor's `customer_params`, with the limits that the body brings for it.

    The vendor drops `customer_params` without `customer_identifier`.
    """
    if caller is None or caller.identifier is None:
        return None
    params: dict[str, object] = {"customer_identifier": caller.identifier}
    if caller.name is not None:
        params["name"] = caller.name
    if caller.email is not None:
        params["email"] = caller.email
    if caller.group is not None:
        params["group_identifier"] = caller.group
    if caller.metadata:
        params["metadata"] = dict(caller.metadata)
    if brought is not None:
        read = read_object(bytes(brought))
        limits = {} if read is None else read[1]
        params.update((name, value) for name, value in limits.items() if name not in _IDENTITY)
    return msgspec.json.encode(params)
