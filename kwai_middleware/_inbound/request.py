"""What a callable gets to see of an inbound request, the same under ASGI and WSGI."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, MutableMapping, Sequence, Set
from typing import TYPE_CHECKING, Any, Final

from kwai_middleware._caller import Caller
from kwai_middleware._inbound.values import MAX_HEADER, key_from, text_from
from kwai_middleware._secret import Secret
from kwai_middleware.errors import InvalidHeader

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["InboundRequest"]


class InboundRequest(ABC):
    """A request before the app sees it: what `identify`, `credentials` and `required` callables are given.

    Attributes:
        caller: What `identify` has answered: None while it runs, and for nobody. A `credentials`
            callable that looks keys up goes by this, never by a header that anyone may send.
    """

    __slots__ = ("_broken", "_gone", "_known", "_sent", "_source", "_taken", "caller")

    def __init__(
        self,
        source: MutableMapping[str, Any],
        sent: dict[str, bytes | None],
        known: frozenset[str],
        gone: frozenset[str],
        withheld: Mapping[str, Secret] | None,
    ) -> None:
        """For the doors.

        Args:
            source: The scope or environ.
            sent: The known headers that were sent; None as a value stands for sent more than once.
            known: Names in lower case; of those that are not in `sent` none was sent.
            gone: Those of them that have been taken out of the source.
            withheld: Keys that an outer middleware has taken out.
        """
        self.caller: Caller | None = None
        self._source = source
        self._sent = sent
        self._known = known
        self._gone = gone
        self._taken: dict[str, Secret] = {} if withheld is None else {**withheld}
        self._broken: dict[str, InvalidHeader] = _NONE_BROKEN

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
        return text_from(name, self._sent[name], commas=commas, at_most=at_most)

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
            key = key_from(name, self._sent[name])
            if strip:
                self._keep(name, key)
            if isinstance(key, InvalidHeader):
                raise key
            return key
        if name in self._broken:
            raise self._broken[name]
        return self._taken.get(name)

    def seal(self) -> None:
        """Keep what was taken out of the source as secrets only, before code that is not ours runs."""
        for name in self._gone.intersection(self._sent):
            self._keep(name, key_from(name, self._sent[name]))

    def sent(self, names: Set[str]) -> Mapping[str, bytes | None]:
        """Return the values of some headers as received, of those that were sent, and maybe of others too.

        The names are in lower case. None stands for a header that was sent more than once.
        """
        if not self._known >= names:
            for name in names:
                self._find(name)
        return self._sent

    @property
    def withheld(self) -> dict[str, Secret] | None:
        """The keys that were taken out of the request, by header; None when there are none."""
        if not self._gone.isdisjoint(self._sent):
            self.seal()
        return self._taken or None

    @property
    def is_preflight(self) -> bool:
        """Whether this is the question that a browser asks before a request to another origin."""
        return self.method == "OPTIONS" and self._find("origin") and self._find("access-control-request-method")

    def _find(self, name: str) -> bool:
        """Return whether a header was sent; look for it, if that has not been done yet."""
        if name in self._sent:
            return True
        if name in self._known:
            return False
        values = self.values(name)
        if values:
            self._sent[name] = values[0] if len(values) == 1 else None
        return len(values) > 0

    def _keep(self, name: str, key: Secret | InvalidHeader) -> None:
        del self._sent[name]
        if name not in self._gone:
            self._remove(name)
        if isinstance(key, Secret):
            self._taken[name] = key
        else:
            self._broken = {**self._broken, name: key}


_NONE_BROKEN: Final[dict[str, InvalidHeader]] = {}
