"""Completions of a text, as OpenAI had them before there was chat; OpenRouter and others still take them."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from kwai_middleware._outbound.formats import tolerant, usage
from kwai_middleware._outbound.formats.asking import count, request_members, request_of
from kwai_middleware._outbound.formats.facts import Facts
from kwai_middleware._outbound.formats.growing import joined_text
from kwai_middleware._outbound.formats.interface import GAP, Answer, Received, Request
from kwai_middleware._outbound.formats.reading import Reading, Told
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
    return request_of(members, prompt=prompt, choices=count(members.get("n")) * _prompts_in(prompt))


def _prompts_in(prompt: msgspec.Raw | None) -> int:
    """Count the prompts: each is answered by itself. A list of numbers is one, given as tokens."""
    if prompt is None or not _SEVERAL.match(memoryview(prompt)):
        return 1
    count = 0
    for item in _items_decoder.decode(prompt):
        count += bytes(memoryview(item)[:1]) in (b'"', b"[")
        breathe()
    return count


def answer(received: Received, request: Request) -> Answer:
    """Read an answer's body; see `Format`.

    There are no chat messages in it: `output` is what the vendor's log shows for a log of any type, while
    its members for messages would make a conversation of it that there was not.
    """
    reading = Reading(received)
    assembly = _Assembly(request.choices)
    reading.fill(assembly)
    return reading.mended(assembly.answer(received.secrets))


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

    def add(self, told: Told) -> bool:
        """Add a chunk; see `Assembly`. Behind a failure and the last text, usage may follow."""
        has_content = self._add(told.members)
        if has_content and self._first_content is None:
            self._first_content = told.end
        is_over = told.is_done or self._facts.failure or self._is_over()
        if is_over and self._finished is None:
            self._finished = told.end
        return told.is_done

    def add_at_once(self, members: dict[str, Any], size: int | None) -> None:
        """Add an answer that came at once; see `Assembly`."""
        self._add(members)
        self._finished = size

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

    def _add(self, members: dict[str, Any]) -> bool:
        """Add what a chunk or a whole answer says; say whether there is content in it."""
        self._facts.add(members)
        has_content = False
        for choice in tolerant.items_of(members.get("choices")):
            has_content = self._add_choice(tolerant.members_of(choice)) or has_content
        return has_content

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
