"""Where a look-up of keys runs, and how others wait for it: on event loops, on their threads, and without any."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

import anyio

from kwai_middleware._caller import Credential
from kwai_middleware._key_cache import Flight
from kwai_middleware._unsettled import running_loop
from kwai_middleware.errors import KeysUnavailable

__all__ = ["in_own_thread", "is_async", "landing", "waited_for"]


def waited_for(
    answer: Awaitable[object], loop: asyncio.AbstractEventLoop | None, seconds: float, origin: str
) -> object:
    """Return what an async function answers, to code that is not async itself.

    Args:
        answer: What it has returned.
        loop: The event loop that the work belongs to.
        seconds: How long it may take.
        origin: What the function is called, for the message.

    Raises:
        KeysUnavailable: An event loop runs on this thread.
        TimeoutError: It took longer.
    """
    if running_loop() is not None:
        if inspect.iscoroutine(answer):
            answer.close()
        raise KeysUnavailable(
            f"{origin} is async, and a synchronous client called a model on the event loop, where nothing can wait for"
            " it; use the async client, or make the call in asyncio.to_thread"
        )
    if loop is None or not loop.is_running():
        return asyncio.run(_limited(answer, seconds))
    future = asyncio.run_coroutine_threadsafe(_limited(answer, seconds), loop)
    try:
        return future.result(seconds)
    finally:
        future.cancel()


async def in_own_thread(function: Callable[[], object]) -> object:
    """Run a plain function on a thread, apart from those of the app, which a slow vault must not take."""
    # Where no key is ever looked up, nothing of this is imported.
    from kwai_middleware import _look_up_threads

    return await _look_up_threads.run(function)


async def landing(flight: Flight) -> tuple[Credential, ...] | None:
    """Return what a look-up that is under way finds; None when whoever began it has given up."""
    if running_loop() is not None:
        return await asyncio.wrap_future(flight)
    import anyio.to_thread

    return await anyio.to_thread.run_sync(flight.result, abandon_on_cancel=True)


async def _limited(answer: Awaitable[object], seconds: float) -> object:
    with anyio.fail_after(seconds):
        return await answer


def is_async(function: Callable[..., object]) -> bool:
    """Say whether calling it does nothing but make a coroutine."""
    # An object that is called has its nature in its class.
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
