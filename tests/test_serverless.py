"""On a platform that freezes the process after each request, records are delivered before the request ends."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import io
import os
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.validate import validator

import anyio
import pytest
import trio

from kwai_middleware._delivery import live
from kwai_middleware._delivery.delivery import Delivery
from kwai_middleware.asgi import ASGIMiddleware
from kwai_middleware.wsgi import WSGIMiddleware
from tests.support.finished_calls import completed
from tests.support.logs_api import LogsAPI, answer, logs_api, taken
from tests.support.processes import DEADLINE, free_port, running

SCOPE: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "headers": [], "client": ("127.0.0.1", 1)}


@pytest.fixture
def api() -> Iterator[LogsAPI]:
    """A vendor that takes everything."""
    with logs_api() as running_api:
        yield running_api


@contextlib.contextmanager
def serverless(api: LogsAPI, **more: Any) -> Iterator[Delivery]:
    """A delivery on such a platform."""
    delivery = Delivery(api.settings(**{"spool": "memory:", "serverless": True, "exit_timeout": DEADLINE} | more))
    try:
        yield delivery
    finally:
        delivery.close(0.0)


def fetched(url: str) -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=DEADLINE) as reply:
        return bytes(reply.read())


class HeldVendor:
    """Answers no record before it is allowed to."""

    def __init__(self) -> None:
        self.allowed = threading.Event()

    def __call__(self, entry: dict[str, Any], times: int) -> bytes:
        assert self.allowed.wait(DEADLINE)
        return taken(entry, times)


async def receive() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


async def ignore(message: Any) -> None:
    pass


def run_trio(function: Any) -> Any:
    return trio.run(function)


def run_asyncio(function: Any) -> Any:
    return asyncio.run(function())


# Real servers


@pytest.mark.parametrize("variable", ["AWS_LAMBDA_FUNCTION_NAME", "AWS_LAMBDA_RUNTIME_API"])
def test_under_lambda_uvicorn_ends_a_request_when_its_record_is_delivered(
    api: LogsAPI, tmp_path: Path, variable: str
) -> None:
    """Each of the two variables of AWS Lambda is enough; the client has its whole answer before the vendor's."""
    vendor = HeldVendor()
    api.answer = vendor
    port = free_port()
    environment = api.environment(**{variable: "chat"}, KWAI_SPOOL=f"sqlite://{tmp_path}/", KWAI_EXIT_TIMEOUT="60")
    argv = ["-m", "uvicorn", "tests.apps.serverless:asgi", "--port", str(port)]
    with running(argv, ready=f"http://127.0.0.1:{port}/", env=environment):
        assert b"answered" == fetched(f"http://127.0.0.1:{port}/call")
        assert b"[]" == fetched(f"http://127.0.0.1:{port}/end")
        vendor.allowed.set()
        end = time.monotonic() + DEADLINE
        while (shown := fetched(f"http://127.0.0.1:{port}/end")) == b"[]":
            assert time.monotonic() < end
    assert b"[1]" == shown


def test_under_lambda_gunicorn_ends_a_request_when_its_record_is_delivered(api: LogsAPI) -> None:
    """A worker that does one thing at a time takes the next request when the last one's record is delivered."""
    vendor = HeldVendor()
    api.answer = vendor
    port = free_port()
    environment = api.environment(AWS_LAMBDA_FUNCTION_NAME="chat", KWAI_SPOOL="memory:", KWAI_EXIT_TIMEOUT="60")
    argv = ["-m", "gunicorn", "tests.apps.serverless:wsgi", "--bind", f"127.0.0.1:{port}"]
    with running(argv, ready=f"http://127.0.0.1:{port}/", env=environment):
        assert b"answered" == fetched(f"http://127.0.0.1:{port}/call")
        api.wait(1)
        vendor.allowed.set()
        assert b"[1]" == fetched(f"http://127.0.0.1:{port}/end")


def test_elsewhere_nothing_waits(api: LogsAPI) -> None:
    """Without those variables a request ends at once, whatever the vendor does."""
    api.answer = HeldVendor()
    port = free_port()
    argv = ["-m", "gunicorn", "tests.apps.serverless:wsgi", "--bind", f"127.0.0.1:{port}"]
    environment = api.environment(KWAI_SPOOL="memory:", KWAI_EXIT_TIMEOUT="0.1")
    with running(argv, ready=f"http://127.0.0.1:{port}/", env=environment):
        assert b"answered" == fetched(f"http://127.0.0.1:{port}/call")
        api.wait(1)
        assert b"[0]" == fetched(f"http://127.0.0.1:{port}/end")
    api.answer.allowed.set()


