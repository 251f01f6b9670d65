"""The whole demo among everything that looks at requests, calls and exceptions: the customer's key is in none of it."""

from __future__ import annotations

import contextlib
import re
import signal
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from kwai_middleware.sandbox import Sandbox
from kwai_middleware.testing import Canary
from tests.support.examples import environment_for, sandbox_process
from tests.support.processes import DEADLINE, PROJECT, Process, free_port, running
from tests.support.sentry import Sink, sink

pytest_plugins = ["kwai_middleware.testing"]


@pytest.fixture(scope="module")
def running_vendor() -> Iterator[Sandbox]:
    """The vendors' APIs in a process of their own."""
    with sandbox_process() as vendor:
        yield vendor


@pytest.fixture
def vendor(running_vendor: Sandbox) -> Sandbox:
    """The vendors, to whom nothing has been sent yet."""
    running_vendor.reset()
    return running_vendor


@pytest.fixture
def reports() -> Iterator[Sink]:
    """Where the error reporter's envelopes go."""
    with sink() as kept:
        yield kept


@pytest.fixture
def stranger() -> Iterator[Sink]:
    """Somebody to whom the vendor redirects."""
    with sink() as kept:
        yield kept


class Demo:
    """A running example and what it was told to look at."""

    def __init__(self, url: str, process: Process, spans: Path, nowhere: str) -> None:
        self.url = url
        self.process = process
        self.spans = spans
        self.nowhere = nowhere

    def post(self, path: str, headers: dict[str, str], **question: Any) -> httpx.Response | None:
        """Ask something; None when the connection broke, as it does when a stream fails."""
        body = {"question": "What is a tenant?", "model": "sandbox/echo", "route": "gateway"} | question
        with contextlib.suppress(httpx.RemoteProtocolError):
            return httpx.post(self.url + path, json=body, headers=headers, trust_env=False, timeout=DEADLINE)
        return None


# The client's request that OpenTelemetry sees is the one on the wire: it is below the middleware's transport.
SANITIZED = {"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS": "authorization,x-openrouter-api-key"}
ARGUMENTS = {
    "fastapi": ["-m", "uvicorn", "tests.apps.watched_fastapi:application", "--log-level", "trace", "--port"],
    "flask": ["-m", "tests.apps.watched_flask"],
    "vault": ["-m", "tests.apps.watched_vault"],
}


@contextlib.contextmanager
def demo(framework: str, vendor: Sandbox, reports: Sink, folder: Path, **variables: str) -> Iterator[Demo]:
    """Run an example among all diagnostics."""
    port, nowhere, spans = free_port(), f"http://127.0.0.1:{free_port()}/api", folder / "spans"
    captured = {
        f"OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_{what}": ".*"
        for what in ("SERVER_REQUEST", "SERVER_RESPONSE", "CLIENT_REQUEST", "CLIENT_RESPONSE")
    }
    environment = {
        **environment_for(vendor),
        **captured,
        "KWAI_ROUTES": f"gateway={nowhere} direct={nowhere}/v1",
        "SENTRY_DSN": reports.dsn,
        "SPANS": str(spans),
        "OTEL_CLIENTS": "plain",
        "WERKZEUG_DEBUG_PIN": "off",
        "ORDER": "outermost",
        "OPENAI_LOG": "debug",
        **variables,
    }
    # An address that every one of the two answers: neither has an endpoint there.
    url = f"http://127.0.0.1:{port}"
    with running([*ARGUMENTS[framework], str(port)], ready=f"{url}/nothing", env=environment, cwd=PROJECT) as process:
        yield Demo(url, process, spans, nowhere)


def use(app: Demo, headers: dict[str, str], stranger: Sink, framework: str) -> list[httpx.Response]:
    """Call everything there is, in every way that a call can end."""
    endpoints = [
        "/chat",
        "/chat/stream",
        "/direct",
        *(["/direct/stream", "/openrouter"] if framework == "fastapi" else []),
    ]
    answers = [app.post(path, headers) for path in endpoints]
    answers += [
        app.post(path, headers, model=f"sandbox/{model}")
        for model in ("error-401", "error-402", "error-in-200", "stream-error", "empty")
        for path in ("/chat", "/direct", "/chat/stream")
    ]
    answers.append(app.post("/fails", headers, model="sandbox/error-429"))
    for route, path in (("gateway", ""), ("direct", "/v1")):
        for model in ("echo", "error-401", "html-error", "cut"):
            answers.append(app.post("/fails", headers, route=route, model=f"sandbox/{model}"))
        answers.append(app.post("/fails", headers, route=route, model="sandbox/hang", timeout=0.2))
        answers.append(app.post("/fails", headers, route=route, base_url=app.nowhere + path))
        answers.append(app.post("/fails/stream", headers, route=route))
        answers.append(app.post("/fails/stream", headers, route=route, model="sandbox/cut", stream=True))
        answers.append(app.post("/fails/stream", headers, route=route, model="sandbox/stall", stream=True, timeout=0.3))
    answers.append(app.post(f"/redirected?to={stranger.url}/elsewhere", headers))
    return [answer for answer in answers if answer is not None]


