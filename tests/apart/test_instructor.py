"""instructor over our clients."""

from __future__ import annotations

from typing import Any

import instructor
import openai
from pydantic import BaseModel

from tests.support.clients.checks import ClientChecks
from tests.support.clients.client import HOUSE_KEY, WORDS, Client
from tests.support.clients.openai_client import messages
from tests.support.either_way import then
from tests.support.flavours import HTTPX2

TOOLS = "sandbox/tools"


class Answer(BaseModel):
    """What is asked for: the sandbox fills in the question."""

    text: str


class Instructor(Client):
    """`create` and `create_partial`, whose answers are objects."""

    name = "instructor"
    records_content = False  # the answer is a tool call

    def make(self, http_client: Any, base_url: str, retries: int, timeout: dict[str, float]) -> None:
        maker: Any = openai.AsyncOpenAI if self.flavour.asynchronous else openai.OpenAI
        self.client = maker(
            base_url=base_url, api_key=HOUSE_KEY, http_client=http_client, max_retries=retries, **timeout
        )
        self.instructor: Any = instructor.from_openai(self.client)

    def ask(self, model: str = TOOLS, text: str = WORDS, **more: Any) -> Any:
        asked = self.instructor.chat.completions.create(
            model=model, messages=messages(text), response_model=Answer, max_retries=0, **more
        )
        return then(asked, lambda answer: answer.text)

    def stream(self, model: str = TOOLS, text: str = WORDS, **more: Any) -> Any:
        partials = self.instructor.chat.completions.create_partial(
            model=model, messages=messages(text), response_model=Answer, max_retries=0, **more
        )
        return _last_async(partials) if self.flavour.asynchronous else _last(partials)

    def close(self) -> None:
        self.flavour.run(self.client.close())


def _last(partials: Any) -> str:
    return str(list(partials)[-1].text)


async def _last_async(partials: Any) -> str:
    return str([partial async for partial in partials][-1].text)


class TestInstructor(ClientChecks):
    kind = Instructor
    flavours = HTTPX2
    slow = TOOLS
