"""Who the running code works for: the one context variable, and the only user of contextvars-extras.

contextvars-extras is retired by its author. Of it we use what works and nothing else: a registry
that declares the variable, and its descriptor's `get`, `set` and `reset`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

import structlog
from contextvars_extras import ContextVarsRegistry

from kwai_middleware._caller import Caller
from kwai_middleware._secret import Secret

__all__ = ["NOBODY", "Binding", "Slot", "bind_caller", "carry_caller", "current_caller", "current_slot"]

P = ParamSpec("P")
R = TypeVar("R")


class Slot:
    """The place of one unit of work (a request, a job) for its caller.

    The context variable holds the slot, not the caller, so that an outer and an inner middleware,
    and everything below them, share one answer.

    Attributes:
        caller: Who the work is for; None for nobody.
        withheld: Key headers that were taken out of the request, by lower-case name. An inner
            middleware with `override=True` reads them as if they were still there.
    """

    __slots__ = ("caller", "withheld")

    def __init__(self, caller: Caller | None, withheld: dict[str, Secret] | None = None) -> None:
        self.caller = caller
        self.withheld = withheld


NOBODY = Slot(None)
"""What is bound when a request has no caller. Binding nobody hides whoever was bound before."""


class _Current(ContextVarsRegistry):
    _registry_allocate_on_setattr = False

    slot: Any = NOBODY


_slot: Any = _Current.slot


class Binding:
    """Binds a slot, and the caller's identifier for structlog, inside a `with` block.

    Both are always set, also to nobody: a server may run a request in a context inherited from the
    previous request of the connection (python/cpython#140947), so leaving a variable unset would
    serve one customer's identity to the next. Both are always restored.

    Args:
        slot: What to bind.
        structlog_key: The name that structlog's context variables carry the identifier under;
            None leaves structlog alone.
    """

    __slots__ = ("_log_tokens", "_slot", "_structlog_key", "_token")

    def __init__(self, slot: Slot, structlog_key: str | None = "customer_id") -> None:
        self._slot = slot
        self._structlog_key = structlog_key
        self._token: Any = None
        self._log_tokens: Any = None

    def __enter__(self) -> Self:
        self._token = _slot.set(self._slot)
        if self._structlog_key is not None:
            caller = self._slot.caller
            # structlog keeps Ellipsis in a variable that is unbound, and shows none of those.
            identifier = ... if caller is None or caller.identifier is None else caller.identifier
            self._log_tokens = structlog.contextvars.bind_contextvars(**{self._structlog_key: identifier})
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            _slot.reset(self._token)
            if self._log_tokens is not None:
                structlog.contextvars.reset_contextvars(**self._log_tokens)
        except ValueError:
            # Left in another context than it was entered in, as a generator does that is finished
            # elsewhere. That context never held our token; make sure that it does not hold our slot.
            if _slot.get() is self._slot:
                _slot.set(NOBODY)
                if self._structlog_key is not None:
                    structlog.contextvars.unbind_contextvars(self._structlog_key)


def current_slot() -> Slot:
    """Return the slot of the running unit of work; `NOBODY` outside of any."""
    return cast("Slot", _slot.get())


def current_caller() -> Caller | None:
    """Return who the running code works for, or None for nobody.

    Tasks, `asyncio.to_thread` and background tasks started by a request see its caller. A bare
    thread or an executor does not: wrap what it runs in `carry_caller`.
    """
    return cast("Slot", _slot.get()).caller


def bind_caller(caller: Caller | None) -> Binding:
    """Make a caller current for the code inside a `with` block: for jobs, scripts and tests.

    The previous caller comes back when the block ends, also when it ends with an exception.

    Args:
        caller: Who the work is for. None says that it is for nobody, which hides a caller bound
            further out.

    Raises:
        TypeError: `caller` is neither a `Caller` nor None.

    Example:
        >>> with bind_caller(Caller(identifier="acme")):
        ...     current_caller().identifier
        'acme'
        >>> current_caller() is None
        True
    """
    if caller is not None and not isinstance(caller, Caller):
        raise TypeError(f"bind_caller: expected a Caller or None, got {type(caller).__name__}")
    return Binding(NOBODY if caller is None else Slot(caller))


def carry_caller(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function` so that it runs for today's caller, wherever and whenever it is called.

    For `threading.Thread`, executors and callbacks, which start without a caller. The caller is the
    one current at the moment of wrapping. Plain and `async def` functions are accepted; the result
    may be called several times, also at once from several threads.

    Raises:
        TypeError: `function` is a generator function, which runs after the call has returned.

    Example:
        >>> import threading
        >>> with bind_caller(Caller(identifier="acme")):
        ...     thread = threading.Thread(target=carry_caller(lambda: print(current_caller().identifier)))
        >>> thread.start(); thread.join()
        acme
    """
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError("carry_caller: a generator runs after its call returned; carry the function that reads it")
    slot = current_slot()

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def carried_coroutine(*args: P.args, **kwargs: P.kwargs) -> Any:
            with Binding(slot):
                return await function(*args, **kwargs)

        return cast("Callable[P, R]", carried_coroutine)

    @functools.wraps(function)
    def carried(*args: P.args, **kwargs: P.kwargs) -> R:
        with Binding(slot):
            return function(*args, **kwargs)

    return carried
