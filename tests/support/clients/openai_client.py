"""The OpenAI SDK, 3 on either library and 2 on httpx."""

from __future__ import annotations

from typing import Any

import openai

from tests.support.clients.client import HOUSE_KEY, MODEL, WORDS, Client
from tests.support.either_way import joined, then
from tests.support.flavours import Flavour

__all__ = ["OpenAI", "content_of", "delta_of", "messages"]


def messages(text: str) -> Any:
    """A conversation of one message."""
    return [{"role": "user", "content": text}]


def content_of(completion: Any) -> str:
    """The text of a chat completion."""
    return str(completion.choices[0].message.content)


def delta_of(chunk: Any) -> str | None:
    """The text of a chunk of a chat completion."""
    return chunk.choices[0].delta.content if chunk.choices else None


class OpenAI(Client):
    """`chat.completions.create`."""

    name = "openai"

    @classmethod
    def own_http_client(cls, flavour: Flavour) -> Any:
        # Of the two libraries that it takes it makes only clients of the newer one itself.
        own = openai.DefaultHttpxClient.__mro__
        return None if flavour.library.Client in own else flavour.plain_client_class()

    def make(self, http_client: Any, base_url: str, retries: int, timeout: dict[str, float]) -> None:
        maker = openai.AsyncOpenAI if self.flavour.asynchronous else openai.OpenAI
        self.client: Any = maker(
            base_url=base_url, api_key=HOUSE_KEY, http_client=http_client, max_retries=retries, **timeout
        )

    def ask(self, model: str = MODEL, text: str = WORDS, **more: Any) -> Any:
        return then(self.client.chat.completions.create(model=model, messages=messages(text), **more), content_of)

    def stream(self, model: str = MODEL, text: str = WORDS, **more: Any) -> Any:
        started = self.client.chat.completions.create(model=model, messages=messages(text), stream=True, **more)
        return then(started, lambda stream: joined(stream, delta_of))

    def close(self) -> None:
        self.flavour.run(self.client.close())
