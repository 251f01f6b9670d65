"""What a callable gets to see of an inbound request, the same under ASGI and WSGI."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, MutableMapping, Sequence, Set
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from kwai_middleware._caller import Caller
from kwai_middleware._inbound.key_lists import keys_from, list_parser
from kwai_middleware._inbound.trace_ids import RequestSlot
from kwai_middleware._inbound.values import MAX_HEADER, has_comma, key_from, text_from
from kwai_middleware._secret import Secret
from kwai_middleware._slot import Slot, WeightedKey
from kwai_middleware._unsettled import NO_ORIGINS, Origins, Unsettled
from kwai_middleware.errors import InvalidHeader

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["PREFLIGHT_HEADER", "InboundRequest", "Interest"]

PREFLIGHT_HEADER: Final = "access-control-request-method"
"""By this header a browser's preflight request differs from other requests of its method."""

Found = TypeVar("Found", Secret, tuple[WeightedKey, ...])


class Interest(NamedTuple):
    """The headers that a door looks for, by their names in lower case.

    Attributes:
        known: All of them.
        secret: Those that are taken out of the request.
        lists: Those that may be sent several times, and are one list then.
    """

    known: frozenset[str]
    secret: frozenset[str]
    lists: frozenset[str]


class InboundRequest(ABC):
    """A request before the app sees it: what `identify`, `credentials` and `required` callables are given.

    Attributes:
        caller: What `identify` has answered: None while it runs, and for nobody. A `credentials`
            callable that looks keys up goes by this, never by a header that anyone may send.
        valid_until: Until when the answer of `identify` holds, in seconds since 1970, where it is known: of a token,
            say. A websocket's caller ends then.
        sent: Values of headers as received, by their names in lower case: of those that the door looks for, and of
            those that somebody has asked for. None stands for a header that was sent more than once.
        taken: Keys that were taken out of the request, by header in lower case: each is one, or a list of them.
        broken: What was taken out in place of a key, and is none: the refusals.
        answered_by: Which of several sources has answered the last question, for `explain`.
    """

    __slots__ = ("_interest", "_outer", "_source", "answered_by", "broken", "caller", "sent", "taken", "valid_until")

    def __init__(
        self,
        source: MutableMapping[str, Any],
        sent: dict[str, bytes | None],
        interest: Interest,
        outer: Slot | None,
    ) -> None:
        """For the doors.

        Args:
            source: The scope or environ.
            sent: The known headers that were sent; None as a value stands for sent more than once. Secret ones
                are taken out of it.
            interest: What is known, so that of what is not in `sent` none was sent; its secret
                headers have been taken out of the source.
            outer: The slot of an outer middleware, with the keys that it has taken out.
        """
        self.caller: Caller | None = None
        self.valid_until: float | None = None
        self.answered_by: object = None
        self._source = source
        self.sent = sent
        self._interest = interest
        self._outer = outer
        self.taken: dict[str, Secret | tuple[WeightedKey, ...]] = {}
        self.broken: dict[str, InvalidHeader] = _NONE_BROKEN
        if outer is not None and outer.withheld:
            self.taken.update(outer.withheld)
        for name in interest.secret:
            if name in sent:
                # From here on it is a secret only, whatever code of others runs.
                is_list = name in interest.lists
                found = keys_from(name, self._joined(name)) if is_list else key_from(name, sent[name])
                del sent[name]
                self._hold(name, found)

    @property
    def scope(self) -> MutableMapping[str, Any] | None:
        """The ASGI scope; None under WSGI."""
        return None

    @property
    def environ(self) -> WSGIEnvironment | None:
        """The WSGI environ; None under ASGI."""
        return None

    @property
    @abstractmethod
    def method(self) -> str:
        """The HTTP method; `GET` for a websocket, which begins as one."""

    @property
    @abstractmethod
    def path(self) -> str:
        """The whole path, decoded, with what the app is mounted under."""

    @property
    @abstractmethod
    def peer(self) -> tuple[str, int | None] | None:
        """Address and port that the server names as the other end of the connection.

        None when it names none, as for a unix socket, but also for a client that has hung up already.
        The port is 0 when the address is not the
        connection's own but was read from a header, and None when the server tells no ports.
        """

    @property
    @abstractmethod
    def is_on_unix_socket(self) -> bool:
        """Whether the server shows, by its own end, that the connection goes over a unix socket."""

    @abstractmethod
    def values(self, name: str) -> Sequence[bytes]:
        """Return each value of a header, as received; a server may have joined some with commas.

        Args:
            name: In any case.
        """

    @abstractmethod
    def _remove(self, name: str) -> None:
        """Take a header out of the scope or environ, in place."""

    def header(self, name: str, *, commas: bool = False, at_most: int = MAX_HEADER) -> str | None:
        """Return the one value of a header; None when it is absent or empty.

        Anyone may send any header: do not take it for an identity unless your proxy sets it, or it
        proves itself as a signed token does.

        Args:
            name: In any case.
            commas: Whether the value may hold a comma. Servers join repeated headers with one, so
                only a header that may be repeated should say so.
            at_most: Longest value, in bytes.

        Raises:
            InvalidHeader: The header was sent twice, is too long, is not UTF-8, or has a control
                character. Left alone, it becomes the answer 400.
        """
        name = name.lower()
        if not self._find(name):
            return None
        return text_from(name, self.sent[name], commas=commas, at_most=at_most)

    def remove(self, name: str) -> None:
        """Take a header out of the request, so that no log and no error report shows it, and nobody else reads it.

        Args:
            name: In any case. One that was not sent is no error.
        """
        name = name.lower()
        if self._find(name):
            del self.sent[name]
            self._remove(name)

    def secret(self, name: str, *, strip: bool = True) -> Secret | None:
        """Return the key in a header; None when there is none.

        Args:
            name: In any case. For `authorization` the form `Bearer <key>` is expected.
            strip: Whether to take the header out of the request, so that no log and no error
                report shows it from here on. It can still be asked for with this method.

        Raises:
            InvalidHeader: The header was sent twice, or has no usable key. Left alone, it becomes
                the answer 400, so that a broken key never means "no key".
        """
        name = name.lower()
        if self._find(name):
            return self._found(name, key_from(name, self.sent[name]), strip=strip)
        taken = self._withheld(name)
        if not isinstance(taken, tuple):
            return taken
        if len(taken) != 1:
            raise has_comma(name)
        return taken[0].key

    def secrets(self, name: str, *, strip: bool = True) -> tuple[WeightedKey, ...]:
        """Return the keys in a header that holds a list of them (RFC 9651); none when there are none.

        A list may have several lines, and holds 1 to 16 keys, each a token or a quoted string, with
        a weight as the parameter `w` or `weight`: `key-one;w=3, "2nd=key";w=0.5`.

        Args:
            name: In any case; not `authorization`.
            strip: As for `secret`.

        Raises:
            InvalidHeader: The header is no such list. Left alone, it becomes the answer 400.
            ConfigurationError: The extra `keylists` is not installed.
        """
        list_parser()  # if it is missing, that is known before a value is looked at
        name = name.lower()
        if self._find(name):
            return self._found(name, keys_from(name, self._joined(name)), strip=strip)
        taken = self._withheld(name)
        if taken is None:
            return ()
        return taken if isinstance(taken, tuple) else (WeightedKey(taken, 1.0),)

    def look_for(self, names: Set[str]) -> None:
        """See to it that these headers are among `sent`, of those that were sent.

        Args:
            names: In lower case.
        """
        if not self._interest.known >= names:
            for name in names:
                self._find(name)

    def slot(self, caller: Caller | None, brought: Origins = NO_ORIGINS, unsettled: Unsettled | None = None) -> Slot:
        """Return the slot of this request, for whom it has turned out to be, and what is still to be learnt."""
        if self._outer is None:
            headers = self._trace_headers()
            return RequestSlot(caller, self.taken or None, brought=brought, unsettled=unsettled, _headers=headers)
        return self._outer.part(caller, self.taken or None, brought, unsettled)

    @property
    def is_websocket(self) -> bool:
        """Whether it opens a connection that may outlive what its caller was identified by."""
        return False

    @property
    def is_preflight(self) -> bool:
        """Whether this is the question that a browser asks before a request to another origin."""
        return self.method == "OPTIONS" and self._find("origin") and self._find(PREFLIGHT_HEADER)

    @abstractmethod
    def _trace_headers(self) -> Iterable[Sequence[bytes | str]]:
        """Return the headers that may bring a trace id, or all."""

    def _joined(self, name: str) -> bytes:
        """Return the value of a header that was sent, several as one list."""
        value = self.sent[name]
        return b", ".join(self.values(name)) if value is None else value

    def _find(self, name: str) -> bool:
        """Return whether a header was sent; look for it, if that has not been done yet."""
        if name in self.sent:
            return True
        if name in self._interest.known:
            return False
        values = self.values(name)
        if values:
            self.sent[name] = values[0] if len(values) == 1 else None
        return len(values) > 0

    def _found(self, name: str, found: Found | InvalidHeader, *, strip: bool) -> Found:
        if strip:
            self._keep(name, found)
        if isinstance(found, InvalidHeader):
            raise found
        return found

    def _keep(self, name: str, found: Secret | tuple[WeightedKey, ...] | InvalidHeader) -> None:
        del self.sent[name]
        self._remove(name)
        self._hold(name, found)

    def _hold(self, name: str, found: Secret | tuple[WeightedKey, ...] | InvalidHeader) -> None:
        if isinstance(found, InvalidHeader):
            self.broken = {**self.broken, name: found}
        else:
            self.taken[name] = found

    def _withheld(self, name: str) -> Secret | tuple[WeightedKey, ...] | None:
        if name in self.broken:
            raise self.broken[name]
        return self.taken.get(name)


_NONE_BROKEN: Final[dict[str, InvalidHeader]] = {}
