"""The common request: one look shows that nothing is out of the ordinary in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from operator import length_hint
from typing import Any, Final, Generic, NamedTuple, TypeVar

import msgspec

from kwai_middleware._caller import TEXT_LIMITS, Caller, Credential, credential_maker, new_caller, set_checked
from kwai_middleware._inbound.peers import ADDRESS_HEADERS, TrustedPeers
from kwai_middleware._inbound.trace_ids import RequestSlot
from kwai_middleware._inbound.values import MAX_HEADER, PLAIN
from kwai_middleware._secret import Secret, secret_of
from kwai_middleware._slot import Slot
from kwai_middleware._unsettled import NO_ORIGINS, Origins

__all__ = ["PlainFields", "PlainRequests", "PlainRules"]

Name = TypeVar("Name", bytes, str)

_NO_PEERS: Final = TrustedPeers(())


class PlainFields(NamedTuple):
    """Headers that name a caller.

    Attributes:
        of: The field of a caller that each holds.
        peers: Whom they are believed from.
    """

    of: Mapping[str, str]
    peers: TrustedPeers


class _Use(msgspec.Struct, frozen=True):
    """What becomes of the value of one header; of one that is neither of these, it is the proof of a proxy.

    Attributes:
        name: Of the header, in lower case.
        at_most: Bytes.
        field: The field of a caller that it is.
        new_credential: Makes a credential that is complete but for the key that it is.
        is_address: It is one of the `ADDRESS_HEADERS`.
    """

    name: str
    at_most: int = MAX_HEADER
    field: str | None = None
    new_credential: Callable[[], Credential] | None = None
    is_address: bool = False


class PlainRules(NamedTuple):
    """What a middleware makes of a plain request.

    Attributes:
        fields: The headers that name a caller; None when something else has a say in who it is.
        keys: What a credential is like whose key comes in each of these headers, which are taken out of the request.
        origins: Where the answer comes from: with an identity only, with a key only, with both.
        required: Whether a request without an identifier is none.
        required_key: The same for one without a key.
    """

    fields: PlainFields | None
    keys: Mapping[str, Credential]
    origins: tuple[Origins, Origins, Origins]
    required: bool
    required_key: bool

    def use_of(self, name: str) -> _Use | None:
        """Return what becomes of a header's value; None when it takes a closer look."""
        if self.fields is not None and name in self.fields.of:
            field = self.fields.of[name]
            return _Use(name, min(TEXT_LIMITS[field], MAX_HEADER), field=field)
        if name in self.keys:
            return _Use(name, new_credential=credential_maker(self.keys[name]))
        if self.fields is not None and self.fields.peers.proof is not None and name == self.fields.peers.proof[0]:
            return _Use(name)
        return _Use(name, is_address=True) if name in ADDRESS_HEADERS else None


class PlainRequests(Generic[Name]):
    """Makes the slots of requests that are as most are.

    Each of our headers was sent once and is plain text within its bounds, and who names a caller is trusted. Such a
    request is taken as the `Resolver` would take it, in half the time; of any other one this says nothing, and the
    `Resolver` looks closer.

    Args:
        rules: What is made of them.
        names: The headers that are looked for, in lower case, by the names that the door has for them.
        others: Names that are none of these.
        is_other: Tells that of any other name; it may add to `others`.
        peer_in: Returns the other end of the connection, as an `InboundRequest` names it.

    Attributes:
        lets_nobody_in: Whether a request with none of the headers looked for is nobody's, and may pass.
    """

    __slots__ = (
        "_is_other",
        "_others",
        "_peer_in",
        "_peers",
        "_rules",
        "_uses",
        "_with_both",
        "_with_identity",
        "_with_key",
        "lets_nobody_in",
    )

    def __init__(
        self,
        rules: PlainRules,
        names: Mapping[Name, str],
        others: Set[Name],
        is_other: Callable[[Name], bool],
        peer_in: Callable[[Any], tuple[str, int | None] | None],
    ) -> None:
        self._rules: Final = rules
        self._peers: Final = _NO_PEERS if rules.fields is None else rules.fields.peers
        self._with_identity, self._with_key, self._with_both = rules.origins
        self.lets_nobody_in: Final = not (rules.required or rules.required_key)
        uses = {raw: rules.use_of(name) for raw, name in names.items()}
        self._uses: Final[dict[Name, _Use]] = {raw: use for raw, use in uses.items() if use is not None}
        self._others: Final[Set[Name]] = others
        self._is_other: Final[Callable[[Name], bool]] = is_other
        self._peer_in: Final = peer_in

    def slot(
        self,
        request: Any,
        headers: list[tuple[Name, bytes]],
        traced: Iterable[Sequence[bytes | str]],
        takes_out: bool,
    ) -> Slot | None:
        """Return the slot of a request; None says nothing about it.

        Args:
            request: What the door was given.
            headers: All headers, or those looked for.
            traced: All of them, or those that may bring a trace id.
            takes_out: Whether the secret ones are taken out of the list; otherwise the door has to see to that.
        """
        caller: Caller | None = None
        credentials: tuple[Credential, ...] = ()
        withheld: dict[str, Secret] | None = None
        proof: Secret | None = None
        addresses: tuple[bytes, ...] = ()
        after: tuple[int, ...] = ()  # how many headers come after each secret one
        others = self._others
        left = iter(headers)  # tells how many are left, while `enumerate` takes each request 0.1 µs
        for raw, value in left:
            if raw not in others:
                use = self._uses.get(raw)
                if use is None:
                    if self._is_other(raw):
                        continue
                    return None
                if use.is_address:
                    addresses += (value,)
                    continue
                if not value or len(value) > use.at_most or value.translate(PLAIN) != value:
                    return None
                text = value.decode()
                if use.field is not None:
                    if caller is None:
                        caller = new_caller()
                    elif getattr(caller, use.field) is not None:
                        return None  # sent twice
                    set_checked(caller, use.field, text)
                    continue
                secret = secret_of(text)
                new_credential = use.new_credential
                if new_credential is not None:
                    if credentials:
                        return None  # of several keys the order counts
                    credential = new_credential()
                    set_checked(credential, "api_key", secret)
                    credentials = (credential,)
                elif proof is None:
                    proof = secret
                else:
                    return None
                if withheld is None:
                    withheld = {use.name: secret}
                else:
                    withheld[use.name] = secret
                if takes_out:
                    after += (length_hint(left),)
        if caller is None and withheld is None:
            return RequestSlot(None, _headers=traced) if self.lets_nobody_in else None
        if caller is not None:
            peer_in = self._peer_in
            if not self._peers.believe(peer_in(request), addresses, proof):
                return None
        if not self.lets_nobody_in and not self._is_enough(caller, credentials):
            return None
        if not credentials:
            brought = NO_ORIGINS if caller is None else self._with_identity
        else:
            if caller is None:
                caller = new_caller()
                brought = self._with_key
            else:
                brought = self._with_both
            set_checked(caller, "credentials", credentials)
        for number in after:
            del headers[-1 - number]
        return RequestSlot(caller, withheld, brought=brought, _headers=traced)

    def _is_enough(self, caller: Caller | None, credentials: tuple[Credential, ...]) -> bool:
        if self._rules.required and (caller is None or caller.identifier is None):
            return False
        return bool(credentials) or not self._rules.required_key
