"""A model that answers at once, as OpenRouter does, with about 2 KB."""

from __future__ import annotations

import json
from typing import Final

from benchmarks.loopback.wire import Kept, answer

__all__ = ["TEXT", "answered"]

TEXT: Final = "The quick brown fox jumps over the lazy dog and runs away. " * 34

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


def answered(_: Kept) -> bytes:
    """Answer whatever is asked."""
    return _ANSWER
