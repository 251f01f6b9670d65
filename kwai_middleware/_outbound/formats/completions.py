"""Completions of a text, as OpenAI had them before there was chat; OpenRouter and others still take them."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from kwai_middleware._outbound.formats import tolerant, usage
from kwai_middleware._outbound.formats.facts import Facts
from kwai_middleware._outbound.formats.growing import joined_text
from kwai_middleware._outbound.formats.interface import GAP, Answer, Request
from kwai_middleware._outbound.formats.parameters import without_keys
from kwai_middleware._outbound.formats.reading import Reading, mended, request_members, words
from kwai_middleware._pace import breathe
from kwai_middleware._pieces import as_text
from kwai_middleware._secret import Secret

__all__ = ["answer", "request"]

_MOST_CHOICES: Final = 128
_FINISH_REASON: Final = re.compile(rb'"finish_reason" ?: ?"([a-z_]{1,40})"')
_SEVERAL: Final = re.compile(rb'\[\s*["\[]')
_items_decoder: Final = msgspec.json.Decoder(list[msgspec.Raw])


def request(body: bytes) -> Request:
    """Read a request's body; see `Format`.

    The prompt is no chat message: made into one it would look as if the app had sent it so. It may be
    one text or several, or tokens.
    """
    members = request_members(body)
    prompt = members.pop("prompt", None)
    stream = bytes(members.pop("stream", b"")) == b"true"
    choices = tolerant.loads(bytes(members.get("n", b"")))
    return Request(
        model=words(members.pop("model", None)),
        stream=stream,
        choices=(choices if type(choices) is int else 1) * _prompts_in(prompt),
        input=None if prompt is None else bytes(prompt),
        parameters=without_keys(members),
    )


def _prompts_in(prompt: msgspec.Raw | None) -> int:
    """Count the prompts: each is answered by itself. A list of numbers is one, given as tokens."""
    if prompt is None or not _SEVERAL.match(memoryview(prompt)):
        return 1
    count = 0
    for item in _items_decoder.decode(prompt):
        count += bytes(memoryview(item)[:1]) in (b'"', b"[")
        breathe()
    return count


def answer(
    parts: tuple[bytes, ...],
    request: Request,
    *,
    streamed: bool,
    media_type: str = "",
    secrets: tuple[Secret, ...] = (),
) -> Answer:
    """Read an answer's body; see `Format`.

    There are no chat messages in it: `output` is what the vendor's log shows for a log of any type, while
    its members for messages would make a conversation of it that there was not.
    """
    reading = Reading(parts, secrets)
    assembly = _Assembly(request.choices)
    if streamed:
        for told in reading.events(assembly.skip):
            assembly.add(told.members, told.end)
            if told.is_done:
                assembly.finish(told.end)
                break
    elif (whole := reading.whole()) is not None:
        assembly.add(whole, None)
        assembly.finish(len(parts[0]))
    else:
        assembly.add(reading.beginning(), None)
        assembly.add_end(reading.end)
    answer = assembly.answer(secrets)
    return mended(answer) if reading.is_loose else answer


class _Choice:
    """One text, growing."""

    __slots__ = ("finish_reason", "pieces")

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.pieces: list[str] = []


class _Assembly:
    """An answer, put together of its chunks."""

    def __init__(self, choices: int) -> None:
        self._facts = Facts()
        self._asked = choices
        self._choices: dict[int, _Choice] = {}
        self._is_skipped = False
        self._first_content: int | None = None
        self._finished: int | None = None

    def add(self, members: dict[str, Any], end: int | None) -> None:
        """Add a chunk that was complete at the offset `end`; None for an answer that came at once."""
        self._facts.add(members)
        for choice in tolerant.items_of(members.get("choices")):
            if self._add_choice(tolerant.members_of(choice)) and self._first_content is None:
                self._first_content = end
        if end is not None and (self._facts.failure or self._is_over()):
            self.finish(end)

    def finish(self, end: int) -> None:
        """Note that the answer is over, by its own word, at the offset `end`; the first word counts."""
        if self._finished is None:
            self._finished = end

    def skip(self) -> None:
        """Note that chunks are missing from here on."""
        self._is_skipped = True
        for choice in self._choices.values():
            if choice.finish_reason is None:
                choice.pieces.append(GAP)

    def add_end(self, end: bytes) -> None:
        """Add the end of an answer that came at once, and whose middle is missing."""
        self._facts.add_usage(usage.last_in(end))
        reasons = _FINISH_REASON.findall(end)
        if reasons and self._asked == 1 and len(self._choices) <= 1:
            self._add_choice({"finish_reason": reasons[-1].decode()})

    def answer(self, secrets: tuple[Secret, ...]) -> Answer:
        choices = [self._choices[index] for index in sorted(self._choices)]
        texts = [as_text(_utf8(joined_text(choice.pieces, secrets))) for choice in choices]
        output = bytes(texts[0]) if len(texts) == 1 else msgspec.json.encode(texts)
        return self._facts.answer(
            output=output if texts else None,
            finish_reason=choices[0].finish_reason if choices else None,
            first_content=self._first_content,
            finished=self._finished,
        )

    def _add_choice(self, members: dict[str, Any]) -> bool:
        index, text, reason = (members.get(name) for name in ("index", "text", "finish_reason"))
        index = index if type(index) is int else 0
        choice = self._choices.get(index)
        if choice is None:
            if len(self._choices) >= _MOST_CHOICES:
                return False
            choice = self._choices[index] = _Choice()
            if self._is_skipped:
                choice.pieces.append(GAP)
        has_content = isinstance(text, str) and bool(text)
        if has_content:
            choice.pieces.append(str(text))
        if reason and isinstance(reason, str):
            choice.finish_reason = reason
        if members.get("error"):
            self._facts.fail(members["error"])
        elif reason == "error":
            self._facts.fail("The provider failed while it answered.")
        return has_content

    def _is_over(self) -> bool:
        return (
            self._facts.has_usage
            and len(self._choices) >= self._asked
            and all(choice.finish_reason for choice in self._choices.values())
        )


def _utf8(text: str) -> bytes:
    return str(tolerant.paired(text)).encode()
