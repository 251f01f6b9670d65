"""The cases of WSGI apps: a list as the body, Flask's body, and one that is made in chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

from benchmarks.inbound import ours, peers
from benchmarks.inbound.incoming import EVERYTHING, PATH, environ, headers
from benchmarks.inbound.wrapping import Inside, SetUp, Wrapping, floor_wsgi, nothing
from benchmarks.plan import Bar, Case, Metric, Prepare, Round, Scale, Variant
from benchmarks.timing import sync_loop

__all__ = ["CHUNKS", "FLASK", "WSGI"]

_CHUNKS: Final = 100


def _nothing_more() -> None:
    pass


def _list_app(inside: Inside = _nothing_more) -> Any:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        inside()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "2")])
        return [b"ok"]

    return app


def _flask_app(inside: Inside = _nothing_more) -> Any:
    import flask

    app = flask.Flask("benchmark")

    @app.get(PATH)
    def ask() -> str:
        inside()
        return "ok"

    return app


def _chunked_app(inside: Inside = _nothing_more, *, chunks: int = _CHUNKS) -> Any:
    def body() -> Iterator[bytes]:
        inside()
        for _ in range(chunks):
            yield b"a chunk"

    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return body()

    return app


def _write(data: bytes) -> None:
    pass


def _start_response(status: str, sent: Any, failure: Any = None) -> Any:
    return _write


def _serve(app: Any, request: dict[str, Any]) -> None:
    """Do what a server does: read the body to its end and close it."""
    body = app(dict(request), _start_response)
    try:
        for _ in body:
            pass
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()


@contextmanager
def _checked(make_app: Callable[..., Any], set_up: SetUp, sent: str) -> Iterator[tuple[Wrapping, dict[str, Any]]]:
    """What stands before the app and has been seen to do its work, and the request."""
    request = environ(headers(sent))
    with set_up() as wrapping:
        wrapping.check(lambda inside: _serve(wrapping.wrap(make_app(inside)), request))
        yield wrapping, request


def _requests(app: Any, request: dict[str, Any]) -> Callable[[int], None]:
    def requests(times: int) -> None:
        for _ in range(times):
            _serve(app, request)

    return requests


def _prepare(make_app: Callable[..., Any], set_up: SetUp, sent: str = EVERYTHING) -> Prepare:
    @contextmanager
    def prepare(scale: Scale) -> Iterator[Round]:
        with (
            _checked(make_app, set_up, sent) as (wrapping, request),
            sync_loop(_requests(wrapping.wrap(make_app()), request), scale) as one_round,
        ):
            yield one_round

    return prepare


def _chunks(set_up: SetUp) -> Prepare:
    @contextmanager
    def prepare(scale: Scale) -> Iterator[Round]:
        with _checked(_chunked_app, set_up, EVERYTHING) as (wrapping, request):

            def chunks(times: int) -> None:
                _serve(wrapping.wrap(_chunked_app(chunks=times)), request)

            requests = _requests(wrapping.wrap(_chunked_app()), request)
            with sync_loop(requests, scale, "request") as whole, sync_loop(chunks, scale, "chunk") as each:
                yield lambda: {**whole(), **each()}

    return prepare


@contextmanager
def _forwarding_body() -> Iterator[Wrapping]:
    """The least that anything costs that does something at each chunk."""

    class Body:
        def __init__(self, inner: Any) -> None:
            self._next = inner.__next__
            self.close = inner.close

        def __iter__(self) -> Body:
            return self

        def __next__(self) -> bytes:
            chunk: bytes = self._next()
            return chunk

    def wrap(app: Any) -> Any:
        return lambda environ, start_response: Body(app(environ, start_response))

    yield Wrapping(wrap)


_CPU: Final = (Metric("CPU", "µs"),)
_list: Final = partial(_prepare, _list_app)
_flask: Final = partial(_prepare, _flask_app)

WSGI: Final = Case(
    name="wsgi",
    title="A request to a WSGI app",
    what="CPU of the thread that serves one request: an environ such as gunicorn makes, with eight headers of anyone "
    "and two of ours, through the middleware to an app that answers at once with a list, which is read and closed. "
    "What is sent elsewhere goes to a process on loopback, from threads that are not counted.",
    metrics=_CPU,
    variants=(
        Variant("bare app", "plain", _list(nothing)),
        Variant("one context variable", "floor", _list(floor_wsgi)),
        *ours.in_all_ways(_list, ours.wsgi),
        Variant("Sentry, tracing off", "peer", _list(peers.sentry_wsgi(tracing=False)), "sentry-sdk"),
        Variant("Sentry, tracing on", "peer", _list(peers.sentry_wsgi(tracing=True)), "sentry-sdk"),
        Variant("OpenTelemetry", "peer", _list(peers.opentelemetry_wsgi), "opentelemetry-instrumentation-wsgi"),
    ),
    base="bare app",
    bars=(
        Bar("WSGI: identity, key and structlog, over the bare app", "identity, key, structlog", "CPU", 4, of="added"),
    ),
)

FLASK: Final = Case(
    name="wsgi_flask",
    title="A request to a Flask app",
    what="The same for a Flask app with one view, whose body is Flask's own.",
    metrics=_CPU,
    variants=(
        Variant("bare Flask", "plain", _flask(nothing)),
        Variant("identity, key, structlog", "ours", _flask(ours.flask())),
        Variant("none of our headers, structlog", "ours", _flask(ours.flask("nothing"), "nothing")),
        Variant("PostHog", "peer", _flask(peers.posthog_flask), "posthog"),
        Variant("Sentry, tracing off", "peer", _flask(peers.sentry_flask(tracing=False)), "sentry-sdk"),
        Variant("Sentry, tracing on", "peer", _flask(peers.sentry_flask(tracing=True)), "sentry-sdk"),
        Variant("OpenTelemetry", "peer", _flask(peers.opentelemetry_flask), "opentelemetry-instrumentation-wsgi"),
    ),
    base="bare Flask",
)

CHUNKS: Final = Case(
    name="wsgi_chunks",
    title="A body in chunks from a WSGI app",
    what=f"CPU of the thread that serves one request whose body is a generator of {_CHUNKS} chunks, and of each chunk "
    "of a body that goes on and on.",
    metrics=(Metric("request", "µs"), Metric("chunk", "µs", decides=False)),
    variants=(
        Variant("bare app", "plain", _chunks(nothing)),
        Variant("a body that only forwards", "floor", _chunks(_forwarding_body)),
        Variant("identity, key, structlog", "ours", _chunks(ours.wsgi())),
        Variant("Sentry, tracing off", "peer", _chunks(peers.sentry_wsgi(tracing=False)), "sentry-sdk"),
        Variant("Sentry, tracing on", "peer", _chunks(peers.sentry_wsgi(tracing=True)), "sentry-sdk"),
        Variant("OpenTelemetry", "peer", _chunks(peers.opentelemetry_wsgi), "opentelemetry-instrumentation-wsgi"),
    ),
    base="bare app",
    bars=(Bar("WSGI: each chunk of a body, over the bare app", "identity, key, structlog", "chunk", 0.3, of="added"),),
)
