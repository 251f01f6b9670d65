"""Model calls from the views of test apps, and who they were for."""

from __future__ import annotations

from typing import Any

import httpx2

from kwai_middleware import Settings, current_caller, explain, httpx2_transport
from kwai_middleware.sandbox import Sandbox

APP = {"authorization": "Bearer app-key"}


class ModelCalls:
    """Calls a model for whoever is current, with nothing but a question.

    Args:
        settings: Where the vendor is.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._url = f"{settings.base_url.rstrip('/')}/chat/completions"
        self._options: dict[str, Any] = {"settings": settings, "deliver": lambda call: True, "verify": False}

    def ask(self, question: str) -> dict[str, Any]:
        """Call with a synchronous client."""
        with httpx2_transport.client(**self._options) as client:
            return self._answer(client.post(self._url, json=self._body(question), headers=APP))

    async def ask_async(self, question: str) -> dict[str, Any]:
        """Call with an async client."""
        async with httpx2_transport.async_client(**self._options) as client:
            return self._answer(await client.post(self._url, json=self._body(question), headers=APP))

    def _body(self, question: str) -> dict[str, Any]:
        return {"model": "sandbox/echo", "messages": [{"role": "user", "content": question}]}

    def _answer(self, response: httpx2.Response) -> dict[str, Any]:
        refused = response.headers.get("x-kwai-refused")
        reason = None if refused is None else response.json()["error"]["message"]
        return {"status": response.status_code, "refused": refused, "reason": reason}


def who() -> dict[str, Any]:
    """Who is current, and where that comes from."""
    caller = current_caller()
    fields = ("identifier", "name", "email", "group", "thread")
    found = {} if caller is None else {field: getattr(caller, field) for field in fields}
    return {field: text for field, text in found.items() if text is not None} | {"from": explain().identity}


def asked(sandbox: Sandbox, count: int) -> dict[str, str | None]:
    """The questions that reached the vendor, each with the customer whom it attributes the call to."""
    calls = sandbox.calls(wait=count)
    assert count == len(calls)
    return {call["body"]["messages"][-1]["content"]: call["customer"] for call in calls}
