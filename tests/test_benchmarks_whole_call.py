"""The benchmark of whole calls: that it runs as it is told to, and that its other side answers and counts."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.results import Report
from benchmarks.whole_call import SUITE
from benchmarks.whole_call.conversation import ANSWER, ANSWER_MARK, CHUNKS, MESSAGES, MODEL, PROMPT_MARK
from benchmarks.whole_call.other_side import CALLERS_KEY, OtherSide, other_side
from tests.support.processes import DEADLINE, PROJECT, UNMEASURED


@pytest.fixture(scope="module")
def other() -> Iterator[OtherSide]:
    """A process of its own, as each variant has it."""
    with other_side() as started:
        yield started


def post(url: str, body: bytes, **headers: str) -> bytes:
    """What is answered with status 200."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with urllib.request.urlopen(urllib.request.Request(url, body, named), timeout=DEADLINE) as answer:
        content: bytes = answer.read()
        return content


def conversation(**more: object) -> bytes:
    """The body of a call."""
    return json.dumps({"model": MODEL, "messages": MESSAGES, **more}).encode()


def test_the_suite_runs_and_each_variant_of_ours_did_its_work(tmp_path: Path) -> None:
    """A quick run without the peers ends well, with numbers of every variant and what became of the bars."""
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks", "whole_call/unary_sync", "--quick", "--ours", "--into", str(tmp_path)],
        cwd=PROJECT,
        env={**os.environ, **UNMEASURED},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert 0 == ran.returncode, ran.stderr
    table = Report.read(tmp_path / "results.json").table("whole_call", "unary_sync")
    case = next(case for case in SUITE.cases if case.name == "unary_sync")
    assert [v.name for v in case.variants if v.role != "peer"] == [row.variant for row in table.rows]
    assert all(number > 0 for row in table.rows for numbers in row.numbers.values() for number in numbers)
    assert ["CPU, calling thread", "CPU, whole process"] == [reached.bar.metric for reached in table.reached()]


def test_every_bar_names_a_variant_and_a_metric_of_its_case() -> None:
    """No bar is lost because something was renamed."""
    assert {"unary_sync", "unary_async", "stream_sync", "stream_async"} <= {c.name for c in SUITE.cases if c.bars}
    for case in SUITE.cases:
        assert {bar.variant for bar in case.bars} <= {variant.name for variant in case.variants}
        assert {bar.metric for bar in case.bars} <= {metric.name for metric in case.metrics}
        assert case.base in {variant.name for variant in case.variants}


def test_the_model_answers_whole_or_in_chunks(other: OtherSide) -> None:
    """Both ways it says the same 2 KB with what they cost, and all that is compared by does the same work."""
    whole = json.loads(post(f"{other.api}/chat/completions", conversation()))
    assert ANSWER == whole["choices"][0]["message"]["content"]
    assert whole["usage"]["cost"] > 0
    *events, done, end = post(f"{other.api}/chat/completions", conversation(stream=True)).split(b"\n\n")
    assert (b"data: [DONE]", b"") == (done, end)
    *chunks, last = (json.loads(event.removeprefix(b"data: ")) for event in events)
    assert CHUNKS + 1 == len(chunks)
    assert ANSWER == "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
    assert whole["usage"] == last["usage"]
    assert 1800 < len(ANSWER) < 2300
    assert 1800 < len(json.dumps(MESSAGES)) < 2300
    assert 1 == ANSWER.count(ANSWER_MARK) == json.dumps(MESSAGES).count(PROMPT_MARK)


def test_the_other_side_says_whose_key_paid(other: OtherSide) -> None:
    """A variant that does not do its work cannot go unnoticed: key in the header, key in the body, neither."""
    other.seen()
    credentials = {"openrouter": {"api_key": CALLERS_KEY}}
    post(f"{other.api}/chat/completions", conversation())
    post(f"{other.api}/chat/completions", conversation(), authorization=f"Bearer {CALLERS_KEY}")
    post(
        f"{other.gateway}/chat/completions",
        conversation(customer_credentials=credentials, customer_identifier="acme-4711"),
    )
    seen = other.seen()
    assert (3, 1, 1) == (seen.calls, seen.paid_by_caller, seen.injected)
    assert 0 == other.seen().calls


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v1/traces", b""),
        ("/api/public/otel/v1/traces", b""),
        ("/gateway/api/v2/traces", b'{"status":"ok"}'),
        ("/i/v0/ai/batch/", b'{"status":1}'),
        ("/gateway/api/request-logs/", b'{"message":"log successful"}'),
        ("/gateway/api/request-logs/bulk/", b'{"success_count":1,"error_count":0,"errors":[]}'),
    ],
)
def test_the_sink_answers_as_each_exporter_expects(other: OtherSide, path: str, expected: bytes) -> None:
    """Whatever comes is taken, and prompts and answers are found in it."""
    other.seen()
    body = b'{"logs":[{"kwai_record_id":"1","output":"%s"}]}' % f"{PROMPT_MARK} {ANSWER_MARK}".encode()
    assert expected == post(other.url + path, body)
    seen = other.seen()
    assert (1, 1, 1, len(body)) == (seen.requests, seen.prompts, seen.answers, seen.bytes)


def test_the_sink_looks_into_what_is_packed(other: OtherSide) -> None:
    """Prompts and answers are found in gzip too, and bytes are those of the wire."""
    other.seen()
    packed = gzip.compress(f"{PROMPT_MARK} {ANSWER_MARK} {ANSWER_MARK}".encode())
    post(f"{other.url}/v1/traces", packed, content_encoding="gzip")
    seen = other.seen()
    assert (1, 1, 2, len(packed)) == (seen.requests, seen.prompts, seen.answers, seen.bytes)
