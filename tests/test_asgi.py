"""What only the ASGI door has: websockets, lifespan, tasks, and loops other than asyncio's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
import trio
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from kwai_middleware._caller import Caller
from kwai_middleware._context import bind_caller, current_caller
from kwai_middleware._delivery.delivery import Delivery
from kwai_middleware._inbound.request import InboundRequest
from kwai_middleware.asgi import ASGIMiddleware
from tests.apps.doors import ASGIDoor, Seen
from tests.support.finished_calls import completed
from tests.support.logs_api import LogsAPI, logs_api

ACME = Caller(identifier="acme")
BETA = Caller(identifier="beta")


async def no_messages() -> Any:
    """A client that has nothing more to say."""
    raise AssertionError


def websocket_app() -> Starlette:
    """Tells who is current, for each text that arrives."""

    async def tell(websocket: WebSocket) -> None:
        await websocket.accept()
        async for _ in websocket.iter_text():
            caller = current_caller()
            await websocket.send_text("nobody" if caller is None else str(caller.identifier))

    return Starlette(routes=[WebSocketRoute("/", tell)])


class TestWebsockets:
    """A websocket is a request that lasts."""

    def test_the_caller_is_current_for_as_long_as_it_lasts(self) -> None:
        """Each message is answered for the caller of the handshake, and nobody is left afterwards."""
        client = TestClient(ASGIMiddleware(websocket_app()))
        with client.websocket_connect("/", headers={"x-customer-id": "acme"}) as websocket:
            for _ in range(3):
                websocket.send_text("who?")
                assert websocket.receive_text() == "acme"
        with client.websocket_connect("/") as websocket:
            websocket.send_text("who?")
            assert websocket.receive_text() == "nobody"
        assert current_caller() is None

    def test_a_callable_sees_the_handshake(self) -> None:
        """A websocket begins as a GET."""
        seen: list[Any] = []

        def identify(request: InboundRequest) -> Caller:
            seen.append((request.method, request.path, request.header("x-token")))
            return ACME

        client = TestClient(ASGIMiddleware(websocket_app(), identify=identify))
        with client.websocket_connect("/", headers={"x-token": "t"}) as websocket:
            websocket.send_text("who?")
            assert websocket.receive_text() == "acme"
        assert [("GET", "/", "t")] == seen

    def test_a_refused_handshake_gets_the_problem_document(self) -> None:
        """A server that can answer a handshake like a request answers it like one."""
        client = TestClient(ASGIMiddleware(websocket_app(), required=True))
        with pytest.raises(WebSocketDenialResponse) as caught, client.websocket_connect("/"):
            raise AssertionError
        assert caught.value.status_code == 401
        assert caught.value.headers["www-authenticate"] == 'Kwai realm="caller"'
        assert caught.value.json()["status"] == 401

    @pytest.mark.parametrize("extensions", [{}, {"extensions": {}}, {"extensions": {"other": {}}}])
    def test_a_refused_handshake_is_closed_where_there_is_no_answer(self, extensions: dict[str, Any]) -> None:
        """A server without that extension closes the websocket by 1008, the code for a violated policy."""
        scope = {"type": "websocket", "path": "/", "headers": [], "client": None, **extensions}
        assert [{"type": "websocket.close", "code": 1008, "reason": "Authentication required"}] == self.refuse(
            scope, {"type": "websocket.connect"}
        )

    def test_nothing_is_sent_to_a_client_that_is_gone(self) -> None:
        """A handshake that was given up needs no answer."""
        scope = {"type": "websocket", "path": "/", "headers": [], "client": None}
        assert [] == self.refuse(scope, {"type": "websocket.disconnect", "code": 1006})

    def refuse(self, scope: dict[str, Any], message: dict[str, Any]) -> list[Any]:
        """What is sent to a handshake that begins with `message`."""
        sent: list[Any] = []

        async def receive() -> Any:
            return message

        async def send(message: Any) -> None:
            sent.append(message)

        async def app(scope: Any, receive: Any, send: Any) -> None:
            raise AssertionError

        asyncio.run(ASGIMiddleware(app, required=True)(scope, receive, send))
        return sent

    def test_a_disconnect_leaves_nobody(self) -> None:
        """An app that ends by the client's going away ends for us like any other."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert ACME == current_caller()
            raise WebSocketDisconnect(1001)

        async def main() -> None:
            scope = {
                "type": "websocket",
                "path": "/",
                "headers": [(b"x-customer-id", b"acme")],
                "client": ("127.0.0.1", 5),
            }
            with pytest.raises(WebSocketDisconnect):
                await ASGIMiddleware(app)(scope, no_messages, no_messages)
            assert current_caller() is None

        asyncio.run(main())


