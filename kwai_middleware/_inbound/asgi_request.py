"""An inbound request as ASGI tells of it."""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Final

from starlette.types import Scope

from kwai_middleware._inbound.plain import PlainRequests, PlainRules
from kwai_middleware._inbound.request import InboundRequest
from kwai_middleware._inbound.values import MAX_HEADER

__all__ = ["ASGIRequest", "HeaderNames"]

_MOST_SPELLINGS: Final = 1000
_LONGEST_SPELLING: Final = 64


class HeaderNames:
    """Tells the headers that are looked for from all others, by their names as received.

    ASGI has names in lower case, but not every server and middleware keeps to it. Each spelling of
    the others is looked into once and remembered, up to a bound in number and length, since strangers
    can invent them.

    Args:
        names: In lower case.
        secret: Those of them that are taken out of the request.
        lists: Those that may be sent several times, and are one list then.
    """

    __slots__ = ("_lists", "_names", "_others", "_secret")

    def __init__(self, names: Iterable[str], secret: Set[str], lists: Set[str] = frozenset()) -> None:
        self._names: Final = {name.encode("latin-1"): name for name in names}
        self._secret: Final = secret
        self._lists: Final = lists
        self._others: Final[set[bytes]] = set()

    def plain_requests(self, rules: PlainRules) -> PlainRequests[bytes]:
        """Return what makes the slots of plain requests."""
        return PlainRequests(rules, self._names, self._others, self._is_other, peer_in)

    def take(self, scope: Scope) -> dict[str, bytes | None]:
        """Return the headers looked for that were sent, and take the secret ones of them out of the scope.

        A value of None stands for a header that was sent more than once and is no list.
        """
        received: Iterable[tuple[bytes, bytes]] = scope["headers"]
        if isinstance(received, list):
            headers = received
        else:
            headers = scope["headers"] = [*received]
        sent: dict[str, bytes | None] = {}
        names, others = self._names, self._others
        gone: set[bytes] = set()
        for header in headers:
            if header[0] not in others:
                name = names.get(header[0]) or self._find(header[0])
                if name is not None:
                    sent[name] = header[1] if name not in sent else self._joined(name, sent[name], header[1])
                    if name in self._secret:
                        gone.add(header[0])
        if gone:
            # In place: what sits outside of us holds the same list.
            headers[:] = [header for header in headers if header[0] not in gone]
        return sent

    def _joined(self, name: str, before: bytes | None, value: bytes) -> bytes | None:
        if before is None or name not in self._lists:
            return None
        # One that is too long is refused, however long it is.
        return before if len(before) > MAX_HEADER else before + b", " + value

    def _is_other(self, raw: bytes) -> bool:
        return self._find(raw) is None

    def _find(self, raw: bytes) -> str | None:
        name = self._names.get(raw.lower())
        if name is None and len(raw) <= _LONGEST_SPELLING and len(self._others) < _MOST_SPELLINGS:
            self._others.add(raw)
        return name


def peer_in(scope: Scope) -> tuple[str, int | None] | None:
    """Return address and port that the server names as the other end of the connection."""
    client: tuple[str, int] | None = scope.get("client")
    return client if client is None or client[1] else (client[0], 0)


class ASGIRequest(InboundRequest):
    """An `http` or `websocket` scope, read and, for key headers, rewritten in place."""

    __slots__ = ()

    @property
    def scope(self) -> Scope:
        """The ASGI scope."""
        return self._source

    @property
    def method(self) -> str:
        """The HTTP method; `GET` for a websocket, which begins as one."""
        method: str = self._source.get("method", "GET")
        return method

    @property
    def is_websocket(self) -> bool:
        """Whether it opens a connection that may outlive what its caller was identified by."""
        return bool(self._source["type"] == "websocket")

    @property
    def path(self) -> str:
        """The whole path, decoded, with what the app is mounted under."""
        return str(self._source["path"])

    @property
    def peer(self) -> tuple[str, int | None] | None:
        """Address and port that the server names; see the base class."""
        return peer_in(self._source)

    @property
    def is_on_unix_socket(self) -> bool:
        """Whether the server shows, by its own end, that the connection goes over a unix socket.

        ASGI has `(path, None)` there; uvicorn keeps to it. A missing client alone shows nothing.
        """
        server = self._source.get("server")
        return server is not None and bool(server[0]) and server[1] is None

    def values(self, name: str) -> list[bytes]:
        """Return each value of a header, as received; a server may have joined some with commas."""
        wanted = name.lower().encode("latin-1")
        return [value for raw, value in self._source["headers"] if raw.lower() == wanted]

    def _trace_headers(self) -> list[tuple[bytes, bytes]]:
        headers: list[tuple[bytes, bytes]] = self._source["headers"]
        return headers

    def _remove(self, name: str) -> None:
        gone = name.encode("latin-1")
        headers = self._source["headers"]
        headers[:] = [header for header in headers if header[0].lower() != gone]
