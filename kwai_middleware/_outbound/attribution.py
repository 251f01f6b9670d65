"""Whose call it is and whose key pays, before the request has had its say: decided from caller and settings. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from kwai_middleware._caller import Byok, Caller, Capture, Credential
from kwai_middleware._outbound.doors import PARAMS, THREAD, DoorKind
from kwai_middleware._outbound.draws import drawn
from kwai_middleware._outbound.routes import Endpoint
from kwai_middleware._record import BilledTo
from kwai_middleware._settings import GatewayKeyLists, Settings
from kwai_middleware._unsettled import NO_ORIGINS, Origins
from kwai_middleware.errors import CannotAttribute, MissingCredential

__all__ = ["Attribution", "attribute", "credentials_member", "paid_by", "sends_keys", "with_one_key_each"]

_CAPTURES: Final[Sequence[Capture]] = ("full", "metadata", "none")
_FROM_SETTINGS: Final = "settings"
_encode: Final = msgspec.json.Encoder().encode


class Attribution(msgspec.Struct, frozen=True):
    """Who one call is for and who pays it.

    Attributes:
        caller: Who it is for; None for nobody.
        credential: The key that pays, of the route's own provider first; None for the one that the app
            itself sends, or has stored at the gateway.
        credentials: All keys that may be sent, of one payer; once the call is known, one for each
            provider, or lists of them.
        billed_to: Whose bill it goes on, as far as this side can know.
        capture: How much of it may be logged.
        pinned: The gateway may use the caller's key and nothing else.
        origins: Where identity and keys came from.
        of_app: The keys are the app's own, since no key of the caller's may be sent.
        key_lists: In which form several keys of one provider travel.
        closed: Doors that only the context may use.
        parameters: What the gateway is told beside the keys, unless the request may say something else.
    """

    caller: Caller | None
    credential: Credential | None
    credentials: tuple[Credential, ...]
    billed_to: BilledTo
    capture: Capture
    pinned: bool
    origins: Origins = NO_ORIGINS
    of_app: bool = False
    key_lists: GatewayKeyLists = "off"
    closed: Collection[DoorKind] = ()
    parameters: Mapping[str, bytes] = {}

    @property
    def known_credential(self) -> Credential | None:
        """The key that pays, if it is known here: of a list, the gateway takes one and does not say which."""
        credential = self.credential
        if self.key_lists == "off" or credential is None or len(_of_provider(self.credentials, credential)) == 1:
            return credential
        return None


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
    credential = _first_of(endpoint.provider, credentials)
    if endpoint.kind != "gateway":
        credentials = _of_provider(credentials, credential)
    elif credential is None and credentials:
        credential = credentials[0]
    of_app = credential is None and policy != "only" and bool(settings.credentials)
    if of_app:
        credential, credentials = _of_the_app(endpoint, settings)
        origins = origins._replace(keys=_FROM_SETTINGS)
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
    capture = settings.capture
    if caller is not None and caller.capture is not None:
        capture = _stricter(capture, caller.capture)
    return Attribution(
        caller,
        credential,
        credentials,
        _billed_to(endpoint, None if of_app else credential, pinned=pinned),
        capture,
        pinned,
        origins,
        of_app,
        settings.gateway_key_lists if endpoint.kind == "gateway" else "off",
        _closed(caller, settings, capture, pinned=pinned, has_key=bool(credentials) and not of_app),
        {} if endpoint.kind == "direct" else _parameters(caller, capture, pinned=pinned),
    )


def sends_keys(caller: Caller | None, settings: Settings) -> bool:
    """Return whether a key of this caller is ever sent; of nobody, whether one of anybody is."""
    return _policy(caller, settings) != "off"


def with_one_key_each(attribution: Attribution, draw: float) -> Attribution:
    """Choose one key of each provider, by weight; none is chosen where lists are sent.

    Args:
        attribution: With all keys that may be sent.
        draw: What the choice is drawn from: the same for each attempt at one call, so that the same key pays.
    """
    if attribution.key_lists != "off":
        return attribution
    credentials = {
        provider: drawn(several, draw) or several[0]
        for provider, several in _by_provider(attribution.credentials).items()
    }
    credential = attribution.credential
    return msgspec.structs.replace(
        attribution,
        credential=None if credential is None else credentials[credential.provider],
        credentials=tuple(credentials.values()),
    )


def paid_by(attribution: Attribution, credential: Credential) -> Attribution:
    """Return the same with this key, and no other."""
    return msgspec.structs.replace(attribution, credential=credential, credentials=(credential,))


def credentials_member(attribution: Attribution) -> bytes:
    """Return the keys as the vendor's `customer_credentials`. Holds them in clear."""
    if len(attribution.credentials) == 1:
        [only] = attribution.credentials
        return _encode({only.provider: {"api_key": only.api_key.reveal()}})
    by_provider = _by_provider(attribution.credentials)
    if attribution.key_lists == "top-level" and len(by_provider) < len(attribution.credentials):
        return _encode(
            [{"credentials": {each.provider: _object(each)}, "weight": each.weight} for each in attribution.credentials]
        )
    return _encode(
        {
            provider: _object(several[0])
            if len(several) == 1
            else [{"weight": each.weight, "credentials": _object(each)} for each in several]
            for provider, several in by_provider.items()
        }
    )


