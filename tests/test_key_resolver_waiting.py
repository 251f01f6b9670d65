"""Many calls that need keys at once: who looks them up, where that runs, and how the others wait."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio.to_thread
import httpx
import pytest
import trio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from kwai_middleware import (
    ASGIMiddleware,
    Caller,
    Credential,
    KeyResolver,
    Secret,
    WSGIMiddleware,
    bind_caller,
    httpx_transport,
)
from kwai_middleware._unsettled import KeySource
from kwai_middleware.errors import KeysUnavailable
from tests.support.callers import OPENROUTER, key_of, settings
from tests.support.looked_up import ASKS
from tests.support.processes import DEADLINE
from tests.support.shipping import until

ACME = Caller(identifier="acme")
IDENTITY = {"x-customer-id": "acme"}


def credentials_of(caller: Caller) -> list[Credential]:
    return [Credential(api_key=Secret(key_of(str(caller.identifier))))]


def paid_with(request: httpx.Request) -> str:
    return str(request.headers["authorization"]).removeprefix("Bearer ")


class Network:
    """Answers each call with the key that paid."""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"paid": paid_with(request)})

    def client(self) -> httpx.Client:
        transport = httpx_transport.KwaiTransport(
            httpx.MockTransport(self), settings=settings(), deliver=lambda _: None
        )
        return httpx.Client(transport=transport)

    def async_client(self) -> httpx.AsyncClient:
        inner = httpx.MockTransport(self)
        transport = httpx_transport.AsyncKwaiTransport(inner, settings=settings(), deliver=lambda _: None)
        return httpx.AsyncClient(transport=transport)

    def ask(self, who: Caller, keys: KeySource) -> str:
        with bind_caller(who, credentials=keys), self.client() as client:
            return str(client.post(OPENROUTER, **ASKS).json()["paid"])

    async def ask_async(self, who: Caller, keys: KeySource) -> str:
        with bind_caller(who, credentials=keys):
            async with self.async_client() as client:
                return str((await client.post(OPENROUTER, **ASKS)).json()["paid"])


class SlowVault:
    """Answers when the test says so, and tells when it was asked."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []
        self.questions = threading.Semaphore(0)
        self.may_answer = threading.Event()
        self.threads: list[threading.Thread] = []

    async def has_been_asked(self, times: int = 1) -> None:
        """Wait until it has been asked so often; the event loop goes on meanwhile."""
        for _ in range(times):
            assert await asyncio.to_thread(self.questions.acquire, timeout=DEADLINE)

    def keys_of(self, caller: Caller) -> list[Credential]:
        self.asked.append(caller.identifier)
        self.threads.append(threading.current_thread())
        self.questions.release()
        assert self.may_answer.wait(DEADLINE)
        return credentials_of(caller)

    async def keys_of_async(self, caller: Caller) -> list[Credential]:
        self.asked.append(caller.identifier)
        self.questions.release()
        assert await anyio.to_thread.run_sync(self.may_answer.wait, DEADLINE, abandon_on_cancel=True)
        return credentials_of(caller)


@pytest.fixture
def vault() -> Iterator[SlowVault]:
    slow = SlowVault()
    yield slow
    slow.may_answer.set()


async def _everybody(vault: SlowVault, keys: KeyResolver, callers: list[Caller]) -> list[str]:
    network = Network()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(network.ask_async(who, keys)) for who in callers]
        await vault.has_been_asked()
        vault.may_answer.set()
    return [task.result() for task in tasks]


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_one_look_up_for_all_calls_at_once(vault: SlowVault, kind: str) -> None:
    """32 calls of one customer begin at once on an event loop: its vault is asked once."""
    keys = KeyResolver(vault.keys_of if kind == "plain" else vault.keys_of_async)
    assert [key_of("acme")] * 32 == asyncio.run(_everybody(vault, keys, [ACME] * 32))
    assert ["acme"] == vault.asked


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_many_tenants_at_once(vault: SlowVault, kind: str) -> None:
    """64 customers with four calls each: everybody's calls are paid by their own keys, looked up once each."""
    keys = KeyResolver(vault.keys_of if kind == "plain" else vault.keys_of_async)
    callers = [Caller(identifier=f"customer-{number % 64}") for number in range(256)]
    paid = asyncio.run(_everybody(vault, keys, callers))
    assert [key_of(str(who.identifier)) for who in callers] == paid
    assert 64 == len(set(vault.asked)) == len(vault.asked)


