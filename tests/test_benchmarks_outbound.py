"""The benchmark of calls on their way out: it runs, and what it compares does the same work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest

from benchmarks.outbound import calls_async, ways
from benchmarks.outbound.calls import checked
from benchmarks.outbound.model import Model, conversation, transport_over
from benchmarks.plan import Scale
from benchmarks.results import Report
from tests.support.processes import PROJECT, UNMEASURED

_BODY = conversation(2_000)
_QUICK = Scale(is_quick=True, rounds=1, seconds=0.0)


def _arrived(make: ways.MakeWay, library: Any) -> Any:
    """What arrives when a way sends one call."""
    model = Model(library)
    way = make(library, model)
    with way.around:
        model.keeps = True
        way.client.post(way.url, content=_BODY, headers={"authorization": "Bearer x"})
    return json.loads(model.body)


def test_it_runs_as_a_program_and_keeps_what_it_measured(tmp_path: Path) -> None:
    """`python -m benchmarks outbound/httpx2` leaves a row of numbers for each variant, and says which bars were met."""
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks", "outbound/httpx2", "--quick", "--ours", "--into", str(tmp_path)],
        cwd=PROJECT,
        env={**os.environ, **UNMEASURED},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (0, "") == (ran.returncode, ran.stderr)
    table = Report.read(tmp_path / "results.json").table("outbound", "httpx2")
    assert ["plain", "a transport that only forwards", "through the gateway", "to OpenRouter"] == [
        row.variant for row in table.rows
    ]
    assert all(len(row.numbers["CPU"]) == 3 and min(row.numbers["CPU"]) > 0 for row in table.rows)
    assert ["through the gateway", "to OpenRouter"] == [each.bar.variant for each in table.reached()]


@pytest.mark.parametrize("size", [1_000, 10_000, 1_000_000])
def test_a_conversation_has_the_size_that_is_asked_for(size: int) -> None:
    """A body of so many bytes has exactly so many."""
    assert size == len(conversation(size))


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize("make", [ways.json_dump, ways.orjson_dump])
def test_parse_and_dump_does_the_work_that_ours_does(library: Any, make: ways.MakeWay) -> None:
    """What is compared to ours sends the same body: the app's members, the customer, the customer's key."""
    assert _arrived(ways.gateway, library) == _arrived(make, library)


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize("make", [ways.plain, ways.floor, ways.gateway, ways.direct, ways.json_dump, ways.orjson_dump])
@pytest.mark.parametrize("inner", [lambda model, _: model, transport_over])
def test_each_way_passes_its_own_check(library: Any, make: ways.MakeWay, inner: Any) -> None:
    """A way is measured only after what it is measured for has arrived, on either transport."""
    model = Model(library)
    way = make(library, inner(model, library))
    with way.around:
        checked(way, model, _BODY)(1)


@pytest.mark.parametrize("make", [ways.gateway, ways.json_dump])
def test_a_way_that_injects_nothing_is_not_measured(make: ways.MakeWay) -> None:
    """Without a customer the calls go out all the same, and the benchmark refuses to measure them."""
    model = Model(httpx2)
    way = make(httpx2, model)
    with pytest.raises(ways.Broken, match="customer_credentials"):
        checked(way, model, _BODY)


def test_the_asynchronous_call_is_checked_as_well() -> None:
    """The asynchronous variants are set up, checked and measured in a round."""
    for variant in calls_async.CASES[0].variants:
        with variant.prepare(_QUICK) as one_round:
            assert one_round()["CPU"] > 0
