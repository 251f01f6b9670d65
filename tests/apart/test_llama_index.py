"""LlamaIndex over our clients, with its OpenAI and its OpenRouter model."""

from __future__ import annotations

from typing import Any

from llama_index.llms.openai import OpenAI
from llama_index.llms.openrouter import OpenRouter

from tests.support.clients.checks import ClientChecks
from tests.support.clients.client import HOUSE_KEY, WORDS, Client
from tests.support.either_way import joined, then
from tests.support.flavours import HTTPX

CHAT = "gpt-4o"


class OpenAIModel(Client):
    """`complete`, `stream_complete` and their asynchronous twins."""

    name = "llama-index-openai"

    def make(self, http_client: Any, base_url: str, retries: int, timeout: dict[str, float]) -> None:
        side = "async_http_client" if self.flavour.asynchronous else "http_client"
        self.options = {
            "api_base": base_url,
            "api_key": HOUSE_KEY,
            "max_retries": retries,
            side: http_client,
            **timeout,
        }
        self.models: dict[str, Any] = {}

    def model(self, name: str) -> Any:
        """The one model of that name; it keeps its connections."""
        if name not in self.models:
            self.models[name] = self.made(name)
        return self.models[name]

    def made(self, name: str) -> Any:
        """A model of that name. This one takes no name that is not OpenAI's own, and sends what stands beside it."""
        return OpenAI(model=CHAT, additional_kwargs={"model": name}, **self.options)

    def ask(self, model: str = CHAT, text: str = WORDS, **more: Any) -> Any:
        llm = self.model(model)
        complete = llm.acomplete if self.flavour.asynchronous else llm.complete
        return then(complete(text, **more), lambda answer: answer.text)

    def stream(self, model: str = CHAT, text: str = WORDS, **more: Any) -> Any:
        llm = self.model(model)
        complete = llm.astream_complete if self.flavour.asynchronous else llm.stream_complete
        return then(complete(text, **more), lambda stream: joined(stream, lambda piece: piece.delta))

    def close(self) -> None:
        """It has no way to be closed."""


class OpenRouterModel(OpenAIModel):
    """The same of its OpenRouter model."""

    name = "llama-index-openrouter"

    def made(self, name: str) -> Any:
        """A model of that name."""
        return OpenRouter(model=name, **self.options)


class TestOpenAIModel(ClientChecks):
    kind = OpenAIModel
    flavours = HTTPX


class TestOpenRouterModel(ClientChecks):
    kind = OpenRouterModel
    flavours = HTTPX
