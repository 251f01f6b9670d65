"""LiteLLM over our clients, on its two routes."""

from __future__ import annotations

from typing import Any

import litellm
import openai
from litellm.llms.custom_httpx.http_handler import AsyncHTTPHandler, HTTPHandler

from tests.support.clients.checks import ClientChecks
from tests.support.clients.client import HOUSE_KEY, MODEL, WORDS, Client
from tests.support.clients.openai_client import content_of, delta_of, messages
from tests.support.either_way import joined, then
from tests.support.flavours import HTTPX

# Its own asynchronous clients are of aiohttp otherwise, whose errors have other causes.
litellm.disable_aiohttp_transport = True


class OpenRouterRoute(Client):
    """`openrouter/...`, which takes LiteLLM's own handlers around an HTTP client."""

    name = "litellm-openrouter"
    prefix = "openrouter/"

    def make(self, http_client: Any, base_url: str, retries: int, timeout: dict[str, float]) -> None:
        self.options: dict[str, Any] = {
            "api_base": base_url,
            "api_key": HOUSE_KEY,
            "max_retries": retries,
            "client": http_client and self.handler(http_client, base_url, retries),
            **timeout,
        }
        self.completion = litellm.acompletion if self.flavour.asynchronous else litellm.completion

    def handler(self, http_client: Any, base_url: str, retries: int) -> Any:
        """What the route takes."""
        if not self.flavour.asynchronous:
            return HTTPHandler(client=http_client)
        handler = AsyncHTTPHandler()
        handler.client = http_client
        return handler

    def ask(self, model: str = MODEL, text: str = WORDS, **more: Any) -> Any:
        asked = self.completion(model=self.prefix + model, messages=messages(text), **self.options, **more)
        return then(asked, content_of)

    def stream(self, model: str = MODEL, text: str = WORDS, **more: Any) -> Any:
        asked = self.completion(model=self.prefix + model, messages=messages(text), stream=True, **self.options, **more)
        return then(asked, self.read)

    def read(self, stream: Any) -> Any:
        """The text of a stream. On this route LiteLLM leaves the response open, whose record would be late."""
        pieces = stream.completion_stream

        def closed(text: str) -> Any:
            if self.flavour.asynchronous:
                return then(pieces.http_response.aclose(), lambda _: text)
            pieces.streaming_response.close()
            return text

        return then(joined(stream, delta_of, asynchronous=self.flavour.asynchronous), closed)

    def close(self) -> None:
        """Its own clients are shared by all calls of a process, and stay."""


class OpenAIRoute(OpenRouterRoute):
    """`openai/...`, which takes a client of the OpenAI SDK."""

    name = "litellm-openai"
    prefix = "openai/"

    def handler(self, http_client: Any, base_url: str, retries: int) -> Any:
        maker = openai.AsyncOpenAI if self.flavour.asynchronous else openai.OpenAI
        return maker(base_url=base_url, api_key=HOUSE_KEY, http_client=http_client, max_retries=retries)

    def read(self, stream: Any) -> Any:
        return joined(stream, delta_of, asynchronous=self.flavour.asynchronous)


class TestOpenRouterRoute(ClientChecks):
    kind = OpenRouterRoute
    flavours = HTTPX


class TestOpenAIRoute(ClientChecks):
    kind = OpenAIRoute
    flavours = HTTPX
