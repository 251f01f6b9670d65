"""UserIdentity with Flask-Login: a call is the user's who has signed in, also where Flask has forgotten the request."""

from __future__ import annotations

import gc
import http.client
import weakref
from typing import Any

import pytest
from flask import Flask
from werkzeug.test import Client, EnvironBuilder

import kwai_middleware as kwai
from kwai_middleware import _notices
from kwai_middleware.testing import Sandbox
from tests.apps.users_flask import ATTRIBUTES, build
from tests.support.callers import key_of
from tests.support.examples import environment_for
from tests.support.model_calls import asked, who
from tests.support.processes import DEADLINE, free_port, running

pytest_plugins = ["kwai_middleware.testing"]

SEVEN = {"identifier": "user-7", "email": "user-7@example.com", "from": "user of flask-login"}
NOBODY = {"from": None}


@pytest.fixture
def app(kwai_sandbox: Sandbox) -> Flask:
    """The app, whose vendor is the sandbox."""
    return build(kwai_sandbox.settings())


def signed_in(app: Flask, name: str = "user-7") -> Any:
    """A browser in which somebody has signed in."""
    client = app.test_client()
    assert 200 == client.post("/login", query_string={"name": name}).status_code
    return client


def ask(client: Any, path: str, q: str, **more: str) -> Any:
    """Have a view call a model."""
    response = client.get(path, query_string={"q": q, **more})
    assert (200, True) == (response.status_code, bool(response.get_data()))
    return response


@pytest.mark.parametrize(
    ("path", "more"),
    [
        ("/ask", {}),
        ("/ask-async", {}),
        ("/thread", {}),
        ("/stream", {"how": "context"}),
        ("/stream", {"how": "asked"}),
        ("/stream", {"how": "loaded"}),
    ],
)
def test_a_call_is_the_users(app: Flask, kwai_sandbox: Sandbox, path: str, more: dict[str, str]) -> None:
    """In a view, on a thread it starts, in a body that Flask has forgotten the request of; anonymous is nobody's."""
    ask(signed_in(app), path, "signed in", **more)
    ask(app.test_client(), path, "anonymous", **more)
    assert {"signed in": "user-7", "anonymous": None} == asked(kwai_sandbox, 2)


def test_a_body_that_nobody_asked_before(app: Flask, kwai_sandbox: Sandbox) -> None:
    """Where the user cannot be known any more the call is refused, with what to do; it is not nobody's."""
    response = ask(signed_in(app), "/stream", "too late", how="bare")
    assert "cannot_attribute" in response.text
    assert "stream_with_context()" in response.text
    assert [] == kwai_sandbox.calls()


def test_login_and_logout(app: Flask, kwai_sandbox: Sandbox) -> None:
    """A login counts in the middle of its request; a request whose user was read stays theirs, the next is nobody's."""
    client = app.test_client()
    before, _, after, _ = client.post("/login", query_string={"name": "user-7", "q": "login"}).json
    assert (NOBODY, SEVEN) == (before, after)
    assert SEVEN == client.get("/who").json
    assert [SEVEN, SEVEN] == client.post("/logout").json
    assert NOBODY == client.get("/who").json
    assert {"login before": None, "login after": "user-7"} == asked(kwai_sandbox, 2)


@pytest.mark.parametrize("carry", [{"carry": "yes"}, {}])
def test_a_thread_with_another_request(app: Flask, kwai_sandbox: Sandbox, carry: dict[str, str]) -> None:
    """A thread with another request's context pushed works for the one it was carried from, and else for nobody."""
    other = signed_in(app, "user-8").get_cookie("session")
    cookie = f"session={other.value}"
    for name, client in (("user-7", signed_in(app)), (None, app.test_client())):
        ((another, found, _),) = ask(client, "/thread-of-another", f"{name}", cookie=cookie, **carry).json
        assert ("user-8", name if carry else None) == (another, found.get("identifier"))
    assert {"user-7": "user-7" if carry else None, "None": None} == asked(kwai_sandbox, 2)


def test_another_request_while_nothing_is_known(app: Flask) -> None:
    """What is asked while another request of the same app is active does not learn that one's user."""
    identify = kwai.UserIdentity(ATTRIBUTES)
    cookie = f"session={signed_in(app, 'user-8').get_cookie('session').value}"

    def outer(environ: Any, start_response: Any) -> Any:
        with app.test_request_context(headers={"cookie": cookie}):
            found.append(who())
        with app.request_context(EnvironBuilder(headers={"cookie": cookie}).get_environ()):
            found.append(who())
        return app(environ, start_response)

    found: list[Any] = []
    door = kwai.WSGIMiddleware(outer, identify=identify)
    response = Client(door, use_cookies=False).get("/who", headers={"cookie": cookie})
    assert [NOBODY, NOBODY] == found
    assert {"identifier": "user-8", "email": "user-8@example.com", "from": "user of flask-login"} == response.json


