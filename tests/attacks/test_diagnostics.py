"""Everything that looks at a process: no key from a vault is in it, and of a header's key only what a server logs."""

from __future__ import annotations

import asyncio
import signal
import traceback
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request

import kwai_middleware as kwai
from kwai_middleware.httpx_transport import AsyncKwaiTransport
from kwai_middleware.testing import Canary, Sandbox
from tests.support.attacked import gunicorn, uvicorn
from tests.support.callers import OPENROUTER, settings
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


@pytest.mark.parametrize("keys", ["header", "vault"])
@pytest.mark.parametrize("fails", ["the call", "the vault", "the view"])
def test_frameworks_debug_pages_and_exceptions_show_no_key(canary: Canary, keys: str, fails: str) -> None:
    """With `debug=True`, and with all locals of all frames of the exception that an app's handler is given."""
    raised: list[BaseException] = []
    kept = [kwai.Credential(api_key=canary.key)]

    def wire(request: httpx.Request) -> httpx.Response:
        if fails == "the call":
            raise httpx.ReadError("cut off", request=request)
        return httpx.Response(200, json={})

    def keys_of(caller: kwai.Caller) -> list[kwai.Credential]:
        if fails == "the vault":
            raise ConnectionError(f"no answer for {caller}")
        return kept

    app = FastAPI(debug=True)
    vault = kwai.KeyResolver(keys_of) if keys == "vault" else kwai.HeaderCredentials()
    app.add_middleware(kwai.ASGIMiddleware, identify=lambda request: kwai.Caller(identifier="acme"), credentials=vault)
    inner = httpx.MockTransport(wire)
    client = httpx.AsyncClient(transport=AsyncKwaiTransport(inner, settings=settings(), deliver=lambda call: None))

    @app.get("/")
    async def view(request: Request) -> None:
        headers, caller = request.headers, kwai.current_caller()
        try:
            answer = await client.post(OPENROUTER, json={"model": "m"})
            raise RuntimeError(f"after {answer} for {caller} with {headers}")
        except Exception as error:
            raised.append(error)
            raise

    async def ask_app() -> str:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with client, httpx.AsyncClient(transport=transport, base_url="http://app") as browser:
            sent = {"accept": "text/html"} | (canary.headers() if keys == "header" else {})
            page = await browser.get("/", headers=sent)
        assert 500 == page.status_code
        return page.text

    page = asyncio.run(ask_app())
    expected = {"the call": "ReadError", "the vault": "KeysUnavailable" if keys == "vault" else "RuntimeError"}
    assert expected.get(fails, "RuntimeError") == type(raised[0]).__name__
    assert "Traceback" in page
    canary.check("the page", page)
    [error] = raised
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    canary.check("all locals", "".join(shown.format()))
    canary.expect_unused()
