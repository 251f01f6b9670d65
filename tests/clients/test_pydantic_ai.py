"""pydantic-ai over our clients."""

from __future__ import annotations

from tests.support.clients.checks import ClientChecks
from tests.support.clients.pydantic_ai_client import AnthropicAgent, OpenAIAgent, OpenRouterAgent
from tests.support.flavours import HTTPX2

ASYNC = [flavour for flavour in HTTPX2 if "async" in str(flavour.id)]


class TestOpenAIProvider(ClientChecks):
    kind = OpenAIAgent
    flavours = ASYNC
    routes = ("gateway", "openrouter")


class TestOpenRouterProvider(ClientChecks):
    kind = OpenRouterAgent
    flavours = ASYNC
    routes = ("relay", "openrouter")


class TestAnthropicProvider(ClientChecks):
    kind = AnthropicAgent
    flavours = ASYNC
    routes = ("gateway", "openrouter")
    pays = ("openrouter",)
