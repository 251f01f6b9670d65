"""What the scenarios answer."""

from __future__ import annotations

import base64
import math
import re
from dataclasses import replace
from typing import Final

import msgspec

from kwai_middleware.sandbox.answers import Answer, Audio, Plain, Question, Refusal, Reply, ToolCall
from kwai_middleware.sandbox.json_types import is_array, object_or_empty

__all__ = [
    "PNG", "annotated", "cut_short", "drawn", "echo", "endless", "error", "html", "huge", "long", "moderated",
    "parallel_tools", "provider_error", "reasoned", "redirect", "refused", "spoken", "tools",
]  # fmt: skip

_MOST_PIECES: Final = 64
_MEGABYTE: Final = 1_000_000
_DAY: Final = 86_400
# One pixel, and a tenth of a second of silence.
PNG: Final = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
_WAVE_HEAD: Final = b"RIFF$\x03\0\0WAVEfmt \x10\0\0\0\1\0\1\0@\x1f\0\0@\x1f\0\0\1\0\x08\0data\0\x03\0\0"
_WAVE: Final = base64.b64encode(_WAVE_HEAD + b"\x80" * 768).decode()


def _pieces(text: str) -> tuple[str, ...]:
    """Cut between words, into at most 64 pieces."""
    words = re.findall(r"\s*\S+\s*$|\s*\S+", text) or [text]
    at_once = -(-len(words) // _MOST_PIECES)
    return tuple("".join(words[start : start + at_once]) for start in range(0, len(words), at_once))


def echo(question: Question, _: float = 0) -> Answer:
    """Repeat the last message."""
    return Answer(pieces=_pieces(question.last_text or "(nothing was said)"))


def error(_: Question, number: float) -> Reply:
    """Refuse with that status."""
    status = int(number)
    if not 400 <= status <= 599:
        return Refusal(400, "sandbox/error-<status> knows 400 to 599")
    return Refusal(status, f"The sandbox was asked for {status}", retry_after=1 if status in (429, 503) else None)


def long(_: Question, number: float) -> Answer:
    """Say that many words."""
    return Answer(pieces=tuple(f"word{index} " for index in range(int(number))))


def redirect(question: Question, _: float) -> Reply:
    """Send the client wherever it wants to go."""
    named = object_or_empty(question.body.get("metadata")).get("redirect_to")
    target = question.query.get("redirect_to") or named
    if not isinstance(target, str) or not target.isascii() or not target.isprintable():
        return Refusal(400, "sandbox/redirect-307 needs a URL: ?redirect_to=... or metadata.redirect_to")
    return Plain(307, b"", (("location", target),))


def tools(question: Question, _: float = 0) -> Answer:
    """Call every function that is offered, until there is a result."""
    functions = question.functions
    if not functions or question.last_role == "tool":
        return echo(question)
    calls = tuple(
        ToolCall(f"call_{index}", str(function.get("name")), _arguments(function.get("parameters"), question.last_text))
        for index, function in enumerate(functions)
    )
    return Answer(pieces=(), tool_calls=calls)


_EXAMPLES: Final[dict[str, object]] = {"integer": 1, "number": 0.5, "boolean": True, "array": [], "object": {}}


def _arguments(schema: object, text: str) -> str:
    """Arguments that fit a function's JSON schema, made from the question."""
    made: dict[str, object] = {}
    for name, member in object_or_empty(object_or_empty(schema).get("properties")).items():
        kind, choices = (object_or_empty(member).get(word) for word in ("type", "enum"))
        example = _EXAMPLES.get(kind, text) if isinstance(kind, str) else text
        made[name] = choices[0] if is_array(choices) and choices else example
    return msgspec.json.encode(made).decode()


def reasoned(question: Question, _: float = 0) -> Answer:
    """Think, then repeat the last message."""
    return replace(echo(question), reasoning=f"The user said {len(question.last_text)} characters. I repeat them.")


def html(_: Question, number: float) -> Reply:
    """Answer with a page, as proxies do."""
    page = f"<html><head><title>{int(number)} Proxy</title></head><body><h1>{int(number)} Proxy</h1></body></html>"
    return Plain(int(number) if 200 <= number <= 599 else 502, page.encode(), (("content-type", "text/html"),))


def provider_error(_: Question, number: float) -> Reply:
    """Refuse as OpenRouter does where the provider failed: whose failure it was, and its own words, stand beside."""
    status = int(number)
    if not 400 <= status <= 599:
        return Refusal(400, "sandbox/provider-error-<status> knows 400 to 599")
    raw = msgspec.json.encode({"error": {"message": f"The provider's own words for {status}", "type": "sandbox"}})
    return Refusal(status, "Provider returned error", metadata={"provider_name": "Sandbox", "raw": raw.decode()})


def moderated(question: Question, _: float) -> Reply:
    """Refuse for what was said."""
    metadata = {
        "reasons": ["violence", "harassment"],
        "flagged_input": question.last_text[:100],
        "provider_name": "Sandbox",
        "model_slug": question.model,
    }
    return Refusal(403, "Your chosen model requires moderation and your input was flagged", metadata=metadata)


def parallel_tools(question: Question, _: float) -> Answer:
    """Call every function twice; the parts of the calls come in turn."""
    calls = tools(question).tool_calls
    twice = calls + tuple(replace(call, id=f"{call.id}_again") for call in calls)
    return replace(tools(question), tool_calls=twice, is_parallel=True)


def refused(_: Question, __: float) -> Answer:
    """Decline, in the member that is made for it."""
    return Answer(pieces=(), refusal="I cannot help with that.")


def drawn(question: Question, _: float) -> Answer:
    """Repeat the last message beside two pictures."""
    return replace(echo(question), images=(f"data:image/png;base64,{PNG}", "https://sandbox.example/second.png"))


def spoken(question: Question, _: float) -> Answer:
    """Say the last message aloud, and nothing in writing."""
    audio = Audio("audio_sandbox", question.last_text or "(nothing was said)", _WAVE, 1_800_000_000 + _DAY)
    return Answer(pieces=(), audio=audio)


def annotated(question: Question, _: float) -> Answer:
    """Repeat the last message, with two sources for it."""
    answer = echo(question)
    return replace(
        answer,
        annotations=tuple(
            {
                "type": "url_citation",
                "url_citation": {
                    "url": f"https://sandbox.example/{name}",
                    "title": f"The {name} source",
                    "start_index": 0,
                    "end_index": len(answer.text),
                },
            }
            for name in ("first", "second")
        ),
    )


def cut_short(question: Question, finish_reason: str) -> Answer:
    """Repeat half of the last message, and say why no more."""
    answer = echo(question)
    return replace(answer, pieces=answer.half, finish_reason=finish_reason)


def huge(question: Question, number: float) -> Answer:
    """Repeat the last message and go on for so many megabytes, made while they are sent."""
    return replace(echo(question), filler=number * _MEGABYTE)


def endless(question: Question, _: float) -> Answer:
    """Repeat the last message and go on until the client leaves."""
    return replace(echo(question), filler=math.inf)
