"""How a caller goes along to threads, executors and callbacks, which start without one."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, Final, ParamSpec, TypeVar, cast

from kwai_middleware._context import Binding, current_slot

__all__ = ["carry_caller"]

P = ParamSpec("P")
R = TypeVar("R")


def carry_caller(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function` so that it runs for today's caller, wherever and whenever it is called.

    For `threading.Thread`, executors and callbacks, which start without a caller. The caller, and the
    trace id with it, is the one current at the moment of wrapping. Plain and async functions are
    accepted, also plain ones that return a coroutine; the result may be called several times, also
    at once from several threads. A user who has signed in is read now, where the framework knows it.

    Raises:
        TypeError: `function` is a generator function, or, when called, returns a generator: that
            runs after the call has returned.

    Example:
        >>> import threading
        >>> from kwai_middleware import Caller, bind_caller, current_caller
        >>> with bind_caller(Caller(identifier="acme")):
        ...     thread = threading.Thread(target=carry_caller(lambda: print(current_caller().identifier)))
        >>> thread.start(); thread.join()
        acme
    """
    # An object that is called has its nature in its class.
    bodies = (function, type(function).__call__)
    if any(inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body) for body in bodies):
        raise TypeError(_NO_GENERATORS)
    slot = current_slot()
    slot.settle()  # a framework's user may be unknown on another thread

    async def awaited(coroutine: Awaitable[Any]) -> Any:
        with Binding(slot):
            return await coroutine

    if any(inspect.iscoroutinefunction(body) for body in bodies):

        @functools.wraps(function)
        async def carried_coroutine(*args: P.args, **kwargs: P.kwargs) -> Any:
            return await awaited(cast("Callable[P, Awaitable[Any]]", function)(*args, **kwargs))

        return cast("Callable[P, R]", carried_coroutine)

    @functools.wraps(function)
    def carried(*args: P.args, **kwargs: P.kwargs) -> R:
        with Binding(slot):
            result = function(*args, **kwargs)
        if inspect.isgenerator(result) or inspect.isasyncgen(result):
            raise TypeError(_NO_GENERATORS)
        # Decorated async functions look plain: the openai SDK's `create` is one.
        return cast("R", awaited(result)) if inspect.iscoroutine(result) else result

    return carried


_NO_GENERATORS: Final = "carry_caller: a generator runs after its call returned; carry the function that reads it"
