"""Which requests are touched: an allow-list of scheme, host, port and endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple
from urllib.parse import urlsplit

from kwai_middleware._route import Route, RouteKind
from kwai_middleware._settings import KEYWORDSAI_BASE_URL, OPENROUTER_BASE_URL, RESPAN_BASE_URL, Settings

__all__ = ["Endpoint", "Place", "RouteTable"]

Place = Literal["body", "respan_params", "metadata"]
"""Where an endpoint of the gateway reads its own parameters: among the body's members, in a member
`respan_params`, or in `metadata.respan_params`."""

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One inference endpoint that is touched.

    Attributes:
        kind: What the destination is to us.
        provider: Whose key goes there; on a gateway, whose is preferred.
        host: For people and records.
        path: For people and records.
        format: The shape of requests and answers.
        place: Where the gateway's parameters travel.
        takes_header: They may travel as base64 in a header instead, beside a body of any kind.
    """

    kind: RouteKind
    provider: str
    host: str
    path: str
    format: str = "chat"
    place: Place = "body"
    takes_header: bool = False

    @property
    def takes_forms(self) -> bool:
        """Whether requests may be forms with files in them, of which a record needs no more than the ends."""
        return self.format in _FORMS


_FORMS: Final = ("images", "transcription")


class _Listed(NamedTuple):
    """An endpoint below a route's base URL."""

    path: str
    format: str
    kind: RouteKind
    place: Place = "body"
    takes_header: bool = False
    provider: str | None = None

    @property
    def bases(self) -> tuple[str, ...]:
        """What of its path an SDK may have in the base URL, from the longest on; none for the gateway's own."""
        if not self.path.endswith(("/chat/completions", "/messages")):
            return ()
        words = self.path.removesuffix("/chat/completions").removesuffix("/messages").strip("/").split("/")
        return tuple("/" + "/".join(words[:count]) for count in range(len(words), 0, -1) if words[0])


# Where the vendor's gateway reference says that an endpoint reads its parameters, and whether it documents
# `X-Data-Respan-Params` there. Its guides write `transcription`, OpenAI's SDK asks for `transcriptions`.
_LISTED: Final[Mapping[RouteKind, tuple[_Listed, ...]]] = {
    "gateway": (
        _Listed("/openrouter/v1/chat/completions", "chat", "relay", "respan_params", provider="openrouter"),
        _Listed("/anthropic/v1/messages", "messages", "gateway", "metadata", provider="anthropic"),
        _Listed("/chat/completions", "chat", "gateway", takes_header=True),
        _Listed("/responses", "responses", "gateway", "respan_params", takes_header=True),
        _Listed("/embeddings", "embeddings", "gateway"),
        _Listed("/audio/speech", "speech", "gateway"),
        _Listed("/audio/transcription", "transcription", "gateway", takes_header=True),
        _Listed("/audio/transcriptions", "transcription", "gateway", takes_header=True),
    ),
    "relay": (_Listed("/chat/completions", "chat", "relay", "respan_params"),),
    "direct": (
        _Listed("/chat/completions", "chat", "direct"),
        _Listed("/messages", "messages", "direct"),
        _Listed("/responses", "responses", "direct"),
        _Listed("/completions", "completions", "direct"),
        _Listed("/embeddings", "embeddings", "direct"),
        _Listed("/rerank", "rerank", "direct"),
        _Listed("/images", "images", "direct"),
        _Listed("/images/generations", "images", "direct"),
        _Listed("/images/edits", "images", "direct"),
        _Listed("/images/variations", "images", "direct"),
        _Listed("/videos", "videos", "direct"),
        _Listed("/audio/speech", "speech", "direct"),
        _Listed("/audio/transcriptions", "transcription", "direct"),
        _Listed("/audio/translations", "transcription", "direct"),
    ),
}


class RouteTable:
    """All endpoints that one transport touches, found by one dictionary look-up.

    Args:
        settings: Their base URLs and routes come beside the vendors' own hosts.
    """

    def __init__(self, settings: Settings) -> None:
        # The later one counts: who gives the gateway's relay as OpenRouter's base URL still means the relay.
        routes = [
            Route(OPENROUTER_BASE_URL, kind="direct"),
            Route(settings.openrouter_base_url, kind="direct"),
            Route(KEYWORDSAI_BASE_URL, kind="gateway"),
            Route(RESPAN_BASE_URL, kind="gateway"),
            Route(settings.base_url, kind="gateway"),
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
        return self._endpoints.get((scheme, host, port, target)) or self._endpoints.get(
            (scheme, host, port, target.partition(b"?")[0])
        )

    def resembles(self, scheme: bytes, host: bytes, port: int | None, target: bytes) -> bool:
        """Say whether a call that is not on the list looks as if it were meant to be.

        Its origin looks like one of the vendors', or is on the list with another path to its models.
        """
        if (scheme, host, port) in self._origins:
            return target.partition(b"?")[0].rstrip(b"/").endswith(_MODEL_CALLS)
        return any(mark in host.lower() for mark in _MARKS)

    def _add(self, route: Route) -> None:
        parts = urlsplit(route.url)
        host = (parts.hostname or "").encode()
        port = None if parts.port == _DEFAULT_PORTS[parts.scheme] else parts.port
        for path, listed in _endpoints_of(route, parts.path.rstrip("/")):
            endpoint = Endpoint(
                listed.kind,
                listed.provider or route.provider,
                host.decode(),
                path,
                listed.format,
                listed.place,
                listed.takes_header,
            )
            for variant in (path, path + "/"):
                self._endpoints[parts.scheme.encode(), host, port, variant.encode()] = endpoint


_MARKS: Final = (b"keywordsai", b"respan.ai", b"openrouter")
_MODEL_CALLS: Final = (b"/chat/completions", b"/v1/messages", b"/responses")


def _endpoints_of(route: Route, base: str) -> list[tuple[str, _Listed]]:
    listed = _LISTED[route.kind]
    for each in listed:
        if base.endswith(each.path):
            return [(base, each)]
        for base_of_sdk in each.bases:
            # What an SDK is given for the relay or for Anthropic's endpoint is below the gateway, not another one.
            if base.endswith(base_of_sdk):
                return [(base.removesuffix(base_of_sdk) + each.path, each)]
    bases = [base]
    if route.kind == "gateway":
        # The vendor's samples use the gateway with and without /api.
        bases.append(base.removesuffix("/api") if base.endswith("/api") else base + "/api")
    return [(each + one.path, one) for each in bases for one in listed]
