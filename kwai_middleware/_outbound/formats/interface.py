"""What a format makes of a request and of an answer."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

import msgspec

from kwai_middleware._secret import Secret

__all__ = ["GAP", "Answer", "Failure", "FormFormat", "Format", "Received", "Request", "Tokens"]

GAP: Final = " [...] "
"""Stands in a text of an answer where a part may be missing that was not kept. ASCII: one other character
would double the memory that a long text takes."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request, as far as a record needs it; all None and empty when it could not be read.

    Attributes:
        model: The model asked for.
        stream: Whether a stream was asked for.
        choices: How many answers were asked for.
        messages: The prompt as chat messages, JSON; valid UTF-8. None where it is nothing of the kind.
        input: The prompt as the app wrote it, JSON, where `messages` are none, or do not hold all of it.
        parameters: All other members that cannot carry a key, as JSON each; valid UTF-8.
    """

    model: str | None = None
    stream: bool = False
    choices: int = 1
    messages: bytes | None = None
    input: bytes | None = None
    parameters: dict[str, bytes] = {}


class Failure(msgspec.Struct, frozen=True):
    """An error that an answer tells of, in its own words: they may be long, and no Unicode.

    Attributes:
        code: The vendor's word or number for it, as text.
        message: A sentence.
        type: The vendor's word for the kind of error, where it has one beside the code.
    """

    code: str | None
    message: str | None
    type: str | None = None


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """How many tokens of which kind; None where the answer does not say."""

    prompt: int | None = None
    completion: int | None = None
    total: int | None = None
    cached: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None


class Received(NamedTuple):
    """What came for an answer, before anything of it is read.

    Attributes:
        parts: The body, decoded; two parts when something between them was not kept.
        streamed: Whether it is a stream of events.
        media_type: The answer's `Content-Type` in lower case, without parameters; empty when it has none.
        secrets: The caller's keys: what is left of one that a gap has cut in two is masked.
    """

    parts: tuple[bytes, ...]
    streamed: bool
    media_type: str = ""
    secrets: tuple[Secret, ...] = ()


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer, whole or not, streamed or not, as one.

    Attributes:
        model: The model that answered.
        generation_id: The vendor's id of the answer, from its body.
        provider: Who ran the model.
        completions: One chat message for each choice, in order; none where the answer is nothing of the kind.
        output: The answer as JSON, where `completions` are none, or do not hold all of it. Media and
            vectors are described, not contained, where nobody could read them.
        media: The answer is nothing but sound or a picture of this kind: described in place of `output`.
        finish_reason: Of the first choice.
        usage: As sent; of several, each member's last value.
        tokens: Of `usage`.
        failure: An error inside the answer.
        first_content: How many bytes of a stream it took to its first content: text, reasoning, a
            refusal, a tool call. None when none came, and for an answer that came at once.
        finished: How many bytes it took to the event that says that the answer is over, or has
            failed. None when nothing said so.
        ends_with_body: Such an answer does not say itself that it is over: it is when HTTP says so.
    """

    model: str | None = None
    generation_id: str | None = None
    provider: str | None = None
    completions: tuple[dict[str, Any], ...] = ()
    output: bytes | None = None
    media: str | None = None
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    tokens: Tokens = Tokens()
    failure: Failure | None = None
    first_content: int | None = None
    finished: int | None = None
    ends_with_body: bool = False


class Format(Protocol):
    """One shape of requests and answers; a module with these two functions. Neither raises."""

    def request(self, body: bytes) -> Request:
        """Read a request's body."""
        ...

    def answer(self, received: Received, request: Request) -> Answer:
        """Read the answer to a request."""
        ...


@runtime_checkable
class FormFormat(Format, Protocol):
    """A shape of which requests may be forms with files in them; a module with one function more."""

    def form(self, head: bytes, end: bytes, size: int) -> Request:
        """Read a request's body of which only the two ends are there.

        Args:
            head: Its first bytes.
            end: Its last bytes, which may be among the first ones too.
            size: How many bytes it has.
        """
        ...
