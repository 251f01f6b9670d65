"""An issuer's keys: when they are fetched, who waits for them, and what happens while the issuer is down."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI
from flask import Flask

from kwai_middleware import ASGIMiddleware, WSGIMiddleware, _notices, current_caller
from kwai_middleware.errors import RequestRefused
from kwai_middleware.jwt_identity import JWTIdentity
from tests.apps.doors import DOORS, ASGIDoor, Door, Seen
from tests.support.issuer import NOW, Clock, Issuer, bearer, issuer, jwk, key, part
from tests.support.processes import DEADLINE, PROJECT, free_port, running

GOOD = json.dumps(jwk(key("P-256"), "ES256", kid="first")).encode()


@pytest.fixture
def trusted() -> Iterator[Issuer]:
    with issuer() as server:
        # Another test may have had one on this port, of which a warning was given.
        _notices._warned.pop(("jwks_not_fetched", where(server)), None)
        yield server


def where(issuer: Issuer) -> str:
    """What a warning calls an issuer."""
    return issuer.url.removeprefix("http://")


@pytest.fixture(params=DOORS, ids=lambda door: door.name)
def door(request: pytest.FixtureRequest) -> Door:
    """Each test holds for both doors."""
    chosen: Door = request.param
    return chosen


def ask(identity: JWTIdentity, token: str, door: Door = DOORS[1]) -> int:
    """Ask with a token; returns the status."""
    seen = door.ask(bearer(token), identify=identity)
    assert seen.app_ran == (seen.caller is not None) == (seen.status == 200)
    return seen.status


def landed(identity: JWTIdentity) -> None:
    """Wait for the fetch that is under way, for which no request waits."""
    keys: Any = identity._keys
    keys._flight._landed.result(DEADLINE)


def served(identity: JWTIdentity) -> httpx.AsyncClient:
    """A client of a FastAPI app that says who calls."""
    app = FastAPI()

    @app.get("/")
    async def who() -> str | None:
        caller = current_caller()
        return None if caller is None else caller.identifier

    return httpx.AsyncClient(
        transport=httpx.ASGITransport(ASGIMiddleware(app, identify=identity)), base_url="http://app.example"
    )


def flask_app(identity: JWTIdentity) -> Flask:
    """A Flask app that says who calls."""
    app = Flask(__name__)

    @app.get("/")
    def who() -> str:
        caller = current_caller()
        return "nobody" if caller is None else str(caller.identifier)

    app.wsgi_app = WSGIMiddleware(app.wsgi_app, identify=identity)  # type: ignore[method-assign]  # as Flask says
    return app


async def asked(issuer: Issuer, times: int) -> None:
    """Wait on an event loop until so many fetches have begun."""
    await asyncio.wait_for(asyncio.to_thread(issuer.wait_until_asked, times), DEADLINE)


# --- fetching


def test_keys_are_fetched_once(door: Door, trusted: Issuer) -> None:
    """The first token brings the keys; nothing else asks for them, least of all a request without a token."""
    own = trusted.identity()
    assert door.ask(identify=own).app_ran
    assert 0 == trusted.fetches
    assert {200} == {ask(own, trusted.token(sub=f"c{number}"), door) for number in range(5)}
    assert 1 == trusted.fetches


def test_in_fastapi(trusted: Issuer) -> None:
    """A real app under ASGI sees the caller, and a forged token gets the problem document."""

    async def main() -> None:
        async with served(trusted.identity()) as client:
            assert "acme" == (await client.get("/", headers=bearer(trusted.token()))).json()
            assert (await client.get("/")).json() is None
            refused = await client.get("/", headers=bearer(trusted.token("mallory")))
            assert (401, "authorization") == (refused.status_code, refused.json()["header"])

    asyncio.run(main())


def test_in_flask(trusted: Issuer) -> None:
    """A real app under WSGI sees the caller; the first request waits on its own thread."""
    client = flask_app(trusted.identity()).test_client()
    assert "acme" == client.get("/", headers=bearer(trusted.token())).text
    assert "nobody" == client.get("/").text
    assert 401 == client.get("/", headers=bearer(trusted.token("mallory"))).status_code


def test_under_uvicorn(trusted: Issuer) -> None:
    """Started as a user starts it, by the real clock."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    environment = {"ISSUER": trusted.url}
    argv = ["-m", "uvicorn", "--port", str(port), "tests.apps.who_jwt:app"]
    with running(argv, ready=url, env=environment), httpx.Client(base_url=url) as client:
        assert {"who": "acme"} == client.get("/", headers=bearer(trusted.token(iat=None, exp=4e9))).json()
        assert 401 == client.get("/", headers=bearer(trusted.token(iat=None, exp=NOW - 1e9))).status_code
        assert {"who": None} == client.get("/").json()


