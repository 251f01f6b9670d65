"""The numbers of a completion, and the order in which a streamed one is told."""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from kwai_middleware.sandbox.answers import Answer, Question, ToolCall

__all__ = ["DONE", "Bill", "Completion", "event"]

DONE: Final = b"data: [DONE]\n\n"

_BYTES_PER_TOKEN: Final = 4
_TOKENS_PER_MESSAGE: Final = 4
_CACHED_FROM: Final = 64
_PROMPT_PRICE: Final = 0.5e-6
_COMPLETION_PRICE: Final = 1.5e-6
_BYOK_FEE: Final = 0.05

_encode: Final = msgspec.json.Encoder().encode


def event(value: object) -> bytes:
    """Return one server-sent event that carries `value` as JSON."""
    return b"data: " + _encode(value) + b"\n\n"


def _tokens(text: str) -> int:
    return -(-len(text.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN)


@dataclass(frozen=True, slots=True)
class Bill:
    """What a completion used and cost (US dollars); follows from the texts alone, so that tests can compute it.

    A token is 4 bytes of UTF-8 and each message costs 4 more; from 64 tokens on half of a prompt
    was cached; a million tokens cost $0.50 in and $1.50 out.
    """

    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int

    @classmethod
    def of(cls, question: Question, answer: Answer) -> Bill:
        """Return the bill for `answer`."""
        prompt = sum(_TOKENS_PER_MESSAGE + _tokens(text) for text in question.texts)
        reasoning = _tokens(answer.reasoning)
        said = _tokens(answer.text) + sum(_tokens(call.name + call.arguments) for call in answer.tool_calls)
        return cls(prompt, prompt // 2 if prompt >= _CACHED_FROM else 0, said + reasoning, reasoning)

    @property
    def total_tokens(self) -> int:
        """Prompt and completion."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def prompt_cost(self) -> float:
        """What the prompt cost."""
        return round(self.prompt_tokens * _PROMPT_PRICE, 10)

    @property
    def completion_cost(self) -> float:
        """What the completion cost."""
        return round(self.completion_tokens * _COMPLETION_PRICE, 10)

    @property
    def upstream_cost(self) -> float:
        """What the provider charges."""
        return round(self.prompt_cost + self.completion_cost, 10)

    @property
    def fee(self) -> float:
        """What OpenRouter takes when the account pays the provider itself."""
        return round(self.upstream_cost * _BYOK_FEE, 10)


class Completion(ABC):
    """One answer in one vendor's shape.

    Args:
        question: What was asked.
        answer: What is answered.
    """

    id_prefix: str

    def __init__(self, question: Question, answer: Answer) -> None:
        self.question = question
        self.answer = answer
        self.bill = Bill.of(question, answer)
        self.created = int(time.time())
        self.id = f"{self.id_prefix}{secrets.token_hex(10)}"
        self.finish_reason = "tool_calls" if answer.tool_calls else "stop"

    @abstractmethod
    def whole(self) -> bytes:
        """Return the answer in one piece."""

    @abstractmethod
    def opening(self) -> Iterator[bytes]:
        """Yield what comes before the first token."""

    @abstractmethod
    def piece(self, text: str) -> bytes:
        """Return the event of a piece of text."""

    @abstractmethod
    def reasoning(self, text: str) -> bytes:
        """Return the event of a piece of reasoning."""

    @abstractmethod
    def tool_call(self, index: int, call: ToolCall) -> Iterator[bytes]:
        """Yield the events of a tool call: its name first, its arguments in two halves."""

    @abstractmethod
    def finish(self) -> Iterator[bytes]:
        """Yield what comes after the last token, up to `[DONE]`."""

    @abstractmethod
    def failure(self) -> bytes:
        """Return the event of the error in mid-stream."""

    def telling(self) -> Iterator[bytes]:
        """Yield the events from the first token to the last that is sent before the answer's ending."""
        answer = self.answer
        # Both vendors open with an empty piece, which is no token.
        yield self.piece("")
        if answer.reasoning:
            yield self.reasoning(answer.reasoning)
        # A token at least is out before the trouble begins.
        told = len(answer.pieces) if answer.ending in ("done", "late", "no-done") else -(-len(answer.pieces) // 2)
        if answer.failure is not None:
            told = -(-len(answer.pieces) // 2)
        for text in answer.pieces[:told]:
            yield self.piece(text)
        for index, call in enumerate(answer.tool_calls):
            yield from self.tool_call(index, call)
        if answer.failure is not None:
            yield self.failure()
            if not answer.failure_is_last:
                yield DONE
        elif answer.ending in ("done", "late"):
            yield from self.finish()
            yield DONE

    @property
    def half(self) -> str:
        """The text that is out before an error strikes."""
        return "".join(self.answer.pieces[: -(-len(self.answer.pieces) // 2)])
