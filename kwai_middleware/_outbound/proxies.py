"""Which proxies the environment asks for, as mounts of a client.

Read as httpx and httpx2 read it themselves; their own reader is private, and a client that is given
a transport does not read the environment at all.
"""

from __future__ import annotations

import ipaddress
from urllib.request import getproxies

__all__ = ["environment_proxies"]


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
