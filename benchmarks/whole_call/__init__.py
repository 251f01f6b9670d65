"""The whole call: the OpenAI SDK over loopback, and what recording each call adds to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from benchmarks.plan import Bar, Case, Metric, Role, Scale, Suite, Variant
from benchmarks.whole_call import ours, peers
from benchmarks.whole_call.calls import FIRST_CHUNK, P50, P99, PROCESS, THREAD, Kind, SetUp, prepare
from benchmarks.whole_call.conversation import CHUNKS

__all__ = ["SUITE"]

_PLAIN: Final = "the SDK alone"
_OURS: Final = "kwai_middleware"
_WHAT: Final = (
    "Calls one after the other by {client} of the OpenAI SDK, about 2 KB of conversation and 2 KB of answer{how}, to a "
    "server in another process. CPU of the calling thread is that of the calls alone; CPU of the whole process also has "
    "all threads, and lasts until everything that the round recorded has reached the sink, which takes whatever comes, "
    "with prompts and answers in it, and answers after 20 ms. Each round is looked at there: what did not arrive would "
    "be an error. Ours: a caller bound for each call, records spooled on disk and shipped alone or in bulk, the limit "
    "of bulk requests a minute lifted; structlog is not configured, so the line that each call is worth is dropped by "
    "the log level of the app. Peers: the defaults of their documentation, with messages."
)


def _variant(kind: Kind, name: str, role: Role, set_up: SetUp, distribution: str | None = None) -> Variant:
    return Variant(name, role, prepare(set_up, kind), distribution)


def _variants(kind: Kind) -> tuple[Variant, ...]:
    return (
        _variant(kind, _PLAIN, "plain", ours.plain),
        _variant(kind, _OURS, "ours", ours.direct),
        _variant(kind, "Langfuse", "peer", peers.langfuse, "langfuse"),
        _variant(kind, "PostHog AI", "peer", peers.posthog, "posthog"),
        _variant(kind, "OpenLLMetry", "peer", peers.openllmetry, "traceloop-sdk"),
        _variant(kind, "OpenTelemetry", "peer", peers.opentelemetry, "opentelemetry-instrumentation-genai-openai"),
        _variant(kind, "Respan's own SDK", "peer", peers.respan, "respan-tracing"),
    )


def _also(kind: Kind) -> tuple[Variant, ...]:
    """Other ways to set the same libraries up, each looked at in one case."""
    # That one waits for the sink in each call.
    few = replace(kind, quick=kind.quick // 10, full=kind.full // 10)
    return (
        _variant(kind, f"{_OURS}, through the gateway", "ours", ours.gateway),
        _variant(kind, f"{_OURS}, with JSON lines of structlog", "ours", ours.direct_with_lines),
        _variant(few, "Respan's own SDK, in a @workflow", "peer", peers.respan_workflow, "respan-tracing"),
    )


def _bars(kind: Kind, what: str) -> tuple[Bar, ...]:
    if kind.is_stream:
        return (Bar(f"{what}: whole process over the SDK alone", _OURS, PROCESS, 6, of="percent"),)
    return (
        Bar(f"{what}: calling thread over the SDK alone", _OURS, THREAD, 60, of="added"),
        Bar(f"{what}: whole process over the SDK alone", _OURS, PROCESS, 150, of="added"),
    )


def _case(name: str, kind: Kind, *, has_more: bool = False) -> Case:
    unit = "ms" if kind.is_stream else "µs"
    what = f"{'A stream' if kind.is_stream else 'An answer'} {'on an event loop' if kind.is_async else 'on a thread'}"
    first_chunk = (Metric(FIRST_CHUNK, unit, is_compared=False, decides=False),) if kind.is_stream else ()
    return Case(
        name=name,
        title=f"The whole call: {what[0].lower()}{what[1:]}",
        what=_WHAT.format(
            client="the asynchronous client" if kind.is_async else "the client",
            how=f" in {CHUNKS} chunks" if kind.is_stream else "",
        ),
        metrics=(
            Metric(THREAD, "µs"),
            Metric(PROCESS, "µs"),
            Metric(P50, unit, is_compared=False, decides=False),
            Metric(P99, unit, is_compared=False, decides=False),
            *first_chunk,
        ),
        variants=(*_variants(kind), *(_also(kind) if has_more else ())),
        base=_PLAIN,
        bars=_bars(kind, what),
        quick=Scale(is_quick=True, rounds=2, seconds=0),
        full=Scale(is_quick=False, rounds=9, seconds=0),
    )


SUITE: Final = Suite(
    "whole_call",
    "The whole call",
    (
        _case("unary_sync", Kind(is_async=False, is_stream=False, quick=200, full=500), has_more=True),
        _case("unary_async", Kind(is_async=True, is_stream=False, quick=200, full=500)),
        _case("stream_sync", Kind(is_async=False, is_stream=True, quick=12, full=60)),
        _case("stream_async", Kind(is_async=True, is_stream=True, quick=12, full=60)),
    ),
)
