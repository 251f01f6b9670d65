"""Sends one request through the transport and returns it as it reached the network."""

from __future__ import annotations

import json
from typing import Any

from kwai_middleware._caller import Caller
from kwai_middleware._context import bind_caller
from tests.support.callers import GATEWAY, settings
from tests.support.flavours import Flavour

__all__ = ["ANTHROPIC", "RELAY", "wired", "wired_call"]

RELAY = GATEWAY.replace("/chat/completions", "/openrouter/v1/chat/completions")
ANTHROPIC = GATEWAY.replace("/chat/completions", "/anthropic/v1/messages")


def wired(
    flavour: Flavour,
    who: Caller | None,
    body: Any = None,
    url: str = GATEWAY,
    headers: dict[str, str] | None = None,
    request: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """The request that reaches the network when `who` sends `body`; `options` are settings."""
    return wired_call(flavour, who, body, url, headers, request, **options)[0]


def wired_call(
    flavour: Flavour,
    who: Caller | None,
    body: Any = None,
    url: str = GATEWAY,
    headers: dict[str, str] | None = None,
    request: dict[str, Any] | None = None,
    **options: Any,
) -> tuple[Any, Any]:
    """The same, and what was handed over for the record."""
    sent: list[Any] = []
    calls: list[Any] = []

    def handler(request: Any) -> Any:
        sent.append(request)
        return flavour.library.Response(200, json={})

    if request is None:
        content = body if isinstance(body, bytes) else json.dumps({"model": "m"} if body is None else body).encode()
        request = {"content": content}
    client = flavour.answering(handler, settings=settings(**options), deliver=calls.append)
    try:
        with bind_caller(who):
            flavour.post(client, url, headers={"authorization": "Bearer app", **(headers or {})}, **request)
    finally:
        flavour.close(client)
    return sent[0], calls[0]