def _closed(
    caller: Caller | None, settings: Settings, capture: Capture, *, pinned: bool, has_key: bool
) -> Collection[DoorKind]:
    closed: set[DoorKind] = {"key", "payer"} if pinned else set()
    if settings.on_conflict != "body":
        closed.add("identity")
        if has_key or settings.body_credentials != "allow":
            closed.add("key")
        if caller is not None and caller.thread is not None:
            closed.add("thread")
    if capture != "full":
        closed.add("log")
    return closed


def _parameters(caller: Caller | None, capture: Capture, *, pinned: bool) -> dict[str, bytes]:
    parameters: dict[str, bytes] = {}
    if caller is not None and caller.identifier is not None:
        parameters[PARAMS] = _customer_params(caller, caller.identifier)
    if caller is not None and caller.thread is not None:
        parameters[THREAD] = msgspec.json.encode(caller.thread)
    if capture != "full":
        parameters["disable_log"] = b"true"  # the vendor then logs neither prompt nor answer
    if pinned:
        parameters["disable_fallback"] = b"true"
    return parameters


def _customer_params(caller: Caller, identifier: str) -> bytes:
    """Return the caller as the vendor's `customer_params`, which it drops without a `customer_identifier`."""
    params: dict[str, object] = {"customer_identifier": identifier}
    if caller.name is not None:
        params["name"] = caller.name
    if caller.email is not None:
        params["email"] = caller.email
    if caller.group is not None:
        params["group_identifier"] = caller.group
    if caller.metadata:
        params["metadata"] = dict(caller.metadata)
    return msgspec.json.encode(params)


def _object(credential: Credential) -> dict[str, str]:
    return {"api_key": credential.api_key.reveal()}


def _by_provider(credentials: tuple[Credential, ...]) -> dict[str, list[Credential]]:
    by_provider: dict[str, list[Credential]] = {}
    for each in credentials:
        by_provider.setdefault(each.provider, []).append(each)
    return by_provider


def _of_the_app(endpoint: Endpoint, settings: Settings) -> tuple[Credential | None, tuple[Credential, ...]]:
    """Return the app's own key for a call, and all of its keys that may be sent."""
    credentials = settings.credentials
    credential = _first_of(endpoint.provider, credentials)
    if endpoint.kind == "gateway":
        return credential or credentials[0], credentials
    return credential, _of_provider(credentials, credential)


def _policy(caller: Caller | None, settings: Settings) -> Byok:
    # A caller may tighten what the app prefers, in either direction: no other key than its own, or
    # its own never. What the app insists on, stays.
    if settings.byok == "prefer" and caller is not None and caller.byok is not None:
        return caller.byok
    return settings.byok


def _stricter(one: Capture, other: Capture) -> Capture:
    return _CAPTURES[max(_CAPTURES.index(one), _CAPTURES.index(other))]


def _billed_to(endpoint: Endpoint, credential: Credential | None, *, pinned: bool) -> BilledTo:
    if endpoint.kind != "gateway" or pinned:
        return "app" if credential is None else "caller"
    return "unknown"  # the gateway may fall back to another key, and does not say so


def _first_of(provider: str, credentials: tuple[Credential, ...]) -> Credential | None:
    for each in credentials:
        if each.provider == provider:
            return each
    return None


def _of_provider(credentials: tuple[Credential, ...], credential: Credential | None) -> tuple[Credential, ...]:
    """Return those of the same provider as `credential`, which is one of them; none for None."""
    if credential is None or len(credentials) == 1:
        return () if credential is None else credentials
    return tuple([each for each in credentials if each.provider == credential.provider])
