"""Runs the variants of a case: each in a process of its own, all of them in turn, several times over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from benchmarks.plan import Case, Suite, Variant

__all__ = ["VariantFailed", "Worker", "measure", "worker"]

_ROOT = Path(__file__).resolve().parent.parent


class VariantFailed(Exception):
    """A variant's process ended before it was told to; what it printed says why."""


class Worker:
    """The process of one variant, from the outside.

    Args:
        name: For messages.
        asked: Where it is told to do a round.
        answers: Where it says what it measured.
    """

    def __init__(self, name: str, asked: IO[str], answers: IO[str]) -> None:
        self._name = name
        self._asked = asked
        self._answers = answers

    def wait_until_ready(self) -> None:
        """Wait until it is set up."""
        self._line()

    def round(self) -> Mapping[str, float]:
        """Let it do one round.

        Raises:
            VariantFailed: It ended instead.
        """
        with suppress(BrokenPipeError):
            self._asked.write("\n")
            self._asked.flush()
        measured: dict[str, float] = json.loads(self._line())
        return measured

    def _line(self) -> str:
        line = self._answers.readline()
        if not line:
            raise VariantFailed(f"{self._name} ended")
        return line


@contextmanager
def worker(arguments: Sequence[str], *, tree: Path = _ROOT, script: str = "benchmarks.worker") -> Iterator[Worker]:
    """A process that runs `script`, with the package that stands in `tree`."""
    # The tree first: what is measured may be another revision than the one that is installed. It is also where the
    # process starts, since `-m` puts that before everything else.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(tree), str(_ROOT)))}
    process = subprocess.Popen(
        [sys.executable, "-m", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        cwd=tree,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Worker(" ".join(arguments), process.stdin, process.stdout)
    finally:
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def measure(
    suite: Suite, case: Case, variants: Sequence[Variant], *, is_quick: bool
) -> tuple[dict[str, list[Mapping[str, float]]], list[str]]:
    """Return what each variant measured, round by round, and which peers could not be run.

    The rounds of all variants are interleaved, each time beginning with another one: what the machine
    does meanwhile meets all of them alike, and numbers of the same round can be compared.

    Raises:
        VariantFailed: One ended before it was told to, and it was not a peer, or it had begun to measure.
    """
    scale = case.quick if is_quick else case.full
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for variant in variants:
            arguments = (suite.name, case.name, variant.name, "quick" if is_quick else "full")
            workers[variant.name] = stack.enter_context(worker(arguments))
        failed: list[str] = []
        for variant in variants:
            try:
                workers[variant.name].wait_until_ready()
                if case.warms_up:
                    workers[variant.name].round()
            except VariantFailed:
                if variant.role != "peer":
                    raise
                failed.append(variant.name)
                del workers[variant.name]
        measured: dict[str, list[Mapping[str, float]]] = {name: [] for name in workers}
        names = list(workers)
        for number in range(scale.rounds):
            first = number % len(names)
            for name in (*names[first:], *names[:first]):
                measured[name].append(workers[name].round())
    return measured, failed