def test_one_look_up_for_all_threads(vault: SlowVault) -> None:
    """16 threads with a synchronous client, one of which looks up."""
    keys, network = KeyResolver(vault.keys_of), Network()
    with ThreadPoolExecutor(16) as pool:
        paid = [pool.submit(network.ask, ACME, keys) for _ in range(16)]
        assert vault.questions.acquire(timeout=DEADLINE)
        vault.may_answer.set()
        assert {key_of("acme")} == {each.result(DEADLINE) for each in paid}
    assert ["acme"] == vault.asked


def test_a_plain_function_never_blocks_the_loop(vault: SlowVault) -> None:
    """While the vault takes its time for one customer, the loop goes on."""

    async def goes_on() -> str:
        task = asyncio.create_task(Network().ask_async(ACME, KeyResolver(vault.keys_of)))
        await vault.has_been_asked()
        assert threading.main_thread() is not vault.threads[0]
        vault.may_answer.set()
        return await task

    assert key_of("acme") == asyncio.run(goes_on())


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_the_first_one_is_cancelled(vault: SlowVault, kind: str) -> None:
    """Whoever looks up is cancelled: those who wait for it begin anew, and get their keys."""
    keys = KeyResolver(vault.keys_of if kind == "plain" else vault.keys_of_async)

    async def cancelled() -> list[str]:
        network = Network()
        first = asyncio.create_task(network.ask_async(ACME, keys))
        await vault.has_been_asked()
        others = [asyncio.create_task(network.ask_async(ACME, keys)) for _ in range(4)]
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert first.cancelled()
        await vault.has_been_asked()
        vault.may_answer.set()
        return [await other for other in others]

    assert [key_of("acme")] * 4 == asyncio.run(cancelled())
    assert ["acme"] * 2 == vault.asked


@pytest.mark.parametrize("ttl", [0, 60])
@pytest.mark.parametrize("fails", [False, True])
def test_a_cancellation_that_comes_after_the_answer(vault: SlowVault, ttl: float, fails: bool) -> None:
    """The thread has the answer, and the loop has not seen it yet: whoever is cancelled then calls no model."""
    landed = threading.Event()

    def keys_of(caller: Caller) -> list[Credential]:
        credentials = vault.keys_of(caller)
        if fails:
            raise OSError
        return credentials

    keys = KeyResolver(keys_of, ttl=ttl)

    async def cancelled() -> None:
        call = asyncio.create_task(Network().ask_async(ACME, keys))
        await vault.has_been_asked()
        (flight,) = keys._cache._flights.values()
        flight.add_done_callback(lambda _: landed.set())
        vault.may_answer.set()
        if not fails:
            assert landed.wait(DEADLINE)  # the loop is blocked meanwhile, and so sees both at once
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(cancelled())


def test_a_vault_that_hangs_takes_no_thread_for_each_call(vault: SlowVault) -> None:
    """Look-ups that nobody waits for any more are counted; with too many of them calls are refused at once."""

    async def hangs() -> list[BaseException | str]:
        network, keys = Network(), KeyResolver(vault.keys_of, timeout=0.02)
        refused: list[BaseException | str] = []
        while len(vault.asked) < 80:
            callers = [Caller(identifier=f"c{len(refused)}-{number}") for number in range(20)]
            refused += await asyncio.gather(*(network.ask_async(who, keys) for who in callers), return_exceptions=True)
        asked = len(vault.asked)
        last = await asyncio.gather(network.ask_async(ACME, keys), return_exceptions=True)
        assert asked == len(vault.asked)
        return last

    (refused,) = asyncio.run(hangs())
    assert "failed with RuntimeError" in str(refused)
    assert "does the vault hang?" in str(getattr(refused, "__cause__", None))


