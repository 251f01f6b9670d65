"""A Flask app that tells who it thinks a request is for, at every place where that could go wrong."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog
from flask import Flask, Response, jsonify, request, stream_with_context

from kwai_middleware._context import current_caller
from kwai_middleware.identity import HeaderIdentity
from kwai_middleware.wsgi import WSGIMiddleware

seen: list[Any] = []
seen_changed = threading.Condition()


def who() -> dict[str, Any]:
    """Who is current, for us and for structlog, and whose key is there."""
    caller = current_caller()
    keys = () if caller is None else caller.credentials
    return {
        "caller": None if caller is None else caller.identifier,
        "logged": structlog.contextvars.get_contextvars().get("customer_id"),
        "key": keys[0].api_key.reveal() if keys else None,
    }


def note(what: str) -> None:
    """Keep who was current there, for /seen."""
    with seen_changed:
        seen.append([what, who()])
        seen_changed.notify_all()


app = Flask(__name__)


@app.route("/who", methods=["GET", "POST"])
def get_who() -> Any:
    """Who is current, and where the server says that the request comes from."""
    body = request.get_data()
    peer = [request.environ.get("REMOTE_ADDR"), request.environ.get("REMOTE_PORT")]
    keys = [key for key in request.environ if key.startswith("HTTP_X_OPENROUTER")]
    return jsonify({**who(), "client": peer, "bytes": len(body), "key_headers": keys})


@app.get("/boom")
def boom() -> None:
    """A view that fails."""
    note("view")
    raise ZeroDivisionError


@app.get("/stream")
def stream() -> Response:
    """Tell who is current at each step; note how it ended."""
    steps = int(request.args.get("steps", "3"))

    def chunks() -> Iterator[bytes]:
        try:
            for _ in range(steps):
                yield f"{who()['caller']} ".encode() * (1 if steps < 100 else 200)
        finally:
            note("stream ended")

    response = Response(stream_with_context(chunks()), mimetype="text/plain")
    response.call_on_close(lambda: note("closed"))
    return response


@app.get("/seen")
def get_seen() -> Any:
    """What was noted so far, as soon as it is this much; it is forgotten then."""
    count = int(request.args["count"])
    with seen_changed:
        seen_changed.wait_for(lambda: len(seen) >= count, 30)
        noted = list(seen)
        seen.clear()
    return jsonify({"seen": noted, "now": who()})


class Elsewhere:
    """Outside of ours: takes each step of some bodies, and closes them, on threads of its own."""

    def __init__(self, wrapped: Any) -> None:
        self._wrapped = wrapped

    def __call__(self, environ: Any, start_response: Any) -> Any:
        """Serve one request, and note who is current on the server's thread before and after it."""
        self._check()
        body = self._wrapped(environ, start_response)
        self._check()
        return self._steps(body) if "elsewhere" in environ["QUERY_STRING"] else body

    def _check(self) -> None:
        if who() != {"caller": None, "logged": None, "key": None}:
            note("left on the thread")

    def _steps(self, body: Any) -> Iterator[bytes]:
        with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as closer:
            try:
                end = object()
                while (chunk := reader.submit(next, body, end).result()) is not end:
                    yield chunk
            finally:
                closer.submit(body.close).result()


identify = HeaderIdentity(trusted_peers=tuple(os.environ.get("KWAI_TEST_PEERS", "127.0.0.1").split()))
app.wsgi_app = Elsewhere(WSGIMiddleware(app.wsgi_app, identify=identify))  # type: ignore[method-assign]  # Flask's own way
