"""Everything that looks at requests, calls and exceptions, switched on and told to leave nothing out."""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import sentry_sdk
from opentelemetry import trace
from opentelemetry.instrumentation.httpx import HTTPX2ClientInstrumentor, HTTPXClientInstrumentor
from opentelemetry.instrumentation.logging import LoggingInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

if TYPE_CHECKING:
    from openai.types.chat import ChatCompletionUserMessageParam


def switch_on() -> None:
    """Log everything; report to the Sentry of `SENTRY_DSN`; write spans to the file of `SPANS`."""
    faulthandler.enable()
    # Not `faulthandler.register`: that looks at the frames of threads that go on running, and may crash over one.
    signal.signal(signal.SIGUSR1, lambda *_: faulthandler.dump_traceback())
    logging.basicConfig(level=logging.NOTSET + 1, format="%(levelname)s %(name)s %(message)s", stream=sys.stdout)
    sentry_sdk.init(
        dsn=os.environ["SENTRY_DSN"],
        attach_stacktrace=True,
        include_local_variables=True,
        send_default_pii=os.environ.get("PERSONAL", "sent") == "sent",
        traces_sample_rate=1.0,
        max_request_body_size="always",
        max_value_length=1_000_000,
        enable_logs=True,
    )
    provider = TracerProvider()
    spans = Path(os.environ["SPANS"]).open("a")  # noqa: SIM115 - open as long as the process runs
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=spans)))
    trace.set_tracer_provider(provider)
    LoggingInstrumentor().instrument()
    if os.environ["OTEL_CLIENTS"] == "instrumented":
        HTTPXClientInstrumentor().instrument()
        HTTPX2ClientInstrumentor().instrument()


def example(name: str) -> None:
    """Make the example's `app` importable, as its README's command does."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / name))


def message(text: str) -> ChatCompletionUserMessageParam:
    """What is asked."""
    return {"role": "user", "content": text}
