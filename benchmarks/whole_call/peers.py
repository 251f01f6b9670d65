"""What one would use instead, each as its documentation sets it up, with the loopback sink in place of its vendor.

Only the instrumentation of the OpenAI SDK is switched on where there would be others, and no identity is given beyond
what the call itself needs: less work than an app would have of it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from benchmarks.whole_call.calls import Kind, Way
from benchmarks.whole_call.other_side import OtherSide

__all__ = ["langfuse", "openllmetry", "opentelemetry", "posthog", "respan", "respan_workflow"]

_APP: Final = "whole-call"
_KEY: Final = "key-of-the-app"


def _client(module: str, other: OtherSide, kind: Kind, **more: Any) -> Any:
    found = importlib.import_module(module)
    client = found.AsyncOpenAI if kind.is_async else found.OpenAI
    return client(api_key="sk-or-v1-of-the-app", base_url=other.api, **more)


@contextmanager
def langfuse(other: OtherSide, kind: Kind) -> Iterator[Way]:
    """`from langfuse.openai import OpenAI`, which exports spans in batches by OTLP."""
    os.environ.update(LANGFUSE_PUBLIC_KEY="pk-lf-1", LANGFUSE_SECRET_KEY="sk-lf-1", LANGFUSE_BASE_URL=other.url)
    client = _client("langfuse.openai", other, kind)
    yield Way(client, flush=importlib.import_module("langfuse").get_client().flush)


@contextmanager
def posthog(other: OtherSide, kind: Kind) -> Iterator[Way]:
    """`from posthog.ai.openai import OpenAI`, with a client that sends events in batches."""
    events = importlib.import_module("posthog").Posthog("phc_1", host=other.url)
    client = _client("posthog.ai.openai", other, kind, posthog_client=events)
    yield Way(client, options={"posthog_distinct_id": "acme-4711"}, flush=events.flush)


@contextmanager
def openllmetry(other: OtherSide, kind: Kind) -> Iterator[Way]:
    """`Traceloop.init`, which exports spans in batches, and metrics once a minute."""
    os.environ["TRACELOOP_BASE_URL"] = other.url
    sdk = importlib.import_module("traceloop.sdk")
    with contextlib.redirect_stdout(None):
        sdk.Traceloop.init(app_name=_APP, api_key=_KEY, instruments={sdk.Instruments.OPENAI})
    tracing = importlib.import_module("traceloop.sdk.tracing.tracing")
    yield Way(_client("openai", other, kind), flush=tracing.TracerWrapper().flush)


@contextmanager
def opentelemetry(other: OtherSide, kind: Kind) -> Iterator[Way]:
    """OpenTelemetry's own instrumentation with messages on spans, exported in batches by OTLP."""
    os.environ["OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"] = "span_only"
    os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = other.url
    sdk = importlib.import_module("opentelemetry.sdk.trace")
    export = importlib.import_module("opentelemetry.sdk.trace.export")
    otlp = importlib.import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    resources = importlib.import_module("opentelemetry.sdk.resources")
    provider = sdk.TracerProvider(resource=resources.Resource.create({"service.name": _APP}))
    provider.add_span_processor(export.BatchSpanProcessor(otlp.OTLPSpanExporter()))
    importlib.import_module("opentelemetry.trace").set_tracer_provider(provider)
    importlib.import_module("opentelemetry.instrumentation.genai.openai").OpenAIInstrumentor().instrument()
    yield Way(_client("openai", other, kind), flush=provider.force_flush)


@contextmanager
def respan(other: OtherSide, kind: Kind) -> Iterator[Way]:
    """`RespanTelemetry`, with the instrumentation that its documentation has one install for the OpenAI SDK."""
    tracing = importlib.import_module("respan_tracing")
    instrumentation = importlib.import_module("respan_tracing.utils.instrumentation")
    telemetry = tracing.RespanTelemetry(
        app_name=_APP, api_key=_KEY, base_url=other.gateway, log_level="WARNING", instruments=set()
    )
    # It would take any distribution that calls its instrumentation `openai`, and here there are two.
    instrumentation._instrument_entry_point(_entry_point("opentelemetry-instrumentation-openai"), "openai")
    yield Way(_client("openai", other, kind), flush=telemetry.flush)


@contextmanager
def respan_workflow(other: OtherSide, kind: Kind) -> Iterator[Way]:
    """The same with the calling function as a `@workflow`, as in its tutorial: it sends at the end of each."""
    with respan(other, kind) as way:
        workflow = importlib.import_module("respan_tracing").workflow
        yield Way(way.client, around=workflow(name="ask"), flush=way.flush)


def _entry_point(distribution: str) -> importlib.metadata.EntryPoint:
    found = importlib.metadata.distribution(distribution).entry_points
    return next(iter(found.select(group="opentelemetry_instrumentor", name="openai")))
