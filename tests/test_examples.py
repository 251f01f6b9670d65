"""The examples, started and used by the very commands of their READMEs."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from kwai_middleware import Secret
from tests.support.documents import Terminal, fenced
from tests.support.processes import PROJECT, Process, free_port

ACME = Secret("sk-or-v1-acme").fingerprint
SANDBOX = "http://127.0.0.1:8700/sandbox/"


@contextlib.contextmanager
def started(example: str, folder: Path, *, real_curl: bool) -> Iterator[tuple[Process, Iterator[str]]]:
    """Run the two servers of an example's README; gives the app's process, and what each later block prints."""
    terminal = Terminal(folder / "tools", {"8700": free_port(), "8000": free_port()}, real_curl=real_curl)
    sandbox, app, *blocks = fenced(PROJECT / "examples" / example / "README.md", "console")
    with terminal.serve(sandbox, SANDBOX), terminal.serve(app, "http://127.0.0.1:8000/") as process:
        yield process, map(terminal.run, blocks)


def test_fastapi_example(tmp_path: Path) -> None:
    """Every command of the FastAPI example's README does what the text around it says."""
    with started("fastapi_app", tmp_path, real_curl=True) as (app, printed):
        chat = json.loads(next(printed))
        (gateway_call,) = json.loads(next(printed))["calls"]
        words = next(printed)
        (streamed,) = json.loads(next(printed))["logs"]
        openrouter = json.loads(next(printed))
        refused = json.loads(next(printed))
        connected = re.findall(r"the key ([0-9a-f]{8}) pays", next(printed))
        direct = json.loads(next(printed))
        (connected_call,) = json.loads(next(printed))["calls"]
        pasted = json.loads(next(printed))
        spent = json.loads(next(printed))
        assert [] == list(printed)
        output = app.output

    assert chat["answer"]
    assert ("acme", ACME) == (gateway_call["customer"], gateway_call["paid_by"]["fingerprint"])
    assert words
    assert ("acme", True, []) == (streamed["customer"], streamed["log"]["stream"], streamed["keys_seen"])
    assert openrouter["answer"]
    assert {"error"} == set(refused)
    assert direct["answer"]
    assert [connected_call["paid_by"]["fingerprint"]] == connected
    assert {"connected": Secret("sk-or-v1-umbrella").fingerprint, "limit": None, "remaining": None} == pasted
    assert "has spent what it may" in spent["detail"]
    assert "sk-or-v1" not in output


def test_flask_example(tmp_path: Path) -> None:
    """Every command of the Flask example's README does what the text around it says, on a machine without curl."""
    with started("flask_app", tmp_path, real_curl=False) as (app, printed):
        chat = json.loads(next(printed))
        words = next(printed)
        gateway_calls = json.loads(next(printed))["calls"]
        direct = json.loads(next(printed))
        (logged,) = json.loads(next(printed))["logs"]
        refused = json.loads(next(printed))
        assert [] == list(printed)
        output = app.output

    assert chat["answer"]
    assert words
    assert [("acme", ACME)] * 2 == [(call["customer"], call["paid_by"]["fingerprint"]) for call in gateway_calls]
    assert direct["answer"]
    assert ("acme", []) == (logged["customer"], logged["keys_seen"])
    assert {"error"} == set(refused)
    assert "sk-or-v1" not in output
    events = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert ["acme"] == [event["customer_id"] for event in events if event["event"] == "streamed to the end"]


@pytest.mark.parametrize("example", ["fastapi_app", "flask_app"])
def test_apps_do_not_mention_customers(example: str) -> None:
    """What the READMEs claim is so: the example's code names no header and no customer."""
    source = (PROJECT / "examples" / example / "app.py").read_text().lower()

    assert [] == [
        word
        for word in ("x-customer-id", "x-openrouter-key", "customer_credentials", "customer_params")
        if word in source
    ]
