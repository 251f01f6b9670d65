"""The cases of WSGI apps: a list as the body, Flask's body, and one that is made in chunks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from benchmarks.inbound import ours, peers
from benchmarks.inbound.incoming import PATH, environ, headers
from benchmarks.inbound.wrapping import SetUp, Wrapping, floor_wsgi, nothing
from benchmarks.plan import Bar, Case, Metric, Prepare, Role, Round, Scale, Variant
from benchmarks.timing import sync_loop

__all__ = ["CHUNKS", "FLASK", "WSGI"]

_CHUNKS: Final = 100

Inside = Callable[[], object]
"""What an app does for each request before it answers: in the one that is looked at, not in those that count."""


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


def _check(wrapping: Wrapping, make_app: Callable[..., Any], request: dict[str, Any]) -> None:
    seen: list[bool] = []
    _serve(wrapping.wrap(make_app(lambda: seen.append(wrapping.is_seen()))), request)
    assert seen == [True], "the app did not see what this is there for"
    assert wrapping.has_arrived(), "what this sends did not arrive"


def _prepare(make_app: Callable[..., Any], set_up: SetUp, sent: str) -> Prepare:
    @contextmanager
    def prepare(scale: Scale) -> Iterator[Round]:
        request = environ(headers(sent))
        with set_up() as wrapping:
            _check(wrapping, make_app, request)
            app = wrapping.wrap(make_app())

            def requests(times: int) -> None:
                for _ in range(times):
                    _serve(app, request)

            with sync_loop(requests, scale) as one_round:
                yield one_round

    return prepare


def _prepare_chunks(set_up: SetUp) -> Prepare:
    @contextmanager
    def prepare(scale: Scale) -> Iterator[Round]:
        request = environ(headers("identity and key"))
        with set_up() as wrapping:
            _check(wrapping, _chunked_app, request)
            app = wrapping.wrap(_chunked_app())

            def requests(times: int) -> None:
                for _ in range(times):
                    _serve(app, request)

            def chunks(times: int) -> None:
                _serve(wrapping.wrap(_chunked_app(chunks=times)), request)

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


def _list_variant(
    name: str, role: Role, set_up: SetUp, distribution: str | None = None, *, sent: str = "identity and key"
) -> Variant:
    return Variant(name, role, _prepare(_list_app, set_up, sent), distribution)


def _our_list_variant(name: str, sent: str, *, with_structlog: bool) -> Variant:
    return _list_variant(name, "ours", ours.wsgi(sent, with_structlog=with_structlog), sent=sent)


WSGI: Final = Case(
    name="wsgi",
    title="A request to a WSGI app",
    what="CPU of the thread that serves one request: an environ such as gunicorn makes, with eight headers of anyone "
    "and two of ours, through the middleware to an app that answers at once with a list, which is read and closed. "
    "What is sent elsewhere goes to a process on loopback, from threads that are not counted.",
    metrics=_CPU,
    variants=(
        _list_variant("bare app", "plain", nothing),
        _list_variant("one context variable", "floor", floor_wsgi),
        _our_list_variant("identity, key, structlog", "identity and key", with_structlog=True),
        _our_list_variant("identity, key", "identity and key", with_structlog=False),
        _our_list_variant("identity, structlog", "identity", with_structlog=True),
        _our_list_variant("identity", "identity", with_structlog=False),
        _our_list_variant("none of our headers, structlog", "nothing", with_structlog=True),
        _our_list_variant("none of our headers", "nothing", with_structlog=False),
        _list_variant("Sentry, tracing off", "peer", peers.sentry_wsgi(tracing=False), "sentry-sdk"),
        _list_variant("Sentry, tracing on", "peer", peers.sentry_wsgi(tracing=True), "sentry-sdk"),
        _list_variant("OpenTelemetry", "peer", peers.opentelemetry_wsgi, "opentelemetry-instrumentation-wsgi"),
    ),
    base="bare app",
    bars=(
        Bar("WSGI: identity, key and structlog, over the bare app", "identity, key, structlog", "CPU", 4, of="added"),
    ),
)


def _flask_variant(
    name: str, role: Role, set_up: SetUp, distribution: str | None = None, *, sent: str = "identity and key"
) -> Variant:
    return Variant(name, role, _prepare(_flask_app, set_up, sent), distribution)


FLASK: Final = Case(
    name="wsgi_flask",
    title="A request to a Flask app",
    what="The same for a Flask app with one view, whose body is Flask's own.",
    metrics=_CPU,
    variants=(
        _flask_variant("bare Flask", "plain", nothing),
        _flask_variant("identity, key, structlog", "ours", ours.flask("identity and key")),
        _flask_variant("none of our headers, structlog", "ours", ours.flask("nothing"), sent="nothing"),
        _flask_variant("PostHog", "peer", peers.posthog_flask, "posthog"),
        _flask_variant("Sentry, tracing off", "peer", peers.sentry_flask(tracing=False), "sentry-sdk"),
        _flask_variant("Sentry, tracing on", "peer", peers.sentry_flask(tracing=True), "sentry-sdk"),
        _flask_variant("OpenTelemetry", "peer", peers.opentelemetry_flask, "opentelemetry-instrumentation-wsgi"),
    ),
    base="bare Flask",
)


def _chunks_variant(name: str, role: Role, set_up: SetUp, distribution: str | None = None) -> Variant:
    return Variant(name, role, _prepare_chunks(set_up), distribution)


CHUNKS: Final = Case(
    name="wsgi_chunks",
    title="A body in chunks from a WSGI app",
    what=f"CPU of the thread that serves one request whose body is a generator of {_CHUNKS} chunks, and of each chunk "
    "of a body that goes on and on.",
    metrics=(Metric("request", "µs"), Metric("chunk", "µs", decides=False)),
    variants=(
        _chunks_variant("bare app", "plain", nothing),
        _chunks_variant("a body that only forwards", "floor", _forwarding_body),
        _chunks_variant("identity, key, structlog", "ours", ours.wsgi("identity and key", with_structlog=True)),
        _chunks_variant("Sentry, tracing off", "peer", peers.sentry_wsgi(tracing=False), "sentry-sdk"),
        _chunks_variant("Sentry, tracing on", "peer", peers.sentry_wsgi(tracing=True), "sentry-sdk"),
        _chunks_variant("OpenTelemetry", "peer", peers.opentelemetry_wsgi, "opentelemetry-instrumentation-wsgi"),
    ),
    base="bare app",
    bars=(Bar("WSGI: each chunk of a body, over the bare app", "identity, key, structlog", "chunk", 0.3, of="added"),),
)