class TestLifespan:
    """What waits for delivery is delivered before the server may end the process."""

    @pytest.fixture
    def api(self) -> Iterator[LogsAPI]:
        """A logs API that takes everything."""
        with logs_api() as running:
            yield running

    @pytest.mark.parametrize("outcome", ["lifespan.shutdown.complete", "lifespan.shutdown.failed"])
    def test_records_are_delivered_before_the_end_is_told(self, api: LogsAPI, outcome: str) -> None:
        """When the server hears that the app has shut down, the records have arrived; the delivery is open still."""
        with Delivery(api.settings(exit_timeout=30.0)) as delivery:
            arrived: list[tuple[str, int]] = []

            async def app(scope: Any, receive: Any, send: Any) -> None:
                await send({"type": "lifespan.startup.complete"})
                for _ in range(3):
                    assert delivery.submit(completed())
                await send({"type": outcome})

            async def send(message: Any) -> None:
                arrived.append((message["type"], delivery.stats().delivered))

            asyncio.run(ASGIMiddleware(app)({"type": "lifespan"}, no_messages, send))
            assert [("lifespan.startup.complete", 0), (outcome, 3)] == arrived
            assert delivery.submit(completed())

    def test_without_a_delivery_none_is_made(self) -> None:
        """An app that has recorded nothing shuts down as it would without us."""
        sent: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            assert "kwai_middleware" not in scope
            await send({"type": "lifespan.shutdown.complete"})

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(ASGIMiddleware(app)({"type": "lifespan"}, no_messages, send))
        assert [{"type": "lifespan.shutdown.complete"}] == sent


def test_other_scopes_pass_untouched() -> None:
    """A kind of scope that we do not know gets the very objects that the server gave."""
    got: list[Any] = []

    async def app(*everything: Any) -> None:
        got.extend(everything)

    async def send(message: Any) -> None:
        raise AssertionError

    scope = {"type": "something.new"}
    asyncio.run(ASGIMiddleware(app)(scope, no_messages, send))
    assert [scope, no_messages, send] == got
    assert scope == {"type": "something.new"}


