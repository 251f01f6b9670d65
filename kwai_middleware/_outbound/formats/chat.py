"""Chat completions, as OpenAI defined them and OpenRouter extends them."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from kwai_middleware._outbound import sse
from kwai_middleware._outbound.formats import tolerant, usage
from kwai_middleware._outbound.formats.asking import count, request_members, request_of
from kwai_middleware._outbound.formats.beginnings import beginning_of
from kwai_middleware._outbound.formats.chat_chunks import Choice, Chunk, TextChunk, loose_chunk, text_chunks
from kwai_middleware._outbound.formats.chat_message import Message
from kwai_middleware._outbound.formats.failures import failure_in, provider_in
from kwai_middleware._outbound.formats.interface import Answer, Failure, Received, Request
from kwai_middleware._outbound.formats.reading import mended
from kwai_middleware._pace import WINDOW, breathe
from kwai_middleware._pieces import decoded_json
from kwai_middleware._secret import Secret

__all__ = ["answer", "request"]

_MOST_CHOICES: Final = 128
_FINISH_REASON: Final = re.compile(rb'"finish_reason" ?: ?"([a-z_]{1,40})"')


def request(body: bytes) -> Request:
    """Read a request's body; see `Format`."""
    members = request_members(body)
    return request_of(members, messages=members.pop("messages", None), choices=count(members.get("n")))


def answer(received: Received, request: Request) -> Answer:
    """Read an answer's body; see `Format`."""
    assembly = _Assembly(request.choices)
    parts, secrets = received.parts, received.secrets
    if received.streamed:
        _read_stream(parts, assembly)
    elif len(parts) == 1:
        assembly.add(_chunk(parts[0], assembly), None)
        if assembly.is_answer:
            assembly.finished = len(parts[0])
        else:
            assembly.add_beginning(parts[0], secrets)
    else:
        assembly.add_beginning(parts[0], secrets)
        assembly.add_end(parts[-1])
    return assembly.answer(secrets)


def _read_stream(parts: tuple[bytes, ...], assembly: _Assembly) -> None:
    start = 0
    for number, part in enumerate(parts):
        if number:
            assembly.skip()
        for run in sse.runs(part):
            texts = text_chunks(run.lines)
            if texts:
                assembly.add_texts(texts, run, start)
                breathe()
            for event in run.events(len(texts)):
                if event.data == b"[DONE]":
                    assembly.finish(start + event.end)
                    return
                assembly.add(_chunk(event.data, assembly), start + event.end)
                breathe()
        start += len(part)


_chunk_decoder: Final = msgspec.json.Decoder(Chunk)
_NOTHING: Final = Chunk()


def _chunk(data: bytes, assembly: _Assembly) -> Chunk:
    """Decode one chunk of a stream, or a whole answer; an empty one when it is not JSON."""
    if not data.lstrip().startswith(b"{"):
        # Two parsers would say the same by exceptions, and a stream may be a million of these.
        assembly.is_answer = False
        return _NOTHING
    try:
        # A long text in it would make one long call of it.
        chunk = _chunk_decoder.decode(data) if len(data) <= WINDOW else msgspec.convert(decoded_json(data), Chunk)
    except tolerant.UNREADABLE:
        value = tolerant.loads(data)
        assembly.is_answer = isinstance(value, dict)
        assembly.is_loose = assembly.is_loose or assembly.is_answer
        return loose_chunk(value) if assembly.is_answer else _NOTHING
    assembly.is_answer = True
    return chunk