def test_the_loop_goes_on_meanwhile(trusted: Issuer) -> None:
    """While an issuer is slow, other requests are answered; all who wait for it share one fetch."""

    async def main() -> None:
        gate = trusted.hold_next()
        async with served(trusted.identity(timeout=DEADLINE)) as client:
            waiting = [asyncio.create_task(client.get("/", headers=bearer(trusted.token()))) for _ in range(20)]
            await asked(trusted, 1)
            assert (await client.get("/")).json() is None
            assert not any(task.done() for task in waiting)
            gate.set()
            assert {"acme"} == {(await task).json() for task in waiting}
        assert 1 == trusted.fetches

    asyncio.run(main())


def test_who_gives_up_takes_nothing_from_the_others(trusted: Issuer) -> None:
    """A client that goes away while keys are fetched ends its own wait only."""

    async def main() -> None:
        gate = trusted.hold_next()
        async with served(trusted.identity(timeout=DEADLINE)) as client:
            gone, stays = (asyncio.create_task(client.get("/", headers=bearer(trusted.token()))) for _ in range(2))
            await asked(trusted, 1)
            gone.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await gone
            assert gone.cancelled()
            gate.set()
            assert "acme" == (await stays).json()
        assert 1 == trusted.fetches

    asyncio.run(main())


def test_threads_share_a_fetch(trusted: Issuer) -> None:
    """Requests of a WSGI server that come at once wait for one fetch."""
    gate = trusted.hold_next()
    own = trusted.identity(timeout=DEADLINE)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, own, trusted.token()) for _ in range(8)]
        trusted.wait_until_asked(1)
        gate.set()
        assert {200} == {answer.result(DEADLINE) for answer in answers}
    assert 1 == trusted.fetches


def test_no_frame_holds_the_token_after_a_wait(trusted: Issuer) -> None:
    """An error that is raised after keys have been waited for leads to no token either."""
    own, token, caught = trusted.identity(), trusted.token("mallory"), list[RequestRefused]()

    async def identify(request: Any) -> Any:
        answer: Any = own(request)
        try:
            return await answer
        except RequestRefused as refusal:
            caught.append(refusal)
            raise

    assert 401 == ASGIDoor().ask(bearer(token), identify=identify).status
    frames = [frame for frame, _ in traceback.walk_tb(caught[0].__traceback__) if "kwai" in frame.f_code.co_filename]
    shown = " ".join(repr(value) for frame in frames for value in frame.f_locals.values() if isinstance(value, str))
    assert "_later" in {frame.f_code.co_name for frame in frames}
    assert token not in shown


def test_on_the_loop_of_another_library(trusted: Issuer) -> None:
    """Under trio keys are waited for as well, and its loop goes on meanwhile."""
    door = ASGIDoor()
    seen, other = Seen(), Seen()
    app = door.wrap(seen, identify=trusted.identity(timeout=DEADLINE))
    scope = door.scope(bearer(trusted.token()), "GET", "/", None)

    async def send(message: Any) -> None:
        pass

    async def main() -> None:
        gate = trusted.hold_next()
        async with anyio.create_task_group() as group:
            group.start_soon(app, scope, lambda: None, send)
            await anyio.to_thread.run_sync(trusted.wait_until_asked, 1)
            await door.wrap(other)(door.scope([], "GET", "/", None), lambda: None, send)  # type: ignore[arg-type, return-value]  # nothing is received
            assert (True, False) == (other.app_ran, seen.app_ran)
            gate.set()

    anyio.run(main, backend="trio")
    assert seen.caller is not None
    assert "acme" == seen.caller.identifier


# --- unknown keys


def test_a_new_key_is_fetched(door: Door, trusted: Issuer) -> None:
    """A token that is signed with a key published since then holds at once; the old key's tokens no longer."""
    clock = Clock()
    own = trusted.identity(clock)
    old, new = trusted.token(), trusted.token("second")
    assert (200, 200) == (ask(own, old, door), ask(own, old, door))
    trusted.publish("second")
    clock.now += 10
    assert 200 == ask(own, new, door)
    assert 401 == ask(own, old, door)
    assert 2 == trusted.fetches


