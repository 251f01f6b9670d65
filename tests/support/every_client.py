"""One POST as the caller `acme` through each client, into memory or onto the wire: what comes of any URL at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple

import aiohttp
import requests
from requests.adapters import BaseAdapter, HTTPAdapter

from kwai_middleware import Settings, aiohttp_middleware, bind_caller, requests_adapter
from kwai_middleware.aiohttp_middleware import KwaiMiddleware
from kwai_middleware.requests_adapter import KwaiAdapter
from tests.support.callers import caller
from tests.support.door_calls import APP, BODY
from tests.support.flavours import FLAVOURS, Flavour

__all__ = ["CLIENTS", "Wire", "follow", "send"]

CLIENTS = [*(str(flavour.id) for flavour in FLAVOURS), "requests", "aiohttp"]
DEFAULT_PORTS = {"http": 80, "https": 443}


class Wire(NamedTuple):
    """A request at the point where a connection would be opened for it, as the client has understood its URL."""

    scheme: str
    host: str
    port: int
    target: str
    text: str


def send(client: str, url: str, settings: Settings) -> Wire | None:
    """What would go to the wire for this URL; None when the client does not take it."""
    seen: list[Wire] = []
    inside = {"requests": _requests, "aiohttp": _aiohttp}.get(client, _httpx(client))
    try:
        with bind_caller(caller()):
            inside(url, settings, seen.append)
    except (ValueError, UnicodeError, requests.RequestException, aiohttp.ClientError):
        pass
    except Exception as error:
        if type(error).__name__ not in ("InvalidURL", "UnsupportedProtocol", "LocalProtocolError"):
            raise
    return seen[0] if seen else None


def follow(client: str, url: str, settings: Settings) -> None:
    """Send it for good, and follow redirects wherever they lead."""
    try:
        with bind_caller(caller()):
            if client == "requests":
                with requests_adapter.session(settings=settings, deliver=_nowhere) as session:
                    session.mount("http://", session.get_adapter("https://"))
                    session.post(url, data=BODY, headers=APP, timeout=5)
            elif client == "aiohttp":
                asyncio.run(_follow_aiohttp(url, settings))
            else:
                _follow_httpx(client, url, settings)
    except (requests.RequestException, aiohttp.ClientError, ValueError):
        pass
    except Exception as error:
        if not any(kind.__name__ in ("HTTPError", "InvalidURL") for kind in type(error).__mro__):
            raise


def _nowhere(call: object) -> None:
    """Take a finished call."""


def _flavour(client: str) -> Flavour:
    [(library, door, asynchronous)] = [flavour.values[0] for flavour in FLAVOURS if flavour.id == client]  # type: ignore[misc]  # as it is declared
    return Flavour(library, door, asynchronous=asynchronous)


def _httpx(client: str) -> Callable[..., None]:
    def sends(url: str, settings: Settings, seen: Callable[[Wire], Any]) -> None:
        flavour = _flavour(client)

        def handler(request: Any) -> Any:
            there = request.url
            host, target = there.raw_host.decode(), there.raw_path.decode()
            port = there.port or DEFAULT_PORTS.get(there.scheme, 0)
            seen(Wire(there.scheme, host, port, target, f"{request.headers.raw}{request.content}"))
            return flavour.library.Response(200, json={})

        made = flavour.answering(handler, settings=settings, deliver=_nowhere)
        try:
            flavour.post(made, url, content=BODY, headers=APP)
        finally:
            flavour.close(made)
            flavour.end()

    return sends


def _follow_httpx(client: str, url: str, settings: Settings) -> None:
    flavour = _flavour(client)
    made = flavour.client(settings=settings, deliver=_nowhere, follow_redirects=True, timeout=5)
    try:
        flavour.post(made, url, content=BODY, headers=APP)
    finally:
        flavour.close(made)
        flavour.end()


class _Inside(BaseAdapter):
    """An adapter that opens no connection."""

    def __init__(self, seen: Callable[[Wire], Any]) -> None:
        super().__init__()
        self._seen = seen

    def send(self, request: Any, *arguments: Any, **options: Any) -> Any:
        """Keep where the library's own adapter would have gone."""
        there, _ = HTTPAdapter().build_connection_pool_key_attributes(request, True)
        port = there["port"] or DEFAULT_PORTS[there["scheme"]]
        body = request.body
        text = f"{request.headers}{b''.join(body) if body is not None and not isinstance(body, bytes) else body!r}"
        self._seen(Wire(there["scheme"], there["host"], port, request.path_url, text))
        raise requests.ConnectionError("no further", request=request)

    def close(self) -> None:
        """Nothing is open."""


def _requests(url: str, settings: Settings, seen: Callable[[Wire], Any]) -> None:
    with requests.Session() as session:
        for prefix in ("https://", "http://"):
            session.mount(prefix, KwaiAdapter(_Inside(seen), settings=settings, deliver=_nowhere))
        session.post(url, data=BODY, headers=APP)


def _aiohttp(url: str, settings: Settings, seen: Callable[[Wire], Any]) -> None:
    async def inside(request: aiohttp.ClientRequest, handler: Any) -> Any:
        there = request.url
        body: Any = request.body
        text = f"{request.headers}{await body.as_bytes()}"
        seen(Wire(there.scheme, there.raw_host or "", there.port or 0, there.raw_path_qs, text))
        raise aiohttp.ClientConnectionError("no further")

    async def post() -> None:
        ours = KwaiMiddleware(settings=settings, deliver=_nowhere)
        async with (
            aiohttp.ClientSession(middlewares=(ours, inside)) as session,
            session.post(url, data=BODY, headers=APP),
        ):
            pass

    asyncio.run(post())


async def _follow_aiohttp(url: str, settings: Settings) -> None:
    limit = aiohttp.ClientTimeout(5)
    async with (
        aiohttp_middleware.session(settings=settings, deliver=_nowhere, timeout=limit) as session,
        session.post(url, data=BODY, headers=APP) as response,
    ):
        await response.read()
