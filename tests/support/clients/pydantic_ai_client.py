"""pydantic-ai over three of its providers; it is asynchronous."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.models.openrouter import OpenRouterModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.providers.openrouter import OpenRouterProvider

from tests.support.clients.anthropic_client import Anthropic
from tests.support.clients.client import HOUSE_KEY, MODEL, WORDS, Client

__all__ = ["AnthropicAgent", "OpenAIAgent", "OpenRouterAgent"]


class OpenAIAgent(Client):
    """`run` and `run_stream` of an agent over the OpenAI provider."""

    name = "pydantic-ai-openai"

    def make(self, http_client: Any, base_url: str, retries: int, timeout: dict[str, float]) -> None:
        self.client: Any = openai.AsyncOpenAI(
            base_url=base_url, api_key=HOUSE_KEY, http_client=http_client, max_retries=retries, **timeout
        )

    def model(self, name: str) -> Any:
        """A model of the provider."""
        return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=self.client))

    async def ask(self, model: str = MODEL, text: str = WORDS, **more: Any) -> Any:
        result = await Agent(self.model(model), **more).run(text)
        return result.output

    async def stream(self, model: str = MODEL, text: str = WORDS, **more: Any) -> Any:
        async with Agent(self.model(model), **more).run_stream(text) as result:
            return "".join([piece async for piece in result.stream_text(delta=True, debounce_by=None)])

    def close(self) -> None:
        self.flavour.run(self.client.close())


class OpenRouterAgent(OpenAIAgent):
    """The same over the OpenRouter provider."""

    name = "pydantic-ai-openrouter"

    def model(self, name: str) -> Any:
        return OpenRouterModel(name, provider=OpenRouterProvider(openai_client=self.client))


class AnthropicAgent(OpenAIAgent):
    """The same over the Anthropic provider."""

    name = "pydantic-ai-anthropic"
    base_url = Anthropic.base_url

    def make(self, http_client: Any, base_url: str, retries: int, timeout: dict[str, float]) -> None:
        self.client = anthropic.AsyncAnthropic(
            base_url=base_url, auth_token=HOUSE_KEY, http_client=http_client, max_retries=retries, **timeout
        )

    def model(self, name: str) -> Any:
        return AnthropicModel(name, provider=AnthropicProvider(anthropic_client=self.client))
