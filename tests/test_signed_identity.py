"""Signed identities: who is believed, and that nothing about a signed header can be changed, moved or kept."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import os
import socket
import string
import subprocess
import sys
import urllib.parse
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware import _notices
from kwai_middleware._caller import IDENTITY, Caller
from kwai_middleware._context import current_caller
from kwai_middleware._inbound.asgi_request import ASGIRequest
from kwai_middleware._inbound.first_of import first_of, origin_of
from kwai_middleware._inbound.request import InboundRequest, Interest
from kwai_middleware._secret import Secret
from kwai_middleware.asgi import ASGIMiddleware
from kwai_middleware.errors import ConfigurationError, InvalidHeader, Unauthenticated
from kwai_middleware.identity import HeaderIdentity
from kwai_middleware.signed_identity import SignedIdentity
from kwai_middleware.testing import Canary
from tests.apps.doors import DOORS, ASGIDoor, Door, Seen, WSGIDoor
from tests.support.processes import DEADLINE, PROJECT
from tests.support.replay_stores import AsyncMemory, Broken, Memory

HEADER = "x-kwai-identity"
OLD, NEW = "old-secret-0123456789-0123456789", "new-secret-0123456789-0123456789"
NOW = 1_800_000_000.0
ACME = Caller(
    identifier="acme", name="Ada, Zürich", email="ada@acme.example", group="holding", thread="t-1", issuer="accounts",
    metadata={"plan": "pro", "seats": 5, "share": 0.5, "trial": False},
)  # fmt: skip


def at(moment: float = NOW, *secrets: str | Secret, **options: Any) -> SignedIdentity:
    """A source whose clock stands."""
    return SignedIdentity(secrets=secrets or (NEW,), clock=lambda: moment, **options)


def made(identity: SignedIdentity | None = None, caller: Caller = ACME, method: str = "GET", path: str = "/") -> str:
    """The value of a header."""
    return (identity or at()).headers(caller, method, path)[HEADER]


def opened(value: str | bytes, identity: SignedIdentity | None = None, path: str = "/") -> Any:
    """What a source makes of a header in a GET, without a door."""
    scope = ASGIDoor().scope([(HEADER, value)], "GET", path, None)
    nothing = Interest(frozenset(), frozenset(), frozenset())
    return (identity or at())(ASGIRequest(scope, {}, nothing, None))


def is_refused(seen: Seen, reason: str, status: int = 401) -> None:
    """Assert that the app did not run, and that the answer names the header and a reason, and no value."""
    assert (status, False) == (seen.status, seen.app_ran)
    assert reason in seen.problem["detail"]
    assert "acme" not in seen.body.decode()
    assert seen.problem.get("header", HEADER) == HEADER


@pytest.fixture(params=DOORS, ids=lambda door: door.name)
def door(request: pytest.FixtureRequest) -> Door:
    """Each test holds for both doors."""
    chosen: Door = request.param
    return chosen


def test_who_was_signed_is_the_caller(door: Door) -> None:
    """Every field of the identity arrives as it was, at the path and with the method that it was signed for."""
    headers = [*at().headers(ACME, "post", "/summaries/%C3%BC%20b%2525").items()]
    seen = door.ask(headers, method="POST", path="/summaries/ü b%25", identify=at())
    assert seen.caller == ACME
    assert seen.customer_id == "acme"


def test_the_header_is_gone_before_the_app_runs(door: Door) -> None:
    """What is good for a minute is in no log and no error report from then on."""
    seen = door.ask([(HEADER, made()), ("accept", "*/*")], identify=at())
    assert seen.app_ran
    assert [("accept", "*/*")] == seen.app_headers
    assert "kwai-identity-1" not in repr(seen.request)


def test_nobody_without_the_header(door: Door) -> None:
    """A request without it is nobody's, and nobody is sent on without one; a caller of no fields can be signed."""
    assert (True, None) == ((seen := door.ask(identify=at())).app_ran, seen.caller)
    assert {} == at().headers(None, "GET", "/")
    assert Caller() == door.ask([(HEADER, made(caller=Caller()))], identify=at()).caller
    assert 401 == door.ask([(HEADER, made(caller=Caller()))], identify=at(), required=True).status