class _Quiet(WSGIRequestHandler):
    def log_request(self, *args: Any) -> None:
        pass


class _Foreign:
    """A body as frameworks make their own."""

    def __init__(self) -> None:
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        yield b"answer"
        yield b"ed"

    def close(self) -> None:
        self.closed += 1


def a_file(environ: Any) -> Iterable[bytes]:
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](io.BytesIO(b"answered"))
    return wrapped


BODIES: dict[str, Callable[[Any], Iterable[bytes]]] = {
    "list": lambda environ: [b"answered"],
    "tuple": lambda environ: (b"answer", b"ed"),
    "generator": lambda environ: (piece for piece in (b"answer", b"ed")),
    "object": lambda environ: _Foreign(),
    "file": a_file,
}


@pytest.mark.parametrize("kind", BODIES)
def test_every_kind_of_wsgi_body_ends_with_a_flush(api: LogsAPI, kind: str) -> None:
    """Whatever an app returns, the client has all of it before the vendor answers, and the request ends after that."""
    vendor = HeldVendor()
    api.answer = vendor
    delivered: list[int] = []
    got: list[bytes] = []
    with serverless(api) as delivery:

        def app(environ: Any, start_response: Any) -> Iterable[bytes]:
            delivery.submit(completed())
            start_response("200 OK", [("content-type", "text/plain"), ("content-length", "8")])
            return BODIES[kind](environ)

        wrapped: Any = WSGIMiddleware(app)
        checked = wrapped if kind == "file" else validator(wrapped)
        with make_server("127.0.0.1", 0, checked, handler_class=_Quiet) as server:

            def ask() -> None:
                got.append(fetched(f"http://127.0.0.1:{server.server_port}/"))
                vendor.allowed.set()

            client = threading.Thread(target=ask)
            client.start()
            server.handle_request()
            delivered.append(delivery.stats().delivered)
            client.join(DEADLINE)
    assert ([b"answered"], [1]) == (got, delivered)


def test_a_list_keeps_its_length() -> None:
    """Servers ask a list how long it is, and send the length of its only piece: that goes on."""
    with logs_api() as api, serverless(api) as delivery:

        def app(environ: Any, start_response: Any) -> Iterable[bytes]:
            delivery.submit(completed())
            start_response("200 OK", [])
            return [b"answered"]

        with make_server("127.0.0.1", 0, WSGIMiddleware(app), handler_class=_Quiet) as server:
            client = threading.Thread(target=server.handle_request)
            client.start()
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
                f"http://127.0.0.1:{server.server_port}/", timeout=DEADLINE
            ) as reply:
                assert "8" == reply.headers["content-length"]
            client.join(DEADLINE)


# How a request may end


@pytest.mark.parametrize("run", [run_asyncio, run_trio], ids=["asyncio", "trio"])
def test_an_app_that_fails_is_flushed_too(api: LogsAPI, run: Any) -> None:
    """The exception comes out as it is, and by then the record is delivered."""
    with serverless(api) as delivery:

        async def app(scope: Any, receive: Any, send: Any) -> None:
            delivery.submit(completed())
            raise LookupError("the app's own")

        async def serve() -> None:
            await ASGIMiddleware(app)(dict(SCOPE), receive, ignore)

        with pytest.raises(LookupError, match="the app's own"):
            run(serve)
        assert 1 == delivery.stats().delivered


def test_a_wsgi_app_that_fails_is_flushed_too(api: LogsAPI) -> None:
    """An exception before or within the body comes out as it is, and by then the record is delivered."""
    with serverless(api) as delivery:

        def fails(environ: Any, start_response: Any) -> Iterable[bytes]:
            delivery.submit(completed())
            raise LookupError("before")

        def fails_later(environ: Any, start_response: Any) -> Iterable[bytes]:
            delivery.submit(completed())
            yield b"one"
            raise LookupError("within")

        with pytest.raises(LookupError, match="before"):
            WSGIMiddleware(fails)({}, lambda *_: lambda _: None)
        assert 1 == delivery.stats().delivered
        body: Any = WSGIMiddleware(fails_later)({}, lambda *_: lambda _: None)
        assert b"one" == next(body)
        with pytest.raises(LookupError, match="within"):
            next(body)
        body.close()
        assert 2 == delivery.stats().delivered
        body.close()


def test_a_body_that_is_never_closed_is_not_waited_for(api: LogsAPI) -> None:
    """A server that forgets to close leaves it to the garbage collector, and that waits for no network."""
    api.answer = HeldVendor()
    with serverless(api) as delivery:

        def app(environ: Any, start_response: Any) -> Iterable[bytes]:
            delivery.submit(completed())
            return _Foreign()

        body: Any = WSGIMiddleware(app)({}, lambda *_: lambda _: None)
        inner = [each for each in gc.get_referents(body) if isinstance(each, _Foreign)]
        api.wait(1)
        del body, inner
        gc.collect()
        assert 0 == delivery.stats().delivered
        api.answer.allowed.set()


