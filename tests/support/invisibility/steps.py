"""The steps of a script: what they are, and how a file of steps lists its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tests.support.invisibility.stage import Stage

__all__ = ["Step", "Steps"]


@dataclass(frozen=True)
class Step:
    """One step of a script.

    Attributes:
        name: For people.
        run: Does it, and returns what was to be seen.
        gateway: It can be done on a gateway's route, where a body is looked into, put together and measured anew
            before it goes out.
        asynchronous: It is for asynchronous clients only.
        ordered: Its calls come one after another; else their order is up to the machine.
    """

    name: str
    run: Callable[[Stage], Awaitable[Any]]
    gateway: bool = True
    asynchronous: bool = False
    ordered: bool = True


class Steps(list[Step]):
    """Steps in the order in which they are written."""

    def step(self, run: Callable[[Stage], Awaitable[Any]]) -> Callable[[Stage], Awaitable[Any]]:
        """Add a step that is named as its function is."""
        self.append(Step(_name(run), run))
        return run

    def not_on_gateways(self, run: Callable[[Stage], Awaitable[Any]]) -> Callable[[Stage], Awaitable[Any]]:
        """Add a step with a body that comes in pieces, or with a length of its own."""
        self.append(Step(_name(run), run, gateway=False))
        return run

    def asynchronous(self, run: Callable[[Stage], Awaitable[Any]]) -> Callable[[Stage], Awaitable[Any]]:
        """Add a step that only asynchronous clients can do."""
        self.append(Step(_name(run), run, asynchronous=True))
        return run

    def unordered(self, run: Callable[[Stage], Awaitable[Any]]) -> Callable[[Stage], Awaitable[Any]]:
        """Add a step with several calls at a time."""
        self.append(Step(_name(run), run, ordered=False))
        return run

    def asynchronous_unordered(self, run: Callable[[Stage], Awaitable[Any]]) -> Callable[[Stage], Awaitable[Any]]:
        """Add a step with several calls at a time that only asynchronous clients can do."""
        self.append(Step(_name(run), run, asynchronous=True, ordered=False))
        return run

    def each(self, cases: Iterable[Any], *, gateway: bool = True) -> Callable[[Callable[[Stage, Any], Any]], Any]:
        """Add one step for each case; the case is the second argument."""

        def add(run: Callable[[Stage, Any], Any]) -> Callable[[Stage, Any], Any]:
            for case in cases:
                name = case[0] if isinstance(case, tuple) else case
                self.append(Step(f"{_name(run)}: {name}", _with(run, case), gateway=gateway))
            return run

        return add


def _with(run: Callable[[Stage, Any], Any], case: Any) -> Callable[[Stage], Awaitable[Any]]:
    async def done(stage: Stage) -> Any:
        return await run(stage, case)

    return done


def _name(run: Callable[..., Any]) -> str:
    return run.__name__.replace("_", " ")
