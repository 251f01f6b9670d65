"""UserIdentity with Starlette's sign-in: model calls are the signed-in user's, wherever the request runs them."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import structlog
from starlette.authentication import SimpleUser
from starlette.testclient import TestClient

import kwai_middleware as kwai
from kwai_middleware import _notices
from kwai_middleware._unsettled import Unsettled
from kwai_middleware._user_source import UserSource, is_reading, reading
from kwai_middleware.errors import CannotAttribute, ConfigurationError
from kwai_middleware.structlog_processors import add_caller
from kwai_middleware.testing import Sandbox
from tests.apps.users_fastapi import ATTRIBUTES, User, build, customer
from tests.support.callers import key_of
from tests.support.examples import environment_for
from tests.support.model_calls import ModelCalls, asked, who
from tests.support.processes import DEADLINE, free_port, running

pytest_plugins = ["kwai_middleware.testing"]

SEVEN = {"identifier": customer(7), "email": "user-7@example.com", "group": "org", "from": "user of starlette"}
NOBODY = {"from": None}


@pytest.fixture
def app(kwai_sandbox: Sandbox) -> Any:
    """The app, whose vendor is the sandbox."""
    return build(kwai_sandbox.settings())


@pytest.fixture
def client(app: Any) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


def log_in(client: TestClient, name: str = "user-7") -> Any:
    """Sign a user in; returns what the request saw of it."""
    return client.post("/login", params={"name": name, "q": "login"}).json()


def serve(app: Any, identify: Any, user: object = None, **options: Any) -> Any:
    """Run an async function as the app of one request below a door, after `user` has signed in; returns its result."""
    results: list[Any] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        scope["user"] = user
        results.append(await app())

    async def no_message(*_: Any) -> Any:
        raise AssertionError

    scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
    asyncio.run(kwai.ASGIMiddleware(inner, identify=identify, **options)(scope, no_message, no_message))
    return results[0]


@pytest.mark.parametrize("path", ["/ask", "/ask-in-thread", "/stream", "/stream-in-thread", "/background"])
def test_a_call_is_the_users(client: TestClient, kwai_sandbox: Sandbox, path: str) -> None:
    """In a view, on its thread, in a streamed body and in a background task; an anonymous one is nobody's."""
    client.get(path, params={"q": "anonymous"}).raise_for_status()
    log_in(client)
    client.get(path, params={"q": "signed in"}).raise_for_status()
    calls = asked(kwai_sandbox, 4)
    assert (None, customer(7)) == (calls["anonymous"], calls["signed in"])


def test_login_and_logout(client: TestClient, kwai_sandbox: Sandbox) -> None:
    """Nobody is not kept, so a login counts in the middle of its request; the next after a logout is nobody's."""
    before, _, after, _ = log_in(client)
    assert (NOBODY, SEVEN) == (before, after)
    assert SEVEN == client.get("/who").json()
    client.post("/logout")
    assert NOBODY == client.get("/who").json()
    assert {"login before": None, "login after": customer(7)} == asked(kwai_sandbox, 2)


def test_the_first_user_is_kept(kwai_sandbox: Sandbox) -> None:
    """Once somebody has been read, the request stays theirs, also after a logout."""
    scope_of: dict[str, Any] = {}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope_of.update(seen=[])
        for user in (None, User("user-1"), User("user-2"), None):
            scope["user"] = user
            scope_of["seen"].append(who().get("identifier"))

    door = kwai.ASGIMiddleware(app, identify=kwai.UserIdentity(ATTRIBUTES))
    asyncio.run(door({"type": "http", "method": "GET", "path": "/", "headers": []}, None, None))  # type: ignore[arg-type]
    assert [None, customer(1), customer(1), customer(1)] == scope_of["seen"]


def test_a_websocket(client: TestClient, kwai_sandbox: Sandbox) -> None:
    """A websocket is the user's who has opened it."""
    log_in(client)
    with client.websocket_connect("/ws") as socket:
        socket.send_text("by websocket")
        assert SEVEN == socket.receive_json()
    assert customer(7) == asked(kwai_sandbox, 3)["by websocket"]


def test_after_the_request(app: Any, client: TestClient, kwai_sandbox: Sandbox) -> None:
    """A thread that outlives the request still works for its user, while another user's request is served."""
    log_in(client)
    client.get("/later", params={"q": "later"})
    log_in(client, "user-8")
    app.state.done["later"].set()
    assert customer(7) == asked(kwai_sandbox, 5)["later"]


