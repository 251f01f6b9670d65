"""The scenarios: what is answered, decided by the model's name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from kwai_middleware.sandbox.answers import Answer, Plain, Question, Refusal, Reply, Silence, ToolCall
from kwai_middleware.sandbox.json_types import is_array, object_or_empty

__all__ = ["Scenario", "reply_to", "scenarios"]

ERROR_STATUSES: Final = (400, 401, 402, 403, 404, 408, 413, 422, 424, 429, 500, 502, 503, 524, 529)

_MOST_PIECES: Final = 64
_MOST_CHUNKS: Final = 100_000
_LONGEST_WAIT: Final = 600.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """A family of model names and what it answers.

    Attributes:
        model: The name to ask for.
        description: What happens, one sentence.
        answer: Makes the reply; its second argument is the number at the end of the name.
        number: When the name may end in `-<number>`: the one that is meant without it.
        most: The largest number; a larger one means this one.
    """

    model: str
    description: str
    answer: Callable[[Question, float], Reply]
    number: float | None = None
    most: float = _LONGEST_WAIT


def _pieces(text: str) -> tuple[str, ...]:
    """Cut between words, into at most 64 pieces."""
    words = re.findall(r"\s*\S+\s*$|\s*\S+", text) or [text]
    at_once = -(-len(words) // _MOST_PIECES)
    return tuple("".join(words[start : start + at_once]) for start in range(0, len(words), at_once))


def _echo(question: Question, _: float = 0) -> Answer:
    return Answer(pieces=_pieces(question.last_text or "(nothing was said)"))


def _error(_: Question, number: float) -> Reply:
    status = int(number)
    if not 400 <= status <= 599:
        return Refusal(400, "sandbox/error-<status> knows 400 to 599")
    return Refusal(status, f"The sandbox was asked for {status}", retry_after=1 if status in (429, 503) else None)


def _long(_: Question, number: float) -> Answer:
    return Answer(pieces=tuple(f"word{index} " for index in range(int(number))))


def _redirect(question: Question, _: float) -> Reply:
    named = object_or_empty(question.body.get("metadata")).get("redirect_to")
    target = question.query.get("redirect_to") or named
    if not isinstance(target, str) or not target.isascii() or not target.isprintable():
        return Refusal(400, "sandbox/redirect-307 needs a URL: ?redirect_to=... or metadata.redirect_to")
    return Plain(307, b"", (("location", target),))


def _tools(question: Question, _: float) -> Answer:
    functions = question.functions
    if not functions or question.last_role == "tool":
        return _echo(question)
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


def _reasoning(question: Question, _: float) -> Answer:
    return replace(_echo(question), reasoning=f"The user said {len(question.last_text)} characters. I repeat them.")


def _html(_: Question, __: float) -> Reply:
    return Plain(
        502,
        b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>",
        (("content-type", "text/html"),),
    )


_SCENARIOS: Final = (
    Scenario("sandbox/echo", "repeats the last message; so does every other model name", _echo),
    Scenario(
        "sandbox/error-<status>",
        "is refused in the vendor's error shape; 429 and 503 with Retry-After. " + ", ".join(map(str, ERROR_STATUSES)),
        _error,
        number=500,
        most=999,
    ),
    Scenario(
        "sandbox/stream-error",
        "200, half of the text, then an error with the usage in the same chunk, then [DONE]; unary: as error-in-200",
        lambda question, _: replace(_echo(question), failure=502),
    ),
    Scenario(
        "sandbox/error-in-200",
        "200 with an error in the choice, beside half of the text; streamed: the error ends the body without [DONE]",
        lambda question, _: replace(_echo(question), failure=502, failure_is_last=True),
    ),
    Scenario(
        "sandbox/error-in-200-at-top",
        "200 with an error in place of the choices; streamed: as stream-error",
        lambda question, _: replace(_echo(question), failure=502, failure_at_top=True),
    ),
    Scenario(
        "sandbox/slow-<seconds>",
        "waits before the first token",
        lambda question, seconds: replace(_echo(question), wait=seconds),
        number=1.0,
    ),
    Scenario("sandbox/long-<chunks>", "that many pieces", _long, number=200, most=_MOST_CHUNKS),
    Scenario(
        "sandbox/late-end-<seconds>",
        "everything at once, [DONE] included, but the body ends later",
        lambda question, seconds: replace(_echo(question), ending="late", late=seconds),
        number=1.0,
    ),
    Scenario(
        "sandbox/no-done",
        "the body ends without a finish reason, usage and [DONE]; unary: as echo",
        lambda question, _: replace(_echo(question), ending="no-done"),
    ),
    Scenario(
        "sandbox/cut",
        "the connection is reset half-way",
        lambda question, _: replace(_echo(question), ending="cut"),
    ),
    Scenario(
        "sandbox/stall",
        "half of the answer, then nothing more until the client leaves",
        lambda question, _: replace(_echo(question), ending="stall"),
    ),
    Scenario("sandbox/hang", "no answer until the client leaves", lambda _, __: Silence()),
    Scenario(
        "sandbox/gzip",
        "encoded with gzip if the client accepts it",
        lambda question, _: replace(_echo(question), encoding="gzip"),
    ),
    Scenario(
        "sandbox/zstd",
        "encoded with zstd if the client accepts it and the package `zstandard` is there",
        lambda question, _: replace(_echo(question), encoding="zstd"),
    ),
    Scenario("sandbox/redirect-307", "to the URL in ?redirect_to= or metadata.redirect_to", _redirect),
    Scenario("sandbox/tools", "calls every function offered; repeats the result when the last message is one", _tools),
    Scenario("sandbox/reasoning", "thinks before it repeats the last message", _reasoning),
    Scenario(
        "sandbox/byok",
        "is_byok: cost is the fee alone, the provider's bill stands in cost_details",
        lambda question, _: replace(_echo(question), is_byok=True),
    ),
    Scenario("sandbox/html-error", "a proxy's 502 page", _html),
    Scenario("sandbox/empty", "200 without a body", lambda _, __: Plain(200, b"")),
)

_BY_NAME: Final = {scenario.model.partition("-<")[0]: scenario for scenario in _SCENARIOS}


def scenarios() -> Iterator[Scenario]:
    """Yield every scenario."""
    return iter(_SCENARIOS)


def reply_to(question: Question) -> Reply:
    """Return what the model of that name answers; a name that is no scenario answers as `sandbox/echo`."""
    name = question.model.removeprefix("openrouter/")
    scenario = _BY_NAME.get(name)
    if scenario is not None:
        return scenario.answer(question, scenario.number or 0)
    stem, _, number = name.rpartition("-")
    scenario = _BY_NAME.get(stem)
    if scenario is None or scenario.number is None or not re.fullmatch(r"\d{1,6}(\.\d{1,3})?", number):
        return _echo(question)
    return scenario.answer(question, min(float(number), scenario.most))
