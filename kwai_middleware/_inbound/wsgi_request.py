"""An inbound request as WSGI tells of it."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from kwai_middleware._inbound.plain import PlainRequests, PlainRules
from kwai_middleware._inbound.request import InboundRequest
from kwai_middleware._inbound.trace_ids import TRACE_HEADERS, RequestSlot
from kwai_middleware._slot import Slot

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["WSGIRequest", "environ_key", "plain_requests", "plain_slot", "sent_headers"]


def environ_key(name: str) -> str:
    """Return where an environ has the header `name`."""
    key = name.upper().replace("-", "_")
    return key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"


def plain_requests(rules: PlainRules, keys: Mapping[str, str]) -> PlainRequests[str]:
    """Return what makes the slots of plain requests.

    Args:
        rules: What is made of them.
        keys: Where the environ has each header that is looked for, and its name in lower case.
    """
    return PlainRequests(rules, keys, frozenset(), _is_never_other, peer_in)


def plain_slot(environ: WSGIEnvironment, keys: Mapping[str, str], plain: PlainRequests[str]) -> Slot | None:
    """Return the slot of a plain request, and take its secret headers out of the environ; None says nothing.

    Args:
        environ: Of the request.
        keys: Where the environ has each header that is looked for, and its name in lower case.
        plain: Makes the slot.
    """
    found = keys.keys() & environ.keys()
    if not found:
        return RequestSlot(None, _headers=_trace_headers_in(environ)) if plain.lets_nobody_in else None
    sent: list[tuple[str, bytes]] = []
    try:
        for key in found:
            sent.append((key, environ[key].encode("latin-1")))
    except UnicodeEncodeError:
        return None
    slot = plain.slot(environ, sent, _trace_headers_in(environ), False)
    if slot is not None and slot.withheld:
        for key in found:
            if keys[key] in slot.withheld:
                del environ[key]
    return slot


def _is_never_other(key: str) -> bool:
    return False


def sent_headers(environ: WSGIEnvironment, keys: Mapping[str, str], secret: frozenset[str]) -> dict[str, bytes | None]:
    """Return the known headers that were sent, and take the secret ones of them out of the environ.

    Args:
        environ: Of the request.
        keys: Where the environ has each of them, and its name in lower case.
        secret: Names of those to take out.
    """
    sent: dict[str, bytes | None] = {}
    for key in keys.keys() & environ.keys():
        name = keys[key]
        sent[name] = _bytes(environ.pop(key) if name in secret else environ[key])
    return sent


def _trace_headers_in(environ: Mapping[str, Any]) -> Sequence[tuple[bytes, str]]:
    """Return the headers of an environ that may bring a trace id; one that was not sent brings none."""
    return (TRACE_HEADERS[0], environ.get(_TRACE_PARENT, "")), (TRACE_HEADERS[1], environ.get(_REQUEST_ID, ""))


def _bytes(value: str) -> bytes:
    """Undo what WSGI does to headers: each byte of it is one character."""
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        return b"\xff"  # set by something that does not keep to that: not valid UTF-8


_TRACE_PARENT, _REQUEST_ID = (environ_key(name.decode()) for name in TRACE_HEADERS)


def peer_in(environ: Mapping[str, Any]) -> tuple[str, int | None] | None:
    """Return address and port that the server names as the other end of the connection."""
    address = _address_in(environ)
    if not address:
        return None
    if "PROXY_PROTOCOL" in environ:
        # gunicorn has it from the first line that was sent, which anyone may write who can connect.
        return str(address), 0
    port = environ.get("REMOTE_PORT")
    if port is None:
        return str(address), None
    text = str(port)
    return str(address), int(text) if text.isascii() and text.isdecimal() and len(text) <= 5 else 0


def _address_in(environ: Mapping[str, Any]) -> str | None:
    put_aside = environ.get("werkzeug.proxy_fix.orig")
    address: str | None = (environ if put_aside is None else put_aside).get("REMOTE_ADDR")
    return address


class WSGIRequest(InboundRequest):
    """An environ, read and, for key headers, rewritten in place."""

    __slots__ = ()

    @property
    def environ(self) -> WSGIEnvironment:
        """The WSGI environ."""
        return cast("WSGIEnvironment", self._source)

    @property
    def method(self) -> str:
        """The HTTP method."""
        return str(self._source.get("REQUEST_METHOD", "GET"))

    @property
    def path(self) -> str:
        """The whole path, decoded, with what the app is mounted under."""
        path = f"{self._source.get('SCRIPT_NAME', '')}{self._source.get('PATH_INFO', '')}"
        return path.encode("latin-1", "replace").decode(errors="replace")

    @property
    def peer(self) -> tuple[str, int | None] | None:
        """Address and port of the other end of the connection; see the base class.

        What werkzeug's ProxyFix has put aside counts, not what it has put in.
        """
        return peer_in(self._source)

    @property
    def is_on_unix_socket(self) -> bool:
        """Whether the server shows, by its own end, that the connection goes over a unix socket.

        gunicorn hands the socket itself over. Of other servers an address that is there and empty
        counts; bridges from ASGI leave it out for a client whose address they do not know.
        """
        connection = self._source.get("gunicorn.socket")
        if connection is not None:
            return bool(connection.family == socket.AF_UNIX)
        return _address_in(self._source) == ""

    def values(self, name: str) -> list[bytes]:
        """Return each value of a header, as received; a server may have joined some with commas."""
        key = environ_key(name)
        return [_bytes(self._source[key])] if key in self._source else []

    def _trace_headers(self) -> Sequence[tuple[bytes, str]]:
        # Not the environ itself: that holds the slot, and would be held by it.
        return _trace_headers_in(self._source)

    def _remove(self, name: str) -> None:
        del self._source[environ_key(name)]
