"""The Responses API, as OpenAI defined it and OpenRouter extends it."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from kwai_middleware._outbound.formats import tolerant, usage
from kwai_middleware._outbound.formats.asking import request_members, request_of
from kwai_middleware._outbound.formats.failures import error_of, failure_in, provider_in
from kwai_middleware._outbound.formats.interface import Answer, Failure, Received, Request
from kwai_middleware._outbound.formats.reading import Reading, Told
from kwai_middleware._outbound.formats.response_input import prompt_of
from kwai_middleware._outbound.formats.response_items import Item, kind_of_item
from kwai_middleware._outbound.formats.response_message import (
    completion_of,
    encoded,
    has_content,
    is_whole_as_completion,
)
from kwai_middleware._pace import breathe
from kwai_middleware._secret import Secret

__all__ = ["answer", "request"]

_MOST_ITEMS: Final = 1000
_LAST: Final = frozenset(("completed", "failed", "incomplete", "cancelled", "done"))
"""What a response ends as, and the last words of the events that say so."""

_FAILED: Final = "The provider failed while it answered."
_REASON: Final = re.compile(rb'"incomplete_details"\s?:\s?\{\s*"reason"\s?:\s?"([a-z_]{1,40})"')


def request(body: bytes) -> Request:
    """Read a request's body; see `Format`. Instructions become the first message."""
    members = request_members(body)
    prompt = prompt_of(members.pop("instructions", None), members.pop("input", None))
    return request_of(members, messages=prompt.messages, prompt=prompt.written)


def answer(received: Received, request: Request) -> Answer:
    """Read an answer's body; see `Format`."""
    reading = Reading(received)
    assembly = _Assembly()
    reading.fill(assembly)
    if received.streamed and assembly.add_end(reading.end):
        # The event that ended the stream was so long that only its own end was kept.
        assembly.finish(sum(map(len, received.parts)))
    return reading.mended(assembly.answer(received.secrets))