def test_the_loader_may_ask(app: Flask) -> None:
    """A user loader that asks who is current is told nobody; it runs once for a request, and only when asked for."""
    client = signed_in(app)
    assert SEVEN == client.get("/who").json
    assert [None] == app.extensions["loaded"]
    client.get("/unasked")
    assert [None] == app.extensions["loaded"]


def test_a_loader_that_fails(app: Flask, kwai_sandbox: Sandbox) -> None:
    """Its calls are refused; nobody else pays for them."""
    client = signed_in(app)

    @app.login_manager.user_loader  # type: ignore[attr-defined]
    def fails(name: str) -> Any:
        raise ConnectionError("the database is away")

    answer = ask(client, "/ask", "hi").json
    assert (401, "cannot_attribute") == (answer["status"], answer["refused"])
    assert "ConnectionError" in answer["reason"]
    assert "database" not in answer["reason"]
    assert NOBODY == client.get("/who").json
    assert [] == kwai_sandbox.calls()


def test_keys_of_the_header_and_of_a_vault(kwai_sandbox: Sandbox) -> None:
    """The key may come with the request, or from a vault; it pays for the user who has signed in."""

    def keys_of(caller: kwai.Caller) -> list[kwai.Credential]:
        return [kwai.Credential(api_key=kwai.Secret(key_of(f"vault-{caller.identifier}")))]

    credentials = kwai.first_of(kwai.HeaderCredentials(), kwai.KeyResolver(keys_of))
    client = signed_in(build(kwai_sandbox.settings(), credentials=credentials))
    ask(client, "/ask", "vault")
    client.get("/ask", query_string={"q": "header"}, headers={"x-openrouter-key": key_of("sent")})
    paid = {call["body"]["messages"][-1]["content"]: call["paid_by"]["fingerprint"] for call in kwai_sandbox.calls()}
    assert {
        "vault": kwai.Secret(key_of("vault-user-7")).fingerprint,
        "header": kwai.Secret(key_of("sent")).fingerprint,
    } == paid
    assert {"vault": "user-7", "header": "user-7"} == asked(kwai_sandbox, 2)


def test_an_app_without_a_sign_in() -> None:
    """In an app that uses no Flask-Login nobody has signed in, and that is said once."""
    app = Flask(__name__)
    app.get("/who")(who)
    app.wsgi_app = kwai.WSGIMiddleware(app.wsgi_app, identify=kwai.UserIdentity(ATTRIBUTES))  # type: ignore[method-assign]
    before = _notices.counts().get("user_untold", 0)
    assert NOBODY == app.test_client().get("/who").json
    assert before < _notices.counts()["user_untold"]


def test_an_answer_that_begins_outside_of_flask(kwai_sandbox: Sandbox) -> None:
    """What answers without Flask, though Flask is there, is nobody's and undisturbed."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("content-type", "text/plain")], None)
        return [str(who()).encode()]

    door = kwai.WSGIMiddleware(app, identify=kwai.UserIdentity(ATTRIBUTES))
    assert str(NOBODY) == Client(door).get("/").text


def test_nothing_is_left_for_the_garbage_collector() -> None:
    """A request is freed at its end, without a search for cycles."""

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [], None)
        return [str(who()).encode()]

    class Probe:
        pass

    door = kwai.WSGIMiddleware(app, identify=kwai.UserIdentity(ATTRIBUTES))
    probe = Probe()
    gone = weakref.ref(probe)
    gc.disable()
    try:
        assert [str(NOBODY).encode()] == door({"REQUEST_METHOD": "GET", "probe": probe}, lambda *_: None)  # type: ignore[arg-type,return-value]
        del probe
        assert gone() is None
    finally:
        gc.enable()


def test_under_a_real_server(kwai_sandbox: Sandbox) -> None:
    """Under gunicorn with threads, on one connection: a user, somebody anonymous, another user; each its own."""
    port = free_port()
    argv = ["-m", "gunicorn", "tests.apps.users_flask:from_env()", "--bind", f"127.0.0.1:{port}", "--threads", "4"]
    with running(argv, ready=f"http://127.0.0.1:{port}/unasked", env=environment_for(kwai_sandbox)):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)

        def fetch(method: str, path: str, cookie: str = "") -> Any:
            connection.request(method, path, headers={"cookie": cookie} if cookie else {})
            with connection.getresponse() as response:
                response.read()
                return (response.headers["set-cookie"] or "").partition(";")[0]

        seven, eight = (fetch("POST", f"/login?name=user-{number}") for number in (7, 8))
        for q, cookie in (("seven", seven), ("anonymous", ""), ("eight", eight), ("anonymous-again", "")):
            fetch("GET", f"/stream?how=context&q={q}", cookie)
        connection.close()
    expected = {"seven": "user-7", "anonymous": None, "eight": "user-8", "anonymous-again": None}
    assert expected == asked(kwai_sandbox, 4)
