"""The Anthropic SDK, which takes clients of httpx2 only."""

from __future__ import annotations

from typing import Any

import anthropic

from kwai_middleware.sandbox import Sandbox
from tests.support.clients.client import HOUSE_KEY, MODEL, WORDS, Client
from tests.support.clients.openai_client import messages
from tests.support.either_way import joined, then

__all__ = ["Anthropic"]


class Anthropic(Client):
    """`messages.create`, to OpenRouter and to the gateway's endpoint in Anthropic's format."""

    name = "anthropic"

    @classmethod
    def base_url(cls, vendors: Sandbox, route: str) -> str:
        return vendors.gateway_anthropic_url if route == "gateway" else vendors.openrouter_anthropic_url

    def make(self, http_client: Any, base_url: str, retries: int, timeout: dict[str, float]) -> None:
        maker = anthropic.AsyncAnthropic if self.flavour.asynchronous else anthropic.Anthropic
        self.client: Any = maker(
            base_url=base_url, auth_token=HOUSE_KEY, http_client=http_client, max_retries=retries, **timeout
        )

    def ask(self, model: str = MODEL, text: str = WORDS, **more: Any) -> Any:
        asked = self.client.messages.create(model=model, messages=messages(text), max_tokens=99, **more)
        return then(asked, lambda message: message.content[0].text)

    def stream(self, model: str = MODEL, text: str = WORDS, **more: Any) -> Any:
        started = self.client.messages.create(model=model, messages=messages(text), max_tokens=99, stream=True, **more)
        return then(started, lambda stream: joined(stream, _text_of))

    def close(self) -> None:
        self.flavour.run(self.client.close())


def _text_of(event: Any) -> str | None:
    return event.delta.text if event.type == "content_block_delta" else None
