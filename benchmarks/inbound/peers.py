"""What one would use instead, or has beside it, configured as each one's documentation tells a production user to."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from benchmarks.inbound.incoming import PATH, REQUEST_ID, VISITOR
from benchmarks.inbound.wrapping import SetUp, Wrapping
from benchmarks.loopback.running import Loopback, loopback
from benchmarks.loopback.sink import accepted

__all__ = [
    "asgi_correlation_id", "empty_base_http_middleware", "opentelemetry_asgi", "opentelemetry_flask",
    "opentelemetry_wsgi", "posthog_asgi", "posthog_flask", "sentry_asgi", "sentry_flask", "sentry_wsgi",
    "starlette_context",
]  # fmt: skip

_KEPT: Final = 1 << 20


@contextmanager
def asgi_correlation_id() -> Iterator[Wrapping]:
    """An id for each request, bound for logs."""
    # It tells Sentry of each id when that can be imported. Here only others use it, and it would count against this.
    sys.modules["sentry_sdk"] = None  # type: ignore[assignment]  # how Python is told that there is no such module
    from asgi_correlation_id import CorrelationIdMiddleware, correlation_id

    yield Wrapping(CorrelationIdMiddleware, lambda: correlation_id.get() == REQUEST_ID)


@contextmanager
def starlette_context() -> Iterator[Wrapping]:
    """The same as one plugin of several that fill a context."""
    from starlette_context import context, plugins
    from starlette_context.middleware import RawContextMiddleware

    yield Wrapping(
        lambda app: RawContextMiddleware(app, plugins=(plugins.RequestIdPlugin(),)),
        lambda: bool(context["X-Request-ID"] == REQUEST_ID),
    )


@contextmanager
def empty_base_http_middleware() -> Iterator[Wrapping]:
    """What many write their own with, doing nothing."""
    import asyncio

    from starlette.middleware.base import BaseHTTPMiddleware

    async def pass_on(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    def is_between() -> bool:
        task = asyncio.current_task()
        return task is not None and "BaseHTTPMiddleware" in task.get_name()  # it runs the app in a task of its own

    yield Wrapping(lambda app: BaseHTTPMiddleware(app, dispatch=pass_on), is_between)


@contextmanager
def posthog_asgi() -> Iterator[Wrapping]:
    """PostHog's context around an ASGI app."""
    from posthog.integrations.asgi import PosthogASGIMiddleware

    with _posthog() as client:
        yield Wrapping(lambda app: PosthogASGIMiddleware(app, client=client), _is_known_to_posthog)


@contextmanager
def posthog_flask() -> Iterator[Wrapping]:
    """The same for a Flask app."""
    from posthog.integrations.flask import PosthogFlaskIntegration

    def wrap(app: Any) -> Any:
        PosthogFlaskIntegration(app, client=client)
        return app

    with _posthog() as client:
        yield Wrapping(wrap, _is_known_to_posthog)


@contextmanager
def _posthog() -> Iterator[Any]:
    from posthog import Posthog

    with loopback(accepted) as place:
        client = Posthog("phc_benchmark", host=place.url)
        yield client
        client.shutdown()


def _is_known_to_posthog() -> bool:
    import posthog

    return bool(posthog.get_tags()["$request_path"] == PATH) and posthog.contexts.get_context_distinct_id() == VISITOR


def sentry_asgi(*, tracing: bool) -> SetUp:
    """Sentry around an ASGI app.

    Args:
        tracing: Whether each request becomes a transaction.
    """

    def wrap(app: Any) -> Any:
        from sentry_sdk.integrations.asgi import SentryAsgiMiddleware

        return SentryAsgiMiddleware(app)

    return _sentry(wrap, tracing)


def sentry_wsgi(*, tracing: bool) -> SetUp:
    """The same around a WSGI app."""

    def wrap(app: Any) -> Any:
        from sentry_sdk.integrations.wsgi import SentryWsgiMiddleware

        return SentryWsgiMiddleware(app)

    return _sentry(wrap, tracing)


def sentry_flask(*, tracing: bool) -> SetUp:
    """The same for a Flask app, for which it is enough to initialise it."""
    return _sentry(lambda app: app, tracing)


def _sentry(wrap: Callable[[Any], Any], tracing: bool) -> SetUp:
    @contextmanager
    def set_up() -> Iterator[Wrapping]:
        import sentry_sdk

        def is_seen() -> bool:
            return sentry_sdk.capture_message("from inside the app") is not None

        def has_arrived() -> bool:
            sentry_sdk.flush()
            came = _came(place)
            assert _has(came, "from inside the app", f"http://app.example{PATH}")
            return _has(came, '"type":"transaction"', PATH) is tracing

        with loopback(accepted, keep=_KEPT) as place:
            sentry_sdk.init(dsn=f"http://public@127.0.0.1:{place.port}/1", traces_sample_rate=1.0 if tracing else None)
            yield Wrapping(wrap, is_seen, has_arrived)
            sentry_sdk.get_client().close(timeout=1)

    return set_up


@contextmanager
def opentelemetry_asgi() -> Iterator[Wrapping]:
    """OpenTelemetry around an ASGI app."""
    from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

    with _opentelemetry(OpenTelemetryMiddleware) as wrapping:
        yield wrapping


@contextmanager
def opentelemetry_wsgi() -> Iterator[Wrapping]:
    """The same around a WSGI app."""
    from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware

    with _opentelemetry(OpenTelemetryMiddleware) as wrapping:
        yield wrapping


@contextmanager
def opentelemetry_flask() -> Iterator[Wrapping]:
    """The same around the WSGI app of a Flask app, as its documentation shows it."""
    from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware

    def wrap(app: Any) -> Any:
        app.wsgi_app = OpenTelemetryMiddleware(app.wsgi_app)
        return app

    with _opentelemetry(wrap) as wrapping:
        yield wrapping


@contextmanager
def _opentelemetry(wrap: Callable[[Any], Any]) -> Iterator[Wrapping]:
    from opentelemetry import trace
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    def is_seen() -> bool:
        return trace.get_current_span().is_recording()

    def has_arrived() -> bool:
        provider.force_flush()
        return _has(_came(place), f"GET {PATH}")

    with loopback(accepted, keep=_KEPT) as place:
        provider = TracerProvider(resource=Resource.create({"service.name": "benchmark"}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{place.url}/v1/traces")))
        trace.set_tracer_provider(provider)
        yield Wrapping(wrap, is_seen, has_arrived)
        provider.shutdown()


def _came(place: Loopback) -> list[bytes]:
    return [request.unpacked() for request in place.kept()]


def _has(came: list[bytes], *texts: str) -> bool:
    """Return whether one of the bodies that came has all of these."""
    return any(all(text.encode() in body for text in texts) for body in came)
