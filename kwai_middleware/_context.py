"""Who the running code works for: the one context variable, and the only user of contextvars-extras.

contextvars-extras is retired by its author. Of it we use what works and nothing else: a registry
that declares the variable, and its descriptor's `get`, `set` and `reset`.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, cast

import structlog
from contextvars_extras import ContextVarsRegistry

from kwai_middleware._caller import Caller
from kwai_middleware._secret import Secret

__all__ = [
    "NOBODY",
    "Binding",
    "LogVariable",
    "Slot",
    "bind",
    "bind_caller",
    "carry_caller",
    "current_caller",
    "current_slot",
    "log_variable",
    "restore",
]

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


# The descriptor hands out the variable's own built-in methods; its `get` is a slower one that also
# knows deleted values, of which there are none here.
_set_slot: Callable[[Slot], contextvars.Token[Slot]] = _Current.slot.set
_reset_slot: Callable[[contextvars.Token[Slot]], None] = _Current.slot.reset
_get_slot: Callable[[], Slot] = _Current.slot.get_raw


LogVariable = contextvars.ContextVar[Any]
Tokens = tuple[contextvars.Token[Slot], contextvars.Token[Any] | None]


@functools.cache
def log_variable(key: str = "customer_id") -> LogVariable:
    """Return the context variable that structlog keeps `key` in: one for each key, made once, kept for ever.

    Used directly, it is bound and restored in a fifth of the time that structlog's functions take.
    """

    def variable() -> LogVariable:
        return structlog.contextvars.bind_contextvars(**{key: ...})[key].var

    return contextvars.copy_context().run(variable)


def bind(slot: Slot, logged_in: LogVariable | None) -> Tokens:
    """Bind a slot, and the caller's identifier for structlog, until `restore` is called with what this returns.

    Both are always set, also to nobody: a server may run a request in a context inherited from the
    previous request of the connection (python/cpython#140947), so leaving a variable unset would
    serve one customer's identity to the next. In a copied context that is thrown away nothing needs
    to be restored.

    Args:
        slot: What to bind.
        logged_in: structlog's variable for the identifier; None leaves structlog alone.
    """
    token = _set_slot(slot)
    if logged_in is None:
        return token, None
    caller = slot.caller
    # structlog keeps Ellipsis in a variable that is unbound, and shows none of those.
    return token, logged_in.set(... if caller is None or caller.identifier is None else caller.identifier)


def restore(slot: Slot, logged_in: LogVariable | None, tokens: Tokens) -> None:
    """Undo `bind`, given what it was given and what it returned."""
    token, log_token = tokens
    try:
        _reset_slot(token)
        if logged_in is not None and log_token is not None:
            logged_in.reset(log_token)
    except ValueError:
        # Left in another context than it was entered in, as a generator does that is finished
        # elsewhere. That context never held our token; make sure that it does not hold our slot.
        if _get_slot() is slot:
            _set_slot(NOBODY)
            if logged_in is not None:
                logged_in.set(...)


class Binding:
    """`bind` and `restore` around a `with` block.

    Args:
        slot: What to bind.

    Raises:
        RuntimeError: The block is entered while it is open. One binding serves one block at a time.
    """

    __slots__ = ("_slot", "_tokens")

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._tokens: Tokens | None = None

    def __enter__(self) -> Self:
        if self._tokens is not None:
            raise RuntimeError("this binding is in use; make another one for another block")
        self._tokens = bind(self._slot, log_variable())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        tokens, self._tokens = self._tokens, None
        if tokens is not None:
            restore(self._slot, log_variable(), tokens)


def current_slot() -> Slot:
    """Return the slot of the running unit of work; `NOBODY` outside of any."""
    return _get_slot()


def current_caller() -> Caller | None:
    """Return who the running code works for, or None for nobody.

    Tasks, `asyncio.to_thread` and background tasks started by a request see its caller. A bare
    thread or an executor does not: wrap what it runs in `carry_caller`.
    """
    return _get_slot().caller


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
    # An object that is called has its nature in its class.
    bodies = (function, type(function).__call__)
    if any(inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body) for body in bodies):
        raise TypeError("carry_caller: a generator runs after its call returned; carry the function that reads it")
    slot = current_slot()

    if any(inspect.iscoroutinefunction(body) for body in bodies):

        @functools.wraps(function)
        async def carried_coroutine(*args: P.args, **kwargs: P.kwargs) -> Any:
            with Binding(slot):
                return await cast("Callable[P, Awaitable[Any]]", function)(*args, **kwargs)

        return cast("Callable[P, R]", carried_coroutine)

    @functools.wraps(function)
    def carried(*args: P.args, **kwargs: P.kwargs) -> R:
        with Binding(slot):
            return function(*args, **kwargs)

    return carried