class _Assembly:
    """An answer, put together of its chunks."""

    def __init__(self, choices: int) -> None:
        self.usage: dict[str, Any] | None = None
        self.finished: int | None = None
        self.is_answer = False
        self.is_loose = False
        self._choices = choices
        self._messages: dict[int, Message] = {}
        self._is_skipped = False
        self._unfinished: set[int] = set()
        self._model: str | None = None
        self._generation_id: str | None = None
        self._provider: str | None = None
        self._failure: Failure | None = None
        self._first_content: int | None = None

    def add(self, chunk: Chunk, end: int | None) -> None:
        """Add a chunk that was complete at the offset `end`; None for an answer that came at once."""
        # The first that is said counts: the gateway ends with a chunk of its own, under another name.
        self._generation_id = self._generation_id or chunk.id
        self._model = self._model or chunk.model
        self._provider = self._provider or chunk.provider
        if chunk.usage:
            self.usage = usage.merged(self.usage, chunk.usage)
        if chunk.error:
            self._fail(chunk.error)
        for choice in chunk.choices or ():
            if self._add_choice(choice) and self._first_content is None:
                self._first_content = end
        if end is not None and (self._failure or self._is_over()):
            self.finish(end)

    def add_texts(self, chunks: list[TextChunk], run: sse.Run, start: int) -> None:
        """Add the first chunks of a run of a part that begins at the offset `start`: the same as to add each."""
        self._generation_id = self._generation_id or next((chunk.id for chunk in chunks if chunk.id), None)
        self._model = self._model or next((chunk.model for chunk in chunks if chunk.model), None)
        self._provider = self._provider or next((chunk.provider for chunk in chunks if chunk.provider), None)
        message = self._message(0)
        if message is None:
            return
        deltas = [chunk.choices[0].delta for chunk in chunks]
        message.pieces.add_texts(deltas)
        if self._first_content is None:
            first = next((number for number, delta in enumerate(deltas) if delta.content), None)
            self._first_content = None if first is None else start + run.end_of(first)

    def finish(self, end: int) -> None:
        """Note that the answer is over, by its own word, at the offset `end`; the first word counts."""
        if self.finished is None:
            self.finished = end

    def skip(self) -> None:
        """Note that chunks are missing from here on."""
        self._is_skipped = True
        for message in self._messages.values():
            message.pieces.skip()

    def add_beginning(self, beginning: bytes, secrets: tuple[Secret, ...]) -> None:
        """Add the beginning of an answer that should have come at once, and is not whole."""
        self.is_loose = True
        self.add(loose_chunk(beginning_of(beginning, secrets)), None)

    def add_end(self, end: bytes) -> None:
        """Add the end of an answer that came at once, and whose middle is missing."""
        if found := usage.last_in(end):
            self.usage = usage.merged(self.usage, found)
        reasons = _FINISH_REASON.findall(end)
        if reasons and self._choices == 1 and len(self._messages) <= 1:
            self._add_choice(Choice(finish_reason=reasons[-1].decode()))

    def answer(self, secrets: tuple[Secret, ...]) -> Answer:
        messages = [self._messages[index] for index in sorted(self._messages)]
        completions = tuple(message.completion(secrets) for message in messages)
        used = self.usage or {}
        answer = Answer(
            model=self._model,
            generation_id=self._generation_id,
            provider=self._provider,
            completions=completions,
            finish_reason=messages[0].finish_reason if messages else None,
            usage=self.usage,
            tokens=usage.tokens_in(used),
            failure=self._failure,
            first_content=self._first_content,
            finished=self.finished,
        )
        return mended(answer) if self.is_loose else answer

    def _message(self, index: int) -> Message | None:
        """Return the message of a choice; None when there are too many."""
        message = self._messages.get(index)
        if message is None and len(self._messages) < _MOST_CHOICES:
            message = self._messages[index] = Message()
            if self._is_skipped:
                message.pieces.skip()
            self._unfinished.add(index)
        return message

    def _add_choice(self, choice: Choice) -> bool:
        message = self._message(choice.index)
        if message is None:
            return False
        has_content = choice.delta is not None and message.pieces.add(choice.delta)
        if choice.message is not None:
            message.add_whole(choice.message)
            has_content = True
        if choice.finish_reason:
            message.finish_reason = choice.finish_reason
            self._unfinished.discard(choice.index)
        if choice.error:
            self._fail(choice.error)
        elif choice.finish_reason == "error":
            self._fail("The provider failed while it answered.")
        return has_content

    def _fail(self, error: object) -> None:
        if self._failure is None:
            self._failure = failure_in(error)
            self._provider = self._provider or provider_in(error)

    def _is_over(self) -> bool:
        return self.usage is not None and not self._unfinished and len(self._messages) >= self._choices
