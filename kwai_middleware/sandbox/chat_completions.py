"""Answers in the chat format, as far as the vendors agree: the message, and the order in which a stream tells it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain, zip_longest
from typing import Final

import msgspec

from kwai_middleware.sandbox.answers import Answer, Question
from kwai_middleware.sandbox.completions import DONE, FILLER_MARK, SILENCE, Completion, filled, filler_of

__all__ = ["ChatCompletion", "Deltas"]

Deltas = Iterator[dict[str, object]]

_BROKEN: Final = b'data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"bro\n\n'


class ChatCompletion(Completion):
    """An answer in the chat format: as many choices as were asked for, streamed in turn."""

    comment: bytes

    def __init__(self, question: Question, answer: Answer) -> None:
        super().__init__(question, answer)
        self.choices = [answer.for_choice(index) for index in range(question.choices)]
        self.finish_reason = answer.finish_reason or ("tool_calls" if answer.tool_calls else "stop")

    @abstractmethod
    def message(self, answer: Answer) -> dict[str, object]:
        """Return the message of one choice, but for what both vendors tell alike."""

    @abstractmethod
    def answer_of(self, choices: list[dict[str, object]]) -> dict[str, object]:
        """Return the whole answer around its choices."""

    @abstractmethod
    def choice(self, index: int, finish_reason: str | None, **members: object) -> dict[str, object]:
        """Return one choice with a message or a delta in it."""

    @abstractmethod
    def delta(self, **members: object) -> dict[str, object]:
        """Return what a chunk brings beside what each one brings."""

    @abstractmethod
    def reasoning(self, answer: Answer) -> Deltas:
        """Yield the deltas of what was thought."""

    @abstractmethod
    def chunk(self, choice: dict[str, object], **members: object) -> bytes:
        """Return the event of one choice's delta."""

    @abstractmethod
    def error(self) -> dict[str, object]:
        """Return the `error` member of an answer that fails after the 200."""

    @abstractmethod
    def failure(self) -> bytes:
        """Return the event of the error in mid-stream."""

    @abstractmethod
    def counts(self) -> Iterator[bytes]:
        """Yield the event of the usage, if there is one."""

    def whole(self) -> bytes:
        """Return the answer in one piece."""
        answer = self.answer
        if answer.failure is not None and answer.failure_at_top:
            return self.failed_whole()
        choices: list[dict[str, object]] = []
        for index, each in enumerate(self.choices):
            told = each if answer.failure is None else replace(each, pieces=each.half)
            choice = self.choice(index, self.finish_reason, message=self.message(told) | _extras(told))
            if answer.failure is not None:
                choice |= {name: "error" for name in choice if name.endswith("finish_reason")} | {"error": self.error()}
            choices.append(choice)
        body = msgspec.json.encode(self.answer_of(choices))
        return body[: len(body) * 2 // 3] + b"..." if answer.is_malformed else body

    def failed_whole(self) -> bytes:
        """Return an answer with an error in place of the choices."""
        return msgspec.json.encode({"error": self.error()})

    def parts(self) -> Iterator[bytes]:
        """Yield the answer in pieces, however long it is."""
        marked = replace(self.choices[0], pieces=(*self.answer.pieces, FILLER_MARK), filler=0)
        shape = type(self)(self.question, marked)
        shape.id, shape.bill = self.id, self.bill
        yield from filled(shape.whole(), self.answer.filler)

    def telling(self) -> Iterator[bytes]:
        """Yield the events from the first token to the last that is sent before the answer's ending."""
        answer = self.answer
        if answer.ending == "silent":
            yield from [self.comment] * SILENCE
            return
        for told in zip_longest(*(self._deltas(each) for each in self.choices)):
            for index, delta in enumerate(told):
                if delta is not None:
                    yield self.chunk(self.choice(index, None, delta=delta))
        for filler in filler_of(answer.filler):
            yield self.chunk(self.choice(0, None, delta=self.delta(content=filler.decode())))
        if answer.is_malformed:
            yield _BROKEN
        if answer.failure is not None:
            yield self.failure()
            if not answer.failure_is_last:
                yield DONE
        elif answer.ending in ("done", "late"):
            for index in range(len(self.choices)):
                yield self.chunk(self.choice(index, self.finish_reason, delta=self.last_delta()))
            yield from self.counts()
            yield DONE

    def last_delta(self) -> dict[str, object]:
        """Return the delta beside a finish reason."""
        return {}

    def _deltas(self, answer: Answer) -> Deltas:
        # Both vendors open with an empty piece, which is no token.
        yield {"role": "assistant", "content": ""}
        yield from self.reasoning(answer)
        for text in answer.streamed:
            yield self.delta(content=text)
        half = len(answer.refusal) // 2
        for text in (answer.refusal[:half], answer.refusal[half:]):
            if text:
                yield self.delta(refusal=text)
        for part in _tool_call_parts(answer):
            yield self.delta(content=None, tool_calls=[part])
        if answer.annotations:
            yield self.delta(annotations=answer.annotations)
        for image in _images(answer):
            yield self.delta(images=[image])
        for part in answer.audio.told_in_parts() if answer.audio else ():
            yield self.delta(audio=part)


def _tool_call_parts(answer: Answer) -> Iterable[Mapping[str, object]]:
    """The parts of the tool calls: one call after the other, or in turn."""
    calls = [
        [{"index": index, **part} for part in call.told_in_parts()] for index, call in enumerate(answer.tool_calls)
    ]
    return chain.from_iterable(zip(*calls, strict=True) if answer.is_parallel else calls)


def _images(answer: Answer) -> list[dict[str, object]]:
    return [{"type": "image_url", "image_url": {"url": url}, "index": index} for index, url in enumerate(answer.images)]


def _extras(answer: Answer) -> dict[str, object]:
    """What both vendors tell alike of a message."""
    extras: dict[str, object] = {}
    if answer.annotations:
        extras["annotations"] = answer.annotations
    if answer.images:
        extras["images"] = _images(answer)
    if answer.audio:
        extras["audio"] = answer.audio.told()
    return extras
