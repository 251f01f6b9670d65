"""Who makes the client of a script: the library itself, or we, in each of the ways that the README shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from kwai_middleware._route import Route
from kwai_middleware._settings import Settings
from tests.support.callers import settings
from tests.support.flavours import Flavour
from tests.support.invisibility.stage import PLACE, MakeClient

__all__ = ["CELLS", "Cell", "maker", "options_of", "settings_for"]

_FOR_TRANSPORTS: Final = ("verify", "cert", "http1", "http2", "limits")


@dataclass(frozen=True)
class Cell:
    """One way of running a script.

    Attributes:
        kind: Of the route that the model calls go to; `other` where there is none.
        keyed: A caller with a key is bound; else nobody.
        client: `around` is our transport around the library's, `ready` our ready client.
    """

    kind: str
    keyed: bool
    client: str

    def __str__(self) -> str:
        return f"{self.kind}-{'keyed' if self.keyed else 'nobody'}-{self.client}"

    @property
    def copies(self) -> bool:
        """Something of ours goes to the wire, so that the app's request does not."""
        return self.keyed and self.kind != "other"


CELLS: Final = (
    Cell("other", True, "around"),
    Cell("direct", False, "around"),
    Cell("direct", True, "ready"),
    Cell("gateway", True, "around"),
    Cell("gateway", False, "ready"),
)


def settings_for(cell: Cell, *origins: str) -> Settings:
    """Settings with the cell's route at each origin."""
    if cell.kind == "other":
        return settings()
    kind: Any = cell.kind
    return settings(routes=tuple(Route(f"{origin}/{PLACE}", kind=kind) for origin in origins))


def maker(flavour: Flavour, cell: Cell, our_settings: Settings) -> MakeClient:
    """Return what makes the clients of a script."""

    def ready(**options: Any) -> Any:
        return flavour.client(settings=our_settings, deliver=_drop, refuse="raise", **options)

    def around(**options: Any) -> Any:
        def wrapped(inner: Any) -> Any:
            return flavour.transport_class(inner, settings=our_settings, deliver=_drop)

        trust_env = options.get("trust_env", True)
        real = {option: options.pop(option) for option in _FOR_TRANSPORTS if option in options}
        real["trust_env"] = trust_env
        proxies = _proxies(flavour, options.pop("proxy", None), from_environment=trust_env)
        mounts = {
            pattern: None if proxy is None else wrapped(flavour.real_transport_class(proxy=proxy, **real))
            for pattern, proxy in proxies.items()
        }
        mounts |= {
            pattern: None if mounted is None else wrapped(mounted)
            for pattern, mounted in (options.pop("mounts", None) or {}).items()
        }
        return flavour.plain_client_class(
            transport=wrapped(flavour.real_transport_class(**real)), mounts=mounts, **options
        )

    return ready if cell.client == "ready" else around


def options_of(flavour: Flavour, verify: Any) -> dict[str, Any]:
    """The options of every client of a script: the library's own limits, and no way to wait for ever."""
    return {
        "verify": verify,
        "timeout": flavour.library.Timeout(10),
        "limits": flavour.library.Limits(max_connections=100, max_keepalive_connections=20),
    }


def _proxies(flavour: Flavour, proxy: Any, *, from_environment: bool) -> dict[str, Any]:
    if proxy is not None:
        return {"all://": proxy}
    if not from_environment:
        return {}
    found: dict[str, Any] = flavour.library._utils.get_environment_proxies()
    return found


def _drop(call: object) -> None:
    """Nobody wants the records here."""