def test_one_who_waits_is_cancelled(vault: SlowVault) -> None:
    """Somebody who only waits is cancelled: the look-up goes on for the others."""
    keys = KeyResolver(vault.keys_of_async)

    async def cancelled() -> str:
        network = Network()
        first = asyncio.create_task(network.ask_async(ACME, keys))
        await vault.has_been_asked()
        second = asyncio.create_task(network.ask_async(ACME, keys))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        vault.may_answer.set()
        return await first

    assert key_of("acme") == asyncio.run(cancelled())
    assert ["acme"] == vault.asked


def test_a_plain_function_with_an_async_answer() -> None:
    """A lambda around an async function is awaited as one, under either client."""
    loops, network = Loops(), Network()
    keys = KeyResolver(lambda caller: loops(caller), ttl=0)
    assert key_of("acme") == asyncio.run(network.ask_async(ACME, keys))
    assert key_of("acme") == network.ask(ACME, keys)


def test_an_answer_to_wait_for_that_is_no_coroutine() -> None:
    """A future of the loop is refused to a synchronous client on it, as a coroutine is."""

    async def on_the_loop() -> None:
        later = asyncio.get_running_loop().create_future()
        with pytest.raises(KeysUnavailable, match="use the async client"):
            Network().ask(ACME, KeyResolver(lambda caller: later))

    asyncio.run(on_the_loop())


class Interrupted(BaseException):
    """What a program is stopped by."""


def test_the_first_thread_is_interrupted() -> None:
    """An interrupt in the app's function passes through, and the next call looks up anew."""
    outcomes: list[Any] = [Interrupted(), None]

    def keys_of(caller: Caller) -> list[Credential]:
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome
        return credentials_of(caller)

    keys = KeyResolver(keys_of)
    with pytest.raises(Interrupted):
        Network().ask(ACME, keys)
    assert key_of("acme") == Network().ask(ACME, keys)


def test_a_thread_waits_for_one_that_is_interrupted(vault: SlowVault) -> None:
    """Those who waited for it begin anew."""

    def keys_of(caller: Caller) -> list[Credential]:
        credentials = vault.keys_of(caller)
        if len(vault.asked) == 1:
            raise Interrupted
        return credentials

    keys, network = KeyResolver(keys_of), Network()
    second = threading.Thread(target=lambda: paid.append(network.ask(ACME, keys)))
    paid: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(network.ask, ACME, keys)
        assert vault.questions.acquire(timeout=DEADLINE)
        second.start()
        until(lambda: _waits(second))
        vault.may_answer.set()
        assert Interrupted is type(first.exception(DEADLINE))
    second.join(DEADLINE)
    assert [key_of("acme")] == paid
    assert ["acme"] * 2 == vault.asked


def _waits(thread: threading.Thread) -> bool:
    """Whether a thread stands where it waits for another one's look-up."""
    frame = sys._current_frames().get(thread.ident or 0)
    return frame is not None and "wait" == frame.f_code.co_name


@pytest.mark.parametrize("kind", ["plain", "async"])
def test_a_look_up_that_takes_too_long(vault: SlowVault, kind: str) -> None:
    """On an event loop each look-up has a deadline, for those who wait as well; then the calls are refused."""
    keys = KeyResolver(vault.keys_of if kind == "plain" else vault.keys_of_async, timeout=0.05)

    async def too_long() -> list[BaseException | str]:
        network = Network()
        return await asyncio.gather(*(network.ask_async(ACME, keys) for _ in range(4)), return_exceptions=True)

    refused = asyncio.run(too_long())
    assert [KeysUnavailable] * 4 == [type(each) for each in refused]
    assert {"TimeoutError"} == {type(each.__cause__).__name__ for each in refused if isinstance(each, KeysUnavailable)}


def test_a_thread_does_not_wait_for_ever(vault: SlowVault) -> None:
    """A synchronous client that waits for another thread's look-up gives up at its deadline."""
    keys, network = KeyResolver(vault.keys_of, timeout=0.05), Network()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(network.ask, ACME, keys)
        assert vault.questions.acquire(timeout=DEADLINE)
        with pytest.raises(KeysUnavailable, match="TimeoutError"):
            network.ask(ACME, keys)
        vault.may_answer.set()
        assert key_of("acme") == first.result(DEADLINE)


