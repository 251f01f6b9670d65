"""Whether our middleware is there, and stands where it has to among the others."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from typing import Any, Final

from starlette.applications import Starlette

from kwai_middleware._cli.doctor_examined import Door, Examined
from kwai_middleware._cli.doctor_findings import Finding, Severity
from kwai_middleware._cli.doctor_layers import Layer, Path, is_flask

__all__ = ["check_order"]

_REWRITING: Final = ("ProxyHeadersMiddleware", "ProxyFixMiddleware")
"""Of uvicorn and of Hypercorn. Werkzeug's ProxyFix says what it has replaced, and is seen through."""

_HARMLESS: Final = (
    *_REWRITING,
    "ProxyFix",
    "CORSMiddleware",
    "GZipMiddleware",
    "HTTPSRedirectMiddleware",
    "TrustedHostMiddleware",
    "DispatcherMiddleware",
    "SessionMiddleware",
)
"""Those that keep no request header: to be named as a reader of keys would be no news."""

_CAPTURED: Final = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST"
_SANITIZED: Final = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS"
_METHOD_OVERRIDE: Final = re.compile(r"method_?override", re.IGNORECASE)


def check_order(examined: Examined) -> Iterator[Finding]:
    """Look at each way through the app."""
    with_ours = [path for path in examined.paths if path.ours]
    if not with_ours:
        yield _absent(examined)
        return
    main = examined.paths[[path.mount for path in examined.paths].index("")]
    if main.ours:
        layer = main.layers[main.ours[0]]
        yield Finding("order", "ok", "middleware-present", f"{layer.name} is there", examined.line_of(layer.name))
    else:
        mounts = " and ".join(sorted({path.mount for path in with_ours}))
        what = f"only requests below {mounts} have a caller; all others are nobody's, and paid by the app's own key"
        yield Finding("order", "note", "middleware-below-mount", what, change=examined.written(_door_for(examined.app)))
    for path in with_ours:
        for index in path.ours:
            layer = path.layers[index]
            if layer.error:
                yield Finding("order", "error", "middleware-arguments", layer.error, examined.line_of(layer.name))
        first = path.layers[path.ours[0]]
        yield from _twice(examined, path)
        if first.arguments is not None:
            door = Door(first, first.arguments)
            yield from _outside(examined, path, door)
            yield from _inside(examined, path, door)


def _absent(examined: Examined) -> Finding:
    kind = _door_for(examined.app)
    is_seen_through = isinstance(examined.paths[-1].core, Starlette) or is_flask(examined.paths[-1].core)
    what = "the app has no middleware of kwai_middleware: no request has a caller, and no customer's key pays"
    if not is_seen_through:
        what = "no middleware of kwai_middleware can be seen around the app; if something wraps it, it hides that"
    severity: Severity = "error" if is_seen_through else "warning"
    return Finding("order", severity, "middleware-absent", what, change=examined.written(kind))


def _door_for(app: Any) -> str:
    call = app if inspect.isroutine(app) else type(app).__call__
    return "ASGIMiddleware" if inspect.iscoroutinefunction(call) else "WSGIMiddleware"


def _twice(examined: Examined, path: Path) -> Iterator[Finding]:
    outer = path.layers[path.ours[0]]
    for layer in (path.layers[index] for index in path.ours[1:]):
        if layer.arguments is None or outer.arguments is None or layer.arguments.override:
            continue
        is_same = layer.arguments == outer.arguments
        what = f"a second {layer.name} stands inside of the first, and leaves everything to it"
        if not is_same:
            what += ": its own identify, credentials and required do not count"
        change = f"take it out, or write {layer.name}(..., override=True)"
        severity: Severity = "note" if is_same else "warning"
        yield Finding("order", severity, "middleware-twice", what, examined.line_of(layer.name), change)


