"""The page on sign-in: its apps run as they stand, and their calls are those of whoever has signed in."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient
from werkzeug.test import Client

from kwai_middleware.testing import Sandbox
from tests.apps import users_django
from tests.support.documents import fenced
from tests.support.model_calls import asked
from tests.support.processes import PROJECT

pytest_plugins = ["kwai_middleware.testing"]

FASTAPI, FLASK, SETTINGS, APPLICATIONS = fenced(PROJECT / "docs" / "sign-in.md", "python")


def run(code: str, vendor: Sandbox, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run a block whose vendor is the sandbox; returns its names."""
    environment = {"OPENAI_API_KEY": "app-key", "KEYWORDSAI_BASE_URL": vendor.gateway_url, "SESSION_SECRET": "session"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    names: dict[str, Any] = {"__name__": "sign_in"}
    exec(compile(code.replace("openai/gpt-4o", "sandbox/echo"), "sign-in.md", "exec", dont_inherit=True), names)
    return names


def test_fastapi(kwai_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block of Starlette and FastAPI."""
    names = run(FASTAPI, kwai_sandbox, monkeypatch)
    with TestClient(names["app"]) as client:
        assert "early" == client.post("/chat", params={"question": "early"}).json()
        client.post("/login", params={"name": "acme"})
        assert "hello" == client.post("/chat", params={"question": "hello"}).json()
        assert client.portal is not None
        client.portal.call(names["llm"].close)
    assert {"early": None, "hello": "acme"} == asked(kwai_sandbox, 2)


def test_flask(kwai_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The block of Flask-Login."""
    names = run(FLASK, kwai_sandbox, monkeypatch)
    with names["llm"]:
        client = Client(names["app"])
        assert 401 == client.post("/chat?question=early").status_code
        client.post("/login?name=acme")
        assert "hello" == client.post("/chat?question=hello").text
    assert {"hello": "acme"} == asked(kwai_sandbox, 1)


def test_django(kwai_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of Django: the middlewares are those of the tests' project, and both applications serve it."""
    users_django.call_at(kwai_sandbox.settings())
    assert users_django.settings.MIDDLEWARE == run(SETTINGS, kwai_sandbox, monkeypatch)["MIDDLEWARE"]
    names = run(APPLICATIONS, kwai_sandbox, monkeypatch)
    assert {"from": None} == Client(names["wsgi_application"]).get("/get_who").json
    assert {"from": None} == TestClient(names["asgi_application"]).get("/get_who").json()
