"""What is asked and answered in each call: about 2 KB either way, as in a chat with some history."""

from __future__ import annotations

import json
from typing import Any, Final

__all__ = [
    "ANSWER", "ANSWER_MARK", "CHUNKS", "EVENTS", "MESSAGES", "MODEL", "PROMPT_MARK", "UNARY",
]  # fmt: skip

MODEL: Final = "openai/gpt-5-mini"

PROMPT_MARK: Final = "booking-4711"
"""Stands once in each prompt, and nowhere else: by it the sink counts prompts, however they are wrapped."""

ANSWER_MARK: Final = "tariff-0815"
"""Stands once in each answer."""

_SENTENCE: Final = "The night train leaves at half past nine, and breakfast is served before the border. "

MESSAGES: Final[list[dict[str, Any]]] = [
    {"role": "system", "content": "You are the assistant of a travel agency. Be brief and kind. " + _SENTENCE * 6},
    {"role": "user", "content": "Which trains go to the sea in May? " + _SENTENCE * 6},
    {"role": "assistant", "content": "There are two of them. " + _SENTENCE * 8},
    {"role": "user", "content": f"What does {PROMPT_MARK} cost me, and when do I have to pay? " + _SENTENCE * 2},
]

CHUNKS: Final = 200
"""Of a streamed answer, each with some ten characters of it; one more says how it ended, another what it cost."""

_MARK_AT: Final = 20
_PIECES: Final = [f"{ANSWER_MARK} " if number == _MARK_AT else f"word-{number:03d}, " for number in range(CHUNKS)]

ANSWER: Final = "".join(_PIECES)

_USAGE: Final = {
    "prompt_tokens": 512, "completion_tokens": 402, "total_tokens": 914, "cost": 0.00123, "is_byok": False,
    "prompt_tokens_details": {"cached_tokens": 0},
    "cost_details": {"upstream_inference_cost": None},
    "completion_tokens_details": {"reasoning_tokens": 0},
}  # fmt: skip


def _body(kind: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    named = {"id": "gen-1700000000-0123456789abcdef", "provider": "OpenAI", "model": MODEL, "object": kind}
    return {**named, "created": 1_700_000_000, "choices": choices, **more}


def _chunk(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": None, "native_finish_reason": None, "logprobs": None, **more}
    return _body("chat.completion.chunk", [choice])


UNARY: Final = json.dumps(
    _body(
        "chat.completion",
        [
            {
                "index": 0,
                "finish_reason": "stop",
                "native_finish_reason": "stop",
                "logprobs": None,
                "message": {"role": "assistant", "content": ANSWER, "refusal": None, "reasoning": None},
            }
        ],
        usage=_USAGE,
    )
).encode()
"""The answer as one body."""

EVENTS: Final = [
    *(
        b"data: %s\n\n" % json.dumps(event).encode()
        for event in (
            *(_chunk({"role": "assistant", "content": piece}) for piece in _PIECES),
            _chunk({"role": "assistant", "content": ""}, finish_reason="stop"),
            _body("chat.completion.chunk", [], usage=_USAGE),
        )
    ),
    b"data: [DONE]\n\n",
]
"""The answer as a stream of server-sent events."""
