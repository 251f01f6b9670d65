"""The benchmarks as one runs them: real processes, whose numbers nobody judges here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import compare
from benchmarks.hot_paths import PATHS
from benchmarks.results import Report
from benchmarks.rounds import VariantFailed, worker
from tests.support.processes import DEADLINE, PROJECT, UNMEASURED

KNOWN_SUITE = '''
"""A suite of which it is known what it measures."""

import itertools
from contextlib import contextmanager
from pathlib import Path

from benchmarks.plan import Bar, Case, Metric, Scale, Suite, Variant

ORDER = Path(__file__).with_name("order")


def counting(name, first):
    @contextmanager
    def prepare(scale):
        numbers = itertools.count(first)

        def one_round():
            print('{"CPU": 1000}, says one that prints while it works')
            with ORDER.open("a") as file:
                file.write(f"{name} ")
            return {"CPU": next(numbers) + 1 / 3}

        yield one_round
        ORDER.with_name(f"end of {name}").touch()

    return prepare


@contextmanager
def dying(scale):
    raise SystemExit("this is why")
    yield


@contextmanager
def dying_later(scale):
    yield [{"CPU": 1.0}, {"CPU": 1.0}].pop


def case(name, *variants, bars=()):
    quick = Scale(is_quick=True, rounds=3, seconds=0)
    return Case(name, "Known", "Counts.", (Metric("CPU", "µs"),), variants, "bare", bars, quick=quick)


bare, ours = Variant("bare", "plain", counting("bare", 0)), Variant("ours", "ours", counting("ours", 10))
SUITE = Suite("start", "Start", (
    case(
        "whole", bare, ours,
        Variant("a peer", "peer", counting("peer", 20), "msgspec"),
        Variant("a peer that dies", "peer", dying),
        Variant("a peer that is missing", "peer", dying, "no-such-distribution"),
        bars=(Bar("what ours adds", "ours", "CPU", 9, of="added"),),
    ),
    case("dead", bare, Variant("ours", "ours", dying)),
    case("dead_later", bare, Variant("ours", "ours", dying_later)),
))
'''


def run_benchmarks(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m benchmarks` as it lies in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=folder,
        env={**os.environ, **UNMEASURED, "PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


@pytest.fixture
def known(tmp_path: Path) -> Path:
    """A copy of the benchmarks with one suite, of which it is known what it measures."""
    (tmp_path / "benchmarks").mkdir()
    for path in (PROJECT / "benchmarks").glob("*.py"):
        shutil.copy(path, tmp_path / "benchmarks")
    (tmp_path / "benchmarks" / "start.py").write_text(KNOWN_SUITE)
    return tmp_path


def test_a_run_keeps_what_each_round_measured(known: Path) -> None:
    """Each variant's rounds but the first, whatever it prints meanwhile; peers that did not run are named, with why."""
    ran = run_benchmarks(known, "start/whole", "--quick", "--into", "out")
    assert 0 == ran.returncode, ran.stderr
    report = Report.read(known / "out" / "results.json")
    table = report.table("start", "whole")
    assert {row.variant: row.numbers["CPU"] for row in table.rows} == {
        "bare": [1.3333, 2.3333, 3.3333],
        "ours": [11.333, 12.333, 13.333],
        "a peer": [21.333, 22.333, 23.333],
    }
    assert {
        "a peer that dies": "it failed",
        "a peer that is missing": "no-such-distribution is not installed",
    } == table.missing
    assert report.is_quick
    assert "msgspec" in report.versions
    assert report.versions["msgspec"] in (known / "out" / "tables.md").read_text(), "the peer's version is shown"
    assert "this is why" in ran.stderr
    assert "missed" in ran.stdout, "ours adds 10, and 9 is allowed"


def test_rounds_take_turns(known: Path) -> None:
    """After all have warmed up, each turn has one round of each variant and begins with another one."""
    assert 0 == run_benchmarks(known, "start/whole", "--quick").returncode
    order = (known / "benchmarks" / "order").read_text().split()
    assert ["bare", "ours", "peer"] == order[:3]
    assert ["bare", "ours", "peer", "ours", "peer", "bare", "peer", "bare", "ours"] == order[3:]
    ends = sorted(path.name for path in (known / "benchmarks").glob("end of *"))
    assert ["end of bare", "end of ours", "end of peer"] == ends, "what was set up was taken down"