def test_neither_keys_nor_policies_are_sent() -> None:
    """The header has nothing of the caller's key in any spelling, and nothing but the identity and time."""
    canary = Canary()
    headers = at().headers(canary.caller("acme", byok="only", capture="none"), "GET", "/")
    assert [] == canary.check("the headers", headers)
    payload = headers[HEADER].split(".")[1]
    content = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert [] == canary.check("the content", content)
    assert ({"identifier": "acme"}, NOW) == (content["caller"], content["at"])
    assert {"caller", "at", "nonce"} == set(content)


def test_it_may_come_in_the_authorization_header(door: Door) -> None:
    """There it has the form that such a header must have."""
    headers = at(header="Authorization").headers(ACME, "GET", "/")
    assert headers["authorization"].startswith("Bearer kwai-identity-1.")
    assert ACME == door.ask([*headers.items()], identify=at(header="authorization"), credentials=None).caller


def test_secrets_are_changed_without_refusing_anyone() -> None:
    """The first secret signs and each verifies, so that both sides may change theirs one after the other."""
    before, between, after = at(NOW, OLD), at(NOW, NEW, OLD), at(NOW, Secret(NEW))
    for signer, verifier in ((before, between), (between, between), (between, after), (after, between)):
        assert ACME == opened(made(signer), verifier)
    for signer, verifier in ((before, after), (between, before), (after, before)):
        with pytest.raises(Unauthenticated):
            opened(made(signer), verifier)


@pytest.mark.parametrize(
    "secrets",
    [
        (), None, NEW, NEW.encode(), {NEW: 1}, 5, ["short"], ["x" * 31], [NEW, NEW], [NEW, Secret(NEW)], [None],
        [NEW.encode()], [f"{NEW} {NEW}"], ["ü" * 40], [NEW, ""],
    ],
    ids=repr,
)  # fmt: skip
def test_secrets_that_protect_nothing_are_refused(secrets: Any) -> None:
    """No secret, a short one or the same twice is an error at start that says how to make one, and shows none."""
    with pytest.raises(ConfigurationError, match=r"^SignedIdentity.secrets: ") as caught:
        SignedIdentity(secrets=secrets)
    assert "0123456789" not in str(caught.value)
    assert caught.value.__context__ is None or "0123456789" not in str(caught.value.__context__)


@pytest.mark.parametrize(
    "option",
    [
        {"max_age": 0}, {"max_age": -1}, {"max_age": float("nan")}, {"max_age": float("inf")}, {"max_age": True},
        {"max_age": "60"}, {"header": "x kwai"}, {"header": None}, {"replay_store": len}, {"replay_store": {}},
    ],
    ids=repr,
)  # fmt: skip
def test_other_options_are_checked_at_start(option: Any) -> None:
    """What cannot work is refused before the first request, by its name."""
    with pytest.raises(ConfigurationError, match=rf"^SignedIdentity.{next(iter(option))}: "):
        at(**option)


def test_it_shows_no_secret() -> None:
    """Neither itself nor anything that hangs on it can be logged with a secret in it."""
    identity = at(NOW, NEW, OLD)
    assert "SignedIdentity(header='x-kwai-identity', max_age=60.0)" == repr(identity)
    assert "secret-0123456789" not in repr([getattr(identity, slot) for slot in SignedIdentity.__slots__])
    assert "signed header" == identity.origin


def test_a_header_holds_for_its_request_only(door: Door) -> None:
    """With another method or path it is refused; spellings of a path that the server decodes alike are one path."""
    header = [(HEADER, made(method="POST", path="/a/%C3%A9%2Fb"))]
    assert ACME == door.ask(header, method="POST", path="/a/é/b", identify=at()).caller
    for method in ("GET", "PUT"):
        is_refused(door.ask(header, method=method, path="/a/é/b", identify=at()), "another method or path")
    assert 401 == door.ask(header, method="HEAD", path="/a/é/b", identify=at()).status
    assert 401 == ASGIDoor().ask(header, method="post", path="/a/é/b", identify=at()).status
    others = ["/a/é/b/", "/a/é", "/a/É/b", "/A/é/b", "/a//é/b", "//a/é/b", "/a/./é/b", "/a/x/../é/b", "/a/e\u0301/b"]
    for path in [*others, "/a/%C3%A9/b", "/a/é%2Fb", "/a/é/b?", "/", "/a/é/b\u200b", "/a/\ufffd/b"]:
        is_refused(door.ask(header, method="POST", path=path, identify=at()), "another method or path")


