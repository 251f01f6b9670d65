"""Calls of 2 MB, as they come out of an HTTP client: a long conversation as JSON, and the answer to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import httpx2

from kwai_middleware import Caller, Settings, bind_caller
from kwai_middleware.httpx2_transport import KwaiTransport

__all__ = ["ANSWER", "CUSTOMER", "LAST_WORDS", "REQUEST", "pending_calls"]

CUSTOMER: Final = "acme-4711"
LAST_WORDS: Final = "These are the last words of a long conversation."
_WORDS: Final = 'He said: "The quick brown fox\njumps over the lazy dog." '
_MESSAGES: Final = [
    {"role": "user" if number % 2 == 0 else "assistant", "content": f"{number}: {_WORDS * 170}"}
    for number in range(200)
]
REQUEST: Final = json.dumps(
    {"model": "openai/gpt-4o-mini", "messages": [*_MESSAGES, {"role": "user", "content": LAST_WORDS}]}
).encode()
ANSWER: Final = json.dumps(
    {
        "id": "gen-1",
        "model": "openai/gpt-4o-mini",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": _WORDS * 1000}}],
        "usage": {"prompt_tokens": 500_000, "completion_tokens": 9000, "total_tokens": 509_000, "cost": 0.1},
    }
).encode()


class _Model(httpx2.BaseTransport):
    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(
            200, headers={"content-type": "application/json"}, stream=httpx2.ByteStream(bytes(bytearray(ANSWER)))
        )


def pending_calls(settings: Settings) -> Callable[[int], list[Any]]:
    """Return what makes calls through the transport, and keeps what the transport would have handed to delivery."""
    finished: list[Any] = []
    client = httpx2.Client(transport=KwaiTransport(_Model(), settings=settings, deliver=finished.append))

    def make(count: int) -> list[Any]:
        finished.clear()
        with bind_caller(Caller(identifier=CUSTOMER)):
            for _ in range(count):
                client.post(
                    "https://openrouter.ai/api/v1/chat/completions",
                    content=bytes(bytearray(REQUEST)),
                    headers={"content-type": "application/json", "authorization": "Bearer app-key"},
                )
        return finished.copy()

    return make
