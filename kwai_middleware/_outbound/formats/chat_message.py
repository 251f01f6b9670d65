"""The message of one choice of a chat completion, put together of what the chunks of a stream bring."""

from __future__ import annotations

from typing import Any

from kwai_middleware._outbound.formats.chat_chunks import Delta, TextDelta
from kwai_middleware._outbound.formats.growing import (
    Growing,
    GrowingList,
    begins_another_call,
    begins_another_detail,
    detail_place,
    joined_text,
    tool_call_place,
)
from kwai_middleware._outbound.formats.interface import GAP
from kwai_middleware._secret import Secret

__all__ = ["Message", "Pieces"]


class Message:
    """The message of one choice: in pieces, or whole, or, from servers that nobody expects, both.

    Attributes:
        finish_reason: Why it ended, once that is told.
    """

    __slots__ = ("_pieces", "_whole", "finish_reason")

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self._whole: dict[str, Any] = {}
        self._pieces: Pieces | None = None

    @property
    def pieces(self) -> Pieces:
        """What of it comes in pieces."""
        if self._pieces is None:
            self._pieces = Pieces()
        return self._pieces

    def add_whole(self, message: dict[str, Any]) -> None:
        """Add a message that came at once."""
        self._whole |= message

    def completion(self, secrets: tuple[Secret, ...]) -> dict[str, Any]:
        """Return the message as an answer that is not streamed has it; `secrets` are masked beside a gap."""
        if self._pieces is None:
            return {"role": "assistant", "content": None, **self._whole}
        return self._pieces.joined(secrets) | self._whole


class Pieces:
    """What chunks bring of one message."""

    def __init__(self) -> None:
        self._role: str | None = None
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._reasoning_content: list[str] = []
        self._refusal: list[str] = []
        self._reasoning_details = GrowingList(detail_place, begins_another_detail)
        self._tool_calls = GrowingList(tool_call_place, begins_another_call)
        self._function_call = Growing()
        self._annotations: list[Any] = []
        self._images: list[Any] = []
        self._audio = Growing()

    def add(self, delta: Delta) -> bool:
        """Add what a chunk brings; say whether that is content."""
        has_content = False
        if delta.content:
            self._content.append(delta.content)
            has_content = True
        if delta.reasoning:
            self._reasoning.append(delta.reasoning)
            has_content = True
        if delta.reasoning_content:
            self._reasoning_content.append(delta.reasoning_content)
            has_content = True
        if delta.refusal:
            self._refusal.append(delta.refusal)
            has_content = True
        if delta.role:
            self._role = delta.role
        if delta.annotations:
            self._annotations += delta.annotations
        if delta.reasoning_details:
            self._reasoning_details.add(delta.reasoning_details)
            has_content = True
        if delta.tool_calls:
            self._tool_calls.add(delta.tool_calls)
            has_content = True
        if delta.function_call:
            self._function_call.add(delta.function_call)
            has_content = True
        if delta.images:
            self._images += delta.images
            has_content = True
        if delta.audio:
            self._audio.add(delta.audio)
            has_content = True
        return has_content

    def add_texts(self, deltas: list[TextDelta]) -> None:
        """Add what many chunks bring."""
        self._content += [delta.content for delta in deltas if delta.content]
        if any(delta.role for delta in deltas):
            self._role = "assistant"

    def skip(self) -> None:
        """Note that chunks are missing from here on: every text may have a gap here."""
        for pieces in (self._content, self._reasoning, self._reasoning_content, self._refusal):
            pieces.append(GAP)
        for growing in (self._reasoning_details, self._tool_calls, self._function_call, self._audio):
            growing.skip()

    def joined(self, secrets: tuple[Secret, ...]) -> dict[str, Any]:
        """Return the message as far as it came; `secrets` are masked beside a gap."""
        others = {
            "content": joined_text(self._content, secrets),
            "reasoning": joined_text(self._reasoning, secrets),
            "reasoning_content": joined_text(self._reasoning_content, secrets),
            "refusal": joined_text(self._refusal, secrets),
            "reasoning_details": self._reasoning_details.joined(secrets),
            "tool_calls": [_without_place(call) for call in self._tool_calls.joined(secrets)],
            "function_call": self._function_call.joined(secrets),
            "annotations": self._annotations,
            "images": self._images,
            "audio": self._audio.joined(secrets),
        }
        return {
            "role": self._role or "assistant",
            "content": None,
            **{name: value for name, value in others.items() if value},
        }


def _without_place(call: dict[str, Any]) -> dict[str, Any]:
    """Leave out where in the stream's list a tool call stands: OpenAI's whole answers do not number them."""
    call.pop("index", None)
    return call
