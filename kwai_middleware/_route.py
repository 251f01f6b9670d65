"""Destinations: what a host and endpoint is to us."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, get_args
from urllib.parse import urlsplit

from kwai_middleware.errors import ConfigurationError

__all__ = ["Route", "RouteKind", "checked_base_url"]

RouteKind = Literal["gateway", "relay", "direct"]
"""What a destination is: a gateway, a gateway's relay to OpenRouter, or a model's own API."""

# So that a vendor listed without a word is never sent the keys of another.
_VENDORS: Final[Mapping[str, str]] = {
    "openrouter.ai": "openrouter",
    "api.openai.com": "openai",
    "api.anthropic.com": "anthropic",
    "api.groq.com": "groq",
    "api.mistral.ai": "mistral",
    "api.deepseek.com": "deepseek",
    "api.cohere.com": "cohere",
    "api.cohere.ai": "cohere",
    "api.fireworks.ai": "fireworks",
    "api.moonshot.ai": "moonshot",
    "api.together.xyz": "together_ai",
    "api.x.ai": "xai",
    "api.perplexity.ai": "perplexity",
    "generativelanguage.googleapis.com": "google",
}


@dataclass(frozen=True, slots=True)
class Route:
    """A further host whose model calls are attributed: what you give an SDK as `base_url`.

    Args:
        url: The base URL, such as `https://llm.example/v1`. Of the host only the `POST` endpoints of
            models below it are touched, with and without a trailing slash: `/chat/completions`,
            `/messages`, `/responses`, `/completions`, `/embeddings`, `/rerank`, `/images...`,
            `/videos` and `/audio/...` on a direct route. On a gateway the paths with and without
            `/api` are the same, and its relay and its Anthropic endpoint come along. A URL that
            names an endpoint stands for that one only.
        kind: `gateway` for a Keywords AI (Respan) gateway: key and identity travel in the body, and
            the gateway logs the call. `relay` for its relay to OpenRouter (`.../api/openrouter/v1`):
            the key travels in a header, the identity in the body. `direct` for OpenRouter or another
            OpenAI-compatible host: the caller's key takes the place of the `Authorization` header,
            and we log the call.
        provider: On direct routes, whose key: the `Credential.provider` that is sent there. When not
            given, that of the host where it is a well-known vendor's, else `openrouter`.
        insecure: Allows `http` to a host that is not loopback. A key in clear on a network is
            everybody's; set it only for a network that you trust as much as this process.

    Raises:
        ConfigurationError: The URL is not `https` (or `http` to loopback), or has credentials, a
            query or a fragment; or a well-known vendor's own API is called a gateway.
    """

    url: str
    kind: RouteKind = "direct"
    provider: str = ""
    insecure: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(RouteKind):
            raise ConfigurationError(f"Route.kind: one of {', '.join(get_args(RouteKind))}")
        checked_base_url("Route.url", self.url, insecure=self.insecure)
        host = urlsplit(self.url).hostname or ""
        if self.kind != "direct" and host in _VENDORS:
            raise ConfigurationError(
                f"Route.kind: {host} is no gateway (nor a base_url), and hands on what it does not know, keys included;"
                " for calls that go straight there use kind='direct', or openrouter_base_url"
            )
        if not self.provider:
            object.__setattr__(self, "provider", _VENDORS.get(host, "openrouter"))


def checked_base_url(field: str, url: str, *, insecure: bool = False) -> str:
    """Return `url` without its trailing slashes.

    Raises:
        ConfigurationError: It is not an absolute base URL that a key may travel to; the message
            names `field`.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except (ValueError, AttributeError, TypeError):
        raise ConfigurationError(f"{field}: not a URL; expected something like https://host/path") from None
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise ConfigurationError(f"{field}: expected an absolute https:// URL, such as https://host/path")
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(f"{field}: no user name or password in the URL")
    if parts.query or parts.fragment or "?" in url or "#" in url:
        raise ConfigurationError(f"{field}: a base URL has no query and no fragment")
    if port == 0 or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigurationError(f"{field}: not a URL; expected something like https://host/path")
    if parts.scheme == "http" and not insecure and not is_loopback(parts.hostname):
        raise ConfigurationError(
            f"{field}: http:// sends keys in clear; use https:// (loopback may be http;"
            " another host needs Route(..., insecure=True))"
        )
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Say whether `host` names this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