def test_half_a_character_in_a_path_is_no_accident() -> None:
    """A server that leaves undecodable bytes in the path gets the same answer as others."""
    header = [(HEADER, made(path="/%ff"))]
    assert 401 == ASGIDoor().ask(header, path="/\udcff", identify=at()).status
    assert ACME == ASGIDoor().ask(header, path="/\ufffd", identify=at()).caller
    assert ACME == WSGIDoor().ask(header, path="/\ufffd", identify=at()).caller


def test_what_an_app_is_mounted_under_belongs_to_the_path() -> None:
    """The path is the whole one, with the prefix that the server tells of."""
    door = WSGIDoor()
    seen = Seen(request=door.environ([(HEADER, made(path="/api/me"))], "GET", "/me", ("127.0.0.1", 1)))
    seen.request["SCRIPT_NAME"] = "/api"
    assert ACME == door.send(door.wrap(seen, identify=at()), seen).caller


@pytest.mark.parametrize("url", ["https://a.example/x%2Fy%20z/ü%25?q=1", "https://a.example", "https://a.example/%41?"])
def test_the_path_is_to_be_had_from_httpx(url: str) -> None:
    """What the documentation says of httpx gives the path as the called server decodes it."""
    request = httpx.Request("GET", url)
    raw = request.url.raw_path.decode().partition("?")[0]
    header = [(HEADER, made(path=raw))]
    assert ACME == ASGIDoor().ask(header, path=urllib.parse.unquote(raw), identify=at()).caller


