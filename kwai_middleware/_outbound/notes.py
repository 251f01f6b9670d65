"""What an operator should know of calls that went out with less than they could have."""

from __future__ import annotations

import logging
from typing import Final

from kwai_middleware import _notices
from kwai_middleware._caller import Caller
from kwai_middleware._outbound.attribution import Attribution
from kwai_middleware._outbound.routes import Endpoint

__all__ = ["is_told_of_origins", "note_anonymous", "note_origins", "note_unconfirmed_payer", "note_unrouted"]

_logger: Final = logging.getLogger("kwai_middleware")
is_told_of_origins: Final = _logger.isEnabledFor
"""Whether anybody listens at that level; asked beforehand, since most do not."""


def note_anonymous(endpoint: Endpoint) -> None:
    """A call goes out without its customer's name."""
    _notices.count("unattributed")
    _notices.warn_once(
        "unattributed",
        endpoint.host,
        f"a call to {endpoint.host} went out without its customer: the body is not one JSON object; send it as json="
        " or as bytes",
    )


def note_unconfirmed_payer(endpoint: Endpoint) -> None:
    """A caller's key goes where the vendor does not say that it pays."""
    _notices.count("unconfirmed_payer")
    _notices.warn_once(
        "unconfirmed_payer",
        endpoint.host,
        f"a caller's key went to {endpoint.path} at {endpoint.host}, where the vendor documents no customer's keys: the"
        " gateway's own may have paid; byok='only' refuses such calls",
    )


def note_origins(endpoint: Endpoint, attribution: Attribution) -> None:
    """At debug level: where it came from whose call this is, and who pays."""
    identity, keys = attribution.origins
    key = "the app itself" if attribution.credential is None else keys
    _logger.debug("kwai_middleware: call to %s: identity from %s, key from %s", endpoint.host, identity, key)


def note_unrouted(host: bytes, caller: Caller | None) -> None:
    """A caller's key is bound, and the call goes to what only looks like an endpoint that is listed."""
    if caller is None or not caller.credentials:
        return
    name = host.decode("ascii", "replace")
    _notices.count("unrouted")
    _notices.warn_once(
        "unrouted",
        name,
        f"a call to {name!r} was not touched although a caller's key is bound: it looks like a model call, but its host"
        " or path is not on the list; check the base URL, and if it is meant, add a Route for it",
    )
