"""An app on a platform that freezes it after each request: `asgi` and `wsgi`, `/call` and `/end` in both."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kwai_middleware import ASGIMiddleware, CompletedCall, WSGIMiddleware, default_delivery

_delivered_by_the_end: list[int] = []


def _call() -> None:
    default_delivery().submit(CompletedCall(route="direct", model="m"))


async def _app(scope: Any, receive: Any, send: Any) -> None:
    body = b"answered"
    if scope["path"] == "/call":
        _call()
    elif scope["path"] == "/end":
        body = str(_delivered_by_the_end).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


_with_callers = ASGIMiddleware(_app)


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """What a platform's adapter does: it waits for the app to return, and freezes the process then."""
    await _with_callers(scope, receive, send)
    if scope["type"] == "http" and scope["path"] == "/call":
        _delivered_by_the_end.append(default_delivery().stats().delivered)


def _wsgi_app(environ: Any, start_response: Any) -> Iterable[bytes]:
    body = b"answered"
    if environ["PATH_INFO"] == "/call":
        _call()
    else:
        body = str([default_delivery().stats().delivered]).encode()
    start_response("200 OK", [("content-length", str(len(body)))])
    return [body]


wsgi = WSGIMiddleware(_wsgi_app)
