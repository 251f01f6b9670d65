"""The case of an ASGI app."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from benchmarks.inbound import ours, peers
from benchmarks.inbound.incoming import EVERYTHING, headers, scope
from benchmarks.inbound.wrapping import Inside, SetUp, floor_asgi, nothing
from benchmarks.plan import Bar, Case, Metric, Prepare, Round, Scale, Variant
from benchmarks.timing import async_loop

__all__ = ["ASGI"]


async def _app(scope: Any, receive: Any, send: Any) -> None:
    sent = [(b"content-type", b"text/plain"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": sent})
    await send({"type": "http.response.body", "body": b"ok"})


async def _receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _send(message: Any) -> None:
    pass


def _prepare(set_up: SetUp, sent: str = EVERYTHING) -> Prepare:
    @contextmanager
    def prepare(scale: Scale) -> Iterator[Round]:
        wire = [(name.encode(), value.encode()) for name, value in headers(sent)]
        with set_up() as wrapping:
            wrapping.check(lambda inside: asyncio.run(wrapping.wrap(_looked_at(inside))(scope(wire), _receive, _send)))
            app = wrapping.wrap(_app)

            async def requests(times: int) -> None:
                for _ in range(times):
                    await app(scope(wire), _receive, _send)

            with async_loop(requests, scale) as one_round:
                yield one_round

    return prepare


def _looked_at(inside: Inside) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        inside()
        await _app(scope, receive, send)

    return app


ASGI: Final = Case(
    name="asgi",
    title="A request to an ASGI app",
    what="CPU of the thread that serves one request: a scope such as uvicorn makes, with eight headers of anyone and "
    "two of ours, through the middleware to an app that answers at once. What is sent elsewhere goes to a process on "
    "loopback, from threads that are not counted.",
    metrics=(Metric("CPU", "µs"),),
    variants=(
        Variant("bare app", "plain", _prepare(nothing)),
        Variant("one context variable", "floor", _prepare(floor_asgi)),
        *ours.in_all_ways(_prepare, ours.asgi),
        Variant("asgi-correlation-id", "peer", _prepare(peers.asgi_correlation_id), "asgi-correlation-id"),
        Variant("starlette-context", "peer", _prepare(peers.starlette_context), "starlette-context"),
        Variant("PostHog", "peer", _prepare(peers.posthog_asgi), "posthog"),
        Variant("Sentry, tracing off", "peer", _prepare(peers.sentry_asgi(tracing=False)), "sentry-sdk"),
        Variant("Sentry, tracing on", "peer", _prepare(peers.sentry_asgi(tracing=True)), "sentry-sdk"),
        Variant("OpenTelemetry", "peer", _prepare(peers.opentelemetry_asgi), "opentelemetry-instrumentation-asgi"),
        Variant("BaseHTTPMiddleware, empty", "peer", _prepare(peers.empty_base_http_middleware), "starlette"),
    ),
    base="bare app",
    bars=(
        Bar("ASGI: identity, key and structlog, over the bare app", "identity, key, structlog", "CPU", 3, of="added"),
        Bar(
            "ASGI: none of our headers, over the bare app",
            "none of our headers, structlog",
            "CPU",
            1.2,
            of="added",
        ),
    ),
)