class _Assembly:
    """A response, put together of its events."""

    def __init__(self) -> None:
        self._finished: int | None = None
        self._is_whole = False
        self._is_skipped = False
        self._model: str | None = None
        self._generation_id: str | None = None
        self._provider: str | None = None
        self._status: str | None = None
        self._reason: str | None = None
        self._usage: dict[str, Any] | None = None
        self._failure: Failure | None = None
        self._first_content: int | None = None
        self._output: list[dict[str, Any]] = []
        self._items: dict[int, Item] = {}
        self._places: dict[str, int] = {}
        self._last = -1

    def skip(self) -> None:
        """Note that events are missing from here on."""
        self._is_skipped = True
        for item in self._items.values():
            item.skip()

    def finish(self, end: int) -> None:
        """Note that the answer is over, by its own word, at the offset `end`; the first word counts."""
        if self._finished is None:
            self._finished = end

    def add(self, told: Told) -> bool:
        """Add an event; see `Assembly`. All are read: behind an early mark of the end the response may follow."""
        if told.is_done:
            self.finish(told.end)
        else:
            self._add(told.members, told.end)
        return False

    def add_at_once(self, members: dict[str, Any], size: int | None) -> None:
        """Add a response that came at once; see `Assembly`."""
        self._add_response(members, is_whole=size is not None)
        self._finished = size

    def add_end(self, end: bytes) -> bool:
        """Add the end of an answer whose middle is missing; say whether it ends a response."""
        if self._is_whole or not (found := usage.last_in(end)):
            return False
        self._usage = found
        if reasons := _REASON.findall(end):
            self._reason = reasons[-1].decode()
        return True

    def answer(self, secrets: tuple[Secret, ...]) -> Answer:
        items = self._output or [self._items[place].joined(secrets) for place in sorted(self._items)]
        breathe()
        completions = (completion_of(items),) if items else ()
        return Answer(
            model=self._model,
            generation_id=self._generation_id,
            provider=self._provider,
            completions=completions,
            output=None if is_whole_as_completion(items) else encoded(items),
            finish_reason=self._finish_reason(has_calls=any("tool_calls" in each for each in completions)),
            usage=self._usage,
            tokens=usage.tokens_in(self._usage or {}),
            failure=self._failure,
            first_content=self._first_content,
            finished=self._finished,
        )

    def _add(self, event: dict[str, Any], end: int) -> None:
        stem, _, verb = (_text(event.get("type")) or "").rpartition(".")
        response = tolerant.members_of(event.get("response"))
        is_content = False
        if verb == "error" or (not verb and event.get("error")):
            self._fail(error_of(event), event.get("error_type"))
            self.finish(end)
        elif (stem == "response" and verb in _LAST) or _text(response.get("status")) in _LAST:
            self._add_response({"status": verb, "error_type": event.get("error_type")} | response)
            self.finish(end)
            is_content = any(map(has_content, self._output))
        elif response:
            self._take(response)
        elif stem == "response.output_item":
            is_content = self._add_item(event, verb)
        elif stem == "response.audio" or stem == "response.audio.transcript" or verb == "partial_image":
            # Neither stands in the response that comes in the end, nor in any item.
            is_content = verb != "done"
        elif (kind := kind_of_item(stem)) is not None:
            is_content = self._add_to_item(event, kind, stem, verb)
        if is_content and self._first_content is None:
            self._first_content = end

    def _add_response(self, response: dict[str, Any], *, is_whole: bool = True) -> None:
        """Add a response, or what came of one that is not whole."""
        self._is_whole = is_whole
        self._take(response)
        items = [
            members for item in tolerant.items_of(response.get("output")) if (members := tolerant.members_of(item))
        ]
        # Some servers end a stream with a response in which there is nothing.
        self._output = items or self._output
        if response.get("error"):
            self._fail(response["error"], response.get("error_type"))
        elif self._status == "failed":
            self._fail(_FAILED, response.get("error_type"))

    def _take(self, response: dict[str, Any]) -> None:
        self._model = _text(response.get("model")) or self._model
        self._generation_id = _text(response.get("id")) or self._generation_id
        self._provider = _text(response.get("provider")) or self._provider
        self._status = _text(response.get("status")) or self._status
        self._reason = _text(tolerant.members_of(response.get("incomplete_details")).get("reason")) or self._reason
        self._usage = tolerant.members_of(response.get("usage")) or self._usage

    def _add_item(self, event: dict[str, Any], verb: str) -> bool:
        members = tolerant.members_of(event.get("item"))
        place = self._place_of(event, members.get("id"), is_new=verb == "added")
        if not members or not self._has_room_at(place):
            return False
        self._items[place] = Item(members, is_whole=verb == "done")
        # The name of a tool is content, before any of what it is given; a message and a thought open empty.
        return self._first_content is None and has_content(members)

    def _add_to_item(self, event: dict[str, Any], kind: str, stem: str, verb: str) -> bool:
        place = self._place_of(event, event.get("item_id"), is_new=False)
        if not self._has_room_at(place):
            return False
        if place not in self._items:
            # Its beginning is among what was not kept.
            self._items[place] = Item({"type": kind}, is_skipped=self._is_skipped)
        return self._items[place].add(stem, verb, event)

    def _has_room_at(self, place: int) -> bool:
        return place in self._items or len(self._items) < _MOST_ITEMS

    def _place_of(self, event: dict[str, Any], identifier: object, *, is_new: bool) -> int:
        """Return where an item stands: by its number, else by its id; else it is the last one, or comes behind it."""
        index, name = event.get("output_index"), _text(identifier)
        if type(index) is int:
            place = index
        elif name in self._places:
            place = self._places[name]
        else:
            place = self._last + 1 if is_new else max(self._last, 0)
        if name:
            self._places[name] = place
        self._last = max(self._last, place)
        return place

    def _finish_reason(self, *, has_calls: bool) -> str | None:
        """Return the reason in the words of chat completions; an incomplete answer's own word where it has one."""
        if self._status == "completed":
            # Calls may be among what was not kept.
            return "tool_calls" if has_calls else "stop" if self._is_whole else None
        return self._reason or self._status if self._status in (None, "incomplete") else None

    def _fail(self, error: object, error_type: object) -> None:
        if self._failure is None:
            failure = failure_in(error)
            self._failure = msgspec.structs.replace(failure, type=_text(error_type) or failure.type)
            self._provider = self._provider or provider_in(error)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
