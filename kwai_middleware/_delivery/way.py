"""The way to the vendor: a connection, direct or through the proxy that the environment names."""

from __future__ import annotations

import base64
import urllib.request
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

import httpx

from kwai_middleware._delivery.native_http import NativeConnection

__all__ = ["Way", "way_to"]


class Way(NamedTuple):
    """How to ask for one URL.

    Attributes:
        connection: Not yet opened.
        target: What to ask for on it.
        headers: What the next hop wants to see beside the request's own.
    """

    connection: NativeConnection
    target: str
    headers: dict[str, str]


def way_to(url: str, timeout: float) -> Way:
    """Return the way to `url`.

    The proxy, and what is exempt from it, are those of the environment (`https_proxy`, `no_proxy`,
    ...) at this moment; certificates are trusted as httpx does (`SSL_CERT_FILE`, `SSL_CERT_DIR`,
    else those of certifi).

    Raises:
        OSError: The proxy is none, or one that is not spoken to in plain HTTP.
    """
    parts = urlsplit(url)
    proxy = _proxy(parts)
    first = parts if proxy is None else proxy
    trust = None if parts.scheme == "http" else httpx.create_ssl_context()
    connection = NativeConnection(_host(first), first.port or _usual_port(first), timeout, trust)
    headers = {"host": parts.netloc.rpartition("@")[2]}
    if proxy is None:
        return Way(connection, parts.path, headers)
    if trust is None:
        return Way(connection, url, headers | _proxy_headers(proxy))
    connection.set_tunnel(_host(parts), parts.port or _usual_port(parts), _proxy_headers(proxy))
    return Way(connection, parts.path, headers)


def _host(parts: SplitResult) -> str:
    return parts.hostname or ""


def _usual_port(parts: SplitResult) -> int:
    return 80 if parts.scheme == "http" else 443


def _proxy(destination: SplitResult) -> SplitResult | None:
    proxies = urllib.request.getproxies()
    proxy = proxies.get(destination.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(destination.netloc):
        return None
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        is_spoken_to = parts.scheme == "http" and parts.port != 0
    except ValueError:
        raise OSError("the environment names a proxy that is no URL; records cannot go through it") from None
    if not is_spoken_to:
        raise OSError("the environment names a proxy that is not an http:// one; records cannot go through it")
    return parts


def _proxy_headers(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    name_and_password = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"proxy-authorization": f"Basic {base64.b64encode(name_and_password.encode()).decode()}"}
