"""What answers of many formats say of themselves, in the same members."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kwai_middleware._outbound.formats import tolerant, usage
from kwai_middleware._outbound.formats.failures import error_of, failure_in, provider_in
from kwai_middleware._outbound.formats.interface import Answer, Failure, Tokens

__all__ = ["Facts"]


class Facts:
    """Names, usage and failure of one answer; of several names and failures the first counts."""

    def __init__(self) -> None:
        self.failure: Failure | None = None
        self._usage: dict[str, Any] | None = None
        self._model: str | None = None
        self._generation_id: str | None = None
        self._provider: str | None = None

    def add(self, members: dict[str, Any]) -> None:
        """Add what a whole answer, or one event of a stream, says."""
        self._model = self._model or _text(members.get("model"))
        self._generation_id = self._generation_id or _text(members.get("id"))
        self._provider = self._provider or _text(members.get("provider"))
        self.add_usage(members.get("usage"))
        if members.get("type") == "error" or members.get("error"):
            self.fail(error_of(members))

    def add_usage(self, given: object) -> None:
        """Add a usage, wherever it stood; what is none adds nothing."""
        if members := tolerant.members_of(given):
            self._usage = usage.merged(self._usage, members)

    @property
    def has_usage(self) -> bool:
        """Whether any usage was told."""
        return self._usage is not None

    def fail(self, error: object) -> None:
        """Note an error."""
        if self.failure is None:
            self.failure = failure_in(error)
            self._provider = self._provider or provider_in(error)

    def answer(
        self,
        *,
        completions: tuple[dict[str, Any], ...] = (),
        output: bytes | None = None,
        finish_reason: str | None = None,
        first_content: int | None = None,
        finished: int | None = None,
        count: Callable[[dict[str, Any]], Tokens] = usage.tokens_in,
        ends_with_body: bool = False,
    ) -> Answer:
        """Return the answer, with what is the format's own; `count` reads its usage."""
        return Answer(
            model=self._model,
            generation_id=self._generation_id,
            provider=self._provider,
            completions=completions,
            output=output,
            finish_reason=finish_reason,
            usage=self._usage,
            tokens=count(self._usage or {}),
            failure=self.failure,
            first_content=first_content,
            finished=finished,
            ends_with_body=ends_with_body,
        )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
