"""OpenRouter's legacy completions: texts that go on from prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import zip_longest
from typing import Final

from kwai_middleware.sandbox.answers import Answer, Question
from kwai_middleware.sandbox.completions import DONE, event, filler_of
from kwai_middleware.sandbox.flavours import AtOpenRouter
from kwai_middleware.sandbox.forwarding import OPENROUTER_COMPLETIONS_MEMBERS
from kwai_middleware.sandbox.one_object import OneObject
from kwai_middleware.sandbox.scenarios import reply_to
from kwai_middleware.sandbox.texts import texts_of
from kwai_middleware.sandbox.vendors import OpenRouter

__all__ = ["OpenRouterTextCompletions"]

_BROKEN: Final = b'data: {"object":"text_completion","choices":[{"index":0,"text":"bro\n\n'


class TextCompletion(AtOpenRouter, OneObject):
    """Texts as OpenRouter gives them: so many for each prompt, streamed in turn."""

    def said(self) -> list[Answer]:
        """Return what costs something: each prompt's answer in as many choices as were asked for."""
        asked = self.question
        questions = [Question({**asked.body, "messages": [message]}, asked.query) for message in asked.messages]
        replies = [reply_to(question) for question in questions]
        answers = [reply for reply in replies if isinstance(reply, Answer)]
        return [answer.for_choice(index) for answer in answers for index in range(asked.choices)]

    def body(self) -> dict[str, object]:
        """Return the object."""
        reason = self._reason()
        choices = [
            self._choice(index, answer.words, reason) | {"reasoning": answer.reasoning or None}
            for index, answer in enumerate(self.said())
        ]
        return {**self._head(), "choices": choices, "system_fingerprint": None, "usage": self._usage()}

    def events(self) -> Iterator[bytes]:
        """Yield the events of an answer that is not silent."""
        answer = self.answer
        said = self.said()
        for told in zip_longest(*(each.streamed or (each.words,) for each in said)):
            for index, piece in enumerate(told):
                if piece is not None:
                    yield self._chunk(self._choice(index, piece, None))
        for filler in filler_of(answer.filler):
            yield self._chunk(self._choice(0, filler.decode(), None))
        if answer.is_malformed:
            yield _BROKEN
        if answer.failure is not None:
            yield self._chunk(self._choice(0, "", "error"), error=self.error(), usage=self._usage())
            if not answer.failure_is_last:
                yield DONE
        elif answer.is_finished:
            for index in range(len(said)):
                yield self._chunk(self._choice(index, "", self._reason()))
            yield self._chunk(self._choice(0, "", None), usage=self._usage())
            yield DONE

    def _chunk(self, choice: Mapping[str, object], **members: object) -> bytes:
        return event({**self._head(), "choices": [choice], **members})

    def _head(self) -> dict[str, object]:
        return {
            **self.envelope(),
            "model": self.question.model,
            "object": "text_completion",
            "created": self.created,
        }

    def _choice(self, index: int, text: str, reason: str | None) -> dict[str, object]:
        reasons = {"finish_reason": reason, "native_finish_reason": reason}
        return {"index": index, "text": text, "logprobs": None, **reasons}

    def _reason(self) -> str:
        return self.answer.finish_reason or "stop"

    def _usage(self) -> dict[str, object]:
        bill = self.bill
        return {
            **bill.counts(),
            **self.costs(),
            "prompt_tokens_details": {"cached_tokens": bill.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": bill.reasoning_tokens},
        }


class OpenRouterTextCompletions(OpenRouter):
    """`POST /api/v1/completions` of OpenRouter."""

    completion = TextCompletion
    members = OPENROUTER_COMPLETIONS_MEMBERS

    def lacks(self, body: Mapping[str, object]) -> str | None:
        """Return what is wrong with a request that names a model."""
        complaint = "prompt: a text, tokens, or a non-empty array of either is required"
        return None if texts_of(body.get("prompt")) else complaint

    def asked(self, body: Mapping[str, object]) -> Mapping[str, object]:
        """Return the request as a chat request: each prompt is a message."""
        messages = [{"role": "user", "content": text} for text in texts_of(body.get("prompt"))]
        return {**body, "messages": messages, "tools": None}
