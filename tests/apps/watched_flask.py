"""The Flask example among all diagnostics, under werkzeug with its debugger; at some endpoints things go wrong."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

from flask import Response, request
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from werkzeug.serving import run_simple

import kwai_middleware as kwai
from kwai_middleware import httpx2_transport
from tests.apps import diagnostics

diagnostics.switch_on()
diagnostics.example("flask_app")

import app as example  # noqa: E402 - Sentry and the tracing SDK want to be there first

FlaskInstrumentor().instrument_app(example.app)
redirected = httpx2_transport.client(settings=example.settings, follow_redirects=True)


def client(wanted: dict[str, Any]) -> Any:
    """The example's client, told where to go and how long to wait."""
    options = {"timeout": wanted.get("timeout", 30.0), "max_retries": 1}
    if "base_url" in wanted:
        options["base_url"] = wanted["base_url"]
    return {"gateway": example.gateway, "direct": example.direct}[wanted["route"]].with_options(**options)


@example.app.post("/fails")
def fails() -> None:
    """A call, and then an exception that nobody handles; the call itself may raise one."""
    wanted = request.get_json()
    caller, headers, environ = kwai.current_caller(), dict(request.headers), request.environ
    completion = client(wanted).chat.completions.create(model=wanted["model"], messages=[diagnostics.message("Hello?")])
    raise RuntimeError(f"after the call: {caller} {headers} {environ} {completion.id}")


@example.app.post("/fails/stream")
def fails_in_stream() -> Response:
    """An exception in the middle of a streamed response."""
    wanted = request.get_json()

    def words() -> Iterator[str]:
        for chunk in client(wanted).chat.completions.create(
            model=wanted["model"], messages=[diagnostics.message("one two three")], stream=True
        ):
            yield str(chunk)
            if not wanted.get("stream"):
                raise RuntimeError("in the stream")

    return Response(words(), mimetype="text/plain")


@example.app.post("/redirected")
def follows() -> str:
    """A call that the vendor redirects to somebody else, followed."""
    body = {
        "model": "sandbox/redirect-307",
        "messages": [diagnostics.message("Hello?")],
        "metadata": {"redirect_to": request.args["to"]},
    }
    url = f"{str(example.settings.openrouter_base_url).rstrip('/')}/chat/completions"
    return str(redirected.post(url, json=body, headers={"authorization": "Bearer house"}).status_code)


@example.app.post("/leaks")
def leaks() -> None:
    """What no app should do: the key in the open, in a local of an exception and in its text."""
    caller = kwai.current_caller()
    assert caller is not None
    opened = caller.credentials[0].api_key.reveal()
    example.log.info("leak", spaced=" ".join(opened))
    raise RuntimeError(opened[::-1])


application: Any = example.app
if os.environ["ORDER"] == "outermost":
    # Outside of Sentry's and OpenTelemetry's own wrappers, too.
    application = kwai.WSGIMiddleware(example.app)

if __name__ == "__main__":
    # An end at which everything that waits is still reported and delivered.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    example.app.debug = True
    run_simple("127.0.0.1", int(sys.argv[1]), application, use_debugger=True, threaded=True)