def title(page: httpx.Response) -> str:
    """The kind of exception that a debugger's page is about."""
    found = re.search(r"<title>\s*([\w.]+)", page.text)
    assert found is not None
    return found[1]


def consoles(app: Demo, page: httpx.Response) -> Iterator[str]:
    """All locals of each frame of a debugger's page, as its console prints them."""
    secret = re.findall(r'SECRET = "(\w+)"', page.text)
    for frame in re.findall(r'id="frame-(\d+)"', page.text):
        asked = {"__debugger__": "yes", "cmd": "print(locals())", "frm": frame, "s": secret[0]}
        shown = httpx.get(app.url, params=asked, trust_env=False, timeout=DEADLINE)
        assert 200 == shown.status_code
        yield unescape(re.sub(r"<[^>]+>", "", shown.text))


@pytest.mark.parametrize("framework", ["fastapi", "flask"])
def test_the_key_is_nowhere(
    canary: Canary, vendor: Sandbox, reports: Sink, stranger: Sink, tmp_path: Path, framework: str
) -> None:
    """Whatever becomes of its calls, a customer's key is in no log, report, span, debugger's page, answer or record."""
    headers, leaked = canary.headers("acme", {"X-Thread-Id": "thread-1"}), Canary()
    canary.watch("vendor", vendor)
    with demo(framework, vendor, reports, tmp_path, OTEL_CLIENTS="instrumented", **SANITIZED) as app:
        answers = use(app, headers, stranger, framework)
        app.process.popen.send_signal(signal.SIGUSR1)
        reports.wait_for("after the call")
        # One page of each kind of exception; each of its frames has a console.
        pages = {title(answer): answer for answer in answers if "__debugger__" in answer.text}
        for page in pages.values():
            for shown in consoles(app, page):
                canary.check("the debugger's console", shown)
        app.post("/leaks", leaked.headers())
        reports.wait_for("/leaks")
        app.process.stop()
        output = app.process.output
    seen = {"output": output, "reports": reports.arrived, "spans": app.spans}
    for name, value in seen.items():
        canary.check(name, value)
    for answer in answers:
        canary.check(f"the answer of {answer.request.url.path}", answer)
    canary.check("a request to somebody else", stranger.arrived)

    assert {200, 401, 402, 429, 500} <= {answer.status_code for answer in answers}
    assert 1 == len(stranger.arrived)
    assert ("flask" == framework) == ({"RuntimeError", "openai.APITimeoutError"} <= set(pages))
    for logged in ("receive_response_headers.complete", "Building HTTP request", "Current thread", '"POST /chat HTTP'):
        assert logged in output, f"not everything was logged: {logged} is missing"
    assert "x_customer_id" in app.spans.read_text()
    assert '"vars"' in reports.wait_for("after the call")
    assert 10 < len(vendor.logs(customer="acme"))
    # An app that does what it should not is seen everywhere, so what looks does look.
    assert set(seen) == {name for name, value in seen.items() if leaked.check(name, value)}


@pytest.mark.parametrize(
    ("framework", "exposed"),
    [("fastapi", {"spans": {"x_openrouter_key", "authorization"}}), ("flask", {"reports": {"X-Openrouter-Key"}})],
)
def test_what_stands_outside_or_below(
    vendor: Sandbox, reports: Sink, tmp_path: Path, framework: str, exposed: dict[str, set[str]]
) -> None:
    """Who wraps the app outside of the middleware, or the HTTP library below it, sees the header, and nothing more."""
    looked = Canary()
    clients = {"fastapi": "instrumented", "flask": "plain"}[framework]
    with demo(framework, vendor, reports, tmp_path, ORDER="as the README has it", OTEL_CLIENTS=clients) as app:
        answers = [app.post(path, looked.headers("acme")) for path in ("/chat", "/direct", "/fails")]
        reports.wait_for("after the call")
        app.process.stop()
        output = app.process.output
    seen = {
        "output": looked.check("output", output),
        "answers": [seen for answer in answers for seen in looked.check("an answer", answer)],
        "reports": looked.check("reports", reports.arrived),
        "spans": looked.check("spans", app.spans),
        "vendor": looked.check("vendor", vendor),
    }

    assert looked.was_used
    named = {
        name: {re.findall(r'[\w-]+(?=": ?\[? ?"(?:Bearer )?sk-or-v1-\*{4})', each.excerpt)[0] for each in sightings}
        for name, sightings in seen.items()
        if sightings
    }
    assert exposed == named
