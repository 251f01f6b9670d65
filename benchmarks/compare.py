"""`python -m benchmarks.compare REVISION`: the hot paths of this tree against those of another revision.

Both run at once, round by round in turn, so that a busy machine meets both alike. A ratio below 1
means that this tree is quicker.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks import tables
from benchmarks.rounds import worker

_ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure two revisions and print the ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("base", metavar="REVISION", help="what git knows it by: HEAD, a tag, a branch")
    parser.add_argument("--rounds", type=int, default=30, help="how many of each; by default 30")
    parser.add_argument("--quick", dest="rounds", action="store_const", const=5, help="the same as --rounds 5")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        _check_out(parser, asked.base, base)
        measured = _interleaved(base, rounds=asked.rounds)
    print(tables.comparison(asked.base, *measured))


def _check_out(parser: argparse.ArgumentParser, revision: str, into: Path) -> None:
    """Lay the package as it was at a revision into a folder."""
    command = ["git", "archive", "--format=tar", revision, "kwai_middleware"]
    try:
        archived = subprocess.run(command, cwd=_ROOT, capture_output=True, check=False)
    except FileNotFoundError:
        parser.error("another revision comes out of git, and there is none on this machine")
    if archived.returncode != 0:
        parser.error(f"git knows no revision {revision!r} here: give BASE=<tag, branch or commit>, in a clone")
    with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as packed:
        packed.extractall(into, filter="data")


def _interleaved(base: Path, rounds: int) -> tuple[list[Mapping[str, float]], list[Mapping[str, float]]]:
    """Return what each round measured: of the base, and of this tree."""
    before: list[Mapping[str, float]] = []
    now: list[Mapping[str, float]] = []
    script = "benchmarks.hot_paths"
    with worker((), tree=base, script=script) as old, worker((), tree=_ROOT, script=script) as new:
        for each in (old, new):
            each.wait_until_ready()
            each.round()
        for number in range(rounds):
            turns = [(old, before), (new, now)]
            for each, numbers in turns if number % 2 else reversed(turns):
                numbers.append(each.round())
    return before, now


if __name__ == "__main__":
    main()
