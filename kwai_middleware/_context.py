"""Who the running code works for: the one context variable, and the only user of contextvars-extras.

contextvars-extras is retired by its author. Of it we use what works and nothing else: a registry
that declares the variable, and its descriptor's `get` and `set`.
"""

from __future__ import annotations

import contextvars
import functools
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar, cast

import msgspec
import structlog
from contextvars_extras import ContextVarsRegistry

from kwai_middleware._caller import Caller
from kwai_middleware._slot import NOBODY, Slot
from kwai_middleware._unsettled import NO_ORIGINS, KeySource, Origins, Unsettled, running_loop

__all__ = [
    "NOBODY",
    "Binding",
    "Bound",
    "LogVariable",
    "Slot",
    "bind",
    "bind_caller",
    "current_caller",
    "current_slot",
    "explain",
    "log_variable",
    "restore",
    "served_slot",
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
        is_of_asgi: An ASGI door has bound it around the app.
        has_ended: Its block is over.
    """

    slot: Slot
    previous: Bound
    logged_before: Any
    is_of_asgi: bool = False
    has_ended: bool = False


_OUTSIDE: Final = Bound(NOBODY, cast("Any", None), ...)  # which never ends, so nobody asks what was before


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


def bind(slot: Slot, logged_in: LogVariable | None, is_of_asgi: bool = False) -> Bound:
    """Bind a slot, and the caller's identifier for structlog, until `restore` is called with what this returns.

    Both are always set, also to nobody: a server may run a request in a context inherited from the
    previous request of the connection (python/cpython#140947), so leaving a variable unset would
    serve one customer's identity to the next. In a copied context that is thrown away nothing needs
    to be restored.

    Args:
        slot: What to bind.
        logged_in: structlog's variable for the identifier; None leaves structlog alone.
        is_of_asgi: Whether an ASGI door serves a request with it; `served_slot` tells.
    """
    previous = _get_bound()
    logged: Any = ... if logged_in is None else logged_in.get()
    logged_before = logged
    while previous.has_ended:
        # In an inherited context the previous request's binding is still there, though it is over.
        logged_before = previous.logged_before
        previous = previous.previous
    bound = Bound(slot, previous, logged_before, is_of_asgi)
    _set_bound(bound)
    if logged_in is not None:
        caller = slot.known
        # structlog keeps Ellipsis in a variable that is unbound, and shows none of those.
        identifier: Any = ... if caller is None or caller.identifier is None else caller.identifier
        if identifier is not logged:  # most often it is unbound and stays so; to set it takes thrice the time of a look
            logged_in.set(identifier)
    return bound


def restore(bound: Bound, logged_in: LogVariable | None) -> None:
    """End a binding, and whatever was bound inside of it and left open: what was before is current again.

    A context that has it not is left alone: a task that its loop has lost is ended by the garbage collector, in the
    middle of somebody else's work.
    """
    bound.has_ended = True
    if _get_bound() is not bound and not _is_around(bound):
        return
    logged_before, previous = bound.logged_before, bound.previous
    while previous.has_ended:
        logged_before, previous = previous.logged_before, previous.previous
    _set_bound(previous)
    if logged_in is not None and logged_in.get() is not logged_before:
        logged_in.set(logged_before)


def _is_around(bound: Bound) -> bool:
    """Return whether what is current was bound inside of this binding."""
    inner = _get_bound()
    while inner is not _OUTSIDE and inner is not bound:
        inner = inner.previous
    return inner is bound


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
    """Binds a slot of its own for each block, in the trace of the work that the block is part of.

    Args:
        slot: Whose caller to bind, and where that came from.
        keys: Where the caller's keys are looked up.
    """

    __slots__ = ("_keys",)

    def __init__(self, slot: Slot, keys: KeySource | None) -> None:
        super().__init__(slot)
        self._keys = keys

    def _next_slot(self) -> Slot:
        around = _get_bound()
        # A worker that a request has started may inherit its binding. Jobs after that request are none of it.
        while around.has_ended:
            around = around.previous
        unsettled = None if self._keys is None else Unsettled(keys=self._keys, loop=running_loop())
        return around.slot.part(self._slot.known, brought=self._slot.brought, unsettled=unsettled)


def current_slot() -> Slot:
    """Return the slot of the running unit of work; `NOBODY` outside of any."""
    return _get_bound().slot


def served_slot() -> Slot | None:
    """Return the slot of the request that an ASGI door serves right now in this context; None when none does.

    By this a WSGI door below it, in a bridge, knows that the slot is its own request's. The context alone does not
    tell that, since it may be inherited from a request that has ended.
    """
    bound = _get_bound()
    while bound is not _OUTSIDE and not bound.is_of_asgi:
        bound = bound.previous  # the app has bound a caller on the way
    return bound.slot if bound.is_of_asgi and not bound.has_ended else None


def current_caller() -> Caller | None:
    """Return who the running code works for, or None for nobody.

    Tasks, `asyncio.to_thread` and background tasks started by a request see its caller. A bare
    thread or an executor does not: wrap what it runs in `carry_caller`.
    """
    return _get_bound().slot.caller


def explain() -> Origins:
    """Return where the current caller's identity and keys came from: for a debug page or a support ticket.

    A few words each, never a value: `jwt`, `header via proxy secret`, `callable app.auth.who`. What is
    looked up only when a call needs it, a vault's keys say, is None until then. Records have the same
    as `identity_from` and `key_from`.

    Example:
        >>> with bind_caller(Caller(identifier="acme")):
        ...     explain()
        Origins(identity='bind_caller', keys=None)
    """
    return _get_bound().slot.origins


def bind_caller(caller: Caller | None, *, credentials: KeySource | None = None, origin: str = "bind_caller") -> Binding:
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
        credentials: A `KeyResolver`: where the keys of a caller without any are looked up, when a call
            needs them.
        origin: Where the caller came from, in a few words, for `explain` and the records.

    Raises:
        TypeError: `caller` is neither a `Caller` nor None, or `credentials` no `KeyResolver`.

    Example:
        >>> with bind_caller(Caller(identifier="acme")):
        ...     current_caller().identifier
        'acme'
        >>> current_caller() is None
        True
    """
    if caller is not None and not isinstance(caller, Caller):
        raise TypeError(f"bind_caller: expected a Caller or None, got {type(caller).__name__}")
    if credentials is not None and not isinstance(credentials, KeySource):
        raise TypeError(f"bind_caller: credentials is a KeyResolver or None, got {type(credentials).__name__}")
    brought = NO_ORIGINS
    if caller is not None:
        brought = Origins(origin, origin if caller.credentials else None)
    return _CallerBinding(Slot(caller, brought=brought), credentials)
