"""The way to the vendor: a connection, direct or through the proxy that the environment names."""

from __future__ import annotations

import base64
import http.client
import ssl
import urllib.request
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

import httpx

from kwai_middleware import _native as native
from kwai_middleware._delivery.native_http import NativeConnection

__all__ = ["Way", "way_to"]


class Way(NamedTuple):
    """How to ask for one URL.

    Attributes:
        connection: Opens itself with the first request.
        target: What to ask for on it.
        headers: What the next hop wants to see beside the request's own.
    """

    connection: http.client.HTTPConnection
    target: str
    headers: dict[str, str]


def way_to(url: str, timeout: float) -> Way:
    """Return the way to `url`.

    The proxy, and what is exempt from it, are those of the environment (`https_proxy`, `no_proxy`,
    ...) at this moment; certificates are trusted as httpx does (`SSL_CERT_FILE`, `SSL_CERT_DIR`,
    else those of certifi).

    Raises:
        OSError: The proxy is one that is not spoken to in plain HTTP.
    """
    parts = urlsplit(url)
    proxy = _proxy(parts)
    first = parts if proxy is None else proxy
    port = first.port or (80 if first.scheme == "http" else 443)
    if parts.scheme == "http":
        connection = _connection(first.hostname or "", port, timeout, None)
        return Way(connection, parts.path, {}) if proxy is None else Way(connection, url, _proxy_headers(proxy))
    connection = _connection(first.hostname or "", port, timeout, httpx.create_ssl_context())
    if proxy is not None:
        connection.set_tunnel(parts.hostname or "", parts.port or 443, _proxy_headers(proxy))
    return Way(connection, parts.path, {})


def _connection(host: str, port: int, timeout: float, trust: ssl.SSLContext | None) -> http.client.HTTPConnection:
    if native.is_patched():
        return NativeConnection(host, port, timeout, trust)
    if trust is None:
        return http.client.HTTPConnection(host, port, timeout)
    return http.client.HTTPSConnection(host, port, timeout=timeout, context=trust)


def _proxy(destination: SplitResult) -> SplitResult | None:
    proxies = urllib.request.getproxies()
    proxy = proxies.get(destination.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(destination.netloc):
        return None
    parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if parts.scheme != "http":
        raise OSError("the environment names a proxy that is not an http:// one; records cannot go through it")
    return parts


def _proxy_headers(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    name_and_password = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"proxy-authorization": f"Basic {base64.b64encode(name_and_password.encode()).decode()}"}