def test_threads_are_told_of_a_failure(vault: SlowVault) -> None:
    """When the one look-up fails, it has failed for all who waited."""

    def keys_of(caller: Caller) -> list[Credential]:
        vault.keys_of(caller)
        raise OSError

    keys, network = KeyResolver(keys_of), Network()
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(network.ask, ACME, keys) for _ in range(4)]
        assert vault.questions.acquire(timeout=DEADLINE)
        vault.may_answer.set()
        assert {KeysUnavailable} == {type(each.exception(DEADLINE)) for each in calls}


class Loops:
    """An async vault that notes on which event loop it is asked."""

    def __init__(self) -> None:
        self.asked: list[asyncio.AbstractEventLoop] = []

    async def __call__(self, caller: Caller) -> list[Credential]:
        self.asked.append(asyncio.get_running_loop())
        await asyncio.sleep(0)
        return credentials_of(caller)


def served(ask: Callable[[Request], Any], keys: KeySource) -> tuple[dict[str, Any], asyncio.AbstractEventLoop]:
    """Send one request to an app; return its answer, and the loop that it was served on."""

    async def serve() -> tuple[dict[str, Any], asyncio.AbstractEventLoop]:
        app = ASGIMiddleware(Starlette(routes=[Route("/", ask)]), credentials=keys)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
            answer = await client.get("/", headers=IDENTITY)
            return answer.json(), asyncio.get_running_loop()

    return asyncio.run(serve())


def test_an_async_vault_under_a_synchronous_client_on_a_worker_thread() -> None:
    """It runs on the event loop of the request, where its connections live."""
    loops, network = Loops(), Network()

    def ask(request: Request) -> JSONResponse:  # Starlette runs it on a worker thread
        with network.client() as client:
            return JSONResponse(client.post(OPENROUTER, **ASKS).json())

    answer, loop = served(ask, KeyResolver(loops))
    assert {"paid": key_of("acme")} == answer
    assert [loop] == loops.asked


def test_an_async_vault_that_hangs_under_a_synchronous_client() -> None:
    """The worker thread waits until the deadline, the call is refused, and nothing of it runs on."""
    cancelled = threading.Event()

    async def keys_of(caller: Caller) -> list[Credential]:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    def ask(request: Request) -> JSONResponse:
        with Network().client() as client:
            try:
                client.post(OPENROUTER, **ASKS)
            except KeysUnavailable as refused:
                return JSONResponse({"refused": str(refused)})
        raise AssertionError

    answer, _ = served(ask, KeyResolver(keys_of, timeout=0.05))
    assert "failed with TimeoutError" in answer["refused"]
    assert cancelled.wait(DEADLINE)


@pytest.mark.parametrize("written", ["async def", "lambda"])
def test_a_synchronous_client_on_the_loop_itself(written: str) -> None:
    """There nobody can wait for an async vault: the refusal says so, and what to do; a thread is not affected."""
    loops, network = Loops(), Network()
    keys = KeyResolver(loops if written == "async def" else lambda caller: loops(caller))

    async def ask(request: Request) -> JSONResponse:
        with network.client() as client:
            try:
                client.post(OPENROUTER, **ASKS)
            except KeysUnavailable as refused:
                paid = await asyncio.to_thread(lambda: client.post(OPENROUTER, **ASKS).json())
                return JSONResponse({"refused": str(refused), **paid})
        raise AssertionError

    answer, _ = served(ask, keys)
    assert "use the async client, or make the call in asyncio.to_thread" in answer["refused"]
    assert key_of("acme") == answer["paid"]


def test_a_synchronous_client_on_the_loop_of_those_who_look_up(vault: SlowVault) -> None:
    """Somebody blocks the loop with a synchronous call while a look-up of the same loop is under way: no deadlock."""
    asked: list[str | None] = []

    async def both() -> tuple[str, str]:
        network = Network()

        def keys_of(caller: Caller) -> list[Credential]:
            asked.append(caller.identifier)
            return vault.keys_of(caller) if len(asked) == 1 else credentials_of(caller)

        keys = KeyResolver(keys_of)
        first = asyncio.create_task(network.ask_async(ACME, keys))
        await vault.has_been_asked()
        second = network.ask(ACME, keys)
        vault.may_answer.set()
        return await first, second

    assert (key_of("acme"),) * 2 == asyncio.run(both())
    assert ["acme"] * 2 == asked


