"""What an app pays once: importing the library, and its first request and call."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks.plan import Bar, Case, Metric, Prepare, Role, Round, Scale, Suite, Variant

__all__ = ["SUITE"]

_COMMON: Final = "import starlette.applications, httpx, structlog"


def _program(before: str, timed: str) -> Prepare:
    """A fresh interpreter in each round, which says what the timed part took of its CPU."""
    program = "\n".join(
        (
            "import time",
            textwrap.dedent(before),
            "begun = time.process_time()",
            textwrap.dedent(timed),
            "print((time.process_time() - begun) * 1e3, flush=True)",
            "import os; os._exit(0)",  # what peers do at their exit is not the question
        )
    )

    @contextmanager
    def prepare(scale: Scale) -> Iterator[Round]:
        del scale
        with tempfile.TemporaryDirectory() as folder:
            # What is imported is compiled already, as it is where an app is installed; the first round sees to that.
            environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
            environment.pop("PYTHONDONTWRITEBYTECODE", None)

            def one_round() -> dict[str, float]:
                ran = subprocess.run(
                    [sys.executable, "-c", program],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=environment,
                    check=True,
                )
                return {"CPU": float(ran.stdout.split()[-1])}

            yield one_round

    return prepare


def _import(name: str, role: Role, line: str, distribution: str | None = None) -> Variant:
    return Variant(name, role, _program("", f"{_COMMON}\n{textwrap.dedent(line)}"), distribution)


_IMPORTS: Final = Case(
    name="import",
    title="Importing",
    what="CPU of importing starlette, httpx and structlog, and the library after them, in a fresh interpreter.",
    metrics=(Metric("CPU", "ms"),),
    variants=(
        _import("starlette, httpx, structlog", "plain", "pass"),
        _import("kwai_middleware", "ours", "import kwai_middleware; kwai_middleware.ASGIMiddleware"),
        _import(
            "kwai_middleware, with its httpx transport",
            "ours",
            "import kwai_middleware, kwai_middleware.httpx_transport; kwai_middleware.ASGIMiddleware",
        ),
        _import("Sentry", "peer", "import sentry_sdk", "sentry-sdk"),
        _import(
            "OpenTelemetry: SDK, OTLP exporter, ASGI",
            "peer",
            """
            import opentelemetry.instrumentation.asgi, opentelemetry.sdk.trace.export
            import opentelemetry.exporter.otlp.proto.http.trace_exporter
            """,
            "opentelemetry-sdk",
        ),
        _import("PostHog, with its OpenAI client", "peer", "import posthog.ai.openai", "posthog"),
        _import("Langfuse, with its OpenAI client", "peer", "import langfuse.openai", "langfuse"),
        _import("OpenLLMetry", "peer", "import traceloop.sdk", "traceloop-sdk"),
        _import("Respan's own SDK", "peer", "import respan_tracing", "respan-tracing"),
    ),
    base="starlette, httpx, structlog",
    bars=(Bar("Import over importing starlette, httpx and structlog", "kwai_middleware", "CPU", 60, of="added"),),
    full=Scale(is_quick=False, rounds=11, seconds=0),
    quick=Scale(is_quick=True, rounds=1, seconds=0),
)

_APP: Final = f"""
{_COMMON}
import asyncio

async def app(scope, receive, send):
    with httpx.Client(transport=transport) as client:
        client.post("https://openrouter.ai/api/v1/chat/completions", json={{"model": "m", "messages": []}}).json()

async def request():
    scope = {{"type": "http", "method": "GET", "path": "/", "query_string": b"", "client": ("127.0.0.1", 1),
              "headers": [(b"host", b"app"), (b"x-openrouter-key", b"sk-or-v1-0123456789abcdef")]}}
    await app(scope, None, None)

transport = httpx.MockTransport(lambda request: httpx.Response(200, json={{"choices": [], "usage": {{"cost": 0.1}}}}))
"""

_OURS: Final = """
import kwai_middleware, kwai_middleware.httpx_transport
settings = kwai_middleware.Settings(api_key=kwai_middleware.Secret("k"), spool="memory:")
transport = kwai_middleware.httpx_transport.KwaiTransport(transport, settings=settings)
app = kwai_middleware.ASGIMiddleware(app)
"""

_FIRST_REQUEST: Final = Case(
    name="first_request",
    title="The first request",
    what="CPU of the first request of a process and of the call inside it, on a mock transport: what is made when it "
    "is first needed (threads, caches) is made then.",
    metrics=(Metric("CPU", "ms"),),
    variants=(
        Variant("without", "plain", _program(_APP, "asyncio.run(request())")),
        Variant("kwai_middleware", "ours", _program(_APP + _OURS, "asyncio.run(request())")),
    ),
    base="without",
    full=Scale(is_quick=False, rounds=11, seconds=0),
    quick=Scale(is_quick=True, rounds=1, seconds=0),
)

SUITE: Final = Suite("start", "Start", (_IMPORTS, _FIRST_REQUEST))
