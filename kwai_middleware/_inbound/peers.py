"""Whether a request comes from a proxy that may say who the caller is."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Final

from kwai_middleware._inbound.request import InboundRequest
from kwai_middleware._secret import Secret
from kwai_middleware.errors import ConfigurationError, InvalidHeader

__all__ = ["ADDRESS_HEADERS", "Doubt", "TrustedPeers"]

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_ANYONE: Final = "*"
_UNIX: Final = "unix"
_TEST_CLIENT: Final = "testclient"

ADDRESS_HEADERS: Final = frozenset(
    {"forwarded", "x-forwarded-for", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip"}
)
"""Where servers and middleware read a client's address from when they put it in the peer's place."""

# What stands around the addresses in them. Colons do not: they are part of an address or before a port.
_BETWEEN_ADDRESSES: Final = re.compile(r'[\s,;="\[\]]+')

_LONGEST_ADDRESS: Final = 64
_MOST_WORDS: Final = 100
"""In all of these headers; to compare one takes up to 0.02 ms, and a server may let through thousands."""


class Doubt(Enum):
    """Why a request is not believed to come from the proxy, and what to do about it."""

    STRANGER = (
        "it comes from an address that is not one of trusted_peers. If that is your proxy's, add it, or let the proxy"
        " send a secret: HeaderIdentity(proxy_secret=...)"
    )
    NO_ADDRESS = (
        "the server names no address for it, as for a unix socket. If only your proxy can reach the socket, write"
        " HeaderIdentity(trusted_peers=('unix',))"
    )
    NO_SOCKET = (
        "the server names no address for it, but does not show that it came over a unix socket either, as when a client"
        " hangs up at once. If your server never shows that, let the proxy send a secret:"
        " HeaderIdentity(proxy_secret=...)"
    )
    REWRITTEN = (
        "the server has taken its address from a header (the port is 0), which proves nothing. Start the server without"
        " proxy headers (uvicorn --no-proxy-headers), or let the proxy send a secret: HeaderIdentity(proxy_secret=...)"
    )
    QUOTED = (
        "one of its headers (X-Forwarded-For, say) names the address that it comes from, or too many to tell, so the"
        " server may have taken it from there, which proves nothing. Let the proxy send a secret:"
        " HeaderIdentity(proxy_secret=...)"
    )
    UNPROVEN = (
        "the proxy's secret is missing, wrong, or was sent twice. Let the proxy set the header that HeaderIdentity"
        " names as proxy_header to the value of proxy_secret, replacing what the client sent"
    )


class TrustedPeers:
    """The proxies that a request with identity headers may come from.

    Args:
        entries: Addresses, networks such as `10.0.0.0/8`, and the words `unix`, `testclient`, `*`.
        proof: A header, in lower case, and the secret in it that proves a proxy wherever that is; None without one.

    Attributes:
        entries: The same.
        proof: The same.

    Raises:
        ConfigurationError: One of them is none of these.
    """

    def __init__(self, entries: Iterable[str], proof: tuple[str, Secret] | None = None) -> None:
        if isinstance(entries, str):
            raise ConfigurationError(f"trusted_peers: a tuple of addresses; write ({entries!r},)")
        self.proof: Final = proof
        words = set(entries)
        self.entries: Final = frozenset(words)
        self._anyone: Final = _ANYONE in words
        self._unix: Final = _UNIX in words
        self._test_client: Final = _TEST_CLIENT in words
        self._networks: Final = tuple(_network(entry) for entry in words - {_ANYONE, _UNIX, _TEST_CLIENT})
        self._addresses: Final = {str(network[0]) for network in self._networks if network.num_addresses == 1}
        # Looked up for other addresses; what it costs to parse one is not paid twice.
        self._lists: Final = functools.lru_cache(maxsize=1024)(self._is_listed)

    def doubt(self, request: InboundRequest) -> Doubt | None:
        """Return why the request's peer is not believed, or None when it is.

        Args:
            request: One of which the `ADDRESS_HEADERS` have been looked for.
        """
        presented: Secret | None = None
        if self.proof is not None:
            # A proxy that cannot prove itself is a stranger, whose headers are no error.
            with contextlib.suppress(InvalidHeader):
                presented = request.secret(self.proof[0])
        peer, sent = request.peer, request.sent
        values = ((header, sent[header]) for header in ADDRESS_HEADERS.intersection(sent))
        quoting = [b",".join(request.values(header)) if value is None else value for header, value in values]
        if self.believe(peer, quoting, presented):
            return None
        if peer is None and self._unix and request.is_on_unix_socket:
            return None
        if self.proof is not None:
            return Doubt.UNPROVEN
        if peer is None:
            return Doubt.NO_ADDRESS if request.is_on_unix_socket else Doubt.NO_SOCKET
        if peer[1] == 0:
            return Doubt.REWRITTEN
        return Doubt.QUOTED if self.believe(peer, (), None) else Doubt.STRANGER

    def believe(self, peer: tuple[str, int | None] | None, quoting: Sequence[bytes], presented: Secret | None) -> bool:
        """Return whether a proxy has proved itself, or its address does, and nothing speaks against that.

        Args:
            peer: The other end of the connection, as an `InboundRequest` names it.
            quoting: The values of the `ADDRESS_HEADERS` that were sent.
            presented: What came as its proof.
        """
        if self._anyone or (self.proof is not None and presented == self.proof[1]):
            return True
        if peer is None or not peer[0] or peer[1] == 0:
            return False
        if peer[0] not in self._addresses and (len(peer[0]) > _LONGEST_ADDRESS or not self._lists(peer[0])):
            return False
        # A server can also take the port from a header (uvicorn from "address:port" in X-Forwarded-For,
        # daphne from X-Forwarded-Port). Then the header still shows the address.
        return not quoting or not _is_quoted(peer[0], b",".join(quoting).decode("latin-1"))

    def _is_listed(self, text: str) -> bool:
        if text == _TEST_CLIENT:
            return self._test_client
        address = _address(text)
        return address is not None and any(address in network for network in self._networks)


def _is_quoted(peer: str, text: str) -> bool:
    if peer not in text and ":" not in peer and text.count(":") < 2:
        return False  # nearly always; what follows parses addresses
    words = _BETWEEN_ADDRESSES.split(text, maxsplit=_MOST_WORDS)
    return len(words) > _MOST_WORDS or any(_is_same(peer, word) for word in words)


def _is_same(peer: str, word: str) -> bool:
    host = word.rpartition(":")[0]
    if peer in (word, host):
        return True
    if ":" not in peer and word.count(":") < 2:
        return False  # neither is IPv6, which has many ways to write one address
    address = _address(peer)
    return address is not None and address in (_address(word), _address(host))


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Parse an address; an IPv4 address written as IPv6 is the same address."""
    if "%" in text:
        # A socket's own address comes without a zone, in which a header may write anything: `::1%a=b` is in `::1/128`.
        return None
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _network(entry: object) -> _Network:
    try:
        if not isinstance(entry, str):
            raise ValueError(entry)
        network = ipaddress.ip_network(entry)
    except ValueError:
        raise ConfigurationError(
            f"trusted_peers: {entry!r} is neither an address ('127.0.0.1', '::1') nor a network ('10.0.0.0/8'), nor"
            " one of 'unix', 'testclient', '*'. Names such as 'localhost' are not looked up; write the address."
        ) from None
    if isinstance(network, ipaddress.IPv6Network) and network.network_address.ipv4_mapped and network.prefixlen >= 96:
        return ipaddress.ip_network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    return network
