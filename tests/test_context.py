"""Whoever is bound is bound for the block, and nothing of it stays."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import threading
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import structlog
import trio

from kwai_middleware._caller import Caller
from kwai_middleware._carrying import carry_caller
from kwai_middleware._context import (
    NOBODY,
    Slot,
    bind,
    bind_caller,
    current_caller,
    current_slot,
    log_variable,
    restore,
)

ACME = Caller(identifier="acme")
BETA = Caller(identifier="beta")


def bound() -> tuple[str | None, str | None]:
    """Who is current, for us and for structlog."""
    caller = current_caller()
    return (None if caller is None else caller.identifier, structlog.contextvars.get_contextvars().get("customer_id"))


def in_new_thread(function: Callable[[], Any]) -> Any:
    """What `function` returns on a thread that starts with an empty context."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(function).result()


def test_nobody_is_current_at_first() -> None:
    """Outside of any block nobody is current, and there is still a slot to ask."""
    assert current_caller() is None
    assert NOBODY is current_slot()


def test_a_caller_is_current_inside_the_block_only() -> None:
    """Ours and structlog's view begin and end together."""
    with bind_caller(ACME):
        assert bound() == ("acme", "acme")
        assert ACME is current_slot().caller
    assert bound() == (None, None)


def test_blocks_nest() -> None:
    """The inner caller hides the outer one, and nobody hides both."""
    with bind_caller(ACME):
        with bind_caller(BETA):
            assert bound() == ("beta", "beta")
        with bind_caller(None):
            assert bound() == (None, None)
        assert bound() == ("acme", "acme")


def test_an_exception_does_not_leave_the_caller_behind() -> None:
    """The block ends by an exception like by any other way, and lets it through."""
    with pytest.raises(ZeroDivisionError), bind_caller(ACME):
        raise ZeroDivisionError
    assert bound() == (None, None)


def test_a_caller_without_identifier_hides_the_one_before_in_structlog_too() -> None:
    """A caller with only a key is not logged under the name of whoever is bound further out."""
    with bind_caller(ACME), bind_caller(Caller(name="only a name")):
        assert structlog.contextvars.get_contextvars() == {}


def test_what_the_app_has_bound_in_structlog_comes_back() -> None:
    """A `customer_id` of the app's own is hidden for the block and then restored; its other names stay."""
    with structlog.contextvars.bound_contextvars(customer_id="theirs", other=1):
        with bind_caller(ACME):
            assert structlog.contextvars.get_contextvars() == {"customer_id": "acme", "other": 1}
        assert structlog.contextvars.get_contextvars() == {"customer_id": "theirs", "other": 1}


def test_structlog_can_unbind_what_was_bound() -> None:
    """The variable is structlog's own, so its functions work on it inside the block."""
    with bind_caller(ACME):
        structlog.contextvars.unbind_contextvars("customer_id")
        assert bound() == ("acme", None)
        structlog.contextvars.bind_contextvars(customer_id="renamed")
        assert bound() == ("acme", "renamed")
    assert bound() == (None, None)


def test_structlog_is_left_alone_on_request() -> None:
    """Without a variable to bind, structlog knows nothing of the caller."""
    binding = bind(Slot(ACME), None)
    assert bound() == ("acme", None)
    restore(binding, None)
    assert bound() == (None, None)


def test_leaving_a_block_that_was_not_entered_does_nothing() -> None:
    """There is nothing to restore then."""
    with bind_caller(BETA):
        bind_caller(ACME).__exit__(None, None, None)
        assert bound() == ("beta", "beta")


@pytest.mark.parametrize("caller", ["acme", 5, Slot(ACME)])
def test_only_a_caller_can_be_bound(caller: Any) -> None:
    """A wrong type is refused at once, by a message that names the type only."""
    with pytest.raises(TypeError, match=f"^bind_caller: expected a Caller or None, got {type(caller).__name__}$"):
        bind_caller(caller)


def test_a_binding_serves_one_block_at_a_time() -> None:
    """Entering a block that is open is an error and leaves the open one as it is; afterwards it can be used again."""
    binding = bind_caller(ACME)
    with binding:
        with pytest.raises(RuntimeError, match="in use"):
            binding.__enter__()
        assert bound() == ("acme", "acme")
    assert bound() == (None, None)
    with binding:
        assert bound() == ("acme", "acme")
    assert bound() == (None, None)