def test_an_async_vault_under_wsgi() -> None:
    """There is no event loop to run on: it gets one of its own."""
    loops, network = Loops(), Network()

    def app(environ: Any, start_response: Any) -> list[bytes]:
        with network.client() as client:
            body = client.post(OPENROUTER, **ASKS).content
        start_response("200 OK", [("content-length", str(len(body)))])
        return [body]

    transport = httpx.WSGITransport(WSGIMiddleware(app, credentials=KeyResolver(loops)))
    with httpx.Client(transport=transport, base_url="http://app") as client:
        assert key_of("acme") == client.get("/", headers=IDENTITY).json()["paid"]
    assert 1 == len(loops.asked)
    assert loops.asked[0].is_closed()


def test_under_trio() -> None:
    """Another loop than asyncio's: plain and async vaults, one that looks up and one that waits."""
    asked: list[str] = []

    async def keys_of(caller: Caller) -> list[Credential]:
        asked.append("async")
        await trio.sleep(0.01)
        return credentials_of(caller)

    def keys_of_plain(caller: Caller) -> list[Credential]:
        asked.append("plain")
        return credentials_of(caller)

    paid: list[str] = []

    async def ask(keys: KeyResolver) -> None:
        paid.append(await Network().ask_async(ACME, keys))

    async def everybody() -> None:
        for function in (keys_of, keys_of_plain):
            keys = KeyResolver(function)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask, keys)
                nursery.start_soon(ask, keys)

    trio.run(everybody)
    assert [key_of("acme")] * 4 == paid
    assert ["async", "plain"] == asked


def test_a_child_that_is_forked_during_a_look_up(vault: SlowVault) -> None:
    """The thread that looks up is not in the child, which asks for itself."""
    keys, network = KeyResolver(vault.keys_of), Network()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(network.ask, ACME, keys)
        assert vault.questions.acquire(timeout=DEADLINE)
        reads, writes = os.pipe()
        child = os.fork()
        if child == 0:
            vault.may_answer.set()
            with os.fdopen(writes, "w") as pipe:
                json.dump({"paid": network.ask(ACME, keys)}, pipe)
            os._exit(0)
        os.close(writes)
        with os.fdopen(reads) as pipe:
            assert {"paid": key_of("acme")} == json.load(pipe)
        os.waitpid(child, 0)
        vault.may_answer.set()
        assert key_of("acme") == first.result(DEADLINE)


@pytest.mark.parametrize("everybody", [False, True])
def test_a_key_is_saved_during_a_look_up(vault: SlowVault, everybody: bool) -> None:
    """What was looked up before is not remembered after `forget`: the next call sees the new key."""
    keys, network = KeyResolver(vault.keys_of), Network()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(network.ask, ACME, keys)
        assert vault.questions.acquire(timeout=DEADLINE)
        keys.forget(None if everybody else ACME)
        vault.may_answer.set()
        first.result(DEADLINE)
    network.ask(ACME, keys)
    assert ["acme"] * 2 == vault.asked


def test_slow_vaults_leave_the_apps_threads_alone(vault: SlowVault) -> None:
    """More look-ups than there are threads for the app's own functions: the app still gets one of those."""

    async def served_meanwhile() -> list[str]:
        keys, network = KeyResolver(vault.keys_of, timeout=DEADLINE), Network()
        calls = [asyncio.create_task(network.ask_async(Caller(identifier=f"c{n}"), keys)) for n in range(50)]
        await vault.has_been_asked(40)
        assert "served" == await anyio.to_thread.run_sync(lambda: "served")
        vault.may_answer.set()
        return [await each for each in calls]

    assert [key_of(f"c{n}") for n in range(50)] == asyncio.run(served_meanwhile())
