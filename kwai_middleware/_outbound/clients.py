"""Ready clients: every transport a client would build for itself, built here and wrapped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from kwai_middleware._outbound.deciding import Refuse
from kwai_middleware._outbound.exchange import Deliver
from kwai_middleware._outbound.proxies import environment_proxies, unproxied_routes
from kwai_middleware._settings import Settings
from kwai_middleware.errors import ConfigurationError

__all__ = ["Clients", "Kind"]

ClientT = TypeVar("ClientT")
AsyncClientT = TypeVar("AsyncClientT")
AnyClientT = TypeVar("AnyClientT")
TransportT = TypeVar("TransportT")
AsyncTransportT = TypeVar("AsyncTransportT")

_FOR_TRANSPORTS: Final[tuple[str, ...]] = ("verify", "cert", "http1", "http2", "limits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Generic[ClientT, TransportT]):
    """The synchronous or the asynchronous half of an HTTP library.

    Attributes:
        client: The library's client.
        real: The library's transport that opens connections.
        base: What all of the library's transports of this kind inherit from.
        wrapper: Our transport.
    """

    client: Callable[..., ClientT]
    real: Callable[..., Any]
    base: type[Any]
    wrapper: Callable[..., TransportT]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients(Generic[ClientT, TransportT, AsyncClientT, AsyncTransportT]):
    """What makes the clients of one HTTP library.

    Attributes:
        name: What one imports. Its classes do not tell: the openai SDK gives them its own name.
        sync: Its synchronous half.
        asynchronous: Its asynchronous half.
        limits: On connections, unless the user gives some.
        options: Its classes for options that the other library has under the same name.
        url: Its URL class, which raises `invalid_url` for what it cannot read.
        invalid_url: See `url`.
    """

    name: str
    sync: Kind[ClientT, TransportT]
    asynchronous: Kind[AsyncClientT, AsyncTransportT]
    limits: Any
    options: Mapping[str, type[Any]]
    url: Callable[[str], Any]
    invalid_url: type[Exception]

    def client(
        self,
        *,
        settings: Settings | None = None,
        deliver: Deliver | None = None,
        refuse: Refuse = "response",
        **client_kwargs: Any,
    ) -> ClientT:
        """Return a client for an SDK, every transport in it wrapped, those of proxies and mounts too.

        Args:
            settings: The environment's when not given.
            deliver: Takes each finished call; `default_delivery(settings).submit` when not given.
            refuse: A call that must not go out is answered locally with status 401 (`response`),
                since SDKs retry and then hide foreign exceptions; `raise` raises ours.
            **client_kwargs: What the library's `Client` takes, but `transport`. At most 1000
                connections, 100 of them kept alive, unless `limits` is given; the time-out stays
                the library's own default, so that an SDK applies its own.

        Raises:
            ConfigurationError: `transport` was given, or a setting of the environment is wrong.
        """
        return self._made("client", self.sync, settings, deliver, refuse, client_kwargs)

    def async_client(
        self,
        *,
        settings: Settings | None = None,
        deliver: Deliver | None = None,
        refuse: Refuse = "response",
        **client_kwargs: Any,
    ) -> AsyncClientT:
        """Return an asynchronous client for an SDK; takes and raises what `client` does."""
        return self._made("async_client", self.asynchronous, settings, deliver, refuse, client_kwargs)

    def wrap(self, transport: Any) -> TransportT | AsyncTransportT:
        """Return a transport of yours, wrapped.

        Raises:
            ConfigurationError: It is no transport of this library, or is synchronous and
                asynchronous at once.
        """
        is_sync = isinstance(transport, self.sync.base)
        is_async = isinstance(transport, self.asynchronous.base)
        name = type(transport).__name__
        if is_sync and is_async:
            raise ConfigurationError(
                f"wrap: {name} is a synchronous and an asynchronous transport;"
                " choose KwaiTransport(...) or AsyncKwaiTransport(...)"
            )
        if is_sync:
            return self.sync.wrapper(transport)
        if is_async:
            return self.asynchronous.wrapper(transport)
        raise ConfigurationError(
            f"wrap: expected a transport of {self.name}, got {name};"
            " httpx and httpx2 have a module each, httpx_transport and httpx2_transport"
        )

    def _made(
        self,
        name: str,
        kind: Kind[AnyClientT, Any],
        settings: Settings | None,
        deliver: Deliver | None,
        refuse: Refuse,
        client_kwargs: Mapping[str, Any],
    ) -> AnyClientT:
        # A client that is given a transport ignores `verify`, `http2`, `limits` and the proxies of
        # the environment, and one that is given a proxy never calls that transport for proxied
        # URLs. So everything that would build a transport is taken over here.
        kwargs = dict(client_kwargs)
        if kwargs.pop("transport", None) is not None:
            raise ConfigurationError(
                f"{name}() builds its transports itself; wrap yours instead:"
                " Client(transport=KwaiTransport(your_transport)), or give mounts={pattern: transport}"
            )
        self._refuse_foreign(name, kwargs)
        settings = Settings.from_env() if settings is None else settings
        trust_env = kwargs.get("trust_env", True)
        options: dict[str, Any] = {"limits": self.limits, "trust_env": trust_env}
        options |= {option: kwargs.pop(option) for option in _FOR_TRANSPORTS if option in kwargs}

        def wrapped(inner: Any) -> Any:
            return kind.wrapper(inner, settings=settings, deliver=deliver, refuse=refuse)

        proxies = self._proxies(kwargs.pop("proxy", None), settings, from_environment=trust_env)
        mounts = {
            pattern: None if proxy is None else wrapped(kind.real(proxy=proxy, **options))
            for pattern, proxy in proxies.items()
        }
        given: Mapping[str, Any] = kwargs.pop("mounts", None) or {}
        for pattern, mounted in given.items():
            mounts[pattern] = None if mounted is None else wrapped(mounted)
        return kind.client(**kwargs, transport=wrapped(kind.real(**options)), mounts=mounts)

    def _refuse_foreign(self, name: str, kwargs: Mapping[str, Any]) -> None:
        """Refuse, say, an `httpx.Timeout` for httpx2: it is taken there, and fails at the first request."""
        for option, value in kwargs.items():
            kind = type(value).__name__
            own = self.options.get(kind)
            if own is not None and not isinstance(value, own):
                raise ConfigurationError(
                    f"{name}({option}=...): this {kind} is not one of {self.name}, as the client is;"
                    f" give {self.name}.{kind}(...)"
                )

    def _proxies(self, proxy: Any, settings: Settings, *, from_environment: bool) -> dict[str, Any]:
        if proxy is not None:
            return {"all://": proxy}
        if not from_environment:
            return {}
        proxies = {pattern: url for pattern, url in environment_proxies().items() if self._reads(pattern)}
        return {**proxies, **unproxied_routes(proxies, settings)}

    def _reads(self, pattern: str) -> bool:
        try:
            self.url(pattern)
        except self.invalid_url:
            return False
        return True