def test_a_key_without_a_name_can_be_replaced(trusted: Issuer) -> None:
    """Where keys have no names, a signature that none of them has made is a reason to look again."""
    clock = Clock()
    own = trusted.identity(clock)
    for name in ("first", "second"):
        trusted.publish(name)
        del trusted.members[0]["kid"]
        assert 200 == ask(own, trusted.token(name))
        clock.now += 10
    assert 2 == trusted.fetches


def test_a_hundred_unknown_keys_are_one_fetch(trusted: Issuer) -> None:
    """Strangers who invent key ids cause one fetch at a time and one in so many seconds; each gets 401."""
    clock = Clock()

    async def main() -> None:
        async with served(trusted.identity(clock, timeout=DEADLINE)) as client:
            assert "acme" == (await client.get("/", headers=bearer(trusted.token()))).json()
            for fetches, seconds in ((1, 0), (2, 10), (2, 9), (3, 1)):
                clock.now += seconds
                tokens = [trusted.token("first", sub=f"c{number}") for number in range(100)]
                forged = [
                    token.replace(token.split(".")[0], _named(f"kid-{number}"), 1)
                    for number, token in enumerate(tokens)
                ]
                answers = await asyncio.gather(*(client.get("/", headers=bearer(token)) for token in forged))
                assert {401} == {answer.status_code for answer in answers}
                assert fetches == trusted.fetches
                assert "acme" == (await client.get("/", headers=bearer(trusted.token()))).json()

    asyncio.run(main())


def _named(kid: str) -> str:
    return part({"alg": "ES256", "typ": "JWT", "kid": kid})


def test_a_forged_signature_is_no_reason_to_fetch(trusted: Issuer) -> None:
    """A token that names a known key and is not signed with it is refused with what is at hand."""
    clock = Clock()
    own = trusted.identity(clock)
    assert 200 == ask(own, trusted.token())
    clock.now += 100
    assert 401 == ask(own, trusted.token("mallory").replace(_named("mallory"), _named("first")))
    assert 401 == ask(own, "rubbish")
    assert 1 == trusted.fetches


# --- age


def test_old_keys_are_fetched_anew_behind_the_scenes(door: Door, trusted: Issuer) -> None:
    """From their age on keys are fetched again, once, and nobody waits: tokens hold by those at hand."""
    clock = Clock()
    own = trusted.identity(clock, timeout=DEADLINE)
    assert 200 == ask(own, trusted.token(), door)
    clock.now += 599
    assert 200 == ask(own, trusted.token(), door)
    assert 1 == trusted.fetches
    clock.now += 1
    gate = trusted.hold_next()
    assert {200} == {ask(own, trusted.token(), door) for _ in range(5)}
    trusted.wait_until_asked(2)
    trusted.publish("second")
    gate.set()
    landed(own)
    assert 2 == trusted.fetches
    assert (401, 200) == (ask(own, trusted.token(), door), ask(own, trusted.token("second"), door))
    assert 2 == trusted.fetches


def test_the_same_keys_again_forget_nothing(trusted: Issuer) -> None:
    """Tokens stay verified while the keys stay the same, and are verified again when one has changed."""
    clock = Clock()
    own = trusted.identity(clock)
    token = trusted.token()

    def caller() -> Any:
        return DOORS[1].ask(bearer(token), identify=own).caller

    first = caller()
    for names, same in ((("first",), True), (("first", "second"), False)):
        trusted.publish(*names)
        clock.now += 600
        assert first is caller()
        landed(own)
        again = caller()
        assert first == again
        assert same == (first is again)


def test_a_clock_that_is_set_back_locks_nobody_out(trusted: Issuer) -> None:
    """Times in the future are taken as long ago: keys are fetched anew, not never again."""
    clock = Clock()
    own = trusted.identity(clock)
    assert 200 == ask(own, trusted.token())
    clock.now -= 30 * 86400
    assert 200 == ask(own, trusted.token(iat=None, exp=clock.now + 60))
    assert 2 == trusted.fetches


def test_a_fetch_may_land_at_any_moment(trusted: Issuer) -> None:
    """Keys that come while a request looks whether it has to wait for them are used by it, and not missed."""
    now, identities = [NOW], list[Any]()

    def clock() -> float:
        """Show the time, when whatever is under way has landed."""
        if identities and identities[0]._keys._flight and threading.current_thread().name != "kwai-jwks":
            landed(identities[0])
        return now[0]

    own = trusted.identity(clock)
    identities.append(own)
    assert 200 == ask(own, trusted.token())
    for seconds, name in ((600, "second"), (86400, "second"), (600, "third")):
        now[0] += seconds
        trusted.publish(name)
        assert 200 == ask(own, trusted.token(name, exp=now[0] + 60))
    assert 4 == trusted.fetches


