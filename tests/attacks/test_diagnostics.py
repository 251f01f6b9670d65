"""Everything that looks at a process: no key from a vault is in it, and of a header's key only what a server logs."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from kwai_middleware.testing import Canary, Sandbox
from tests.support.attacked import gunicorn, uvicorn
from tests.support.raw_client import ask
from tests.support.sentry import sink
from tests.test_canary_demo import SANITIZED, consoles, demo, title

pytest_plugins = ["kwai_middleware.testing"]

KEY = "sk-or-v1-0123456789abcdef"


def test_a_key_from_the_vault_is_nowhere(canary: Canary, kwai_sandbox: Sandbox, tmp_path: Path) -> None:
    """In logs at debug level, reports, spans, the debugger's consoles, dumps, answers and records: not once."""
    vault = tmp_path / "vault"
    vault.write_text(canary.key.reveal())
    who = {"X-Customer-Id": "acme"}
    canary.caller("acme")
    canary.watch("vendor", kwai_sandbox)
    with sink() as reports:
        with demo(
            "vault", kwai_sandbox, reports, tmp_path, OTEL_CLIENTS="instrumented", VAULT=str(vault), **SANITIZED
        ) as app:
            answers = [
                app.post("/chat", who),
                app.post("/direct", who),
                app.post("/chat/stream", who),
                *(app.post("/fails", who, route=route) for route in ("gateway", "direct")),
                app.post("/fails", who, route="direct", model="sandbox/error-401"),
                app.post("/fails", who, route="direct", model="sandbox/hang", timeout=0.2),
                app.post("/fails/stream", who, route="direct"),
                app.post("/fails", {"X-Customer-Id": "unlucky"}, route="gateway"),
            ]
            app.process.popen.send_signal(signal.SIGUSR1)
            reports.wait_for("after the call")
            pages = {
                title(answer): answer for answer in answers if answer is not None and "__debugger__" in answer.text
            }
            for page in pages.values():
                for shown in consoles(app, page):
                    canary.check("the debugger's console", shown)
            app.process.stop()
            output = app.process.output
        for name, value in {"output": output, "reports": reports.arrived, "spans": app.spans}.items():
            canary.check(name, value)
        for answer in answers:
            canary.check("an answer", answer)
    assert "failed with ConnectionError; the call is refused" in output
    assert "Current thread" in output
    assert "key resolver" in output
    assert {"RuntimeError"} < set(pages)


ATOMS = "header=%({x-openrouter-key}i)s environ=%({HTTP_X_OPENROUTER_KEY}e)s all=%(r)s %(U)s %(q)s %({x-customer-id}i)s"


@pytest.mark.parametrize("worker", ["gthread", "sync"])
def test_gunicorns_access_log_shows_the_header_only_to_who_asks_for_it(worker: str) -> None:
    """An access log is the server's own: it shows a header that its format names, and the environ has no key."""
    with gunicorn("--worker-class", worker, "--access-logfile", "-", "--access-logformat", ATOMS) as server:
        assert KEY == ask(server.address, [("X-Customer-Id", "acme"), ("X-OpenRouter-Key", KEY)]).document["key"]
        server.process.stop()
        lines = server.output
    [line] = [line for line in lines if line.startswith("header=") and "acme" in line]
    assert f"header={KEY} environ=- all=GET /who HTTP/1.1 /who  acme" == line


def test_uvicorns_logs_show_no_header() -> None:
    """At its most talkative uvicorn prints the scope of each request, without the values of its headers."""
    with uvicorn("--log-level", "trace") as server:
        assert KEY == ask(server.address, [("X-Customer-Id", "acme"), ("X-OpenRouter-Key", KEY)]).document["key"]
        server.process.stop()
        output = "\n".join(server.output)
    assert '"GET /who HTTP/1.1" 200' in output
    assert "ASGI [" in output
    assert KEY not in output
