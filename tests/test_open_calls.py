"""Calls that are still open when a process ends: each is recorded as far as it came."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kwai_middleware.sandbox import Sandbox
from tests.support.examples import environment_for, sandbox_process
from tests.support.processes import DEADLINE, PROJECT, UNMEASURED

BEGIN = """
import os, sys
import kwai_middleware as kwai
from kwai_middleware import httpx_transport

settings = kwai.Settings.from_env()
client = httpx_transport.client(settings=settings)
caller = kwai.Caller(identifier="acme", credentials=(kwai.Credential(api_key=kwai.Secret("sk-or-v1-acme")),))
body = {"model": "sandbox/long-50", "stream": True, "messages": [{"role": "user", "content": "go on"}]}
with kwai.bind_caller(caller):
    request = client.build_request("POST", settings.openrouter_base_url + "/chat/completions", json=body)
    response = client.send(request, stream=True)
lines = response.iter_lines()
"""


MEASURED = {name: os.environ.get(name, "") for name in UNMEASURED}
"""What ends a process is code of ours that no other test runs."""


@pytest.fixture(scope="module")
def vendors() -> Iterator[Sandbox]:
    with sandbox_process() as sandbox:
        yield sandbox


def run(vendors: Sandbox, program: str, **environment: str) -> None:
    """Run a program that begins a stream, to its end."""
    vendors.reset()
    subprocess.run(
        [sys.executable, "-X", "dev", "-W", "ignore", "-c", BEGIN + program],
        env={**os.environ, **environment_for(vendors), **MEASURED, **environment},
        cwd=PROJECT,
        timeout=DEADLINE,
        check=True,
    )


@pytest.mark.parametrize("spool", ["memory:", "file"])
@pytest.mark.parametrize(
    ("program", "outcome"),
    [
        ("for line in lines:\n    if '[DONE]' in line: break", "complete"),
        ("next(lines)", "abandoned"),
        ("next(lines)\nsys.exit()", "abandoned"),
    ],
    ids=["read to its last event", "left in the middle", "left by sys.exit"],
)
def test_a_stream_that_nobody_closes(vendors: Sandbox, tmp_path: Path, spool: str, program: str, outcome: str) -> None:
    """The process holds on to it until it ends, and has made no other call: its record arrives all the same."""
    run(vendors, program, KWAI_SPOOL=f"sqlite://{tmp_path}/records.db" if spool == "file" else spool)
    [entry] = vendors.logs()
    assert ("acme", outcome) == (entry["log"]["customer_identifier"], entry["log"]["metadata"]["outcome"])


@pytest.mark.parametrize(
    "forgets", ["pass", "response.close()", "del lines, response"], ids=["ends", "closes it", "drops it"]
)
def test_a_fork_leaves_it_to_its_parent(vendors: Sandbox, forgets: str) -> None:
    """A child has a copy of the call, and records nothing of it, whatever becomes of the copy."""
    program = f"""
next(lines)
child = os.fork()
if not child:
    {forgets}
    sys.exit()
assert os.waitpid(child, 0)[1] == 0
for line in lines:
    if "[DONE]" in line: break
"""
    run(vendors, program)
    [entry] = vendors.logs()
    assert "complete" == entry["log"]["metadata"]["outcome"]
