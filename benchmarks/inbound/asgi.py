"""The case of an ASGI app."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from benchmarks.inbound import ours, peers
from benchmarks.inbound.incoming import headers, scope
from benchmarks.inbound.wrapping import SetUp, Wrapping, floor_asgi, nothing
from benchmarks.plan import Bar, Case, Metric, Prepare, Role, Round, Scale, Variant
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


def _prepare(set_up: SetUp, sent: str) -> Prepare:
    @contextmanager
    def prepare(scale: Scale) -> Iterator[Round]:
        wire = [(name.encode(), value.encode()) for name, value in headers(sent)]
        with set_up() as wrapping:
            asyncio.run(_check(wrapping, wire))
            app = wrapping.wrap(_app)

            async def requests(times: int) -> None:
                for _ in range(times):
                    await app(scope(wire), _receive, _send)

            with async_loop(requests, scale) as one_round:
                yield one_round

    return prepare


async def _check(wrapping: Wrapping, wire: list[tuple[bytes, bytes]]) -> None:
    seen: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(wrapping.is_seen())
        await _app(scope, receive, send)

    await wrapping.wrap(app)(scope(wire), _receive, _send)
    assert seen == [True], "the app did not see what this is there for"
    assert wrapping.has_arrived(), "what this sends did not arrive"


def _variant(
    name: str, role: Role, set_up: SetUp, distribution: str | None = None, *, sent: str = "identity and key"
) -> Variant:
    return Variant(name, role, _prepare(set_up, sent), distribution)


def _ours(name: str, sent: str, *, with_structlog: bool) -> Variant:
    return _variant(name, "ours", ours.asgi(sent, with_structlog=with_structlog), sent=sent)


ASGI: Final = Case(
    name="asgi",
    title="A request to an ASGI app",
    what="CPU of the thread that serves one request: a scope such as uvicorn makes, with eight headers of anyone and "
    "two of ours, through the middleware to an app that answers at once. What is sent elsewhere goes to a process on "
    "loopback, from threads that are not counted.",
    metrics=(Metric("CPU", "µs"),),
    variants=(
        _variant("bare app", "plain", nothing),
        _variant("one context variable", "floor", floor_asgi),
        _ours("identity, key, structlog", "identity and key", with_structlog=True),
        _ours("identity, key", "identity and key", with_structlog=False),
        _ours("identity, structlog", "identity", with_structlog=True),
        _ours("identity", "identity", with_structlog=False),
        _ours("none of our headers, structlog", "nothing", with_structlog=True),
        _ours("none of our headers", "nothing", with_structlog=False),
        _variant("asgi-correlation-id", "peer", peers.asgi_correlation_id, "asgi-correlation-id"),
        _variant("starlette-context", "peer", peers.starlette_context, "starlette-context"),
        _variant("PostHog", "peer", peers.posthog_asgi, "posthog"),
        _variant("Sentry, tracing off", "peer", peers.sentry_asgi(tracing=False), "sentry-sdk"),
        _variant("Sentry, tracing on", "peer", peers.sentry_asgi(tracing=True), "sentry-sdk"),
        _variant("OpenTelemetry", "peer", peers.opentelemetry_asgi, "opentelemetry-instrumentation-asgi"),
        _variant("BaseHTTPMiddleware, empty", "peer", peers.empty_base_http_middleware, "starlette"),
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