# --- an issuer that is down


def test_without_keys_it_is_503(door: Door, trusted: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    """While no keys can be had, tokens are neither believed nor called wrong; not every request tries again."""
    clock = Clock()
    own = trusted.identity(clock)
    trusted.go_down()
    before = _notices.counts().get("jwks_not_fetched", 0)
    with caplog.at_level(logging.WARNING, "kwai_middleware"):
        for seconds, tries in ((0, 1), (9, 1), (1, 2), (5, 2)):
            clock.now += seconds
            seen = door.ask(bearer(trusted.token()), identify=own)
            assert (503, "Identity unavailable") == (seen.status, seen.problem["title"])
            assert before + tries == _notices.counts()["jwks_not_fetched"]
    [warning] = caplog.messages
    assert f"{where(trusted)} (ConnectError)" in warning
    assert door.ask(identify=own).app_ran
    trusted.come_back()
    clock.now += 5
    assert 200 == ask(own, trusted.token(), door)


def test_old_keys_do_for_a_while(trusted: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    """While the issuer is down its last keys are used for a day, with one warning; then it is 503."""
    clock = Clock()
    own = trusted.identity(clock)
    long_lived = trusted.token(exp=NOW + 10 * 86400)
    assert 200 == ask(own, long_lived)
    trusted.go_down()
    with caplog.at_level(logging.WARNING, "kwai_middleware"):
        for hours in (1, 12, 23.9):
            clock.now = NOW + hours * 3600
            assert 200 == ask(own, long_lived)
            landed(own)
            assert 401 == ask(own, trusted.token("second", exp=NOW + 10 * 86400))
        clock.now = NOW + 86400
        assert 503 == ask(own, long_lived)
    assert 1 == len(caplog.messages)
    trusted.come_back()
    clock.now += 10
    assert 200 == ask(own, long_lived)


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        pytest.param(500, {}, b"", id="500"),
        pytest.param(404, {}, b"{}", id="404"),
        pytest.param(204, {}, b"", id="204"),
        pytest.param(302, {"location": "/jwks.json"}, b"", id="redirect"),
        pytest.param(307, {"location": "https://mallory.example/"}, b"", id="redirect-elsewhere"),
        pytest.param(200, {}, b"", id="empty"),
        pytest.param(200, {}, b"<html>", id="html"),
        pytest.param(200, {}, b"\xff\xfe", id="bytes"),
        pytest.param(200, {}, b"[]", id="list"),
        pytest.param(200, {}, b"{}", id="no-keys"),
        pytest.param(200, {}, b'{"keys": {}}', id="keys-an-object"),
        pytest.param(200, {}, b'{"keys": []}', id="keys-empty"),
        pytest.param(200, {}, b'{"keys": [], "keys": []}', id="keys-twice"),
        pytest.param(200, {}, b'{"keys": [{"kty": "oct", "k": "AAAA"}]}', id="no-usable-key"),
        pytest.param(200, {}, b"[" * 100_000, id="deep"),
        pytest.param(200, {}, b'{"keys": [' + GOOD + b" " * (1 << 20) + b"]}", id="huge"),
        pytest.param(200, {"content-length": "100"}, b'{"keys"', id="cut"),
        pytest.param(200, {"content-encoding": "gzip"}, b"\x1f\x8b", id="gzip"),
    ],
)
def test_rubbish_is_no_key_set(trusted: Issuer, status: int, headers: dict[str, str], body: bytes) -> None:
    """Whatever comes instead of keys leaves those there are in use; where a redirect leads nobody goes."""
    clock = Clock()
    own = trusted.identity(clock)
    trusted.answer = lambda handler: (status, headers, body)
    assert 503 == ask(own, trusted.token())
    assert 1 == trusted.fetches
    trusted.answer = None
    clock.now += 10
    assert 200 == ask(own, trusted.token())
    trusted.answer = lambda handler: (status, headers, body)
    clock.now += 10
    assert (401, 200) == (ask(own, trusted.token("second")), ask(own, trusted.token()))
    assert 3 == trusted.fetches


