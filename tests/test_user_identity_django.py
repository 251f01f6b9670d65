"""UserIdentity with Django's sign-in, under WSGI and ASGI: the user is found without a query on the event loop."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject
from werkzeug.test import Client

import kwai_middleware as kwai
from kwai_middleware import _notices
from kwai_middleware._slot import Slot
from kwai_middleware._unsettled import Unsettled
from kwai_middleware._user_source import Unreadable
from kwai_middleware.django import UserMiddleware
from kwai_middleware.testing import Sandbox
from tests.apps import users_django
from tests.apps.users_django import ATTRIBUTES, GROUPS, asgi, wsgi
from tests.support.callers import key_of
from tests.support.examples import environment_for
from tests.support.model_calls import asked, who
from tests.support.processes import DEADLINE, PROJECT, free_port, running

pytest_plugins = ["kwai_middleware.testing"]

SEVEN = {"identifier": "user-7", "email": "user-7@example.com", "from": "user of django"}
NOBODY = {"from": None}


@pytest.fixture(scope="session", autouse=True)
def tables() -> None:
    """The users are there; once a process, also where a worker comes back to this module after others."""
    users_django.prepare()


@pytest.fixture(autouse=True)
def vendor(kwai_sandbox: Sandbox) -> Sandbox:
    """The vendor whom the views call."""
    users_django.call_at(kwai_sandbox.settings())
    return kwai_sandbox


class Browser:
    """Keeps cookies, and asks either kind of app."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._cookies: dict[str, str] = {}

    def get(self, path: str, headers: Any = None, **query: str) -> Any:
        """Send a request; returns the answer."""
        response = self._send(path, headers or {}, query)
        assert 200 == response.status_code, response.text
        return response

    def log_in(self, name: str = "user-7", path: str = "/login") -> Any:
        """Sign in; returns what the view has seen of it."""
        return self.get(path, name=name, q="login").json()

    def _send(self, path: str, headers: dict[str, str], query: dict[str, str]) -> httpx.Response:
        transport: Any

        async def sent() -> httpx.Response:
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://app", cookies=self._cookies) as client:
                response = await client.get(path, params=query, headers=headers)
                self._cookies = dict(client.cookies)
                return response

        if isinstance(self._app, kwai.ASGIMiddleware):
            return asyncio.run(sent())
        transport = httpx.WSGITransport(self._app)
        with httpx.Client(transport=transport, base_url="http://app", cookies=self._cookies) as client:
            response = client.get(path, params=query, headers=headers)
            self._cookies = dict(client.cookies)
            return response


both = pytest.mark.parametrize("door", [wsgi, asgi])


@pytest.mark.parametrize("attributes", [ATTRIBUTES, GROUPS], ids=["plain", "with a query"])
@pytest.mark.parametrize(
    ("door", "path"),
    [
        (wsgi, "/ask"),
        (wsgi, "/thread"),
        (wsgi, "/stream"),
        (wsgi, "/ask_async"),
        (asgi, "/ask"),
        (asgi, "/thread"),
        (asgi, "/ask_async"),
        (asgi, "/stream_async"),
    ],
)
def test_a_call_is_the_users(vendor: Sandbox, door: Callable[..., Any], path: str, attributes: Any) -> None:
    """In sync and async views, on threads and in bodies, also where the attributes query the database."""
    browser = Browser(door(attributes))
    browser.get(path, q="anonymous")
    browser.log_in()
    browser.get(path, q="signed in")
    assert {"anonymous": None, "login": "user-7", "signed in": "user-7"} == asked(vendor, 3)


@both
def test_login_and_logout(vendor: Sandbox, door: Callable[..., Any]) -> None:
    """A login counts in the middle of its request; after a logout it is nobody."""
    browser = Browser(door())
    before, after, _ = browser.log_in()
    assert (NOBODY, SEVEN) == (before, after)
    assert SEVEN == browser.get("/get_who").json()
    assert NOBODY == browser.get("/logout").json()
    assert NOBODY == browser.get("/get_who").json()
    assert {"login": "user-7"} == asked(vendor, 1)


def test_an_async_login(vendor: Sandbox) -> None:
    """So does one with Django's async functions, after the user has been asked for in vain."""
    _, _, after = Browser(asgi()).log_in(path="/login_async")
    assert SEVEN == after
    assert {"login before": None, "login": "user-7"} == asked(vendor, 2)


