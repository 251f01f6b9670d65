"""Who the running code works for: the one context variable, and the only user of contextvars-extras.

contextvars-extras is retired by its author. Of it we use what works and nothing else: a registry
that declares the variable, and its descriptor's `get` and `set`.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar, cast

import msgspec
import structlog
from contextvars_extras import ContextVarsRegistry

from kwai_middleware._caller import Caller
from kwai_middleware._slot import NOBODY, Slot

__all__ = [
    "NOBODY",
    "Binding",
    "Bound",
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


LogVariable = contextvars.ContextVar[Any]


class Bound(msgspec.Struct, eq=False):
    """One binding of a slot, and what was bound before it.

    Blocks do not always end in the order they began: a generator that binds a caller ends when it
    is closed, or when the garbage collector finds it, in whatever context that happens. So a
    binding that ends never brings back one that has ended already.

    Attributes:
        slot: Whose it is.
        previous: The binding that was current before and had not ended.
        logged_before: What structlog's variable held before.
        has_ended: Its block is over.
    """

    slot: Slot
    previous: Bound | None
    logged_before: Any
    has_ended: bool = False


_OUTSIDE = Bound(NOBODY, None, ...)


class _Current(ContextVarsRegistry):
    _registry_allocate_on_setattr = False

    bound: Any = _OUTSIDE


# The descriptor hands out the variable's own built-in methods; its `get` is a slower one that also
# knows deleted values, of which there are none here.
_set_bound: Callable[[Bound], object] = _Current.bound.set
_get_bound: Callable[[], Bound] = _Current.bound.get_raw


@functools.cache
def log_variable(key: str = "customer_id") -> LogVariable:
    """Return the context variable that structlog keeps `key` in: one for each key, made once, kept for ever.

    Used directly, it is bound and restored in a fifth of the time that structlog's functions take.
    """

    def variable() -> LogVariable:
        return structlog.contextvars.bind_contextvars(**{key: ...})[key].var

    return contextvars.copy_context().run(variable)


def bind(slot: Slot, logged_in: LogVariable | None) -> Bound:
    """Bind a slot, and the caller's identifier for structlog, until `restore` is called with what this returns.

    Both are always set, also to nobody: a server may run a request in a context inherited from the
    previous request of the connection (python/cpython#140947), so leaving a variable unset would
    serve one customer's identity to the next. In a copied context that is thrown away nothing needs
    to be restored.

    Args:
        slot: What to bind.
        logged_in: structlog's variable for the identifier; None leaves structlog alone.
    """
    previous = _get_bound()
    logged_before: Any = ... if logged_in is None else logged_in.get()
    while previous.has_ended and previous.previous is not None:
        # In an inherited context the previous request's binding is still there, though it is over.
        logged_before = previous.logged_before
        previous = previous.previous
    bound = Bound(slot, previous, logged_before)
    _set_bound(bound)
    if logged_in is not None:
        caller = slot.caller
        # structlog keeps Ellipsis in a variable that is unbound, and shows none of those.
        logged_in.set(... if caller is None or caller.identifier is None else caller.identifier)
    return bound


def restore(bound: Bound, logged_in: LogVariable | None) -> None:
    """End a binding, and whatever was bound inside of it and left open: what was before is current again."""
    bound.has_ended = True
    logged_before, previous = bound.logged_before, bound.previous
    while previous is not None and previous.has_ended:
        logged_before, previous = previous.logged_before, previous.previous
    _set_bound(previous or _OUTSIDE)
    if logged_in is not None:
        logged_in.set(logged_before)


class Binding:
    """Binds a slot around a `with` block.

    When blocks overlap, as those of two generators may, the end of one leaves the other's alone.

    Args:
        slot: What to bind.

    Raises:
        RuntimeError: The block is entered while it is open. One binding serves one block at a time.
    """

    __slots__ = ("_bound", "_slot")

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._bound: Bound | None = None

    def __enter__(self) -> Self:
        if self._bound is not None:
            raise RuntimeError("this binding is in use; make another one for another block")
        self._bound = bind(self._next_slot(), log_variable())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        bound, self._bound = self._bound, None
        if bound is None:
            return
        if _get_bound() is bound:
            restore(bound, log_variable())
        bound.has_ended = True

    def _next_slot(self) -> Slot:
        return self._slot


class _CallerBinding(Binding):
    """Binds a slot of its own for each block, in the trace of the work that the block is part of."""

    __slots__ = ()

    def _next_slot(self) -> Slot:
        around = _get_bound()
        # A worker that a request has started may inherit its binding. Jobs after that request are none of it.
        while around.has_ended and around.previous is not None:
            around = around.previous
        return around.slot.part(self._slot.caller)


def current_slot() -> Slot:
    """Return the slot of the running unit of work; `NOBODY` outside of any."""
    return _get_bound().slot


def current_caller() -> Caller | None:
    """Return who the running code works for, or None for nobody.

    Tasks, `asyncio.to_thread` and background tasks started by a request see its caller. A bare
    thread or an executor does not: wrap what it runs in `carry_caller`.
    """
    return _get_bound().slot.caller


def bind_caller(caller: Caller | None) -> Binding:
    """Make a caller current for the code inside a `with` block: for jobs, scripts and tests.

    The previous caller comes back when the block ends, also when it ends with an exception.

    The block belongs around work, not around a `yield`: between two steps of a generator its
    consumer would run for this caller, and the steps themselves need not (an event loop may take
    each in a context of its own).

    The calls of a block share a trace id, which is a new one unless the block is inside a request or
    another block: then it is theirs.

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
    return _CallerBinding(Slot(caller))


def carry_caller(function: Callable[P, R]) -> Callable[P, R]:
    """Return `function` so that it runs for today's caller, wherever and whenever it is called.

    For `threading.Thread`, executors and callbacks, which start without a caller. The caller, and the
    trace id with it, is the one current at the moment of wrapping. Plain and async functions are
    accepted, also plain ones that return a coroutine; the result may be called several times, also
    at once from several threads.

    Raises:
        TypeError: `function` is a generator function, or, when called, returns a generator: that
            runs after the call has returned.

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
        raise TypeError(_NO_GENERATORS)
    slot = current_slot()

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
