"""What each vendor adds to an answer, whatever its format; and answers that are one JSON object."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Final

import msgspec

from kwai_middleware.sandbox import gateway, openrouter
from kwai_middleware.sandbox.answers import Answer, Question
from kwai_middleware.sandbox.completions import SILENCE, Completion, filler_of

__all__ = ["AtOpenRouter", "Flavoured", "OneObject", "ThroughGateway"]

_FAILED: Final = "Provider returned error"
_SPACE: Final = b" " * 32_768


class Flavoured(Completion):
    """An answer to which the vendor adds something."""

    comment: bytes

    @abstractmethod
    def error(self) -> dict[str, object]:
        """Return the `error` member of an answer that fails after the 200."""

    @abstractmethod
    def costs(self) -> dict[str, object]:
        """Return what stands in the usage beside the tokens."""

    @abstractmethod
    def envelope(self) -> dict[str, object]:
        """Return the members that the vendor adds to an answer."""

    @abstractmethod
    def events(self) -> Iterator[bytes]:
        """Yield the events of an answer that is not silent."""

    def opening(self) -> Iterator[bytes]:
        """Yield what comes before the first event: nothing."""
        return iter(())

    def telling(self) -> Iterator[bytes]:
        """Yield the events from the first to the last that is sent before the answer's ending."""
        return iter([self.comment] * SILENCE) if self.answer.ending == "silent" else self.events()


class ThroughGateway(Flavoured):
    """What comes through the gateway: nothing is added."""

    comment = b": ping\n\n"

    def error(self) -> dict[str, object]:
        """Return the `error` member of an answer that fails after the 200."""
        return gateway.error(self.answer.failure or 502, _FAILED)

    def costs(self) -> dict[str, object]:
        """Return what stands in the usage beside the tokens."""
        return {}

    def envelope(self) -> dict[str, object]:
        """Return the members that the vendor adds to an answer."""
        return {}


class AtOpenRouter(Flavoured):
    """What comes from OpenRouter: its id, its provider and what it cost; comments before a stream."""

    comment = openrouter.OpenRouterCompletion.comment

    def __init__(self, question: Question, answer: Answer) -> None:
        super().__init__(question, answer)
        self.id = f"gen-{self.created}-{self.id}"

    def error(self) -> dict[str, object]:
        """Return the `error` member of an answer that fails after the 200."""
        return openrouter.error(self.answer.failure or 502, _FAILED)

    def costs(self) -> dict[str, object]:
        """Return what stands in the usage beside the tokens."""
        return openrouter.costs(self.bill, is_byok=self.answer.is_byok)

    def envelope(self) -> dict[str, object]:
        """Return the members that the vendor adds to an answer."""
        return {"id": self.id, "provider": openrouter.PROVIDER}

    def opening(self) -> Iterator[bytes]:
        """Yield OpenRouter's comments."""
        yield from (self.comment, self.comment)


class OneObject(Flavoured):
    """An answer that is one JSON object when it comes in one piece."""

    id_prefix = ""

    @abstractmethod
    def body(self) -> dict[str, object]:
        """Return the object."""

    def whole(self) -> bytes:
        """Return the answer in one piece; one that failed is nothing but the error."""
        body = msgspec.json.encode(self.body() if self.answer.failure is None else {"error": self.error()})
        return body[: len(body) * 2 // 3] + b"..." if self.answer.is_malformed else body

    def parts(self) -> Iterator[bytes]:
        """Yield the answer in pieces, however long it is: the space before it is part of it."""
        yield from filler_of(self.answer.filler, _SPACE)
        yield self.whole()

    def events(self) -> Iterator[bytes]:
        """Yield no event: what cannot be streamed has none."""
        return iter(())
