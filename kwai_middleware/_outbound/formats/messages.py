"""Anthropic's messages, which OpenRouter and the gateway's pass-through take as well."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from kwai_middleware._outbound.formats import tolerant, usage
from kwai_middleware._outbound.formats.asking import request_members, request_of
from kwai_middleware._outbound.formats.facts import Facts
from kwai_middleware._outbound.formats.interface import Answer, Received, Request, Tokens
from kwai_middleware._outbound.formats.message_blocks import Block, completion_of, is_whole_as_completion
from kwai_middleware._outbound.formats.reading import Reading, Told
from kwai_middleware._pieces import encoded_members
from kwai_middleware._secret import Secret

__all__ = ["answer", "request"]

_MOST_BLOCKS: Final = 1000
_STOP_REASON: Final = re.compile(rb'"stop_reason" ?: ?"([a-z_]{1,40})"')


def request(body: bytes) -> Request:
    """Read a request's body; see `Format`. The system's prompt becomes the first message."""
    members = request_members(body)
    messages, system = members.pop("messages", None), members.pop("system", None)
    return request_of(members, messages=None if messages is None else _with_system(bytes(messages), system))


def _with_system(messages: bytes, system: msgspec.Raw | None) -> bytes:
    """Put the system's prompt in front of a list of messages, without reading either."""
    if system is None or not messages.startswith(b"["):
        return messages
    others = messages[1:].lstrip()
    return b'[{"role":"system","content":%b}%b%b' % (bytes(system), b"" if others.startswith(b"]") else b",", others)


def answer(received: Received, request: Request) -> Answer:
    """Read an answer's body; see `Format`."""
    reading = Reading(received)
    assembly = _Assembly()
    reading.fill(assembly)
    return reading.mended(assembly.answer(received.secrets))


class _Assembly:
    """A message, put together of its events."""

    def __init__(self) -> None:
        self._finished: int | None = None
        self._facts = Facts()
        self._stop_reason: str | None = None
        self._first_content: int | None = None
        self._blocks: dict[int, Block] = {}
        self._growing: Block | None = None
        self._is_skipped = False
        self._is_message = False

    def skip(self) -> None:
        """Note that events are missing from here on."""
        self._is_skipped = True
        if self._growing is not None:
            self._growing.skip()

    def add(self, told: Told) -> bool:
        """Add an event; see `Assembly`."""
        event, kind = told.members, told.members.get("type")
        if kind == "message_start":
            self._add_message(tolerant.members_of(event.get("message")))
        elif kind in ("content_block_start", "content_block_delta"):
            if self._add_to_block(event) and self._first_content is None:
                self._first_content = told.end
        elif kind == "content_block_stop":
            self._growing = None
        elif kind == "message_delta":
            self._take(tolerant.members_of(event.get("delta")))
            self._facts.add_usage(event.get("usage"))
        elif kind == "error" or (kind is None and event.get("error")):
            self._facts.add(event)
        # Anthropic's own streams have no mark of their end; OpenRouter's end with it, behind the last event.
        if told.is_done or kind == "message_stop" or self._facts.failure is not None:
            self._finished = told.end
        return self._finished is not None

    def add_at_once(self, members: dict[str, Any], size: int | None) -> None:
        """Add a message that came at once; see `Assembly`."""
        self._add_message(members)
        self._finished = size

    def add_end(self, end: bytes) -> None:
        """Add the end of a message that came at once, and whose middle is missing."""
        self._facts.add_usage(usage.last_in(end))
        if self._stop_reason is None and (reasons := _STOP_REASON.findall(end)):
            self._stop_reason = reasons[-1].decode()

    def answer(self, secrets: tuple[Secret, ...]) -> Answer:
        blocks = [self._blocks[index].joined(secrets) for index in sorted(self._blocks)]
        is_message = self._is_message or bool(blocks)
        return self._facts.answer(
            completions=(completion_of(blocks),) if is_message else (),
            output=None if is_whole_as_completion(blocks) else msgspec.json.encode(list(map(_encoded, blocks))),
            finish_reason=self._stop_reason,
            first_content=self._first_content,
            finished=self._finished,
            count=_tokens_in,
        )

    def _add_message(self, message: dict[str, Any]) -> None:
        """Add a message, whole or as a stream begins it."""
        # Anthropic's counts grow: the last one holds all before it.
        self._facts.add(message)
        if self._facts.failure is not None:
            return
        self._is_message = self._is_message or bool(message)
        self._take(message)
        for index, block in enumerate(tolerant.items_of(message.get("content"))[:_MOST_BLOCKS]):
            self._blocks[index] = Block(tolerant.members_of(block))

    def _take(self, members: dict[str, Any]) -> None:
        self._stop_reason = _text(members.get("stop_reason")) or self._stop_reason

    def _add_to_block(self, event: dict[str, Any]) -> bool:
        place = event.get("index")
        if type(place) is not int:
            # A piece belongs to the last block, a block comes behind it.
            place = max(len(self._blocks) - (event["type"] == "content_block_delta"), 0)
        if place not in self._blocks and len(self._blocks) >= _MOST_BLOCKS:
            return False
        if event["type"] == "content_block_start":
            opening = tolerant.members_of(event.get("content_block"))
            self._growing = self._blocks[place] = Block(opening)
            # The name of a tool is content, before any of its input; the two texts begin empty.
            return opening.get("type") not in _EMPTY_AT_FIRST or any(opening.get(name) for name in ("text", "thinking"))
        delta = tolerant.members_of(event.get("delta"))
        if place not in self._blocks:
            # Its beginning is among what was not kept.
            self._blocks[place] = Block({"type": _KINDS.get(str(delta.get("type")))}, is_skipped=self._is_skipped)
        self._growing = self._blocks[place]
        return self._growing.add(delta)


_EMPTY_AT_FIRST: Final = ("text", "thinking")
_KINDS: Final = {
    "text_delta": "text",
    "citations_delta": "text",
    "thinking_delta": "thinking",
    "signature_delta": "thinking",
    "input_json_delta": "tool_use",
}
"""Which kind of block a piece belongs to."""


def _encoded(block: dict[str, Any]) -> msgspec.Raw:
    return encoded_members(tolerant.members_of(tolerant.paired(block)))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _tokens_in(given: dict[str, Any]) -> Tokens:
    """Return the counts under our names: Anthropic's of the prompt leaves out what a cache had of it."""
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
    fresh, cached, written, said = (usage.count_in(given, name) for name in names)
    prompt = None if fresh is None else fresh + (cached or 0) + (written or 0)
    total = None if prompt is None or said is None else prompt + said
    details = tolerant.members_of(given.get("output_tokens_details"))
    return Tokens(
        prompt=prompt,
        completion=said,
        total=total,
        cached=cached,
        cache_write=written,
        reasoning=usage.count_in(details, "thinking_tokens", "reasoning_tokens"),
    )