def test_on_the_event_loop(vendor: Sandbox, caplog: pytest.LogCaptureFixture) -> None:
    """Where the user is unknown and nothing can wait, it is nobody, and calls are refused with advice."""
    browser = Browser(asgi())
    browser.log_in()
    caplog.clear()
    early, refused, known, answered = browser.get("/on_the_loop", q="known").json()
    assert (NOBODY, SEVEN) == (early, known)
    assert ("cannot_attribute", None) == (refused["refused"], answered["refused"])
    assert "`await request.auser()`" in refused["reason"]
    assert {"login": "user-7", "known": "user-7"} == asked(vendor, 2)
    warned = [record.getMessage() for record in caplog.records if record.name == "kwai_middleware"]
    assert [True] * len(warned) == ["`await request.auser()`" in text for text in warned]
    assert 2 > len(warned)


def test_on_the_event_loop_with_a_query(vendor: Sandbox) -> None:
    """An attribute that queries the database cannot be read there either: the call is refused, not nobody's."""
    browser = Browser(asgi(GROUPS))
    browser.log_in()
    early, _, still, refused = browser.get("/on_the_loop", q="known").json()
    assert (NOBODY, NOBODY, "cannot_attribute") == (early, still, refused["refused"])
    assert {"login": "user-7"} == asked(vendor, 1)