def test_a_task_after_the_request(kwai_sandbox: Sandbox) -> None:
    """A task that asks only when the request is over learns who had signed in."""
    models = ModelCalls(kwai_sandbox.settings())

    async def main() -> None:
        is_over = asyncio.Event()
        tasks: list[Any] = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            async def late() -> None:
                await is_over.wait()
                await models.ask_async("late")

            tasks.append(asyncio.create_task(late()))
            scope["user"] = User("user-3")

        scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "headers": []}
        await kwai.ASGIMiddleware(app, identify=kwai.UserIdentity(ATTRIBUTES))(scope, None, None)  # type: ignore[arg-type]
        scope["user"] = User("user-4")  # whatever happens to the scope now
        is_over.set()
        await tasks[0]

    asyncio.run(main())
    assert {"late": customer(3)} == asked(kwai_sandbox, 1)


def test_a_key_in_the_header(client: TestClient, kwai_sandbox: Sandbox) -> None:
    """The header brings the key, the framework the identity: the call is billed to one, attributed to the other."""
    log_in(client)
    client.get("/ask", params={"q": "hi"}, headers={"x-openrouter-key": key_of("seven")})
    (call,) = kwai_sandbox.calls(wait=1, customer=customer(7), paid_by=kwai.Secret(key_of("seven")).fingerprint)
    assert "customer_credentials" == call["paid_by"]["source"]


@pytest.mark.parametrize("path", ["/ask", "/ask-in-thread"])
def test_a_key_resolver(kwai_sandbox: Sandbox, path: str) -> None:
    """The keys are looked up of the user who has signed in."""
    looked_up: list[Any] = []

    def keys_of(caller: kwai.Caller) -> list[kwai.Credential]:
        looked_up.append(caller.identifier)
        return [kwai.Credential(api_key=kwai.Secret(key_of("vault")))]

    app = build(kwai_sandbox.settings(), credentials=kwai.KeyResolver(keys_of))
    with TestClient(app) as client:
        log_in(client)
        client.get(path, params={"q": "hi"})
    assert [customer(7)] == looked_up
    fingerprint = kwai.Secret(key_of("vault")).fingerprint
    assert 2 == len(kwai_sandbox.calls(customer=customer(7), paid_by=fingerprint))


def test_after_other_identities(kwai_sandbox: Sandbox) -> None:
    """In `first_of` the proxy's header counts, and the framework's user where it says nothing."""
    identify = kwai.first_of(kwai.HeaderIdentity(), kwai.UserIdentity(ATTRIBUTES))
    with TestClient(build(kwai_sandbox.settings(), identify=identify)) as client:
        log_in(client)
        assert SEVEN == client.get("/who").json()
        by_header = client.get("/who", headers={"x-customer-id": "acme"}).json()
        assert {"identifier": "acme", "from": "header from a trusted peer"} == by_header


def test_required_is_refused() -> None:
    """Nobody can be refused before the framework has run; the message says what to use instead."""
    for required in (True, lambda request: True):
        with pytest.raises(ConfigurationError, match=r"^required: a UserIdentity .* login_required\)$"):
            kwai.ASGIMiddleware(None, identify=kwai.UserIdentity(ATTRIBUTES), required=required)  # type: ignore[arg-type]


def test_what_a_callable_tightens_stays() -> None:
    """What `identify` says without naming anybody holds for the user who is found later."""
    tight = kwai.Caller(byok="only", capture="none", metadata={"region": "eu"})
    identify = kwai.first_of(lambda request: tight, kwai.UserIdentity(ATTRIBUTES))

    async def app() -> Any:
        return kwai.current_caller()

    caller = serve(app, identify, User("user-7"))
    assert (customer(7), "only", "none", {"region": "eu"}) == (
        caller.identifier,
        caller.byok,
        caller.capture,
        dict(caller.metadata),
    )


def test_structlog_has_the_user_once_read() -> None:
    """`add_caller` asks for nobody: a log line in a user loader must not load the user. It knows who has been read."""

    async def app() -> Any:
        before = add_caller(None, "info", {})
        kwai.current_caller()
        assert "customer_id" not in structlog.contextvars.get_contextvars()
        return before, add_caller(None, "info", {})

    expected = ({}, {"customer_id": customer(7), "group": "org"})
    assert expected == serve(app, kwai.UserIdentity(ATTRIBUTES), User("user-7"))


