"""What a sink got: who asked what, read from the format of each variant."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from benchmarks.loopback.wire import Kept

__all__ = ["ARRIVED", "Call"]

Call = tuple[str, str]
"""A customer, and the text of a call that was recorded as the customer's."""


def _nothing(_: Iterable[Kept]) -> Iterator[Call]:
    yield from ()


def _of_ours(requests: Iterable[Kept]) -> Iterator[Call]:
    """Log entries, alone or many in one request."""
    for request in requests:
        sent = json.loads(request.body)
        for entry in sent["logs"] if request.path.endswith("/bulk/") else [sent]:
            yield entry["customer_params"]["customer_identifier"], json.dumps(entry)


def _of_langfuse(requests: Iterable[Kept]) -> Iterator[Call]:
    """OTLP: the spans that are generations."""
    service = importlib.import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    for request in requests:
        if not request.path.endswith("/v1/traces"):
            continue
        exported = service.ExportTraceServiceRequest.FromString(request.unpacked())
        for resource in exported.resource_spans:
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                attributes = {each.key: each.value.string_value for each in span.attributes}
                if attributes.get("langfuse.observation.type") == "generation":
                    yield attributes.get("user.id", ""), json.dumps(attributes)


def _of_sentry(requests: Iterable[Kept]) -> Iterator[Call]:
    """Envelopes: the spans that are calls of a model, which it sends apart from their transaction."""
    for request in requests:
        lines = iter(request.unpacked().split(b"\n"))
        next(lines, None)
        for head, item in zip(lines, lines, strict=False):
            if head and json.loads(head).get("type") == "span":
                for span in json.loads(item)["items"]:
                    attributes = {name: each["value"] for name, each in span["attributes"].items()}
                    if str(attributes.get("sentry.op", "")).startswith("gen_ai."):
                        yield attributes.get("user.id", ""), json.dumps(attributes)


ARRIVED: Final[dict[str, Callable[[Iterable[Kept]], Iterator[Call]]]] = {
    "plain": _nothing, "ours": _of_ours, "langfuse": _of_langfuse, "sentry": _of_sentry,
}  # fmt: skip
