"""What is asked, by whom, with which key, and what the model answers: about 2 KB, as OpenRouter does."""

from __future__ import annotations

import json
from typing import Final

from benchmarks.loopback.wire import Kept, Reply, answer

__all__ = ["ANSWERED", "TEXT", "answered", "customer", "key_of", "question_of", "requests"]

_CUSTOMERS: Final = 100
_FILLER: Final = "Where does the quick brown fox go when the lazy dog wakes up? " * 8

TEXT: Final = "The quick brown fox jumps over the lazy dog and runs away. " * 34
"""What the model says."""

ANSWERED: Final = TEXT[:40].encode()
"""Stands in each answer that is one."""

_COMPLETION: Final = {
    "id": "gen-1763900000-abcdefghijklmnopqrst",
    "provider": "OpenAI",
    "model": "openai/gpt-4o-mini",
    "object": "chat.completion",
    "created": 1763900000,
    "choices": [
        {
            "index": 0,
            "finish_reason": "stop",
            "native_finish_reason": "stop",
            "logprobs": None,
            "message": {"role": "assistant", "content": TEXT, "refusal": None},
        }
    ],
    "usage": {
        "prompt_tokens": 120,
        "completion_tokens": 442,
        "total_tokens": 562,
        "cost": 0.00028,
        "is_byok": False,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    },
}
_ANSWER: Final = answer(json.dumps(_COMPLETION).encode())


def answered(_: Kept) -> Reply:
    """Answer as the model, whatever is asked."""
    return _ANSWER


def customer(number: int) -> str:
    """Return a customer's name."""
    return f"customer-{number:03d}"


def key_of(name: str) -> str:
    """Return a customer's own key."""
    return f"sk-or-v1-{name}-0123456789abcdef0123456789abcdef"


def question_of(name: str) -> str:
    """Return what a customer asks; the name stands in it."""
    return f"I am {name}. {_FILLER}"


def requests() -> list[bytes]:
    """Return a request of each customer, as it goes over the wire."""
    return [_request(customer(number)) for number in range(_CUSTOMERS)]


def _request(name: str) -> bytes:
    body = json.dumps({"question": question_of(name)}).encode()
    head = (
        "POST /ask HTTP/1.1\r\nHost: app.example\r\nUser-Agent: benchmark\r\nAccept: */*\r\n"
        f"X-Customer-Id: {name}\r\nX-OpenRouter-Key: {key_of(name)}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