@pytest.mark.parametrize("kind", ["ask", "ask_async"])
def test_whoever_looks_for_the_user_may_ask(kwai_sandbox: Sandbox, kind: str) -> None:
    """While the user is looked for it is nobody, for that code alone, and nothing recurs."""
    models, inside, tasks = ModelCalls(kwai_sandbox.settings()), [], []

    def find(user: object) -> str:
        inside.append(kwai.current_caller())
        tasks.append(asyncio.create_task(later()))
        return "acme"

    async def later() -> Any:
        return kwai.current_caller()

    async def app() -> Any:
        answer = getattr(models, kind)("hi")
        if kind == "ask_async":
            await answer
        return await tasks[0]

    caller = serve(app, kwai.UserIdentity({"identifier": find}), SimpleUser("x"))
    assert ([None], "acme") == (inside, caller.identifier)
    assert {"hi": "acme"} == asked(kwai_sandbox, 1)


def test_a_model_call_while_the_user_is_looked_for(kwai_sandbox: Sandbox) -> None:
    """Code that finds out about the user with a model call does so for nobody, and once."""
    models = ModelCalls(kwai_sandbox.settings())

    def find(user: object) -> str:
        models.ask("who is it?")
        return "acme"

    async def app() -> Any:
        return await models.ask_async("hi")

    serve(app, kwai.UserIdentity({"identifier": find}), SimpleUser("x"))
    assert {"who is it?": None, "hi": "acme"} == asked(kwai_sandbox, 2)


