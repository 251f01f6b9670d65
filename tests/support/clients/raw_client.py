"""No SDK at all: httpx and httpx2 as they are."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from tests.support.clients.client import HOUSE_KEY, MODEL, WORDS, Client
from tests.support.clients.openai_client import messages
from tests.support.either_way import then
from tests.support.flavours import Flavour

__all__ = ["Raw"]


class Raw(Client):
    """`post`, and `send` with a stream."""

    name = "raw"

    @classmethod
    def own_http_client(cls, flavour: Flavour) -> Any:
        return flavour.plain_client_class()

    def make(self, http_client: Any, base_url: str, retries: int, timeout: dict[str, float]) -> None:
        self.client = http_client
        self.url = base_url.rstrip("/") + "/chat/completions"
        self.options = {"headers": {"authorization": f"Bearer {HOUSE_KEY}"}, **timeout}

    def ask(self, model: str = MODEL, text: str = WORDS, **more: Any) -> Any:
        body = {"model": model, "messages": messages(text), **more}
        return then(self.client.post(self.url, json=body, **self.options), _content_of)

    def stream(self, model: str = MODEL, text: str = WORDS, **more: Any) -> Any:
        body = {"model": model, "messages": messages(text), "stream": True, **more}
        request = self.client.build_request("POST", self.url, json=body, **self.options)
        return then(self.client.send(request, stream=True), self._words_of)

    def _words_of(self, response: Any) -> Any:
        if not self.flavour.asynchronous:
            with contextlib.closing(response):
                return "".join(map(_word_of, response.iter_lines()))

        async def words() -> str:
            async with contextlib.aclosing(response):
                return "".join([_word_of(line) async for line in response.aiter_lines()])

        return words()

    def close(self) -> None:
        self.flavour.close(self.client)


def _content_of(response: Any) -> str:
    response.raise_for_status()
    return str(response.json()["choices"][0]["message"]["content"])


def _word_of(line: str) -> str:
    """The text in a line of a stream."""
    data = line.removeprefix("data: ")
    return _delta_of(json.loads(data)) or "" if data.startswith("{") else ""


def _delta_of(chunk: Any) -> str | None:
    """The text of a chunk as it is on the wire."""
    return chunk["choices"][0]["delta"].get("content") if chunk["choices"] else None