def test_a_request_that_is_ended_within_another_one_leaves_that_its_caller() -> None:
    """A task that its loop has lost is ended by the garbage collector, in whoever's request that runs."""
    door = ASGIDoor()

    async def never_answers(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Future()

    async def lose_a_request() -> Any:
        # Begun within a request of a third customer, whose caller must not come up either.
        with bind_caller(Caller(identifier="gamma")):
            scope = door.scope([("x-customer-id", "acme")], "GET", "/", ("127.0.0.1", 5))
            lost = ASGIMiddleware(never_answers)(scope, no_messages, no_messages)
            lost.send(None)
        return lost

    class Finding(Seen):
        def look(self) -> None:
            lost.close()
            super().look()

    lost = asyncio.run(lose_a_request())
    seen = Finding(request=door.scope([("x-customer-id", "beta")], "GET", "/", ("127.0.0.1", 5)))
    door.send(door.wrap(seen), seen)
    assert BETA == seen.caller
    assert seen.customer_id == "beta"


def test_what_a_request_starts_keeps_its_caller() -> None:
    """Tasks and threads started by a request work for its caller, also after the request has ended."""

    async def main() -> list[Any]:
        answered = asyncio.Event()
        tasks: list[asyncio.Task[Any]] = []

        async def later() -> Caller | None:
            await answered.wait()
            return current_caller()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            tasks.append(asyncio.create_task(later()))
            tasks.append(asyncio.create_task(asyncio.to_thread(current_caller)))

        door = ASGIDoor()
        scope = door.scope([("x-customer-id", "acme")], "GET", "/", ("127.0.0.1", 5))
        await ASGIMiddleware(app)(scope, no_messages, no_messages)
        assert current_caller() is None
        answered.set()
        return await asyncio.gather(*tasks)

    assert [ACME, ACME] == asyncio.run(main())


def test_requests_at_the_same_time_do_not_see_each_other() -> None:
    """Sixty-four requests, each waiting for all others to be under way, keep their callers apart."""

    async def main() -> list[tuple[str, str | None]]:
        under_way = asyncio.Barrier(64)
        seen: list[tuple[str, str | None]] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            await under_way.wait()
            caller = current_caller()
            await under_way.wait()
            assert caller is current_caller()
            seen.append((scope["path"], None if caller is None else caller.identifier))

        door, middleware = ASGIDoor(), ASGIMiddleware(app)
        peer = ("127.0.0.1", 5)
        scopes = [door.scope([("x-customer-id", f"c{n}")] if n % 2 else [], "GET", f"c{n}", peer) for n in range(64)]
        await asyncio.gather(*(middleware(scope, no_messages, no_messages) for scope in scopes))
        return seen

    seen = asyncio.run(main())
    assert sorted((f"c{n}", f"c{n}" if n % 2 else None) for n in range(64)) == sorted(seen)


def test_an_identify_callable_may_wait_while_others_are_served() -> None:
    """An async callable gives way to other requests, and its caller is the one of its own request."""

    async def main() -> dict[str, Caller | None]:
        both = asyncio.Barrier(2)
        seen: dict[str, Caller | None] = {}

        async def identify(request: InboundRequest) -> Caller:
            await both.wait()
            assert current_caller() is None
            return Caller(identifier=request.path[1:])

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen[scope["path"]] = current_caller()

        middleware, door = ASGIMiddleware(app, identify=identify), ASGIDoor()
        scopes = [door.scope([], "GET", path, None) for path in ("/acme", "/beta")]
        with bind_caller(Caller(identifier="somebody else")):
            await asyncio.gather(*(middleware(scope, no_messages, no_messages) for scope in scopes))
        return seen

    assert {"/acme": ACME, "/beta": BETA} == asyncio.run(main())


def test_a_request_in_a_task_of_somebodys_gives_the_caller_back() -> None:
    """Run in a context where somebody is bound, a request leaves that as it was, whoever identifies."""

    async def identify(request: InboundRequest) -> Caller:
        await asyncio.sleep(0)
        return ACME

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert ACME == current_caller()

    async def main() -> None:
        headers = [("x-customer-id", "acme")]
        for options in ({}, {"identify": identify}):
            scope = ASGIDoor().scope(headers, "GET", "/", ("127.0.0.1", 5))
            with bind_caller(BETA):
                await ASGIMiddleware(app, **options)(scope, no_messages, no_messages)  # type: ignore[arg-type]  # either
                assert BETA == current_caller()
                assert structlog.contextvars.get_contextvars() == {"customer_id": "beta"}

    asyncio.run(main())


def test_what_identify_binds_is_there_in_the_app() -> None:
    """A callable runs in the request's own task, so context variables of the app's that it sets stay set."""
    import contextvars

    user: contextvars.ContextVar[str] = contextvars.ContextVar("user")
    seen: list[str] = []

    async def identify(request: InboundRequest) -> Caller:
        await asyncio.sleep(0)
        user.set("ada")
        return ACME

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(user.get())

    asyncio.run(
        ASGIMiddleware(app, identify=identify)(ASGIDoor().scope([], "GET", "/", None), no_messages, no_messages)
    )
    assert ["ada"] == seen


def test_a_cancelled_request_leaves_nobody() -> None:
    """A request that is cancelled while it waits ends for us like any other."""

    async def main() -> None:
        begun = asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            begun.set()
            await asyncio.Event().wait()

        scope = ASGIDoor().scope([("x-customer-id", "acme")], "GET", "/", ("127.0.0.1", 5))
        left: list[Caller | None] = []

        async def served() -> None:
            try:
                await ASGIMiddleware(app)(scope, no_messages, no_messages)
            finally:
                left.append(current_caller())  # in the request's own context, where it was bound

        task = asyncio.create_task(served())
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [None] == left

    asyncio.run(main())


def test_an_identify_callable_that_is_cancelled_is_no_answer() -> None:
    """A request that is cancelled while its caller is looked up never reaches the app."""

    async def main() -> None:
        begun = asyncio.Event()

        async def identify(request: InboundRequest) -> Caller:
            begun.set()
            await asyncio.Event().wait()
            raise AssertionError

        seen = Seen()
        scope = ASGIDoor().scope([], "GET", "/", None)
        task = asyncio.create_task(ASGIDoor().wrap(seen, identify=identify)(scope, no_messages, no_messages))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not seen.app_ran

    asyncio.run(main())


def test_it_works_under_trio() -> None:
    """Nothing in the door belongs to asyncio."""
    seen: list[Any] = []

    async def identify(request: InboundRequest) -> Caller:
        await trio.lowlevel.checkpoint()
        return ACME

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await trio.lowlevel.checkpoint()
        seen.append(current_caller())

    for options in ({}, {"identify": identify}):
        scope = ASGIDoor().scope([("x-customer-id", "acme")], "GET", "/", ("127.0.0.1", 5))
        trio.run(ASGIMiddleware(app, **options), scope, no_messages, no_messages)  # type: ignore[arg-type]  # either
    assert [ACME, ACME] == seen


@pytest.mark.parametrize("kind", [list, tuple])
def test_no_frame_of_ours_keeps_a_key_while_the_app_runs(kind: type[Any]) -> None:
    """Whatever the server's headers are: an error reporter that takes all locals along finds no key in ours."""
    key = b"sk-or-v1-" + b"5ec4e7" * 8
    scope: dict[str, Any] = {"type": "http", "method": "GET", "client": ("127.0.0.1", 5), "path": "/"}
    scope["headers"] = kind([(b"host", b"app.example"), (b"x-openrouter-key", key)])

    async def app(scope: Any, receive: Any, send: Any) -> None:
        caller = current_caller()
        assert caller is not None
        assert key.decode() == caller.credentials[0].api_key.reveal()
        raise LookupError

    async def send(message: Any) -> None:
        raise AssertionError

    with pytest.raises(LookupError) as caught:
        asyncio.run(ASGIMiddleware(app)(scope, no_messages, send))
    ours = [each.frame for each in caught.traceback if "kwai_middleware" in str(each.path)]
    assert [] != ours
    assert key.decode() not in repr([frame.f_locals for frame in ours])
