"""The numbers of a completion, and what every completion has, whatever its format."""

from __future__ import annotations

import math
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from kwai_middleware.sandbox.answers import Answer, Question

__all__ = [
    "DONE",
    "FILLER_MARK",
    "SILENCE",
    "Bill",
    "Completion",
    "event",
    "filled",
    "filler_of",
    "named_event",
    "tokens",
]

DONE: Final = b"data: [DONE]\n\n"
SILENCE: Final = 20
"""Comments in a stream of nothing else."""

FILLER_MARK: Final = "\ue000"
"""Stands in a text where it is filled up."""

_FILLER: Final = b"word " * 6_553

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


def named_event(kind: str, members: dict[str, object]) -> bytes:
    """Return one server-sent event that names its kind twice, in its own line and among its members."""
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), _encode({"type": kind, **members}))


def filler_of(size: float, unit: bytes = _FILLER) -> Iterator[bytes]:
    """Yield so many bytes of text, or of what else is repeated."""
    while size > 0:
        filler = unit[: int(min(size, len(unit)))]
        size -= len(filler)
        yield filler


def filled(marked: bytes, size: float) -> Iterator[bytes]:
    """Yield what was encoded with marks in its texts, so many bytes of text in the place of each."""
    head, *others = marked.split(FILLER_MARK.encode())
    yield head
    for other in others:
        yield from filler_of(size)
        yield other


def tokens(text: str) -> int:
    """Return how many tokens a text is."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // _BYTES_PER_TOKEN)


def _said(answer: Answer) -> int:
    texts = [answer.text, answer.refusal, answer.audio.transcript if answer.audio else ""]
    texts += [call.name + call.arguments for call in answer.tool_calls]
    filler = int(answer.filler) // _BYTES_PER_TOKEN if answer.filler < math.inf else 0
    return sum(map(tokens, texts)) + filler


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
    cache_write_tokens: int = 0

    @classmethod
    def of(cls, question: Question, said: Sequence[Answer], *, is_cached: bool) -> Bill:
        """Return the bill for everything that is `said`; `is_cached` caches even the shortest prompt."""
        prompt = sum(_TOKENS_PER_MESSAGE + tokens(text) for text in question.texts)
        reasoning = sum(tokens(answer.reasoning) for answer in said)
        spoken = sum(map(_said, said))
        half_cached = is_cached or prompt >= _CACHED_FROM
        cached = prompt // 2 if half_cached else 0
        return cls(
            prompt_tokens=prompt,
            cached_tokens=cached,
            completion_tokens=spoken + reasoning,
            reasoning_tokens=reasoning,
            cache_write_tokens=prompt - cached if is_cached else 0,
        )

    @property
    def total_tokens(self) -> int:
        """Prompt and completion."""
        return self.prompt_tokens + self.completion_tokens

    def counts(self) -> dict[str, object]:
        """Return the members with which a usage in the style of chat completions begins."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total_tokens,
        }

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

    Attributes:
        status: Of an answer.
        content_type: Of the answer in one piece.

    Args:
        question: What was asked.
        answer: What is answered.
    """

    id_prefix: str
    status: int = 200
    content_type: str = "application/json"

    def __init__(self, question: Question, answer: Answer) -> None:
        self.question = question
        self.answer = answer
        self.bill = Bill.of(question, self.said(), is_cached=answer.is_cached)
        self.created = int(time.time())
        self.id = f"{self.id_prefix}{secrets.token_hex(10)}"

    def said(self) -> list[Answer]:
        """Return what costs something: the answer in as many choices as were asked for."""
        return [self.answer.for_choice(index) for index in range(self.question.choices)]

    @abstractmethod
    def whole(self) -> bytes:
        """Return the answer in one piece."""

    def parts(self) -> Iterator[bytes]:
        """Yield the answer in pieces, however long it is."""
        yield self.whole()

    @abstractmethod
    def opening(self) -> Iterator[bytes]:
        """Yield what comes before the first token."""

    @abstractmethod
    def telling(self) -> Iterator[bytes]:
        """Yield the events from the first token to the last that is sent before the answer's ending."""