def test_peers_can_be_left_out(known: Path) -> None:
    """Then they are neither run nor listed."""
    assert 0 == run_benchmarks(known, "start/whole", "--quick", "--ours", "--into", "out").returncode
    table = Report.read(known / "out" / "results.json").table("start", "whole")
    assert ["bare", "ours"] == [row.variant for row in table.rows]
    assert {} == table.missing


@pytest.mark.parametrize("case", ["dead", "dead_later"])
def test_a_run_without_our_numbers_is_none(known: Path, case: str) -> None:
    """When one of ours dies, at once or in a round, the run ends and says which, below what that one printed."""
    ran = run_benchmarks(known, f"start/{case}", "--quick", "--into", "out")
    assert 1 == ran.returncode
    why, said = ran.stderr.rstrip().rsplit("\n", 1)
    assert f"start/{case}: start {case} ours quick ended; what it printed stands above" == said
    assert ("this is why" if case == "dead" else "pop from empty list") in why
    assert not (known / "out").exists()


def test_inbound_is_measured_without_peers(tmp_path: Path) -> None:
    """In an environment that has no peers, ours are still measured against the bare app and the floor."""
    ran = run_benchmarks(PROJECT, "inbound/asgi", "--quick", "--ours", "--into", str(tmp_path))
    assert 0 == ran.returncode, ran.stderr
    table = Report.read(tmp_path / "results.json").table("inbound", "asgi")
    assert ["plain", "floor", *["ours"] * 6] == [row.role for row in table.rows]
    assert all(number > 0 for row in table.rows for number in row.numbers["CPU"])
    written = (tmp_path / "tables.md").read_text()
    assert all(f"| {row.variant} " in written for row in table.rows)
    assert all(bar.promise in written for bar in table.bars)
    drawn = ET.fromstring((tmp_path / "inbound-asgi-cpu.svg").read_text())
    texts = {text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {row.variant for row in table.rows} - {"bare app"} <= texts


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("inboud", r"there is no suite 'inboud'; there are start, inbound, "),
        ("inbound/agsi", r"inbound has no case 'agsi'; it has asgi, wsgi, wsgi_flask, wsgi_chunks$"),
    ],
)
def test_what_there_is_not_is_refused(asked: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With what there is."""
    with pytest.raises(SystemExit) as ended:
        command.main([asked])
    assert 2 == ended.value.code
    assert re.search(said, capsys.readouterr().err, re.MULTILINE)


# Revisions


def test_an_unknown_revision_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """With what to give, or that there is no git at all."""
    with pytest.raises(SystemExit) as ended:
        compare.main(["no-such-revision"])
    assert 2 == ended.value.code
    expected = "give BASE=<tag, branch or commit>" if shutil.which("git") else "there is none on this machine"
    assert expected in capsys.readouterr().err


def test_a_revision_is_measured_as_it_was(tmp_path: Path) -> None:
    """The package comes from its folder, and never from here instead."""
    package = tmp_path / "kwai_middleware"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('the other one')")
    with worker((), tree=tmp_path, script="benchmarks.hot_paths") as other, pytest.raises(VariantFailed):
        other.wait_until_ready()


def test_two_revisions_are_compared(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every hot path has its line, with a ratio; an unpacked release has no other revision to show."""
    monkeypatch.setenv("COVERAGE_PROCESS_CONFIG", "")
    if not _has_history():
        with pytest.raises(SystemExit):
            compare.main(["HEAD"])
        return
    compare.main(["HEAD", "--rounds", "1"])
    head, _, *lines = capsys.readouterr().out.strip().splitlines()
    assert ["CPU", "HEAD [µs]", "this tree [µs]", "ratio"] == [cell.strip() for cell in head[1:-1].split("|")]
    assert list(PATHS) == [line[1:-1].split("|")[0].strip() for line in lines]
    assert all(float(line[1:-1].split("|")[3]) > 0 for line in lines)


def _has_history() -> bool:
    if shutil.which("git") is None:
        return False
    listed = subprocess.run(
        ["git", "ls-tree", "--name-only", "HEAD", "kwai_middleware"],
        cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return "kwai_middleware\n" == listed.stdout
