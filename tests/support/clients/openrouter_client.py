"""OpenRouter's own SDK."""

from __future__ import annotations

from typing import Any

import openrouter
from openrouter.utils import BackoffStrategy, RetryConfig

from tests.support.clients.client import HOUSE_KEY, MODEL, WORDS, Client
from tests.support.clients.openai_client import content_of, delta_of, messages
from tests.support.either_way import joined, then

__all__ = ["OpenRouter"]

ONCE = RetryConfig("none", BackoffStrategy(0, 0, 1.0, 0), False)
ONE_MORE = RetryConfig("backoff", BackoffStrategy(800, 800, 1.0, 700), False)
"""A second attempt after 0.8 seconds, by which time there is none for a third."""


class OpenRouter(Client):
    """`chat.send`, which has no way of its own to add a member to a body."""

    name = "openrouter"

    def make(self, http_client: Any, base_url: str, retries: int, timeout: dict[str, float]) -> None:
        side = {"async_client" if self.flavour.asynchronous else "client": http_client}
        limits = {"timeout_ms": int(timeout["timeout"] * 1000)} if timeout else {}
        self.client: Any = openrouter.OpenRouter(
            server_url=base_url.rstrip("/"),
            api_key=HOUSE_KEY,
            retry_config=ONE_MORE if retries else ONCE,
            **side,
            **limits,
        )
        self.send = self.client.chat.send_async if self.flavour.asynchronous else self.client.chat.send

    def ask(self, model: str = MODEL, text: str = WORDS, **more: Any) -> Any:
        return then(self.send(model=model, messages=messages(text), **more), content_of)

    def stream(self, model: str = MODEL, text: str = WORDS, **more: Any) -> Any:
        started = self.send(model=model, messages=messages(text), stream=True, **more)
        return then(started, lambda stream: joined(stream, delta_of))

    def close(self) -> None:
        configuration = self.client.sdk_configuration
        if self.flavour.asynchronous:
            self.flavour.run(configuration.async_client.aclose())
        if configuration.client is not None:
            configuration.client.close()
