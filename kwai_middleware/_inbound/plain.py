"""The common request: one look shows that nothing is out of the ordinary in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from kwai_middleware._caller import TEXT_LIMITS, Caller, Credential, checked_credential, new_caller, set_checked
from kwai_middleware._inbound.peers import ADDRESS_HEADERS, TrustedPeers
from kwai_middleware._inbound.trace_ids import RequestSlot
from kwai_middleware._inbound.values import plain_text
from kwai_middleware._secret import Secret, secret_of
from kwai_middleware._slot import Slot
from kwai_middleware._unsettled import NO_ORIGINS, Origins

__all__ = ["PlainFields", "PlainRequests"]


class PlainFields(NamedTuple):
    """Headers that name a caller.

    Attributes:
        of: The field of a caller that each holds.
        peers: Whom they are believed from.
    """

    of: Mapping[str, str]
    peers: TrustedPeers


class PlainRequests:
    """Makes the slots of requests that are as most are.

    Each of our headers was sent once and is plain text within its bounds, and who names a caller is trusted. Such a
    request is taken as the `Resolver` would take it, in half the time; of any other one this says nothing, and the
    `Resolver` looks closer.

    Args:
        fields: The headers that name a caller; None when something else has a say in who it is.
        keys: What a credential is like whose key comes in each of these headers, which are taken out of the request.
        origins: Where the answer comes from: with an identity only, with a key only, with both.
        required: Whether a request without an identifier is none of these.
        required_key: The same for one without a key.

    Attributes:
        lets_nobody_in: Whether a request with none of the headers looked for is nobody's, and may pass.
    """

    __slots__ = (
        "_fields",
        "_keys",
        "_peers",
        "_proof_header",
        "_required",
        "_required_key",
        "_with_both",
        "_with_identity",
        "_with_key",
        "lets_nobody_in",
    )

    def __init__(
        self,
        fields: PlainFields | None,
        keys: Mapping[str, Credential],
        origins: tuple[Origins, Origins, Origins],
        *,
        required: bool,
        required_key: bool,
    ) -> None:
        self._fields: Final[Mapping[str, str]] = {} if fields is None else fields.of
        self._peers: Final = None if fields is None else fields.peers
        proof = None if fields is None else fields.peers.proof
        self._proof_header: Final = None if proof is None else proof[0]
        self._keys: Final = keys
        self._with_identity, self._with_key, self._with_both = origins
        self.lets_nobody_in: Final = not (required or required_key)
        self._required: Final = required
        self._required_key: Final = required_key

    def slot(
        self,
        ours: Sequence[tuple[str, bytes]],
        peer: tuple[str, int | None] | None,
        headers: Iterable[Sequence[bytes | str]],
    ) -> Slot | None:
        """Return the slot of a request; None says nothing about it.

        Args:
            ours: The headers looked for that were sent, by their names in lower case.
            peer: The other end of the connection, as an `InboundRequest` names it.
            headers: All of them, or those that may bring a trace id.
        """
        caller: Caller | None = None
        withheld: dict[str, Secret] = {}
        credentials: tuple[Credential, ...] = ()
        proof: Secret | None = None
        addresses: list[bytes] = []
        for name, value in ours:
            field = self._fields.get(name)
            if field is not None:
                text = plain_text(value)
                if not text or len(text) > TEXT_LIMITS[field]:
                    return None
                if caller is None:
                    caller = new_caller()
                elif getattr(caller, field) is not None:
                    return None  # sent twice
                set_checked(caller, field, text)
            elif name in self._keys:
                text = plain_text(value)
                if not text or credentials:
                    return None  # of several keys the order counts
                withheld[name] = key = secret_of(text)
                credentials = (checked_credential(self._keys[name], key),)
            elif name == self._proof_header:
                text = plain_text(value)
                if not text or proof is not None:
                    return None
                withheld[name] = proof = secret_of(text)
            elif name in ADDRESS_HEADERS:
                addresses.append(value)
            else:
                return None
        if caller is not None and (self._peers is None or not self._peers.believe(peer, addresses, proof)):
            return None
        if (self._required and (caller is None or caller.identifier is None)) or (
            self._required_key and not credentials
        ):
            return None
        brought = NO_ORIGINS if caller is None else self._with_identity
        if credentials:
            brought = self._with_key if caller is None else self._with_both
            caller = caller or new_caller()
            set_checked(caller, "credentials", credentials)
        return RequestSlot(caller, withheld or None, brought=brought, _headers=headers)
