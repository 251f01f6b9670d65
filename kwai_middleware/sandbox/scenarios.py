"""The scenarios: what is answered, decided by the model's name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from kwai_middleware.sandbox import replies
from kwai_middleware.sandbox.answers import Plain, Question, Reply, Silence

__all__ = ["Scenario", "reply_to", "scenarios"]

ERROR_STATUSES: Final = (400, 401, 402, 403, 404, 408, 413, 422, 424, 429, 499, 500, 502, 503, 524, 529)

_MOST_CHUNKS: Final = 100_000
_MOST_MEGABYTES: Final = 100_000
_MOST_STATUS: Final = 999
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


_SCENARIOS: Final = (
    Scenario("sandbox/echo", "repeats the last message; so does every other model name", replies.echo),
    Scenario(
        "sandbox/error-<status>",
        "is refused in the vendor's error shape; 429 and 503 with Retry-After. " + ", ".join(map(str, ERROR_STATUSES)),
        replies.error,
        number=500,
        most=_MOST_STATUS,
    ),
    Scenario(
        "sandbox/provider-error-<status>",
        "the same with the provider's name and own words, as OpenRouter tells them",
        replies.provider_error,
        number=502,
        most=_MOST_STATUS,
    ),
    Scenario("sandbox/moderated", "403 with what was flagged, as OpenRouter tells it", replies.moderated),
    Scenario(
        "sandbox/stream-error",
        "200, half of the text, then an error with the usage in the same chunk, then [DONE]; unary: as error-in-200",
        lambda question, _: replace(replies.echo(question), failure=502),
    ),
    Scenario(
        "sandbox/error-in-200",
        "200 with an error in the choice, beside half of the text; streamed: the error ends the body without [DONE]",
        lambda question, _: replace(replies.echo(question), failure=502, failure_is_last=True),
    ),
    Scenario(
        "sandbox/error-in-200-at-top",
        "200 with an error in place of the choices; streamed: as stream-error",
        lambda question, _: replace(replies.echo(question), failure=502, failure_at_top=True),
    ),
    Scenario(
        "sandbox/slow-<seconds>",
        "waits before the first token",
        lambda question, seconds: replace(replies.echo(question), wait=seconds),
        number=1.0,
    ),
    Scenario("sandbox/long-<chunks>", "that many pieces", replies.long, number=200, most=_MOST_CHUNKS),
    Scenario(
        "sandbox/late-end-<seconds>",
        "everything at once, [DONE] included, but the body ends later",
        lambda question, seconds: replace(replies.echo(question), ending="late", late=seconds),
        number=1.0,
    ),
    Scenario(
        "sandbox/no-done",
        "the body ends without a finish reason, usage and [DONE]; unary: as echo",
        lambda question, _: replace(replies.echo(question), ending="no-done"),
    ),
    Scenario(
        "sandbox/cut",
        "the connection is reset half-way",
        lambda question, _: replace(replies.echo(question), ending="cut"),
    ),
    Scenario(
        "sandbox/stall",
        "half of the answer, then nothing more until the client leaves",
        lambda question, _: replace(replies.echo(question), ending="stall"),
    ),
    Scenario("sandbox/hang", "no answer until the client leaves", lambda _, __: Silence()),
    Scenario(
        "sandbox/gzip",
        "encoded with gzip if the client accepts it",
        lambda question, _: replace(replies.echo(question), encoding="gzip"),
    ),
    Scenario(
        "sandbox/zstd",
        "encoded with zstd if the client accepts it and the package `zstandard` is there",
        lambda question, _: replace(replies.echo(question), encoding="zstd"),
    ),
    Scenario("sandbox/redirect-307", "to the URL in ?redirect_to= or metadata.redirect_to", replies.redirect),
    Scenario(
        "sandbox/tools", "calls every function offered; repeats the result when the last message is one", replies.tools
    ),
    Scenario(
        "sandbox/parallel-tools", "calls every function twice; streamed, all calls in turn", replies.parallel_tools
    ),
    Scenario("sandbox/reasoning", "thinks before it repeats the last message", replies.reasoned),
    Scenario(
        "sandbox/reasoning-details",
        "the same; OpenRouter's also signed, summed up and sealed",
        lambda question, _: replace(replies.reasoned(question), is_detailed=True),
    ),
    Scenario("sandbox/refusal", "declines, in the member `refusal`", replies.refused),
    Scenario("sandbox/images", "draws two pictures beside the text, one of them a data: URL", replies.drawn),
    Scenario("sandbox/audio", "says it aloud: transcript and data in pieces, no text", replies.spoken),
    Scenario("sandbox/annotations", "names two sources beside the text", replies.annotated),
    Scenario(
        "sandbox/length",
        "half of the text, for want of tokens",
        lambda question, _: replies.cut_short(question, "length"),
    ),
    Scenario(
        "sandbox/content-filter",
        "half of the text, then filtered",
        lambda question, _: replies.cut_short(question, "content_filter"),
    ),
    Scenario(
        "sandbox/cached",
        "half of the prompt was cached, the other half is from now on",
        lambda question, _: replace(replies.echo(question), is_cached=True),
    ),
    Scenario(
        "sandbox/byok",
        "is_byok: cost is the fee alone, the provider's bill stands in cost_details",
        lambda question, _: replace(replies.echo(question), is_byok=True),
    ),
    Scenario("sandbox/html-error-<status>", "a proxy's page; also 200", replies.html, number=502, most=_MOST_STATUS),
    Scenario("sandbox/empty", "200 without a body", lambda _, __: Plain(200, b"")),
    Scenario(
        "sandbox/comments",
        "a stream of nothing but comments; unary: as echo",
        lambda question, _: replace(replies.echo(question), ending="silent"),
    ),
    Scenario(
        "sandbox/malformed",
        "JSON that breaks off; streamed: one event of many does",
        lambda question, _: replace(replies.echo(question), is_malformed=True),
    ),
    Scenario(
        "sandbox/huge-<megabytes>",
        "an answer of that size, with the usage at its end",
        replies.huge,
        number=300,
        most=_MOST_MEGABYTES,
    ),
    Scenario("sandbox/endless", "an answer without end, until the client leaves", replies.endless),
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
        return replies.echo(question)
    return scenario.answer(question, min(float(number), scenario.most))
