"""The whole call: the OpenAI SDK over loopback, and what recording each call adds to it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from benchmarks.plan import Bar, Case, Metric, Role, Scale, Suite, Variant
from benchmarks.whole_call import ours, peers
from benchmarks.whole_call.calls import FIRST_CHUNK, PROCESS, THREAD, Kind, SetUp, prepare
from benchmarks.whole_call.conversation import CHUNKS

__all__ = ["SUITE"]

_PLAIN: Final = "the SDK alone"
_OURS: Final = "kwai_middleware"
_QUICK: Final = Scale(is_quick=True, rounds=1, seconds=0)
_FULL: Final = Scale(is_quick=False, rounds=7, seconds=0)

_WHAT: Final = (
    "Calls one after the other by {client} of the OpenAI SDK, about 2 KB of conversation and 2 KB of answer{how}, to a "
    "server in another process. CPU of the calling thread: of the calls alone. CPU of the whole process: of all "
    "threads, until everything that the round recorded, prompts and answers included, has reached a sink that takes "
    "whatever comes and answers after 20 ms; what did not arrive there would be an error. Ours: a caller bound for "
    "each call, records spooled on disk and shipped alone or in bulk, without the limit of bulk requests a minute; "
    "structlog is not configured, so that the line for each call is dropped by the app's log level. Peers: as their "
    "documentation sets them up, with messages, and with no identity but where the call asks for one."
)


def _variant(kind: Kind, name: str, role: Role, set_up: SetUp, distribution: str | None = None) -> Variant:
    return Variant(name, role, prepare(set_up, kind), distribution)


def _variants(kind: Kind) -> tuple[Variant, ...]:
    return (
        _variant(kind, _PLAIN, "plain", ours.plain),
        _variant(kind, _OURS, "ours", ours.direct),
        _variant(kind, f"{_OURS}, records in memory", "ours", ours.direct_in_memory),
        _variant(kind, "Langfuse", "peer", peers.langfuse, "langfuse"),
        _variant(kind, "PostHog AI", "peer", peers.posthog, "posthog"),
        _variant(kind, "OpenLLMetry", "peer", peers.openllmetry, "traceloop-sdk"),
        _variant(kind, "OpenTelemetry", "peer", peers.opentelemetry, "opentelemetry-instrumentation-genai-openai"),
        _variant(kind, "Respan's own SDK", "peer", peers.respan, "respan-tracing"),
    )


def _ways(kind: Kind) -> tuple[Variant, ...]:
    # That one waits for the sink in each call.
    few = replace(kind, quick=kind.quick // 10, full=kind.full // 10)
    return (
        _variant(kind, _PLAIN, "plain", ours.plain),
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


def _case(name: str, kind: Kind) -> Case:
    what = f"{'A stream' if kind.is_stream else 'An answer'} {'on an event loop' if kind.is_async else 'on a thread'}"
    return Case(
        name=name,
        title=f"The whole call: {what[0].lower()}{what[1:]}",
        what=_WHAT.format(
            client="the asynchronous client" if kind.is_async else "the client",
            how=f" in {CHUNKS} chunks" if kind.is_stream else "",
        ),
        metrics=_metrics(kind),
        variants=_variants(kind),
        base=_PLAIN,
        bars=_bars(kind, what),
        quick=_QUICK,
        full=_FULL,
        is_in_quick_run=not kind.is_async,
    )


def _metrics(kind: Kind) -> tuple[Metric, ...]:
    unit = "ms" if kind.is_stream else "µs"
    shown = ("p50", "p99", FIRST_CHUNK) if kind.is_stream else ("p50", "p99")
    return (
        Metric(THREAD, "µs"),
        Metric(PROCESS, "µs"),
        *(Metric(name, unit, is_compared=False, decides=False) for name in shown),
    )


def _other_ways(kind: Kind) -> Case:
    return Case(
        name="other_ways",
        title="The whole call: set up in other ways",
        what="As for an answer on a thread. Through the gateway: key and identity travel in the body, and the gateway "
        "logs the call. With JSON lines: structlog writes one for each call to a file. In a @workflow, as the tutorial "
        "has it: the calling function waits for the sink at its end.",
        metrics=_metrics(kind),
        variants=_ways(kind),
        base=_PLAIN,
        quick=_QUICK,
        full=_FULL,
        is_in_quick_run=False,
    )


_UNARY: Final = Kind(is_async=False, is_stream=False, quick=150, full=500)
_STREAM: Final = Kind(is_async=False, is_stream=True, quick=8, full=40)

SUITE: Final = Suite(
    "whole_call",
    "The whole call",
    (
        _case("unary_sync", _UNARY),
        _case("unary_async", replace(_UNARY, is_async=True)),
        _case("stream_sync", _STREAM),
        _case("stream_async", replace(_STREAM, is_async=True)),
        _other_ways(_UNARY),
    ),
)