def test_a_server_takes_what_a_client_signs() -> None:
    """Over a socket each URL holds as it is requested, and at no other URL that the server tells from it."""
    seen: list[tuple[str, str | None]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        caller = current_caller()
        seen.append((scope["path"], caller and caller.identifier))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    signer = SignedIdentity(secrets=[NEW])
    config = uvicorn.Config(ASGIMiddleware(app, identify=signer), lifespan="off", log_level="error")

    async def ask_for_everything() -> list[int]:
        server = uvicorn.Server(config)
        listener = socket.create_server(("127.0.0.1", 0))  # who connects before it serves, waits
        serving = asyncio.create_task(server.serve([listener]))
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        statuses = []
        async with httpx.AsyncClient(trust_env=False) as client:
            for path, other in PATHS:
                request = client.build_request("GET", base + path)
                raw = request.url.raw_path.decode().partition("?")[0]
                request.headers.update(signer.headers(ACME, request.method, raw))
                statuses.append((await client.send(request)).status_code)
                moved = client.build_request("GET", base + other, headers=request.headers)
                statuses.append((await client.send(moved)).status_code)
        server.should_exit = True
        await serving
        return statuses

    assert [200, 401] * len(PATHS) == asyncio.run(asyncio.wait_for(ask_for_everything(), DEADLINE))
    assert [(urllib.parse.unquote(path.partition("?")[0]) or "/", "acme") for path, _ in PATHS] == seen


PATHS = [
    ("", "//"), ("/?q=1", "/q"), ("/a%2Fb", "/a%252Fb"), ("/a%252Fb", "/a/b"), ("//a", "/a"), ("/ü/%C3%BC", "/ü/u"),
    ("/a%20b+c", "/a%20b%20c"), ("/100%25", "/100"), ("/A", "/a"), ("/a/%2E%2E/b", "/b"), ("/a;v=1", "/a"),
    ("/%00", "/"),
]  # fmt: skip


def test_a_forged_header_is_no_reason_to_believe_another(door: Door) -> None:
    """With other sources beside it, the header decides where it is, and says that the identity came from it."""
    identify = first_of(at(), HeaderIdentity())
    other = ("x-customer-id", "globex")
    assert ACME == door.ask([(HEADER, made()), other], identify=identify).caller
    assert Caller(identifier="globex") == door.ask([other], identify=identify).caller
    is_refused(door.ask([(HEADER, made()[:-1]), other], identify=identify), "forged or damaged")
    assert "signed header" == origin_of(at())


@pytest.mark.parametrize("path", ["", "summaries", "https://a.example/b", "/a?b=1", "/a#b", "*"])
def test_what_is_no_path_cannot_be_signed(path: str) -> None:
    """A header that would never hold is not made."""
    with pytest.raises(ValueError, match=r"^SignedIdentity.headers: the path"):
        made(path=path)


def test_a_header_has_bounds(door: Door) -> None:
    """A caller that no header can hold is refused where it is signed, and a longer header where it arrives."""
    long = Caller(identifier="a" * 120, metadata={"note": "n" * 2700})
    assert long == door.ask([(HEADER, made(caller=long))], identify=at()).caller
    with pytest.raises(ValueError, match="longer than 4096 bytes"):
        made(caller=Caller(metadata={"note": "acme" * 1000}))
    is_refused(door.ask([(HEADER, made() + "a" * 4096)], identify=at()), "longer than 4096 bytes", 400)


def test_no_part_of_a_header_holds(door: Door) -> None:
    """Cut at any place, also within its signature, it is refused; the empty rest is no header that is absent."""
    value = made()
    for length in range(1, len(value)):
        with pytest.raises(Unauthenticated):
            opened(value[:length])
    is_refused(door.ask([(HEADER, value[:-1])], identify=at()), "forged or damaged")
    assert 400 == door.ask([(HEADER, "")], identify=at()).status


def test_no_bit_of_a_header_can_be_changed() -> None:
    """Whichever bit is flipped, the answer is a refusal."""
    value = made().encode()
    statuses = set()
    for index in range(len(value)):
        for bit in range(8):
            changed = bytes([*value[:index], value[index] ^ (1 << bit), *value[index + 1 :]])
            seen = ASGIDoor().ask([(HEADER, changed)], identify=at()) if bit == index % 8 else None
            if seen is not None:
                assert not seen.app_ran
                statuses.add(seen.status)
            elif changed.isascii() and changed.decode().isprintable() and not {b" "[0], b","[0]} & {*changed}:
                with pytest.raises(Unauthenticated):
                    opened(changed.decode())
    assert {400, 401} == statuses


def test_there_is_one_spelling_of_a_header() -> None:
    """No padding, no other alphabet, no last character with spare bits, no case, no blank within: all are refused."""
    value = made()
    kind, payload, signature = value.split(".")
    alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
    others = [signature[:-1] + alphabet[alphabet.index(signature[-1]) ^ spare] for spare in (1, 2, 3)]
    spellings = [f"{kind}.{payload}.{other}" for other in others]
    spellings += [f"{value}=", f"{kind}.{payload}==.{signature}", f"{kind}.{payload}..{signature}", f"{value}."]
    spellings += [value.upper(), f".{value}", f"{kind}.{payload[:-1]}.{signature}", f"{kind}..{signature}", "..", "."]
    spellings += [value.replace("-", "+").replace("_", "/"), f"{kind}.{payload}!.{signature}", signature, kind]
    for spelling in spellings:
        with pytest.raises(Unauthenticated):
            opened(spelling)
    assert ACME == opened(f" {value}\t")  # blanks around a header's value are none of it


def test_sent_twice_is_refused(door: Door) -> None:
    """Two signed headers are not the first of them, be they the same or not, and whether or not they hold."""
    is_refused(door.ask([(HEADER, made()), (HEADER, made())], identify=at()), "The header x-kwai-identity", 400)
    is_refused(door.ask([(HEADER, f"{made()},{made()}")], identify=at()), "has a comma", 400)


def signed_by_hand(content: object, kind: str = "kwai-identity-1") -> str:
    """A header with any content, made by who knows the secret."""
    payload = base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=")
    parts = [kind.encode(), payload, b"GET", b"/"]
    message = b"".join(str(len(part)).encode() + b":" + part for part in parts)
    signature = base64.urlsafe_b64encode(hmac.new(NEW.encode(), message, hashlib.sha256).digest()).rstrip(b"=")
    return b".".join([parts[0], payload, signature]).decode()


GOOD: dict[str, Any] = {"caller": {"identifier": "acme"}, "at": NOW, "nonce": "0" * 32}


@pytest.mark.parametrize(
    "content",
    [
        [], None, "acme", {}, {**GOOD, "more": 1}, {**GOOD, "at": "now"}, {**GOOD, "nonce": 5}, {**GOOD, "caller": []},
        {**GOOD, "caller": {"identifier": 5}}, {**GOOD, "caller": {"identifier": ""}}, {**GOOD, "caller": {"x": "y"}},
        {**GOOD, "caller": {"identifier": "a\nb"}}, {**GOOD, "caller": {"byok": "off"}},
        {**GOOD, "caller": {"credentials": ["sk-or-v1-0123456789"]}}, {**GOOD, "caller": {"metadata": {"a": [1]}}},
    ],
    ids=repr,
)  # fmt: skip
def test_a_signature_makes_no_caller_of_what_is_none(content: object) -> None:
    """Who knows the secret still cannot bind a caller that no app could make, nor a key."""
    assert Caller(identifier="acme") == opened(signed_by_hand(GOOD))
    with pytest.raises(Unauthenticated):
        opened(signed_by_hand(content))
    with pytest.raises(Unauthenticated):
        opened(signed_by_hand(GOOD, "kwai-identity-2"))


def test_a_reference_is_no_signed_header() -> None:
    """Under the same secret the two cannot take each other's place."""
    with pytest.raises(Unauthenticated):
        opened(ACME.reference(secrets=[NEW]))


@pytest.mark.parametrize(
    ("later", "max_age", "reason"),
    [
        (0, 60, None), (59.9, 60, None), (60, 60, None), (60.5, 60, "too old"), (1e6, 60, "too old"),
        (-30, 60, None), (-30.5, 60, "not come yet"), (-1e6, 60, "not come yet"),
        (-5, 5, None), (-5.5, 5, "not come yet"), (5.5, 5, "too old"),
    ],
)  # fmt: skip
def test_a_header_is_good_for_a_while(door: Door, later: float, max_age: float, reason: str | None) -> None:
    """Neither older than allowed nor more ahead of this clock than clocks are."""
    seen = door.ask([(HEADER, made())], identify=at(NOW + later, max_age=max_age))
    if reason is None:
        assert ACME == seen.caller
    else:
        is_refused(seen, reason)


def test_no_time_at_all_is_refused() -> None:
    """A header whose time is not a number is never good."""
    with pytest.raises(Unauthenticated):
        opened(signed_by_hand({**GOOD, "at": float("nan")}))


def test_the_request_knows_until_when_it_holds() -> None:
    """A websocket's caller ends when the header would."""
    seen: list[float | None] = []

    def identify(request: InboundRequest) -> Any:
        answer = at(NOW + 20, max_age=45)(request)
        seen.append(request.valid_until)
        return answer

    assert ACME == ASGIDoor().ask([(HEADER, made())], identify=identify).caller
    assert [NOW + 45] == seen


def test_without_a_store_a_replay_passes(door: Door) -> None:
    """What the documentation says: within its time a header is good again."""
    header = [(HEADER, made())]
    assert [ACME, ACME] == [door.ask(header, identify=at()).caller for _ in range(2)]


@pytest.mark.parametrize("kind", [Memory, AsyncMemory])
def test_with_a_store_each_header_passes_once(door: Door, kind: type[Memory]) -> None:
    """The second time is refused, a header of the same content is another one, and the store may forget in time."""
    store = kind()
    identify = at(max_age=60, replay_store=store)
    header = [(HEADER, made())]
    assert ACME == door.ask(header, identify=identify).caller
    is_refused(door.ask(header, identify=identify), "was used before")
    assert ACME == door.ask([(HEADER, made())], identify=identify).caller
    (nonce, expires_at), (again, _), (other, _) = store.asked
    assert nonce == again != other
    assert NOW + 60 + 30 == expires_at
    assert 32 == len(nonce)


def test_a_store_is_not_asked_about_what_does_not_hold(door: Door) -> None:
    """A stranger cannot fill it: neither forged, nor old, nor misdirected headers reach it."""
    store = Memory()
    value = made()
    for header, moment, path in (
        (value[:-1], NOW, "/"),
        (value, NOW + 61, "/"),
        (value, NOW - 31, "/"),
        (value, NOW, "/b"),
    ):
        assert 401 == door.ask([(HEADER, header)], path=path, identify=at(moment, replay_store=store)).status
    assert [] == store.asked


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("answer", [ConnectionError("redis://user:acme@store"), None, 1, "OK"], ids=repr)
def test_a_store_that_cannot_tell_refuses(
    door: Door, answer: object, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """It is answered with 503, counted, and warned of once without a value; nobody gets through."""
    _notices._warned.clear()
    before = _notices.counts().get("replay_store_failures", 0)
    store: Any = Broken(answer, is_async=is_async)
    with caplog.at_level(logging.WARNING, "kwai_middleware"):
        for _ in range(2):
            seen = door.ask([(HEADER, made())], identify=at(replay_store=store))
            is_refused(seen, "cannot be known now", 503)
    assert before + 2 == _notices.counts()["replay_store_failures"]
    (warning,) = [record.getMessage() for record in caplog.records]
    assert type(answer).__name__ in warning
    assert "acme" not in warning


def test_processes_that_share_a_store_let_a_header_through_once(tmp_path: Path) -> None:
    """Two servers that get the same headers at the same time let each of them through once between them."""
    argv = [sys.executable, "-m", "tests.apps.takes_signed_headers", str(tmp_path / "used.db"), NEW]
    environ = {**os.environ, "PYTHONPATH": str(PROJECT)}
    servers = [
        subprocess.Popen(argv, env=environ, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    headers = "\n".join(made(SignedIdentity(secrets=[NEW])) for _ in range(30))
    for server in servers:
        assert server.stdout is not None
        assert "ready\n" == server.stdout.readline()
    for server in servers:
        assert server.stdin is not None
        server.stdin.write(headers)
        server.stdin.close()
    printed = []
    for server in servers:
        assert server.stdout is not None
        with server.stdout:
            printed.append(server.stdout.read().split())
        assert 0 == server.wait(DEADLINE)
    assert [{"200", "401"}] * 30 == [{*pair} for pair in zip(*printed, strict=True)]


def test_64_callers_at_once_are_who_they_are() -> None:
    """Requests that overlap, and wait for an async store meanwhile, each run for their own caller."""
    everyone_is_here = asyncio.Barrier(64)
    answers: dict[str, str | None] = {}
    store = AsyncMemory()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await everyone_is_here.wait()
        caller = current_caller()
        answers[scope["path"]] = caller and caller.identifier

    served = ASGIMiddleware(app, identify=at(replay_store=store))

    async def ask(number: int) -> None:
        path = f"/{number}"
        value = made(caller=Caller(identifier=f"customer-{number}"), path=path)
        scope = ASGIDoor().scope([(HEADER, value)], "GET", path, ("127.0.0.1", 1))
        await served(scope, everyone_is_here.wait, everyone_is_here.wait)

    async def everyone() -> None:
        await asyncio.wait_for(asyncio.gather(*map(ask, range(64))), DEADLINE)

    asyncio.run(everyone())
    assert {f"/{number}": f"customer-{number}" for number in range(64)} == answers
    assert 64 == len({nonce for nonce, _ in store.asked})


TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
PLAIN = TEXTS | st.integers() | st.floats(allow_nan=False) | st.booleans()


FIELDS = st.fixed_dictionaries({}, optional=dict.fromkeys(IDENTITY[:-1], TEXTS))


@given(FIELDS, st.dictionaries(TEXTS, PLAIN, max_size=5))
def test_any_identity_arrives_as_it_was(texts: dict[str, str], metadata: dict[str, Any]) -> None:
    """Whatever a caller is called, it is the same caller on the other side, with values of the same types."""
    caller = Caller(**texts, metadata=metadata)
    arrived = opened(made(caller=caller))
    assert caller == arrived
    assert [type(value) for value in metadata.values()] == [type(value) for value in arrived.metadata.values()]


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_other_path_is_taken_for_the_one_that_was_signed(path: str, other: str) -> None:
    """A header holds at the path that its URL decodes to, and at no other."""
    quoted = "/" + urllib.parse.quote(path, errors="replace")
    decoded = urllib.parse.unquote(quoted)
    value = made(path=quoted)
    assert ACME == opened(value, path=decoded)
    if decoded != f"/{other}":
        with pytest.raises(Unauthenticated):
            opened(value, path=f"/{other}")


@given(st.text(st.characters(max_codepoint=255), max_size=200))
def test_nothing_that_is_made_up_holds(value: str) -> None:
    """Any text in the header is refused, and none of them is an accident."""
    for made_up in (value, f"kwai-identity-1.{value}", f"kwai-identity-1.{value}.{value}"):
        with pytest.raises((Unauthenticated, InvalidHeader)):
            opened(made_up.encode("latin-1"))