@pytest.mark.parametrize("logged", [True, False])
def test_a_block_left_in_another_context_leaves_nothing_there(logged: bool) -> None:
    """A generator finished elsewhere takes its caller out of a context that was copied from its own."""

    def steps() -> Generator[None]:
        logged_in = log_variable() if logged else None
        binding = bind(Slot(ACME), logged_in)
        try:
            yield
        finally:
            restore(binding, logged_in)

    first = contextvars.copy_context()
    generator = steps()
    first.run(next, generator)
    assert first.run(bound) == ("acme", "acme" if logged else None)
    copied = first.copy()
    copied.run(generator.close)
    assert copied.run(bound) == (None, None)
    assert bound() == (None, None)


def test_a_block_left_in_another_context_leaves_the_caller_of_that_one() -> None:
    """A generator of one request that is finished in another's context does not touch the other's caller."""

    def steps() -> Generator[None]:
        with bind_caller(ACME):
            yield

    generator = steps()
    contextvars.copy_context().run(next, generator)
    with bind_caller(BETA):
        generator.close()
        assert bound() == ("beta", "beta")


def _answers(caller: Caller, seen: list[Any]) -> Generator[None]:
    """Two steps of work for one caller."""
    with bind_caller(caller):
        for _ in range(2):
            seen.append((caller.identifier, bound()))
            yield


def test_blocks_that_overlap_do_not_bring_each_other_back() -> None:
    """Two generators taken in turns: whichever ends first, nobody is left afterwards, and none comes back."""
    seen: list[Any] = []
    a, b = _answers(ACME, seen), _answers(BETA, seen)
    next(a)
    next(b)
    assert bound() == ("beta", "beta")
    a.close()
    assert bound() == ("beta", "beta")
    b.close()
    assert bound() == (None, None)


def test_a_forgotten_block_that_the_garbage_collector_ends_changes_nothing() -> None:
    """A generator in a reference cycle is ended in the middle of somebody else's work."""

    def forget() -> None:
        cycle: list[Any] = []
        cycle.append(cycle)
        cycle.append(_answers(ACME, []))
        next(cycle[1])

    unit = bind(NOBODY, log_variable())
    forget()
    restore(unit, log_variable())
    assert bound() == (None, None)
    with bind_caller(BETA):
        gc.collect()
        assert bound() == ("beta", "beta")
    assert bound() == (None, None)


def test_the_end_of_a_unit_of_work_ends_what_was_left_open_in_it() -> None:
    """What a request has bound and not restored is over with the request."""
    with bind_caller(BETA):
        request = bind(Slot(ACME), log_variable())
        generator = _answers(ACME, [])
        next(generator)
        restore(request, log_variable())
        assert bound() == ("beta", "beta")
        generator.close()
        assert bound() == ("beta", "beta")


def test_a_block_that_ends_in_a_copied_context_restores_there() -> None:
    """The previous caller comes back in the copy; nobody would put the rest of the work on the app's bill."""
    with bind_caller(BETA):
        inner = bind_caller(ACME)
        context = contextvars.copy_context()
        context.run(inner.__enter__)
        copied = context.copy()
        copied.run(inner.__exit__, None, None, None)
        assert copied.run(bound) == ("beta", "beta")


def test_what_the_app_logs_comes_back_over_blocks_that_have_ended() -> None:
    """Structlog's value of before the first block is restored when the last one ends, in whatever order they end."""
    with structlog.contextvars.bound_contextvars(customer_id="the app's"):
        first, second = bind_caller(ACME), bind_caller(BETA)
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert bound() == ("beta", "beta")
        second.__exit__(None, None, None)
        assert bound() == (None, "the app's")


def test_an_inherited_context_does_not_remember_each_request() -> None:
    """On a connection whose requests inherit from each other, what is over is let go of."""
    first = weakref.ref(Slot(ACME))
    contexts = [contextvars.copy_context()]
    for _ in range(5):
        slot = Slot(ACME)
        first = weakref.ref(slot) if first() is None else first
        binding = contexts[-1].run(bind, slot, log_variable())
        contexts.append(contexts[-1].copy())
        contexts[-2].run(restore, binding, log_variable())
        del slot, binding, contexts[0]
    contexts[-1].run(bind, NOBODY, log_variable())
    assert contexts[-1].run(bound) == (None, None)
    assert first() is None


def test_what_is_bound_in_a_copied_context_stays_there() -> None:
    """In a context that is thrown away nothing has to be restored, and nothing gets out of it."""
    context = contextvars.copy_context()
    context.run(bind, Slot(ACME), log_variable())
    assert context.run(bound) == ("acme", "acme")
    context.run(bind, NOBODY, log_variable())
    assert context.run(bound) == (None, None)
    assert bound() == (None, None)


def test_tasks_and_to_thread_see_the_caller_of_their_start() -> None:
    """A task keeps the caller it was started under, also when the block has ended before it runs."""

    async def main() -> list[tuple[str | None, str | None]]:
        async def look() -> tuple[str | None, str | None]:
            return bound()

        with bind_caller(ACME):
            task = asyncio.create_task(look())
            threaded = await asyncio.to_thread(bound)
        return [await task, threaded, bound()]

    assert [("acme", "acme"), ("acme", "acme"), (None, None)] == asyncio.run(main())


