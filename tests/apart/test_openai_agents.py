"""The OpenAI Agents SDK over our clients; it is asynchronous."""

from __future__ import annotations

from typing import Any

import openai
from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, RunConfig, Runner

from tests.support.clients.checks import ClientChecks
from tests.support.clients.client import HOUSE_KEY, MODEL, WORDS, Client
from tests.support.flavours import HTTPX2

ASYNC = [flavour for flavour in HTTPX2 if "async" in str(flavour.id)]
UNTRACED = RunConfig(tracing_disabled=True)


class Agents(Client):
    """`Runner.run` and `Runner.run_streamed` with the model of chat completions."""

    name = "openai-agents"

    def make(self, http_client: Any, base_url: str, retries: int, timeout: dict[str, float]) -> None:
        self.client = openai.AsyncOpenAI(
            base_url=base_url, api_key=HOUSE_KEY, http_client=http_client, max_retries=retries, **timeout
        )

    def agent(self, model: str) -> Any:
        """An agent with that model."""
        chat = OpenAIChatCompletionsModel(model=model, openai_client=self.client)
        return Agent(name="echo", model=chat, model_settings=ModelSettings())

    async def ask(self, model: str = MODEL, text: str = WORDS, **more: Any) -> Any:
        result = await Runner.run(self.agent(model), text, run_config=UNTRACED)
        return result.final_output

    async def stream(self, model: str = MODEL, text: str = WORDS, **more: Any) -> Any:
        result = Runner.run_streamed(self.agent(model), text, run_config=UNTRACED)
        words = []
        async for event in result.stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                words.append(event.data.delta)
        return "".join(words)

    def close(self) -> None:
        self.flavour.run(self.client.close())


class TestAgents(ClientChecks):
    kind = Agents
    flavours = ASYNC