def _outside(examined: Examined, path: Path, door: Door) -> Iterator[Finding]:
    outer = path.layers[: path.ours[0]]
    for layer in outer:
        if layer.name in _REWRITING and door.by_address:
            what = (
                f"{layer.name} stands outside of {door.layer.name} and puts the client's address in the proxy's place,"
                " so HeaderIdentity cannot believe the proxy: identity headers are ignored"
            )
            yield Finding(
                "order", "warning", "peer-rewritten", what, examined.line_of(layer.name), _further_out(layer, door)
            )
        elif layer.library == "sentry_sdk":
            yield _sentry(examined, door)
        elif layer.library == "opentelemetry":
            yield from _captured(examined, door, getattr(layer.instance, "http_capture_headers_server_request", None))
    if is_flask(door.layer.holder) and _is_in_sentry():
        yield _sentry(examined, door)
    if getattr(door.layer.holder, "_is_instrumented_by_opentelemetry", False) and not is_flask(door.layer.holder):
        yield from _captured(examined, door, None)
    others = [layer.name for layer in outer if layer.name not in _HARMLESS and layer.library not in _TOLD]
    if others and door.key_headers:
        what = f"outside of {door.layer.name}, and so shown the customers' keys: {', '.join(others)}"
        yield Finding("order", "note", "outside", what, examined.line_of(*others), _further_out(None, door))


_TOLD: Final = ("sentry_sdk", "opentelemetry")


def _inside(examined: Examined, path: Path, door: Door) -> Iterator[Finding]:
    for layer in path.layers[path.ours[0] + 1 :]:
        if layer.name == "CORSMiddleware" and door.refuses:
            what = f"{door.layer.name} stands outside of CORSMiddleware: a browser cannot read its answers 401 and 400"
            change = _moved_out(layer, door)
            yield Finding("order", "warning", "cors-inside", what, examined.line_of(layer.name), change)
        if _METHOD_OVERRIDE.search(layer.name) and door.refuses:
            what = (
                f"{layer.name} stands inside of {door.layer.name}: a preflight, which passes `required` as nobody's,"
                " becomes another method behind it, so anyone can pass"
            )
            change = _moved_out(layer, door)
            yield Finding("order", "error", "method-override-inside", what, examined.line_of(layer.name), change)


def _moved_out(layer: Layer, door: Door) -> str:
    if isinstance(layer.holder, Starlette) and layer.holder is door.layer.holder:
        return f"write app.add_middleware({layer.name}, ...) after the line of {door.layer.name}: the last is outermost"
    return f"put it around {door.layer.name}, instead of inside of it"


def _further_out(layer: Layer | None, door: Door) -> str:
    if isinstance(door.layer.holder, Starlette) and (layer is None or layer.holder is door.layer.holder):
        return f"write app.add_middleware(kwai.{door.layer.name}, ...) after all others: the last is outermost"
    return f"put {door.layer.name} around it: application = kwai.{door.layer.name}(application)"


def _is_in_sentry() -> bool:
    """Whether Sentry is set up, and has put itself around every Flask app."""
    sentry: Any = sys.modules.get("sentry_sdk")
    return sentry is not None and sentry.get_client().get_integration("flask") is not None


def _sentry(examined: Examined, door: Door) -> Finding:
    what = f"Sentry stands outside of {door.layer.name} and copies each request's headers, customers' keys included"
    return Finding("order", "warning", "sentry-outside", what, examined.line_of(door.layer.name), _around(door))


def _captured(examined: Examined, door: Door, given: list[str] | None) -> Iterator[Finding]:
    patterns = _listed(examined.environ.get(_CAPTURED, "")) if given is None else given
    sanitized = _listed(examined.environ.get(_SANITIZED, ""))
    keys = [
        header
        for header in sorted(door.key_headers)
        if any(re.fullmatch(pattern, header, re.IGNORECASE) for pattern in patterns)
        and not any(re.search(pattern, header, re.IGNORECASE) for pattern in sanitized)
    ]
    if keys:
        what = f"OpenTelemetry stands outside of {door.layer.name} and puts {' and '.join(keys)} into each span"
        where = examined.line_of(door.layer.name)
        yield Finding("order", "warning", "opentelemetry-outside", what, where, _around(door))


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _around(door: Door) -> str:
    return f"application = kwai.{door.layer.name}(app, ...), outside of all; give the server that one"
