"""A question as far as answers depend on it, and the kinds of answers there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from kwai_middleware.sandbox.json_types import is_array, is_object

__all__ = ["Answer", "Audio", "Ending", "Plain", "Question", "Refusal", "Reply", "Silence", "ToolCall"]

Ending = Literal["done", "late", "no-done", "cut", "stall", "silent"]
"""How an answer ends: as it should, the body later than its last event, without its last events, by a
reset in the middle, never, or before its first event."""

_MOST_CHOICES = 128


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
    def choices(self) -> int:
        """How many answers are asked for, as far as that is a sensible number."""
        number = self.body.get("n")
        return number if type(number) is int and 1 <= number <= _MOST_CHOICES else 1

    @property
    def functions(self) -> list[Mapping[str, object]]:
        """The functions offered as tools: each in a member of its tool, or the tool itself, which then has a name."""
        offered = _objects(self.body.get("tools"))
        return _objects([tool.get("function", tool if "name" in tool else None) for tool in offered])


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


@dataclass(frozen=True, slots=True)
class Audio:
    """A spoken answer; the data is base64."""

    id: str
    transcript: str
    data: str
    expires_at: int

    def told(self) -> dict[str, object]:
        """Return it as both vendors tell it."""
        return {"id": self.id, "data": self.data, "expires_at": self.expires_at, "transcript": self.transcript}

    def told_in_parts(self) -> list[dict[str, object]]:
        """Return it as OpenAI streams it: transcript and data in two halves each, and last how long it is kept."""
        words, data = len(self.transcript) // 2, len(self.data) // 8 * 4
        return [
            {"id": self.id, "transcript": self.transcript[:words]},
            {"id": self.id, "data": self.data[:data]},
            {"id": self.id, "transcript": self.transcript[words:]},
            {"id": self.id, "data": self.data[data:]},
            {"id": self.id, "expires_at": self.expires_at},
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A completion, and how it travels. In Anthropic's format only text, reasoning and tool calls are told.

    Attributes:
        pieces: The text, cut as it is streamed.
        filler: Bytes of text behind the pieces, made while they are sent; infinite for no end.
        reasoning: What was thought before.
        is_detailed: The reasoning comes signed, summed up and sealed as well, as OpenRouter tells it.
        tool_calls: Instead of, or beside, the text.
        is_parallel: The parts of the tool calls are streamed in turn.
        refusal: Why the model does not answer.
        images: URLs of what it drew.
        audio: What it said aloud.
        annotations: What it stands on.
        finish_reason: Other than `stop` and `tool_calls`.
        is_byok: The account pays the provider itself; the cost is the vendor's fee alone.
        is_cached: Half of the prompt was cached, the other half is from now on.
        is_malformed: The JSON is broken: of the whole, or of one event.
        failure: Status of an error that comes after the 200; half of the text is out by then.
        failure_at_top: Unary: the error takes the place of the choices.
        failure_is_last: Streamed: nothing follows the error, not even `[DONE]`.
        wait: Seconds before the first token.
        ending: How it ends.
        late: Seconds, for the ending `late`.
        encoding: Content encoding, if the client accepts it.
    """

    pieces: tuple[str, ...]
    filler: float = 0
    reasoning: str = ""
    is_detailed: bool = False
    tool_calls: tuple[ToolCall, ...] = ()
    is_parallel: bool = False
    refusal: str = ""
    images: tuple[str, ...] = ()
    audio: Audio | None = None
    annotations: tuple[Mapping[str, object], ...] = ()
    finish_reason: str | None = None
    is_byok: bool = False
    is_cached: bool = False
    is_malformed: bool = False
    failure: int | None = None
    failure_at_top: bool = False
    failure_is_last: bool = False
    wait: float = 0.0
    ending: Ending = "done"
    late: float = 0.0
    encoding: Literal["identity", "gzip", "zstd"] = "identity"

    @property
    def text(self) -> str:
        """The whole text, without what it is filled up with."""
        return "".join(self.pieces)

    @property
    def words(self) -> str:
        """What is said in words, wherever it stands, for formats that have one place for it."""
        return self.text or self.refusal or (self.audio.transcript if self.audio else "")

    def for_choice(self, index: int) -> Answer:
        """Return what the choice of that number says: the first one this, each other one a little else."""
        if index == 0:
            return self
        return replace(
            self,
            pieces=(*self.pieces, f" (choice {index})") if self.pieces else (),
            tool_calls=tuple(replace(call, id=f"{call.id}_of_{index}") for call in self.tool_calls),
        )

    @property
    def is_finished(self) -> bool:
        """Whether a stream comes to its proper end."""
        return self.failure is None and self.ending in ("done", "late")

    @property
    def is_told_whole(self) -> bool:
        """Whether a stream tells the whole text."""
        return self.is_finished or (self.failure is None and self.ending == "no-done")

    @property
    def streamed(self) -> tuple[str, ...]:
        """The pieces that a stream tells: all, or half of them before trouble strikes."""
        return self.pieces if self.is_told_whole else self.half

    @property
    def half(self) -> tuple[str, ...]:
        """The pieces that are out before trouble strikes: one at least."""
        return self.pieces[: -(-len(self.pieces) // 2)]


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error in the vendor's shape.

    Attributes:
        status: HTTP status, and code.
        message: A sentence.
        retry_after: Seconds, as a header.
        metadata: What OpenRouter tells beside: who the provider was and its own words, what was flagged.
    """

    status: int
    message: str
    retry_after: int | None = None
    metadata: Mapping[str, object] = field(default_factory=dict[str, object])


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