def test_a_request_that_is_closed_is_not_waited_for(api: LogsAPI) -> None:
    """A task that its loop has lost is closed by the garbage collector, in the middle of something else."""
    with serverless(api) as delivery:

        async def app(scope: Any, receive: Any, send: Any) -> None:
            delivery.submit(completed())
            await asyncio.Future()

        async def main() -> None:
            lost = ASGIMiddleware(app)(dict(SCOPE), receive, ignore)
            contextvars.copy_context().run(lost.send, None)
            lost.close()

        asyncio.run(main())


@pytest.mark.parametrize("run", ["asyncio", "trio"])
def test_a_request_that_is_cancelled_is_flushed_too(api: LogsAPI, run: str) -> None:
    """A cancellation ends the app, then its record is delivered, then the cancellation goes on."""
    ends: list[str] = []
    with serverless(api) as delivery:

        async def app(scope: Any, receive: Any, send: Any) -> None:
            delivery.submit(completed())
            begun.set()
            try:
                await anyio.sleep(DEADLINE)
            except BaseException as error:
                ends.append(type(error).__name__)
                raise

        async def with_asyncio() -> None:
            task = asyncio.ensure_future(ASGIMiddleware(app)(dict(SCOPE), receive, ignore))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        async def with_trio() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ASGIMiddleware(app), dict(SCOPE), receive, ignore)
                await begun.wait()
                nursery.cancel_scope.cancel()

        begun: Any = asyncio.Event() if run == "asyncio" else trio.Event()
        if run == "asyncio":
            asyncio.run(with_asyncio())
        else:
            trio.run(with_trio)
        assert 1 == delivery.stats().delivered
    assert ends in (["CancelledError"], ["Cancelled"])


# Bounds


def test_a_vendor_that_hangs_delays_the_end_until_the_deadline(api: LogsAPI) -> None:
    """The request ends when the time is over, its record waits on, and the loop runs meanwhile."""
    api.answer = lambda entry, times: None
    turns = 0
    with serverless(api, exit_timeout=0.5) as delivery:

        async def app(scope: Any, receive: Any, send: Any) -> None:
            delivery.submit(completed())

        async def serve() -> float:
            nonlocal turns
            began = time.monotonic()
            request = asyncio.ensure_future(ASGIMiddleware(app)(dict(SCOPE), receive, ignore))
            while not request.done():
                await asyncio.sleep(0.01)
                turns += 1
            return time.monotonic() - began

        took = asyncio.run(serve())
        assert (0, 1) == (delivery.stats().delivered, delivery.stats().pending)
    assert 0.5 <= took < DEADLINE / 2
    assert turns >= 5


def test_a_wsgi_request_ends_at_the_deadline_too(api: LogsAPI) -> None:
    """Its list is closed when the time is over."""
    api.answer = lambda entry, times: None
    with serverless(api, exit_timeout=0.3) as delivery:

        def app(environ: Any, start_response: Any) -> Iterable[bytes]:
            delivery.submit(completed())
            return []

        body: Any = WSGIMiddleware(app)({}, lambda *_: lambda _: None)
        began = time.monotonic()
        body.close()
        assert 0.3 <= time.monotonic() - began < DEADLINE / 2
        assert 1 == delivery.stats().pending


def test_deliveries_share_one_deadline(api: LogsAPI) -> None:
    """With three deliveries and a vendor that hangs, the request takes the time of one."""
    api.answer = lambda entry, times: None
    with contextlib.ExitStack() as stack:
        deliveries = [stack.enter_context(serverless(api, exit_timeout=1.0)) for _ in range(3)]
        for delivery in deliveries:
            delivery.submit(completed())
        began = time.monotonic()
        live.flush_serverless()
        assert 1.0 <= time.monotonic() - began < 2.9


