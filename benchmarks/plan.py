"""What a benchmark is made of: suites of cases, and the variants of a case that do the same work."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import msgspec

__all__ = [
    "SUITES", "Bar", "Case", "Metric", "Prepare", "Role", "Round", "Scale", "Suite", "Variant", "suite_named",
]  # fmt: skip

SUITES = ("start", "inbound", "outbound", "whole_call", "whole_app", "delivery", "growth")
"""Each is a module or package of this one with a `SUITE`. Importing it imports no peer: `prepare` does."""

Role = Literal["plain", "floor", "ours", "peer"]
"""Without any of it; the least that could be done; by this library; by what one would use instead."""

Round = Callable[[], Mapping[str, float]]
"""Does the work once more and returns what was measured, by the names of the case's metrics."""


class Metric(msgspec.Struct, frozen=True):
    """One number that a round yields.

    Attributes:
        name: What it is, as a column is headed: `CPU`, `p99`.
        unit: `µs`, `ms`, `MB`, `1/s`.
        more_is_better: Whether a higher number is the better one.
        is_compared: Whether what a variant adds to the base's number is worth a column of its own.
        decides: Whether this is the number by which variants are ranked; the others tell more of the story.
    """

    name: str
    unit: str
    more_is_better: bool = False
    is_compared: bool = True
    decides: bool = True


class Bar(msgspec.Struct, frozen=True):
    """What a number is meant to reach.

    Attributes:
        promise: In words, as the table of bars shows it.
        variant: Whose number.
        metric: Which number.
        bound: The most that is allowed; the least where more is better.
        of: `value`: the number itself; `added`: over the base of the case; `percent`: the same in percent
            of the base.
        over: The variant that counts as the base here; the case's own where not given.
    """

    promise: str
    variant: str
    metric: str
    bound: float
    of: Literal["value", "added", "percent"] = "value"
    over: str | None = None


@dataclass(frozen=True)
class Scale:
    """How long to measure.

    Attributes:
        is_quick: Whether all of it has to end within two minutes.
        rounds: How many rounds of each variant count; one more warms up, see `Case`.
        seconds: How long a round lasts, at least.
    """

    is_quick: bool
    rounds: int
    seconds: float


Prepare = Callable[[Scale], AbstractContextManager[Round]]
"""Sets up all that a variant needs in its own process, and takes it down."""


@dataclass(frozen=True)
class Variant:
    """One way to do the work of a case. It has a process of its own.

    Attributes:
        name: As tables show it.
        role: What it is compared as.
        prepare: Sets it up.
        distribution: The distribution whose version is worth knowing, where it is a peer's.
    """

    name: str
    role: Role
    prepare: Prepare
    distribution: str | None = None


@dataclass(frozen=True)
class Case:
    """The same work, done by several variants in turn.

    Attributes:
        name: Short, for the command line and file names: `asgi`.
        title: As a heading.
        what: What one round does and what is counted, in a sentence or two.
        metrics: What a round yields.
        variants: Those that do the work.
        base: The variant that the others are compared to; None where there is none.
        bars: What is meant to be reached.
        quick: The scale of a quick run.
        full: The scale of a whole run.
        warms_up: Whether a round goes before those that count; not where each begins from nothing.
        is_in_quick_run: Whether a quick run of everything has it; not one that is much like another.
    """

    name: str
    title: str
    what: str
    metrics: tuple[Metric, ...]
    variants: tuple[Variant, ...]
    base: str | None = None
    bars: tuple[Bar, ...] = ()
    quick: Scale = Scale(is_quick=True, rounds=3, seconds=0.03)
    full: Scale = Scale(is_quick=False, rounds=15, seconds=0.2)
    warms_up: bool = True
    is_in_quick_run: bool = True


@dataclass(frozen=True)
class Suite:
    """Cases that belong together.

    Attributes:
        name: As on the command line.
        title: As a heading.
        cases: In the order in which they are run and shown.
    """

    name: str
    title: str
    cases: tuple[Case, ...]


def suite_named(name: str) -> Suite:
    """Return a suite by its name."""
    suite: Suite = importlib.import_module(f"benchmarks.{name}").SUITE
    return suite