def test_django_may_be_told_to_allow_queries_there(vendor: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Django would let a query block the event loop, this does not."""
    browser = Browser(asgi())
    browser.log_in()
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    early, refused, known, _ = browser.get("/on_the_loop", q="known").json()
    assert (NOBODY, "cannot_attribute", SEVEN) == (early, refused["refused"], known)


def test_django_is_not_installed() -> None:
    """The message says what to install."""
    code = "import sys; sys.modules['django'] = None; import kwai_middleware.django"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=DEADLINE)
    assert 1 == done.returncode
    assert "kwai_middleware.django needs Django: pip install django" == done.stderr.strip().rpartition("Error: ")[2]


def test_calls_at_once(vendor: Sandbox) -> None:
    """Tasks and a thread of one view that all ask at once get the same answer."""
    browser = Browser(asgi(GROUPS))
    browser.log_in()
    browser.get("/together", q="at once")
    assert {"login": "user-7"} | {f"at once {number}": "user-7" for number in (1, 2, 3)} == asked(vendor, 4)


def test_keys_of_a_vault(vendor: Sandbox) -> None:
    """An async KeyResolver is asked for the keys of Django's user."""

    async def keys_of(caller: kwai.Caller) -> list[kwai.Credential]:
        return [kwai.Credential(api_key=kwai.Secret(key_of(f"vault-{caller.identifier}")))]

    browser = Browser(asgi(credentials=kwai.KeyResolver(keys_of)))
    browser.log_in()
    browser.get("/ask_async", q="hi")
    fingerprint = kwai.Secret(key_of("vault-user-7")).fingerprint
    assert 2 == len(vendor.calls(wait=2, paid_by=fingerprint, customer="user-7"))


class Handed:
    """A request handed over by the middleware, with what is asked of it."""

    def __init__(self, request: Any, attributes: Any = ATTRIBUTES) -> None:
        self.request = request
        scope: dict[str, Any] = {"type": "http", "method": "GET", "path": "/", "headers": []}

        async def app(scope: Any, receive: Any, send: Any) -> None:
            self.slot: Slot = scope["kwai_middleware"]
            request.scope = scope
            assert request is UserMiddleware(lambda handed: handed)(request)
            del request.scope

        asyncio.run(kwai.ASGIMiddleware(app, identify=kwai.UserIdentity(attributes))(scope, None, None))  # type: ignore[arg-type]
        assert isinstance(self.slot.unsettled, Unsettled)
        self.user: Any = self.slot.unsettled.user


def test_another_kind_of_user() -> None:
    """What an app's own middleware has set as `request.user` counts, and where there is no `auser()` that is asked."""
    request = HttpRequest()
    request.user = SimpleNamespace(username="acme", email="")  # type: ignore[attr-defined]
    handed = Handed(request)
    assert kwai.Caller(identifier="acme") == handed.user.read() == asyncio.run(handed.user.read_async())

    class Own(HttpRequest):
        user = SimpleNamespace(username="own", email=None)

    own = Handed(Own())
    assert kwai.Caller(identifier="own") == own.user.read() == asyncio.run(own.user.read_async())


def test_a_user_whom_another_middleware_has_put_in_place() -> None:
    """Support staff that acts for a customer: the customer counts, although Django remembers who has signed in."""
    for remembered in ("_cached_user", "_acached_user"):
        request: Any = HttpRequest()
        setattr(request, remembered, SimpleNamespace(username="staff", email=""))
        request.user = SimpleLazyObject(lambda: SimpleNamespace(username="customer", email=""))
        request.auser = lambda: pytest.fail("it does not know of the customer")
        handed = Handed(request)
        assert kwai.Caller(identifier="customer") == handed.user.read()
        request.user = SimpleLazyObject(lambda: SimpleNamespace(username="customer", email=""))
        assert kwai.Caller(identifier="customer") == asyncio.run(handed.user.read_async())
        request.user = SimpleLazyObject(lambda: SimpleNamespace(username="customer", email=""))

        async def read(handed: Any = handed) -> None:
            with pytest.raises(Unreadable, match="on the event loop"):
                handed.user.read()

        asyncio.run(read())


def test_without_a_sign_in() -> None:
    """In a project without users it is nobody, and that is said once."""
    before = _notices.counts().get("user_untold", 0)
    handed = Handed(HttpRequest())
    assert handed.user.read() is None
    assert asyncio.run(handed.user.read_async()) is None
    assert before + 2 == _notices.counts()["user_untold"]


def test_when_the_request_is_over() -> None:
    """The request is not kept. Who was known at its end still is; if nobody was, that cannot be told any more."""
    request = HttpRequest()
    request.user = SimpleNamespace(username="acme", email="")  # type: ignore[attr-defined]
    known, unknown = Handed(request), Handed(HttpRequest())
    gone = weakref.ref(request)
    del request, known.request, unknown.request
    gc.collect()
    assert gone() is None
    assert kwai.Caller(identifier="acme") == known.user.read() == asyncio.run(known.user.read_async())
    with pytest.raises(Unreadable, match=r"^Django's request is over"):
        unknown.user.read()
    with pytest.raises(Unreadable, match=r"^Django's request is over"):
        asyncio.run(unknown.user.read_async())


@pytest.mark.parametrize("identify", [None, kwai.HeaderIdentity()])
def test_without_a_user_identity(identify: Any) -> None:
    """Below another door, and below none, the middleware has nothing to do."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [])
        request: Any = SimpleNamespace(environ=environ)
        return [str(UserMiddleware(lambda request: who())(request)).encode()]

    assert str(NOBODY) == Client(app).get("/").text
    assert str(NOBODY) == Client(kwai.WSGIMiddleware(app, identify=identify)).get("/").text


def test_it_is_of_the_kind_of_what_follows() -> None:
    """Django needs to know whether a middleware is async; this one is what the next one is."""

    async def view(request: Any) -> None: ...

    assert iscoroutinefunction(UserMiddleware(view))
    assert not iscoroutinefunction(UserMiddleware(lambda request: None))


def test_users_at_once(vendor: Sandbox) -> None:
    """Eight users at once under uvicorn, sync views and async ones, with anonymous requests on the same connections."""
    port = free_port()
    argv = ["-m", "uvicorn", "--factory", "tests.apps.users_django:from_env", "--port", str(port)]
    with running(argv, ready=f"http://127.0.0.1:{port}/get_who", env=environment_for(vendor)):
        asyncio.run(_everybody(f"http://127.0.0.1:{port}"))
    calls = asked(vendor, 8 * 5)
    for question, found in calls.items():
        who_asks, number, _ = question.split(" ", 2)
        assert (f"user-{number}" if who_asks == "user" else None) == found


async def _everybody(url: str) -> None:
    async def user(number: int) -> None:
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(
            base_url=url, limits=limits, timeout=DEADLINE, trust_env=False, verify=False
        ) as client:
            name = f"user-{number}"
            answer = await client.get("/login", params={"name": name, "q": f"user {number} signs in"})
            cookie = answer.headers["set-cookie"].partition(";")[0]
            client.cookies.clear()
            await meeting.wait()
            for path in ("/ask", "/ask_async"):
                await client.get(path, params={"q": f"user {number} at {path}"}, headers={"cookie": cookie})
                await client.get(path, params={"q": f"anonymous {number} at {path}"})

    meeting = asyncio.Barrier(8)
    async with asyncio.TaskGroup() as group:
        for number in range(8):
            group.create_task(user(number))
