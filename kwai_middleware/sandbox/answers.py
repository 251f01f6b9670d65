"""A question as far as answers depend on it, and the kinds of answers there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from kwai_middleware.sandbox.json_types import is_array, is_object

__all__ = ["Answer", "Ending", "Plain", "Question", "Refusal", "Reply", "Silence", "ToolCall"]

Ending = Literal["done", "late", "no-done", "cut", "stall"]
"""How an answer ends: as it should, the body later than its last event, without its last events, by a
reset in the middle, or never."""


@dataclass(frozen=True, slots=True)
class Question:
    """A chat request, as far as answers depend on it."""

    body: Mapping[str, object]
    query: Mapping[str, str]

    @property
    def model(self) -> str:
        """The model asked for, as it was sent."""
        return str(self.body["model"])

    @property
    def messages(self) -> list[Mapping[str, object]]:
        """The messages that are objects."""
        return _objects(self.body.get("messages"))

    @property
    def texts(self) -> list[str]:
        """The text of each message."""
        return [_text(message.get("content")) for message in self.messages]

    @property
    def last_role(self) -> object:
        """Who said the last message."""
        messages = self.messages
        return messages[-1].get("role") if messages else None

    @property
    def last_text(self) -> str:
        """The text of the last message."""
        return self.texts[-1] if self.messages else ""

    @property
    def functions(self) -> list[Mapping[str, object]]:
        """The functions offered as tools."""
        return _objects([tool.get("function") for tool in _objects(self.body.get("tools"))])


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model asks to be called."""

    id: str
    name: str
    arguments: str

    def told(self) -> dict[str, object]:
        """Return it as both vendors tell it."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}

    def told_in_parts(self) -> list[dict[str, object]]:
        """Return it as both vendors stream it: the name, then the arguments in two halves."""
        half = len(self.arguments) // 2
        parts: list[dict[str, object]] = [
            {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": ""}}
        ]
        for arguments in (self.arguments[:half], self.arguments[half:]):
            parts.append({"type": "function", "function": {"arguments": arguments}})
        return parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A completion, and how it travels.

    Attributes:
        pieces: The text, cut as it is streamed.
        reasoning: What was thought before.
        tool_calls: Instead of, or beside, the text.
        is_byok: The account pays the provider itself; the cost is the vendor's fee alone.
        failure: Status of an error that comes after the 200; half of the text is out by then.
        failure_at_top: Unary: the error takes the place of the choices.
        failure_is_last: Streamed: nothing follows the error, not even `[DONE]`.
        wait: Seconds before the first token.
        ending: How it ends.
        late: Seconds, for the ending `late`.
        encoding: Content encoding, if the client accepts it.
    """

    pieces: tuple[str, ...]
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    is_byok: bool = False
    failure: int | None = None
    failure_at_top: bool = False
    failure_is_last: bool = False
    wait: float = 0.0
    ending: Ending = "done"
    late: float = 0.0
    encoding: Literal["identity", "gzip", "zstd"] = "identity"

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error in the vendor's shape."""

    status: int
    message: str
    retry_after: int | None = None


@dataclass(frozen=True, slots=True)
class Plain:
    """An answer in nobody's shape."""

    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Silence:
    """No answer at all."""


Reply = Answer | Refusal | Plain | Silence


def _objects(value: object) -> list[Mapping[str, object]]:
    return [item for item in value if is_object(item)] if is_array(value) else []


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    return " ".join(str(part["text"]) if "text" in part else f"[{part.get('type')}]" for part in _objects(content))
