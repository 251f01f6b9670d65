"""Which requests are touched: an allow-list of scheme, host, port and endpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from kwai_middleware._route import Route, RouteKind
from kwai_middleware._settings import KEYWORDSAI_BASE_URL, OPENROUTER_BASE_URL, RESPAN_BASE_URL, Settings

__all__ = ["Endpoint", "RouteTable"]

_CHAT: Final = "/chat/completions"
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One inference endpoint that is touched.

    Attributes:
        kind: What the destination is to us.
        provider: On direct routes, whose key goes there.
        host: For people and records.
        path: For people and records.
        format: The shape of requests and answers.
    """

    kind: RouteKind
    provider: str
    host: str
    path: str
    format: str = "chat"


class RouteTable:
    """All endpoints that one transport touches, found by one dictionary look-up.

    Args:
        settings: Their base URLs and routes come beside the vendors' own hosts.
    """

    def __init__(self, settings: Settings) -> None:
        routes = [
            Route(KEYWORDSAI_BASE_URL, kind="gateway"),
            Route(RESPAN_BASE_URL, kind="gateway"),
            Route(OPENROUTER_BASE_URL, kind="direct"),
            Route(settings.base_url, kind="gateway"),
            Route(settings.openrouter_base_url, kind="direct"),
            *settings.routes,
        ]
        self._endpoints: dict[tuple[bytes, bytes, int | None, bytes], Endpoint] = {}
        for route in routes:
            self._add(route)
        self._origins = {key[:3] for key in self._endpoints}

    def find(self, scheme: bytes, host: bytes, port: int | None, target: bytes) -> Endpoint | None:
        """Return the endpoint that a `POST` goes to, or None when it is not to be touched.

        Args:
            scheme: Of the URL, lower case.
            host: Of the URL, as it goes to the wire.
            port: Of the URL; None for the scheme's default.
            target: Path and query, as they go to the wire.
        """
        path = target.partition(b"?")[0]
        return self._endpoints.get((scheme, host, port, path))

    def resembles(self, scheme: bytes, host: bytes, port: int | None) -> bool:
        """Say whether an origin looks like one of the vendors' but is not on the list."""
        if (scheme, host, port) in self._origins:
            return False
        return any(mark in host.lower() for mark in _MARKS)

    def _add(self, route: Route) -> None:
        parts = urlsplit(route.url)
        host = (parts.hostname or "").encode()
        port = None if parts.port == _DEFAULT_PORTS[parts.scheme] else parts.port
        for path in _paths(route, parts.path.rstrip("/")):
            endpoint = Endpoint(route.kind, route.provider, host.decode(), path)
            for variant in (path, path + "/"):
                self._endpoints[parts.scheme.encode(), host, port, variant.encode()] = endpoint


_MARKS: Final = (b"keywordsai", b"respan.ai", b"openrouter")


def _paths(route: Route, base: str) -> list[str]:
    if base.endswith(_CHAT):
        return [base]
    bases = [base]
    if route.kind == "gateway":
        # The vendor's samples use the gateway with and without /api.
        bases.append(base.removesuffix("/api") if base.endswith("/api") else base + "/api")
    return [each + _CHAT for each in bases]
