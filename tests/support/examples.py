"""The sandbox and the example apps as real server processes, for tests that put load on them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

from kwai_middleware.sandbox import Sandbox
from tests.support.processes import PROJECT, UNMEASURED, Process, free_port, running

APP_KEY = "keywordsai-app-key-0123"
HOUSE_KEY = "sk-or-v1-house-key-0123456789"


@contextlib.contextmanager
def sandbox_process() -> Iterator[Sandbox]:
    """The vendors' APIs in a process of their own."""
    port = free_port()
    argv = ["-m", "kwai_middleware", "sandbox", "--port", str(port)]
    with running(argv, ready=f"http://127.0.0.1:{port}/sandbox/", env=UNMEASURED):
        yield Sandbox(f"http://127.0.0.1:{port}")


def environment_for(sandbox: Sandbox) -> dict[str, str]:
    """The environment of an app whose vendors are the sandbox."""
    return {
        "KEYWORDSAI_API_KEY": APP_KEY,
        "KEYWORDSAI_BASE_URL": sandbox.gateway_url,
        "OPENROUTER_API_KEY": HOUSE_KEY,
        "OPENROUTER_BASE_URL": sandbox.openrouter_url,
        **UNMEASURED,
    }


@contextlib.contextmanager
def fastapi_example(
    sandbox: Sandbox, *options: str, env: Mapping[str, str] | None = None
) -> Iterator[tuple[str, Process]]:
    """The FastAPI example under uvicorn; gives its URL."""
    port = free_port()
    argv = ["-m", "uvicorn", "app:app", "--port", str(port), "--log-level", "warning", "--timeout-keep-alive", "120"]
    argv += options
    folder = PROJECT / "examples" / "fastapi_app"
    with running(
        argv, ready=f"http://127.0.0.1:{port}/openapi.json", env={**environment_for(sandbox), **(env or {})}, cwd=folder
    ) as process:
        yield f"http://127.0.0.1:{port}", process


@contextlib.contextmanager
def flask_example(sandbox: Sandbox, *options: str) -> Iterator[tuple[str, Process]]:
    """The Flask example under gunicorn; gives its URL."""
    port = free_port()
    argv = ["-m", "gunicorn", "app:app", "--bind", f"127.0.0.1:{port}", "--keep-alive", "120", *options]
    folder = PROJECT / "examples" / "flask_app"
    with running(argv, ready=f"http://127.0.0.1:{port}/", env=environment_for(sandbox), cwd=folder) as process:
        yield f"http://127.0.0.1:{port}", process
