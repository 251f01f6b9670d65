"""The delivery benchmarks: they run as a user runs them, and measure work that was really done."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.loopback.running import loopback
from benchmarks.loopback.sink import accepted
from benchmarks.results import Report
from kwai_middleware import CompletedCall, Delivery, Secret, Settings

_ROOT = Path(__file__).parent.parent


def test_delivery_is_measured_by_the_command_that_is_documented(tmp_path: Path) -> None:
    """A quick run of two cases ends with their numbers as tables and as JSON, and says which bars they are held to."""
    command = [sys.executable, "-m", "benchmarks", "delivery/to_disk", "delivery/shipping", "--quick"]
    ran = subprocess.run([*command, "--into", str(tmp_path)], cwd=_ROOT, capture_output=True, text=True, check=False)
    assert 0 == ran.returncode, ran.stderr
    report = Report.read(tmp_path / "results.json")
    assert ["to_disk", "shipping"] == [table.case for table in report.tables]
    [to_disk] = report.table("delivery", "to_disk").rows
    [(p50, p99)] = zip(to_disk.numbers["p50"], to_disk.numbers["p99"], strict=True)
    assert 0 < p50 <= p99
    assert ["in bulk", "as singles"] == [row.variant for row in report.table("delivery", "shipping").rows]
    assert all(row.numbers["shipped"][0] > 0 for row in report.table("delivery", "shipping").rows)
    assert ["to disk", "p99"] == [bar.metric for bar in report.table("delivery", "to_disk").bars]
    assert "Calls of 10 KB to disk a second" in (tmp_path / "tables.md").read_text()


def test_the_sink_keeps_what_it_is_sent_for_whoever_checks_it() -> None:
    """A record arrives at the sink whole, once, and is handed out once."""
    with loopback(accepted, keep=1_000_000) as sink:
        settings = Settings(api_key=Secret("key"), base_url=f"{sink.url}/api", spool="memory:")
        with Delivery(settings) as delivery:
            delivery.submit(CompletedCall(route="direct", model="the-model"))
            assert delivery.flush(10)
        [request] = sink.kept()
        assert "/api/request-logs/create/" == request.path
        assert b'"the-model"' in request.body
        assert "Bearer key" == request.headers["authorization"]
        assert [] == sink.kept()
        assert 1 == sink.count()
