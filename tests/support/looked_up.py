"""Calls whose keys are looked up, and what of them reached the network."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from kwai_middleware import Caller, Credential, Secret, bind_caller
from kwai_middleware.key_resolver import KeyResolver
from tests.support.callers import GATEWAY, key_of, settings
from tests.support.flavours import Flavour

__all__ = ["ASKS", "Vault", "call", "key_sent"]

ASKS = {"content": json.dumps({"model": "m"}).encode(), "headers": {"authorization": "Bearer app"}}


class Vault:
    """Where the app keeps its customers' keys: it counts who was asked for, and may fail."""

    def __init__(self, *, without: tuple[str, ...] = ()) -> None:
        self.without = set(without)
        self.asked: list[str | None] = []
        self.error: BaseException | None = None

    def keys_of(self, caller: Caller) -> list[Credential] | None:
        self.asked.append(caller.identifier)
        if self.error is not None:
            raise self.error
        if caller.identifier in self.without:
            return None
        return [Credential(api_key=Secret(key_of(f"{caller.issuer or ''}{caller.group or ''}{caller.identifier}")))]

    async def keys_of_async(self, caller: Caller) -> list[Credential] | None:
        return self.keys_of(caller)


def call(
    flavour: Flavour,
    caller: Caller | None,
    keys: KeyResolver,
    url: str = GATEWAY,
    *,
    seen: Callable[[Any], object] | None = None,
    times: int = 1,
    deliver: Callable[[Any], Any] = lambda _: None,
    **options: Any,
) -> list[Any]:
    """Make one call for `caller`; return the requests that reached the network."""
    sent: list[Any] = []

    def handler(request: Any) -> Any:
        sent.append(request)
        return flavour.library.Response(200, json={})

    client = flavour.answering(handler, settings=settings(**options), deliver=deliver)
    try:
        with bind_caller(caller, credentials=keys):
            for _ in range(times):
                flavour.post(client, url, **ASKS)
            if seen is not None:
                seen(None)
    finally:
        flavour.close(client)
    return sent


def key_sent(request: Any) -> str | None:
    """The key that a request carries in place of the app's own; None when it carries none."""
    credentials = json.loads(request.content).get("customer_credentials")
    if credentials is not None:
        return str(credentials["openrouter"]["api_key"])
    authorization = str(request.headers["authorization"])
    return None if authorization == "Bearer app" else authorization.removeprefix("Bearer ")
