"""Who is believed to say who a caller is, and what becomes of the keys that a request brings."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any, Final

from kwai_middleware._cli.doctor_examined import PROVEN, Door, Examined
from kwai_middleware._cli.doctor_findings import Finding
from kwai_middleware._inbound.callables import KeyReader
from kwai_middleware.identity import HeaderIdentity
from kwai_middleware.key_resolver import KeyResolver

__all__ = ["check_trust"]

_SHORTEST_SECRET: Final = 16
_LARGE: Final = 256
_DOCKER: Final = ipaddress.IPv4Network("172.16.0.0/12")
_TO_MAKE_ONE: Final = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'
_ABSENT: Final = object()


def check_trust(examined: Examined) -> Iterator[Finding]:
    """Look at the sources of each middleware."""
    for door in examined.doors():
        where = examined.line_of(door.layer.name)
        for source in door.identities:
            if isinstance(source, HeaderIdentity):
                yield from _header_identity(source, examined.line_of("HeaderIdentity", door.layer.name))
            yield from _token_identity(source, examined.line_of(type(source).__name__, door.layer.name))
        yield from _nobody(door, where)
        yield from _keys(examined, door)


def _header_identity(source: HeaderIdentity, where: str) -> Iterator[Finding]:
    change = f"identify={PROVEN}"
    secret, peers = source.proxy_secret, source.trusted_peers
    networks = [ipaddress.ip_network(each) for each in sorted(peers - {"*", "unix", "testclient"})]
    if "*" in peers or any(network.prefixlen == 0 for network in networks):
        what = "HeaderIdentity believes everyone: whoever reaches the server says who they are, and is taken for it"
        yield Finding("trust", "error", "trusts-anyone", what, where, change)
    elif docker := [network for network in networks if _may_be_docker(network)]:
        what = (
            f"trusted_peers has {docker[0]}, which Docker's bridges use: behind a published port everybody's connection"
            " comes from the bridge's gateway, and would be believed"
        )
        yield Finding("trust", "warning", "trusts-docker", what, where, change)
    elif large := [network for network in networks if network.num_addresses > _LARGE]:
        what = f"trusted_peers has {large[0]}: anything in that network may say who a caller is"
        yield Finding("trust", "note", "trusts-network", what, where, change)
    elif secret is None:
        shown = ", ".join(sorted(peers - {"testclient"}))
        yield Finding("trust", "ok", "trusts-peers", f"HeaderIdentity believes connections from {shown}", where)
    elif peers:
        what = "HeaderIdentity believes the proxy's secret, and without it those of trusted_peers: either is enough"
        yield Finding("trust", "note", "trusts-either", what, where, change)
    else:
        yield Finding("trust", "ok", "trusts-secret", "HeaderIdentity believes the proxy's secret only", where)
    if secret is not None and len(secret.reveal()) < _SHORTEST_SECRET:
        what = f"proxy_secret has fewer than {_SHORTEST_SECRET} characters: it can be guessed"
        yield Finding(
            "trust", "warning", "short-secret", what, where, f"{_TO_MAKE_ONE}, for the proxy and PROXY_SECRET"
        )


def _may_be_docker(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> bool:
    """Whether it is a network of Docker's usual range, or the gateway of one."""
    if not isinstance(network, ipaddress.IPv4Network) or not network.subnet_of(_DOCKER):
        return False
    return network.num_addresses > 1 or network.network_address.packed[2:] == b"\x00\x01"


def _token_identity(source: Any, where: str) -> Iterator[Finding]:
    """Look for what tells tokens apart that the same keys have signed."""
    kind = type(source).__name__
    for attribute, claim, harm in (
        ("issuer", "iss", "a token of any issuer whose keys these are is believed"),
        ("audience", "aud", "a token that was meant for another service is believed"),
    ):
        if getattr(source, attribute, _ABSENT) is None:
            what = f"{kind} does not look at the claim {claim!r}: {harm}"
            yield Finding("trust", "warning", f"any-{attribute}", what, where, f'{kind}(..., {attribute}="...")')


def _nobody(door: Door, where: str) -> Iterator[Finding]:
    if door.by_header and door.arguments.required is False:
        what = "a request without a believed identity is served as nobody's, on the app's own key unless it brings one"
        change = f"{door.layer.name}, ..., required=True"
        yield Finding("trust", "note", "nobody-served", what, where, change)


def _keys(examined: Examined, door: Door) -> Iterator[Finding]:
    for source in door.keys:
        where = examined.line_of(type(source).__name__, door.layer.name)
        kept = sorted(source.header_names - source.secret_headers) if isinstance(source, KeyReader) else []
        if kept:
            what = f"the key in {' and '.join(kept)} stays in the request: logs, error reports and the app see it"
            yield Finding(
                "keys", "warning", "key-not-stripped", what, where, "HeaderCredentials(...) without strip=False"
            )
        byok = None if examined.settings is None else examined.settings.byok
        if isinstance(source, KeyResolver) and byok == "prefer":
            what = "a customer for whom the KeyResolver finds no key is served on the app's own (byok is prefer)"
            yield Finding("keys", "note", "resolver-prefers", what, where, "export KWAI_BYOK=only")
        server = examined.server
        if isinstance(source, KeyResolver) and server is not None and server.workers > 1:
            what = f"KeyResolver.forget() is known to one of {server.workers} processes; in the others `ttl` counts"
            yield Finding("keys", "note", "resolver-in-workers", what, where)
