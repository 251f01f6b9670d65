"""LangChain's ChatOpenAI, which has a client for each side."""

from __future__ import annotations

from typing import Any

import openai
from langchain_openai import ChatOpenAI

from tests.support.clients.client import HOUSE_KEY, MODEL, WORDS, Client
from tests.support.either_way import joined, then
from tests.support.flavours import Flavour

__all__ = ["LangChain"]


class LangChain(Client):
    """`invoke`, `stream`, `ainvoke` and `astream`."""

    name = "langchain"

    @classmethod
    def own_http_client(cls, flavour: Flavour) -> Any:
        """The SDK's own: LangChain's live as long as the process, and so longer than the loop of a test."""
        return openai.DefaultAsyncHttpxClient() if flavour.asynchronous else openai.DefaultHttpxClient()

    def make(self, http_client: Any, base_url: str, retries: int, timeout: dict[str, float]) -> None:
        self.http_client = http_client
        side = "http_async_client" if self.flavour.asynchronous else "http_client"
        self.client = ChatOpenAI(
            base_url=base_url, api_key=HOUSE_KEY, max_retries=retries, **timeout, **{side: http_client}
        )

    def ask(self, model: str = MODEL, text: str = WORDS, **more: Any) -> Any:
        invoke = self.client.ainvoke if self.flavour.asynchronous else self.client.invoke
        return then(invoke(text, model=model, **more), lambda message: message.content)

    def stream(self, model: str = MODEL, text: str = WORDS, **more: Any) -> Any:
        stream = self.client.astream if self.flavour.asynchronous else self.client.stream
        return joined(stream(text, model=model, **more), lambda chunk: chunk.content)

    def close(self) -> None:
        self.flavour.close(self.http_client)