def test_trio_tasks_see_the_caller_of_their_start() -> None:
    """The same holds under trio."""
    seen: list[tuple[str | None, str | None]] = []

    async def look() -> None:
        seen.append(bound())

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            with bind_caller(ACME):
                nursery.start_soon(look)
        seen.append(await trio.to_thread.run_sync(bound))

    trio.run(main)
    assert [("acme", "acme"), (None, None)] == seen


def test_a_bare_thread_sees_nobody_unless_carried() -> None:
    """An executor's thread starts without a caller; what is carried runs for the caller of the wrapping."""
    with bind_caller(ACME):
        carried = carry_caller(bound)
        assert in_new_thread(bound) == (None, None)
    assert in_new_thread(carried) == ("acme", "acme")
    assert in_new_thread(carried) == ("acme", "acme")
    with bind_caller(BETA):
        assert carried() == ("acme", "acme")
        assert bound() == ("beta", "beta")


def test_carrying_nobody_hides_somebody() -> None:
    """A function wrapped while nobody was current runs for nobody."""
    carried = carry_caller(bound)
    with bind_caller(ACME):
        assert carried() == (None, None)


def test_a_carried_function_runs_on_several_threads_at_once() -> None:
    """One wrapped function serves several threads at the same time, each with the caller."""
    barrier = threading.Barrier(4, timeout=30)

    def look() -> tuple[str | None, str | None]:
        barrier.wait()
        return bound()

    with bind_caller(ACME):
        carried = carry_caller(look)
    with ThreadPoolExecutor(4) as executor:
        seen = [future.result() for future in [executor.submit(carried) for _ in range(4)]]
    assert [("acme", "acme")] * 4 == seen


class Called:
    """An object that is called like a coroutine function."""

    async def __call__(self, extra: str) -> tuple[str | None, str]:
        await asyncio.sleep(0)
        return bound()[0], extra


async def look_async(extra: str) -> tuple[str | None, str]:
    """Who is current after a turn of the loop."""
    await asyncio.sleep(0)
    return bound()[0], extra


@pytest.mark.parametrize(
    "function",
    [look_async, Called(), functools.partial(look_async), Called().__call__],
    ids=["def", "object", "partial", "method"],
)
def test_an_async_function_is_carried_through_its_awaits(function: Callable[[str], Any]) -> None:
    """However an async function comes, its body runs for the caller, not only the making of its coroutine."""
    with bind_caller(ACME):
        carried = carry_caller(function)

    async def main() -> Any:
        return await carried("more"), bound()

    assert (("acme", "more"), (None, None)) == asyncio.run(main())


def generate() -> Iterator[None]:
    """A generator function."""
    yield


async def generate_async() -> AsyncIterator[None]:
    """An asynchronous generator function."""
    yield


class Generates:
    """An object that is called like a generator function."""

    def __call__(self) -> Iterator[None]:
        yield


@pytest.mark.parametrize("function", [generate, generate_async, Generates(), functools.partial(generate)])
def test_a_generator_function_is_refused(function: Callable[[], object]) -> None:
    """What runs after its call has returned cannot be carried, and is not taken for something that can."""
    with pytest.raises(TypeError, match=r"^carry_caller: a generator runs after its call returned"):
        carry_caller(function)


def test_a_plain_function_that_returns_a_coroutine_is_carried_through_its_awaits() -> None:
    """Decorated async functions look plain, the openai SDK's `create` among them."""

    async def who() -> Any:
        await asyncio.sleep(0)
        return bound()

    def decorated() -> Any:
        return who()

    with bind_caller(ACME):
        carried = carry_caller(decorated)

    async def elsewhere() -> Any:
        with bind_caller(BETA):
            return await carried(), bound()

    assert (("acme", "acme"), ("beta", "beta")) == asyncio.run(elsewhere())


@pytest.mark.parametrize("generate", [lambda: (each for each in "ab"), lambda: _async_steps()])
def test_a_function_that_returns_a_generator_is_refused_when_called(generate: Callable[[], Any]) -> None:
    """Its steps would run for whoever takes them."""
    with pytest.raises(TypeError, match="carry the function that reads it"):
        carry_caller(generate)()


async def _async_steps() -> AsyncGenerator[None]:
    yield


def test_a_carried_function_keeps_its_name() -> None:
    """A wrapped function is still known by its own name and words."""
    assert carry_caller(bound).__name__ == "bound"
    assert carry_caller(look_async).__doc__ == look_async.__doc__
