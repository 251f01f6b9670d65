"""Who a request is for, read from headers that a proven proxy has set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, final

from kwai_middleware import _notices
from kwai_middleware._caller import TEXT_LIMITS, Caller, new_caller, set_checked
from kwai_middleware._inbound.callables import IdentityReader
from kwai_middleware._inbound.peers import ADDRESS_HEADERS, Doubt, TrustedPeers
from kwai_middleware._inbound.plain import PlainFields
from kwai_middleware._inbound.request import InboundRequest
from kwai_middleware._inbound.values import MAX_HEADER, checked_name, plain_text, text_from
from kwai_middleware._secret import Secret
from kwai_middleware.errors import ConfigurationError, InvalidHeader

__all__ = ["HeaderIdentity"]

_DEFAULT_PEERS: Final = ("127.0.0.1", "::1", "testclient")


@final
class HeaderIdentity(IdentityReader):
    """Reads the caller from headers, which are believed only when they come from a proven proxy.

    Anyone can send a header. So these count only when the request proves that it came through your
    proxy, which must set each of them itself, or remove what the client sent: by a secret that the
    proxy adds, or by the address of the connection. From anyone else they are ignored, with one
    warning that says why; where an identity is required, that is answered with 401.

    An address is no proof when the server has taken it from a header (uvicorn does behind a local
    proxy, unless told `--no-proxy-headers`). So it never matches with port 0, nor when a header such
    as X-Forwarded-For names the very same address. A `proxy_secret` always works.

    Args:
        identifier: The header with the customer's id, at most 120 characters.
        name: The header with the customer's name; None to read none. It alone may hold a comma, and characters that
            cannot be seen, such as those that join emoji.
        email: The header with the customer's e-mail address; None to read none.
        group: The header with the customer's organisation; None to read none.
        thread: The header with the conversation; None to read none.
        trusted_peers: Where a proxy connects from: addresses, networks (`10.0.0.0/8`), `unix` for a
            unix socket (the server must show it, as uvicorn and gunicorn do), `testclient` for
            Starlette's TestClient, `*` for anyone. None stands for this machine and the TestClient;
            with a `proxy_secret` for nobody.
        proxy_secret: What the proxy sends in `proxy_header` to prove itself; visible ASCII without
            commas. The header is taken out of the request.
        proxy_header: The header that it comes in.

    Raises:
        ConfigurationError: An argument is none of these.

    Example:
        >>> HeaderIdentity(identifier="x-tenant", trusted_peers=("10.0.0.0/8",))
        HeaderIdentity(identifier='x-tenant', name='x-customer-name', email='x-customer-email', \
group='x-customer-group', thread='x-thread-id')
    """

    __slots__ = ("_fields", "_peers")

    def __init__(
        self,
        *,
        identifier: str = "x-customer-id",
        name: str | None = "x-customer-name",
        email: str | None = "x-customer-email",
        group: str | None = "x-customer-group",
        thread: str | None = "x-thread-id",
        trusted_peers: Iterable[str] | None = None,
        proxy_secret: str | Secret | None = None,
        proxy_header: str = "x-kwai-proxy",
    ) -> None:
        headers = {"identifier": identifier, "name": name, "email": email, "group": group, "thread": thread}
        self._fields: Final = {
            checked_name(f"HeaderIdentity.{field}", header): field
            for field, header in headers.items()
            if header is not None or field == "identifier"
        }
        secret = None if proxy_secret is None else _checked_secret(proxy_secret)
        proxy_header = checked_name("HeaderIdentity.proxy_header", proxy_header)
        names = [header for header in headers.values() if header is not None]
        if len(self._fields) < len(names) or proxy_header in self._fields:
            raise ConfigurationError("HeaderIdentity: each field needs a header of its own")
        if trusted_peers is None:
            trusted_peers = _DEFAULT_PEERS if proxy_secret is None else ()
        self._peers: Final = TrustedPeers(trusted_peers, None if secret is None else (proxy_header, secret))
        proof = () if proxy_secret is None else (proxy_header,)
        origin = "header from a trusted peer" if proxy_secret is None else "header via proxy secret"
        super().__init__((*self._fields, *proof), proof, ADDRESS_HEADERS, origin=origin)

    @property
    def trusted_peers(self) -> frozenset[str]:
        """The entries of that argument, or those that None stands for."""
        return self._peers.entries

    @property
    def proxy_secret(self) -> Secret | None:
        """That argument; a `Secret` shows nothing."""
        return None if self._peers.proof is None else self._peers.proof[1]

    @property
    def plain_fields(self) -> PlainFields:
        """Which header holds which field, and whom that is believed from."""
        return PlainFields(self._fields, self._peers)

    def __call__(self, request: InboundRequest) -> Caller | None:
        """Return who the request is for; None for nobody.

        Raises:
            InvalidHeader: A proven proxy has sent a header that is malformed, too long or sent twice.
        """
        request.look_for(self.header_names)
        if self._fields.keys().isdisjoint(request.sent):
            return None
        request.look_for(self.other_headers)
        return self.new_caller(request)

    def new_caller(self, request: InboundRequest) -> Caller | None:
        """Do the same for a request whose headers have been looked for.

        Raises:
            InvalidHeader: A proven proxy has sent a header that is malformed, too long or sent twice.
        """
        if self._fields.keys().isdisjoint(request.sent):
            return None
        doubt = self._peers.doubt(request)
        if doubt is not None:
            self._ignore(doubt)
            return None
        caller: Caller | None = None
        for header, value in request.sent.items():
            field = self._fields.get(header)
            if field is not None:
                text = plain_text(value) or _checked_text(header, value, field)
                if text is not None:
                    if len(text) > TEXT_LIMITS[field]:
                        raise _too_long(header, TEXT_LIMITS[field])
                    caller = caller or new_caller()
                    set_checked(caller, field, text)
        return caller

    def _ignore(self, doubt: Doubt) -> None:
        _notices.count("identity_headers_ignored")
        _notices.warn_once(
            "identity_headers_ignored",
            doubt.name,
            f"a request with an identity header ({', '.join(self._fields)}) is taken as nobody's, since {doubt.value}.",
        )

    def __repr__(self) -> str:
        fields = ", ".join(f"{field}={header!r}" for header, field in self._fields.items())
        return f"HeaderIdentity({fields})"


def _checked_text(header: str, value: bytes | None, field: str) -> str | None:
    is_name = field == "name"
    return text_from(header, value, commas=is_name, at_most=MAX_HEADER, unseen=is_name)


def _too_long(header: str, limit: int) -> InvalidHeader:
    return InvalidHeader(f"The header {header} is longer than {limit} characters.", header=header)


def _checked_secret(secret: str | Secret) -> Secret:
    try:
        checked = secret if isinstance(secret, Secret) else Secret(secret)
    except (TypeError, ValueError):
        checked = None
    if checked is None or "," in checked.reveal():
        raise ConfigurationError(
            "HeaderIdentity.proxy_secret: visible ASCII without blanks and commas, the same that your proxy sends"
        )
    return checked
