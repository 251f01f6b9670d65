"""Runs a script, and keeps all that was to be seen at each step."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import trio
import trio.testing

from tests.support.invisibility.describing import described, plain_value, steady
from tests.support.invisibility.server import ScriptServer
from tests.support.invisibility.stage import Stage
from tests.support.invisibility.steps import Step

__all__ = ["Observed", "by_hand", "run_script"]

Observed = dict[str, dict[str, Any]]
"""For each step, what was to be seen, by the place where it was."""

_LOGGERS: Final = ("httpx", "httpx2", "httpcore", "httpcore2", "asyncio")


def run_script(steps: Iterable[Step], make_stage: Callable[[], Stage], server: ScriptServer, runs_on: str) -> Observed:
    """Run the steps one after another, each on a stage of its own.

    Args:
        steps: What is done.
        make_stage: Makes a step's stage.
        server: Is told when a step begins, and asked what arrived.
        runs_on: `asyncio`, `trio`, or `sync` where nothing ever waits.
    """
    observed: Observed = {}

    async def script() -> None:
        for step in steps:
            observed[step.name] = await _observe(step, make_stage(), server, runs_on)

    # Only what a script itself leaves behind is looked for, and at the same moment each time.
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        if runs_on == "sync":
            by_hand(script())
        elif runs_on == "trio":
            trio.run(script)
        else:
            asyncio.run(script())
    finally:
        gc.enable()
        gc.unfreeze()
    return observed


def by_hand(coroutine: Any) -> Any:
    """Run a coroutine in which nothing ever waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("a step with a synchronous client waited for something")


async def _observe(step: Step, stage: Stage, server: ScriptServer, runs_on: str) -> dict[str, Any]:
    server.begin()
    with _listening(runs_on) as heard:
        seen: dict[str, Any] = {"result": await _result(step, stage)}
        seen["pools"] = [_pool(transport) for client in stage.clients for transport in _transports(client)]
        server.over.set()
        server.gate.set()
        for client in stage.clients:
            if not client.is_closed:
                await stage.do(client, "close")
        seen["clients"] = [client.is_closed for client in stage.clients]
        stage.clients.clear()
        gc.collect()
        gc.freeze()
        await _settled(runs_on)
    # Only now: what the server noticed of the end is on its way until then.
    seen["idle"] = server.wait_until_idle()
    arrived = sorted(server.arrived, key=lambda each: each.connection)
    seen["wire"] = [(each.connection, _steady(each.head), each.body, each.whole) for each in arrived]
    seen["proxied"] = list(server.proxied)
    seen |= heard
    if runs_on == "trio" or not step.ordered:
        # `trio` ends dropped generators in any order.
        seen["logs"] = sorted(seen["logs"])
    if not step.ordered:
        seen["wire"] = sorted((1, *request[1:]) for request in seen["wire"])
    return seen


async def _settled(runs_on: str) -> None:
    """Wait for what the event loop does on its own, such as ending generators that were dropped."""
    if runs_on == "trio":
        await trio.testing.wait_all_tasks_blocked()
    if runs_on == "asyncio":
        for _ in range(5):
            await asyncio.sleep(0)
            if others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others, timeout=10)


async def _result(step: Step, stage: Stage) -> Any:
    try:
        return plain_value(await step.run(stage))
    except Exception as error:  # noqa: BLE001 - a step may end with what it provokes
        return described(error)


@contextlib.contextmanager
def _listening(runs_on: str) -> Iterator[dict[str, list[Any]]]:
    """Hear warnings, logs, and what Python and the event loop say when there is nobody to raise to."""
    heard: dict[str, list[Any]] = {"warnings": [], "logs": [], "unraisable": [], "loop": []}
    handler = _Notes(heard["logs"])
    hook = sys.unraisablehook
    sys.unraisablehook = lambda what: heard["unraisable"].append(described(what.exc_value))
    if runs_on == "asyncio":
        asyncio.get_running_loop().set_exception_handler(lambda _, what: heard["loop"].append(plain_value(what)))
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield heard
        heard["warnings"] += [(each.category.__name__, plain_value(str(each.message))) for each in caught]
    finally:
        sys.unraisablehook = hook
        for logger, (level, propagates) in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagates


def _steady(head: bytes) -> bytes:
    return steady(head.decode("latin-1")).encode("latin-1")


class _Notes(logging.Handler):
    def __init__(self, notes: list[Any]) -> None:
        super().__init__()
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        """Keep what was said, and how loud; when the other side's settings arrive, is up to the network."""
        if "receive_remote_settings" in record.getMessage():
            return
        self._notes.append((record.name, record.levelname, plain_value(record.getMessage())))


def _transports(client: Any) -> list[Any]:
    found = [client._transport, *client._mounts.values()]
    return [getattr(transport, "_inner", transport) for transport in found if transport is not None]


def _pool(transport: Any) -> Any:
    pool = getattr(transport, "_pool", None)
    if pool is None:
        return type(transport).__name__
    return [plain_value(repr(pool)), [each.info() for each in pool.connections]]