@pytest.mark.parametrize("kind", ["ask", "ask_async"])
def test_a_user_that_cannot_be_read(kwai_sandbox: Sandbox, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    """Calls are refused rather than nobody's; `current_caller()` is None, with one warning that holds no value."""

    class VaultAway(Exception):
        """The app's own."""

    def fails(user: object) -> str:
        raise VaultAway("secret-of-the-user")

    models = ModelCalls(kwai_sandbox.settings())

    async def app() -> Any:
        answer = getattr(models, kind)("hi")
        answer = await answer if kind == "ask_async" else answer
        return answer, kwai.current_caller(), kwai.current_caller(), kwai.carry_caller(kwai.current_caller)()

    before = _notices.counts().get("user_unreadable", 0)
    answer, *callers = serve(app, kwai.UserIdentity({"identifier": fails}), SimpleUser("x"))
    assert (401, "cannot_attribute") == (answer["status"], answer["refused"])
    assert "VaultAway" in answer["reason"]
    assert [None, None, None] == callers
    assert before + 4 == _notices.counts()["user_unreadable"]
    assert "secret-of-the-user" not in caplog.text + answer["reason"]
    assert [] == kwai_sandbox.calls()


def test_the_warning_of_an_unreadable_user(caplog: pytest.LogCaptureFixture) -> None:
    """It is given once, and says which attribute is wrong and that calls are refused."""

    async def app() -> Any:
        return [kwai.current_caller(), kwai.current_caller()]

    serve(app, kwai.UserIdentity({"identifier": "no_such_thing"}), SimpleUser("x"))
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "model calls are refused" in warning
    assert "UserIdentity.identifier: the user has no 'no_such_thing'" in warning


def test_a_plain_transport_raises_why(kwai_sandbox: Sandbox) -> None:
    """The exception names the attribute, and comes from the one that explains it."""

    async def app() -> Any:
        slot = kwai._context.current_slot()  # type: ignore[attr-defined]
        with pytest.raises(CannotAttribute, match=r"UserIdentity\.email: expected a str, an int, a UUID or None"):
            slot.unsettled.paying_caller(None, with_keys=False)

    serve(app, kwai.UserIdentity({"identifier": "username", "email": "is_authenticated"}), SimpleUser("x"))


def test_without_a_sign_in(caplog: pytest.LogCaptureFixture) -> None:
    """Where no framework tells of a user at all it is nobody, with one warning that says what is needed."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        callers.extend([kwai.current_caller(), kwai.current_caller()])

    callers: list[Any] = []
    before = _notices.counts().get("user_untold", 0)
    door = kwai.ASGIMiddleware(app, identify=kwai.UserIdentity(ATTRIBUTES))
    asyncio.run(door({"type": "http", "method": "GET", "path": "/", "headers": []}, None, None))  # type: ignore[arg-type]
    assert [None, None] == callers
    assert before + 2 == _notices.counts()["user_untold"]
    assert ["AuthenticationMiddleware" in record.getMessage() for record in caplog.records] in ([True], [])


def test_a_scope_that_is_copied(kwai_sandbox: Sandbox) -> None:
    """Channels' middleware gives what is inside of it a copy of the scope: a door in there sees the user."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(who().get("identifier"))

    seen: list[Any] = []
    door = kwai.ASGIMiddleware(app, identify=kwai.UserIdentity(ATTRIBUTES), override=True)

    async def copying(scope: Any, receive: Any, send: Any) -> None:
        await door({**scope, "user": User("user-7")}, receive, send)

    outer = kwai.ASGIMiddleware(copying)
    asyncio.run(outer({"type": "http", "method": "GET", "path": "/", "headers": []}, None, None))  # type: ignore[arg-type]
    assert [customer(7)] == seen


@pytest.mark.parametrize("user", [None, User("user-7")])
def test_nothing_is_left_for_the_garbage_collector(user: Any) -> None:
    """A request is freed at its end, without a search for cycles, whether somebody was found or not."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["user"] = user
        assert (user is None) == (kwai.current_caller() is None)

    class Probe:
        pass

    async def main() -> Any:
        probe = Probe()
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "probe": probe}
        await kwai.ASGIMiddleware(app, identify=kwai.UserIdentity(ATTRIBUTES))(scope, None, None)  # type: ignore[arg-type]
        return weakref.ref(probe)

    gc.disable()
    try:
        assert asyncio.run(main())() is None
    finally:
        gc.enable()


def test_users_at_once(kwai_sandbox: Sandbox) -> None:
    """Sixty-four users at once under uvicorn: each call is its own user's; on their connections nobody follows them."""
    port = free_port()
    argv = ["-m", "uvicorn", "--factory", "tests.apps.users_fastapi:from_env", "--port", str(port)]
    with running(argv, ready=f"http://127.0.0.1:{port}/docs", env=environment_for(kwai_sandbox)):
        asyncio.run(_everybody(f"http://127.0.0.1:{port}"))
    calls = asked(kwai_sandbox, 64 * 2)
    for question, found in calls.items():
        who_asks, number, _ = question.split(" ", 2)
        assert (customer(int(number)) if who_asks == "user" else None) == found


async def _everybody(url: str) -> None:
    async def user(number: int) -> None:
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(
            base_url=url, limits=limits, timeout=DEADLINE, trust_env=False, verify=False
        ) as client:
            answer = await client.post("/login", params={"name": f"user-{number}"})
            cookie = answer.headers["set-cookie"].partition(";")[0]
            client.cookies.clear()
            await meeting.wait()
            for question, headers in (("user", {"cookie": cookie}), ("anonymous", {})):
                path = "/ask" if number % 2 else "/ask-in-thread"
                await client.get(path, params={"q": f"{question} {number} asks"}, headers=headers)

    meeting = asyncio.Barrier(64)
    async with asyncio.TaskGroup() as group:
        for number in range(64):
            group.create_task(user(number))


class Known(UserSource):
    """A user who is known at once; counts how often it is read."""

    origin = "test"

    def __init__(self) -> None:
        self.reads = 0

    def read(self) -> kwai.Caller:
        self.reads += 1
        return kwai.Caller(identifier="acme")

    async def read_async(self) -> kwai.Caller:
        return self.read()

    def keep(self) -> None:
        raise ZeroDivisionError


def test_nobody_is_looked_for_when_it_is_too_late() -> None:
    """Work whose caller holds no more is carried away without a look; what is wrong in there stays in there."""
    now = [0.0]
    user = Known()
    unsettled = Unsettled(user=user, valid_until=5.0, clock=lambda: now[0])
    now[0] = 5.0
    unsettled.settle(None)
    assert (0, None, None) == (user.reads, unsettled.caller(None), unsettled.settled(None))
    now[0] = 4.0
    unsettled.settle(None)
    unsettled.settle(None)
    assert (1, "acme") == (user.reads, unsettled.settled(None).identifier)  # type: ignore[union-attr]


def test_our_own_bug_at_the_end_of_a_request(nothing_is_swallowed: list[BaseException]) -> None:
    """Keeping the user fails nobody's request; it is reported. Without a user there is nothing to keep."""
    Unsettled(valid_until=5.0).keep_user()
    Unsettled(user=Known()).keep_user()
    (swallowed,) = nothing_is_swallowed
    assert isinstance(swallowed, ZeroDivisionError)
    nothing_is_swallowed.clear()


def test_a_look_inside_of_a_look() -> None:
    """While one user is looked for, another may be; neither asks for itself, and when one is over it may be asked."""
    outer, inner, over = Known(), Known(), contextvars.copy_context()
    with reading(outer):
        with reading(inner):
            assert is_reading(outer)
            assert is_reading(inner)
            over = contextvars.copy_context()
        assert not is_reading(inner)
        assert over.run(is_reading, outer)
    assert not over.run(is_reading, outer)
    assert not over.run(is_reading, inner)
    with over.run(reading, outer):
        assert is_reading(outer)
    assert not is_reading(outer)
