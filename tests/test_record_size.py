"""Answers of any size: the app gets every byte, and what is kept of them is bounded, for each call and for all."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from kwai_middleware import bind_caller
from kwai_middleware._outbound.budget import in_use
from kwai_middleware._outbound.kept_chunks import TAIL
from kwai_middleware.sandbox import Sandbox
from tests.support.budget import begin_with_nothing_held, wait_until_all_is_given_back
from tests.support.callers import caller
from tests.support.examples import sandbox_process
from tests.support.flavours import Flavour
from tests.support.observations import stream_of
from tests.support.processes import PROJECT, UNMEASURED
from tests.support.raw_server import Connection, raw_server
from tests.support.recording import APP, QUESTION, Recording

MEGABYTE = 1_000_000
KEPT = 8 * 1024 * 1024
MOST_WHILE_IT_PASSES = 12 * MEGABYTE
"""What is kept of it, and what the client itself needs."""
MOST_WHILE_RECORDED = 48 * MEGABYTE
"""A few times what is kept, and one call after the other."""


@pytest.fixture(scope="module")
def vendors() -> Iterator[Sandbox]:
    with sandbox_process() as vendors:
        yield vendors


def read_elsewhere(url: str, model: str, way: str) -> dict[str, Any]:
    """Read one answer in a process of its own; see `tests.support.reads_huge_answers`."""
    program = [sys.executable, "-m", "tests.support.reads_huge_answers", url, model, way]
    environ = {**os.environ, **UNMEASURED}
    done = subprocess.run(program, env=environ, cwd=PROJECT, capture_output=True, text=True, timeout=120, check=False)
    assert "" == done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("way", ["unary", "stream"])
def test_an_answer_of_300_megabytes(vendors: Sandbox, way: str) -> None:
    """It passes in the memory that one call may keep; the record has its beginning, its usage and its cost."""
    vendors.reset()

    found = read_elsewhere(vendors.url, "sandbox/huge-300", way)

    [entry] = vendors.calls(wait=1, model="sandbox/huge-300")
    record = found["record"]
    assert 300 * MEGABYTE < found["size"] < 310 * MEGABYTE
    assert ("sent", "complete", True, way == "stream") == (
        entry["outcome"], record["outcome"], record["truncated"], record["stream"],
    )  # fmt: skip
    assert (75_000_005, "stop", "sandbox/huge-300", "Sandbox") == (
        record["completion_tokens"], record["finish_reason"], record["model"], record["provider"],
    )  # fmt: skip
    assert round(75_000_005 * 1.5e-6 + 9 * 0.5e-6, 6) == round(record["cost"], 6)
    assert "one two three fourword w" == found["begins"]
    assert KEPT * 0.9 < found["content"] < KEPT
    assert found["passing"] < MOST_WHILE_IT_PASSES
    assert found["recording"] < MOST_WHILE_RECORDED
    assert found["held"] <= KEPT + TAIL
    assert 0 == found["held_after"]


def test_the_app_gets_every_byte_of_300_megabytes() -> None:
    """What arrives is byte for byte what was sent, long after the record has stopped to keep it."""
    digest, sent = hashlib.sha256(), 0
    event = stream_of({"choices": [{"index": 0, "delta": {"content": "word " * 10_000}}]})
    usage = stream_of({"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": {"cost": 0.5}}, "[DONE]")

    def serve(connection: Connection) -> None:
        nonlocal sent
        connection.request()
        small = b'{"choices":[{"message":{"content":"hi"}}]}'
        connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(small), small))
        connection.request()
        connection.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        for number in range(300 * MEGABYTE // len(event)):
            part = event.replace(b"word", b"%04d" % (number % 10_000), 3)
            digest.update(part)
            sent += len(part)
            connection.send(part)
        digest.update(usage)
        sent += len(usage)
        connection.send(usage)

    with raw_server(serve) as server:
        found = read_elsewhere(server.url, "m", "stream")

    assert (sent, digest.hexdigest()) == (found["size"], found["sha256"])
    assert ("complete", True, 0.5) == tuple(found["record"][name] for name in ("outcome", "truncated", "cost"))
    assert found["passing"] < MOST_WHILE_IT_PASSES


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "streamed"])
def test_an_answer_without_end_is_left(vendors: Sandbox, flavour: Flavour, stream: bool) -> None:
    """The app reads as long as it likes and leaves; the vendor notices, and the record has the head and the tail."""
    recording = Recording(vendors, max_call_bytes=MEGABYTE)
    recording.begin()
    observations: list[Any] = []

    def deliver(call: Any) -> bool:
        observations.append(call)
        return recording.deliver(call)

    client = flavour.client(settings=recording.settings, deliver=deliver)
    request = {"model": "sandbox/endless", "messages": QUESTION, "stream": stream}
    with bind_caller(caller()):
        response = flavour.open(client, f"{vendors.openrouter_url}/chat/completions", json=request, headers=APP)
    received = sum(map(len, flavour.chunks(response, at_most=200)))
    flavour.close(response)
    flavour.close(client)

    call, log = recording.latest()
    [observation] = observations
    assert received > 2 * MEGABYTE
    assert sum(map(len, observation.chunks)) < MEGABYTE + 2 * TAIL
    # OpenRouter's whole answers have the reason before the message.
    assert ("cancelled", True, stream, None, None if stream else "stop") == (
        call.outcome, call.truncated, call.stream, call.cost, call.finish_reason,
    )  # fmt: skip
    assert call.completions[0]["content"].startswith("one two three fourword word ")
    assert " [...] " in call.completions[0]["content"]
    assert "The app ended the call before the answer was whole. A part was not kept, for its size." == log["warnings"]
    assert 1 == len(vendors.calls(wait=1, outcome="client left", model="sandbox/endless"))
    assert recording.delivery.close()


@pytest.mark.parametrize("stream", [False, True], ids=["unary", "streamed"])
def test_many_huge_answers_at_once_share_one_bound(vendors: Sandbox, flavour: Flavour, stream: bool) -> None:
    """Past the bound for all open calls only ends are kept, which still tell the cost; then all of it is free again."""
    begin_with_nothing_held()
    before = in_use()
    bound = 3 * MEGABYTE
    recording = Recording(vendors, max_call_bytes=MEGABYTE, max_open_bytes=before + bound)
    recording.begin()
    client = flavour.client(settings=recording.settings, deliver=recording.deliver)
    request = {"model": "sandbox/huge-2", "messages": QUESTION, "stream": stream}
    responses = []
    for _ in range(8):
        with bind_caller(caller()):
            response = flavour.open(client, f"{vendors.openrouter_url}/chat/completions", json=request, headers=APP)
        responses.append((response, flavour.run(_all_but_the_end(response, asynchronous=flavour.asynchronous))))
        assert in_use() - before <= bound
    held = in_use() - before
    for response, rest in responses:
        flavour.run(_to_the_end(rest, asynchronous=flavour.asynchronous))
        flavour.close(response)
    flavour.close(client)

    assert recording.delivery.flush(30)
    assert bound - 2 * TAIL < held
    assert [("complete", True, 500_005)] * 8 == [
        (call.outcome, call.truncated, call.completion_tokens) for call in recording.calls
    ]
    assert [True] * 8 == [call.cost is not None and call.cost > 0.7 for call in recording.calls]
    contents = sorted(len(call.completions[0]["content"]) if call.completions else 0 for call in recording.calls)
    assert contents[0] < 4 * TAIL
    assert 0.8 * MEGABYTE < contents[-1] < MEGABYTE + 2 * TAIL
    assert [None] * 8 == [entry["lost"] for entry in vendors.logs(wait=8)]
    assert recording.delivery.close()
    del responses, response, rest
    wait_until_all_is_given_back()


async def _all_but_the_end_async(response: Any) -> Any:
    chunks, size = response.aiter_raw(), 0
    while size < 1.9 * MEGABYTE:
        size += len(await anext(chunks))
    return chunks


def _all_but_the_end(response: Any, *, asynchronous: bool) -> Any:
    """Read nearly all of two megabytes; gives what reads the rest."""
    if asynchronous:
        return _all_but_the_end_async(response)
    chunks, size = response.iter_raw(), 0
    while size < 1.9 * MEGABYTE:
        size += len(next(chunks))
    return chunks


async def _to_the_end_async(chunks: Any) -> None:
    async for _ in chunks:
        pass


def _to_the_end(chunks: Any, *, asynchronous: bool) -> Any:
    if asynchronous:
        return _to_the_end_async(chunks)
    for _ in chunks:
        pass
    return None
