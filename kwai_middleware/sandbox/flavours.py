"""What each vendor adds to an answer, whatever its format."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Final

from kwai_middleware.sandbox import gateway, openrouter
from kwai_middleware.sandbox.answers import Answer, Question
from kwai_middleware.sandbox.completions import SILENCE, Completion

__all__ = ["AtOpenRouter", "Flavoured", "ThroughGateway"]

_FAILED: Final = "Provider returned error"


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