def test_nested_middlewares_flush_once(api: LogsAPI) -> None:
    """Of several middlewares around an app, only the outermost waits for the vendor."""
    api.answer = lambda entry, times: None
    flushes: list[float] = []

    class Counted:
        pid = os.getpid()
        exit_timeout = DEADLINE

        def hurry(self) -> None:
            pass

        def flush(self, deadline: float) -> bool:
            flushes.append(deadline)
            return True

        def close(self, deadline: float) -> bool:
            return True

    engine = Counted()
    live.flush_after_requests(engine)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        pass

    def wsgi_app(environ: Any, start_response: Any) -> Iterable[bytes]:
        start_response("200 OK", [])
        return [b""]

    asgi = ASGIMiddleware(ASGIMiddleware(ASGIMiddleware(app, override=True)))
    asyncio.run(asgi(dict(SCOPE), receive, ignore))
    assert 1 == len(flushes)
    for body in (wsgi_app, lambda *_: _Foreign()):
        flushes.clear()
        nested: Any = WSGIMiddleware(WSGIMiddleware(WSGIMiddleware(body, override=True)))
        nested({}, lambda *_: None).close()
        assert 1 == len(flushes)
    del live.serverless[id(engine)]


def test_a_websocket_ends_with_a_flush_and_a_lifespan_has_its_own(api: LogsAPI) -> None:
    """What a websocket has called is delivered when it ends."""
    with serverless(api) as delivery:

        async def app(scope: Any, receive: Any, send: Any) -> None:
            delivery.submit(completed())

        asyncio.run(ASGIMiddleware(app)({**SCOPE, "type": "websocket"}, receive, ignore))
        assert 1 == delivery.stats().delivered


def test_a_wsgi_app_on_an_event_loop_does_not_stop_it(api: LogsAPI) -> None:
    """Where the thread that closes the body runs an event loop, the work is begun and not waited for."""
    vendor = HeldVendor()
    api.answer = vendor
    with serverless(api) as delivery:

        async def serve() -> None:
            delivery.submit(completed())
            live.flush_serverless()
            assert 0 == delivery.stats().delivered

        asyncio.run(serve())
        vendor.allowed.set()
        assert delivery.flush(DEADLINE)


@pytest.mark.parametrize("settings", [{"serverless": False}, {"serverless": None}])
def test_only_such_deliveries_are_flushed(api: LogsAPI, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    """Under Lambda `serverless=False` turns it off; elsewhere it is off."""
    if settings["serverless"] is False:
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", "chat")
    vendor = HeldVendor()
    api.answer = vendor
    with serverless(api, **settings) as delivery:
        delivery.submit(completed())
        live.flush_serverless()
        assert 0 == delivery.stats().delivered
        vendor.allowed.set()
        assert delivery.flush(DEADLINE)


def test_a_delivery_that_is_gone_is_not_waited_for(api: LogsAPI) -> None:
    """What is flushed after requests is not kept alive by that."""
    delivery = Delivery(api.settings(spool="memory:", serverless=True))
    delivery.submit(completed())
    assert delivery.flush(DEADLINE)
    engine = id(delivery._engine)
    assert engine in live.serverless
    del delivery
    end = time.monotonic() + DEADLINE
    while engine in live.serverless:
        gc.collect()
        assert time.monotonic() < end


def test_a_forked_worker_leaves_those_of_its_parent_alone() -> None:
    """What another process has listed before the fork is not flushed in this one."""
    flushes: list[float] = []
    # A delivery of an earlier test may not have been collected yet.
    live.serverless.clear()

    class OfParent:
        pid = os.getppid()
        exit_timeout = DEADLINE

        def hurry(self) -> None:
            flushes.append(0.0)

        def flush(self, deadline: float) -> bool:
            flushes.append(deadline)
            return True

        close = flush

    engine = OfParent()
    live.flush_after_requests(engine)
    live.flush_serverless()
    asyncio.run(live.aflush_serverless())
    del live.serverless[id(engine)]
    assert [] == flushes


def test_a_closed_delivery_holds_up_no_request(api: LogsAPI, tmp_path: Path) -> None:
    """After its end a delivery that still has records in its file is not waited for any more."""
    api.answer = lambda entry, times: answer(503)
    with serverless(api, spool=f"sqlite://{tmp_path}/records.db") as delivery:
        delivery.submit(completed())
        delivery.close(0.2)
        began = time.monotonic()
        live.flush_serverless()
        assert not delivery.flush(DEADLINE)
        assert time.monotonic() - began < DEADLINE / 2


def test_a_flush_that_fails_is_our_bug_and_no_ones_problem(nothing_is_swallowed: list[BaseException]) -> None:
    """An error of ours in there ends no request, and the other deliveries have their turn."""

    class Broken:
        pid = os.getpid()
        exit_timeout = 0.1

        def hurry(self, deadline: float = 0.0) -> bool:
            raise LookupError

        flush = close = hurry

    engine = Broken()
    live.flush_after_requests(engine)
    live.flush_serverless()
    asyncio.run(live.aflush_serverless())
    del live.serverless[id(engine)]
    assert [LookupError] * 4 == [type(error) for error in nothing_is_swallowed]
    nothing_is_swallowed.clear()
