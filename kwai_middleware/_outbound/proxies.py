"""Which proxies the environment asks for, as mounts of a client.

Read as httpx and httpx2 read it themselves; their own reader is private, and a client that is given
a transport does not read the environment at all.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit
from urllib.request import getproxies

from kwai_middleware._route import is_loopback
from kwai_middleware._settings import Settings

__all__ = ["environment_proxies", "is_elsewhere", "unproxied_routes"]


def environment_proxies() -> dict[str, str | None]:
    """Return the URL of the proxy for each URL pattern; None where `NO_PROXY` asks for none."""
    environment = getproxies()
    mounts: dict[str, str | None] = {}
    for scheme in ("http", "https", "all"):
        proxy = environment.get(scheme)
        if proxy:
            mounts[f"{scheme}://"] = proxy if "://" in proxy else f"http://{proxy}"
    for entry in environment.get("no", "").split(","):
        host = entry.strip()
        if host == "*":
            return {}
        if host:
            mounts[_pattern(host)] = None
    return mounts


def unproxied_routes(proxies: Mapping[str, str | None], settings: Settings) -> dict[str, None]:
    """Return what is called directly in spite of these proxies: routes to this machine by plain HTTP.

    A proxy on another one would get the keys in clear over the network, for a server that it cannot reach.

    Args:
        proxies: As `environment_proxies` returns them.
        settings: With the routes.
    """
    proxy = proxies.get("http://") or proxies.get("all://")
    if proxy is None or not is_elsewhere(proxy):
        return {}
    urls = (settings.base_url, settings.openrouter_base_url, *(route.url for route in settings.routes))
    hosts = {parts.hostname or "" for parts in map(urlsplit, urls) if parts.scheme == "http"}
    return {f"http://[{host}]" if ":" in host else f"http://{host}": None for host in hosts if is_loopback(host)}


def is_elsewhere(proxy: str) -> bool:
    """Say whether a proxy is on another machine than this one."""
    try:
        return not is_loopback(urlsplit(proxy).hostname or "")
    except ValueError:
        return True


def _pattern(host: str) -> str:
    if "://" in host:
        return host
    if _is_ip(host, 4) or host.lower() == "localhost" or host.startswith("["):
        return f"all://{host}"
    if _is_ip(host, 6):
        address, slash, prefix = host.partition("/")
        return f"all://[{address}]{slash}{prefix}"
    if host.startswith("*."):
        return f"all://{host}"
    # `example.com` stands for itself and for what lies below it; `.example.com` for the latter only.
    return f"all://*{host}"


def _is_ip(host: str, version: int) -> bool:
    try:
        return ipaddress.ip_address(host.partition("/")[0]).version == version
    except ValueError:
        return False