def test_an_endless_answer_ends(trusted: Issuer) -> None:
    """An issuer that sends a little again and again is given the same time as one that sends nothing."""
    left = threading.Event()

    def drip(handler: Any) -> None:
        handler.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
        with contextlib.suppress(OSError):
            while not left.wait(0.01):
                handler.wfile.write(b" ")
                handler.wfile.flush()
            return
        left.set()

    trusted.answer = drip
    own = trusted.identity(timeout=0.2)
    assert 503 == ask(own, trusted.token())
    landed(own)
    assert left.wait(DEADLINE)


@pytest.mark.parametrize("number", range(2), ids=[door.name for door in DOORS])
def test_a_silent_issuer_is_not_waited_for(trusted: Issuer, number: int) -> None:
    """After the time given the request is answered, and the next one at once."""
    trusted.hold_next()
    own = trusted.identity(timeout=0.1)
    assert 503 == ask(own, trusted.token(), DOORS[number])
    landed(own)
    assert 503 == ask(own, trusted.token(), DOORS[number])
    assert 1 == trusted.fetches


def test_a_lost_fetch_is_begun_again(trusted: Issuer) -> None:
    """A fetch that does not come back holds up nobody for ever; what it brings in the end is out of date."""
    clock = Clock()
    own = trusted.identity(clock, timeout=DEADLINE)
    keys: Any = own._keys
    assert 200 == ask(own, trusted.token())
    trusted.publish("lost")
    clock.now += 600
    gate = trusted.hold_next()
    assert 200 == ask(own, trusted.token())
    lost = keys._flight
    trusted.wait_until_asked(2)
    clock.now += DEADLINE * 3
    assert 200 == ask(own, trusted.token())
    assert lost is not keys._flight
    landed(own)
    trusted.publish("first")
    gate.set()
    lost._landed.result(DEADLINE)
    assert (401, 200) == (ask(own, trusted.token()), ask(own, trusted.token("lost")))


def test_a_forked_child_fetches_for_itself(trusted: Issuer) -> None:
    """A fetch of the parent never ends in its child, which does not wait for it; nor for a lock held meanwhile."""
    gate = trusted.hold_next()
    own = trusted.identity(timeout=DEADLINE)
    keys: Any = own._keys
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ask, own, trusted.token())
        trusted.wait_until_asked(1)
        reader, writer = os.pipe()
        with keys._locks[os.getpid()]:
            child = os.fork()
            if child == 0:
                try:
                    os.write(writer, str(ask(own, trusted.token())).encode())
                finally:
                    os._exit(0)
        os.close(writer)
        assert b"200" == os.read(reader, 10)
        os.close(reader)
        assert (child, 0) == os.waitpid(child, 0)
        gate.set()
        assert 200 == waiting.result(DEADLINE)
    assert 2 == trusted.fetches


def test_a_system_without_threads_is_503(trusted: Issuer) -> None:
    """Where no thread can be started the request is answered as if the issuer were down, and later ones work."""
    clock = Clock()
    own = trusted.identity(clock)
    usual = threading.stack_size(1 << 46)
    try:
        assert 503 == ask(own, trusted.token())
    finally:
        threading.stack_size(usual)
    assert 0 == trusted.fetches
    clock.now += 10
    assert 200 == ask(own, trusted.token())


def test_our_own_fault_keeps_nobody_waiting(trusted: Issuer, nothing_is_swallowed: list[BaseException]) -> None:
    """Whatever goes wrong on the thread that fetches, those who wait go on, with 503."""

    def clock() -> float:
        if threading.current_thread().name == "kwai-jwks":
            raise ZeroDivisionError
        return NOW

    assert 503 == ask(trusted.identity(clock, timeout=DEADLINE), trusted.token())
    [fault] = nothing_is_swallowed
    assert isinstance(fault, ZeroDivisionError)
    nothing_is_swallowed.clear()


IMPORTS_WATCHED = """
import sys, threading
from tests.apps.doors import DOORS
from tests.support.issuer import bearer, issuer

def watch(event, arguments):
    if event == "import" and threading.current_thread().name == "kwai-jwks":
        print("imported", arguments[0])

with issuer() as trusted:
    sys.addaudithook(watch)
    for url in (trusted.url, trusted.url.replace("http://127.0.0.1", "https://localhost")):
        seen = DOORS[1].ask(bearer(trusted.token()), identify=trusted.identity(jwks_url=url))
        print(seen.status)
"""


def test_the_thread_that_fetches_imports_nothing() -> None:
    """A process may fork while keys are fetched: no lock of the import system is held then."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", IMPORTS_WATCHED],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ["200", "503"] == [line.split()[0] for line in done.stdout.splitlines()]
