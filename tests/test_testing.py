"""What users' suites get: the fixture under pytest, the context manager without it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from kwai_middleware._secret import Secret
from kwai_middleware.errors import ConfigurationError
from kwai_middleware.sandbox import Sandbox, sandbox
from tests.support.processes import PROJECT

pytest_plugins = ["kwai_middleware.testing"]

SUITE = """
import httpx
import pytest

pytest_plugins = ["kwai_middleware.testing"]

@pytest.mark.parametrize("attempt", [1, 2])
def test_each_test_begins_with_an_empty_journal(kwai_sandbox, attempt):
    assert kwai_sandbox.calls() == []
    httpx.post(kwai_sandbox.gateway_url + "chat/completions", headers={"authorization": "Bearer k"})
    [call] = kwai_sandbox.calls(wait=1)
    assert call["status"] == 400
"""

WITHOUT_PYTEST = """
import sys
import unittest
from kwai_middleware.sandbox import sandbox

class Example(unittest.TestCase):
    def test_it(self):
        with sandbox() as vendor:
            self.assertEqual(vendor.calls(), [])

assert "uvicorn" not in sys.modules, "imported before it is needed"
result = unittest.main(exit=False).result
assert result.wasSuccessful() and "pytest" not in sys.modules
"""


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(PROJECT), "PATH": "", "XDG_STATE_HOME": os.environ["XDG_STATE_HOME"]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_users_suite_gets_the_fixture(tmp_path: Path) -> None:
    """A suite that names the plugin gets `kwai_sandbox`: one server for the run, an empty journal for each test."""
    (tmp_path / "test_suite.py").write_text(SUITE)
    ran = run(["-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"], tmp_path)
    assert ran.returncode == 0, ran.stdout
    assert "2 passed" in ran.stdout


def test_a_suite_without_pytest_gets_the_context_manager(tmp_path: Path) -> None:
    """Unittest users run `sandbox()`; pytest is not imported, and uvicorn only when a sandbox starts."""
    ran = run(["-c", WITHOUT_PYTEST], tmp_path)
    assert ran.returncode == 0, ran.stderr


def test_settings_make_the_sandbox_the_vendor(kwai_sandbox: Sandbox) -> None:
    """`settings()` points every URL at the sandbox; each field can be overridden."""
    settings = kwai_sandbox.settings(capture="metadata", api_key=Secret("another-key"))
    assert (f"{kwai_sandbox.url}/api", f"{kwai_sandbox.url}/api/v1") == (
        settings.base_url,
        settings.openrouter_base_url,
    )
    assert (Secret("another-key"), "metadata") == (settings.api_key, settings.capture)
    assert Secret("sandbox-app-key") == kwai_sandbox.settings().api_key


def test_sandboxes_are_independent_and_end() -> None:
    """Two at once share nothing; after the block nothing listens, no thread is left, logging is as before."""
    access_log = logging.getLogger("uvicorn.access")
    before = (list(access_log.handlers), access_log.propagate)
    threads = set(threading.enumerate())
    with sandbox() as first, sandbox() as second:
        httpx.post(f"{first.gateway_url}chat/completions", trust_env=False)
        assert (1, 0) == (len(first.calls(wait=1)), len(second.calls()))
    for ended in (first, second):
        with pytest.raises(httpx.ConnectError):
            httpx.get(ended.url, trust_env=False)
    assert before == (list(access_log.handlers), access_log.propagate)
    assert set() == set(threading.enumerate()) - threads  # one that ends meanwhile was another's


def test_the_block_ends_while_a_client_still_waits() -> None:
    """A client that hangs does not keep the sandbox alive: it is cut off."""
    failures: list[BaseException] = []

    def hang(url: str) -> None:
        body = {"model": "sandbox/hang", "messages": [{"role": "user", "content": "x"}]}
        try:
            httpx.post(url, json=body, headers={"authorization": "Bearer k"}, trust_env=False, timeout=50)
        except httpx.HTTPError as error:
            failures.append(error)

    with sandbox() as vendor:
        client = threading.Thread(target=hang, args=(f"{vendor.gateway_url}chat/completions",))
        client.start()
        vendor.calls(wait=1)
    client.join(20)
    assert [httpx.ReadError] == [type(failure) for failure in failures]


def test_without_uvicorn_the_error_names_the_command(without_uvicorn: None) -> None:
    """Where uvicorn is not installed, `sandbox()` says which command installs it."""
    with pytest.raises(ConfigurationError, match=r"pip install 'kwai-middleware\[sandbox\]'"), sandbox():
        pass


@pytest.fixture
def without_uvicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    """An interpreter that cannot import uvicorn."""
    import kwai_middleware.sandbox as package

    monkeypatch.delattr(package, "server", raising=False)
    monkeypatch.delitem(sys.modules, "kwai_middleware.sandbox.server", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
