"""pydantic-ai over our clients."""

from __future__ import annotations

from kwai_middleware import bind_caller, current_caller
from kwai_middleware.sandbox import Sandbox
from tests.support.callers import caller
from tests.support.clients.checks import ClientChecks, Make
from tests.support.clients.client import WORDS, Calls
from tests.support.clients.pydantic_ai_client import AnthropicAgent, OpenAIAgent, OpenRouterAgent
from tests.support.flavours import HTTPX2, Flavour

ASYNC = [flavour for flavour in HTTPX2 if "async" in str(flavour.id)]


class TestOpenAIProvider(ClientChecks):
    kind = OpenAIAgent
    flavours = ASYNC
    routes = ("gateway", "openrouter")

    def test_a_tool_call(self, make: Make, flavour: Flavour, vendors: Sandbox, calls: Calls) -> None:
        """An agent's tool is called between two calls of the model; both are the caller's, each is a record."""
        client, used = make("openrouter"), []

        def look_up(text: str) -> str:
            """Look something up."""
            used.append((text, current_caller()))
            return "found"

        with bind_caller(caller()):
            assert "found" == flavour.run(client.ask("sandbox/tools", tools=[look_up]))
        [(text, who)] = used
        assert WORDS == text
        assert who is not None
        assert "acme" == who.identifier
        assert ["tool_calls", "stop"] == [calls.next().finish_reason for _ in range(2)]
        for call in vendors.calls(wait=2):
            self.check_call(call, "acme", "openrouter")


class TestOpenRouterProvider(ClientChecks):
    kind = OpenRouterAgent
    flavours = ASYNC
    routes = ("relay", "openrouter")


class TestAnthropicProvider(ClientChecks):
    kind = AnthropicAgent
    flavours = ASYNC
    routes = ("gateway", "openrouter")
    pays = ("openrouter",)
