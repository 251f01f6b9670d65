"""The canary itself: how it recognises a key, where it looks, and where it lets a key be."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
from collections import UserDict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import flask
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

import kwai_middleware as kwai
from kwai_middleware.sandbox import Sandbox
from kwai_middleware.testing import Canary
from tests.support.callers import GATEWAY, OPENROUTER
from tests.support.flavours import Flavour

pytest_plugins = ["kwai_middleware.testing"]

RELAY = "https://api.keywordsai.co/api/openrouter/v1/chat/completions"
BIRD = Canary()
KEY = BIRD.key.reveal()
RANDOM = KEY.removeprefix("sk-or-v1-")


def escaped(pattern: str) -> Callable[[str], str]:
    """Spells every character as an escape."""
    return lambda text: "".join(pattern % ord(character) for character in text)


def in_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "upper case": str.upper,
    "backwards": lambda text: text[::-1],
    "URL": escaped("%%%02X"),
    "URL twice": lambda text: quote(escaped("%%%02x")(text)),
    "JSON": escaped("\\u%04x"),
    "JSON in JSON": lambda text: json.dumps(escaped("\\u%04x")(text)),
    "Python": escaped("\\x%02x"),
    "a long escape": escaped("\\U%08x"),
    "JavaScript": escaped("\\u{%x}"),
    "HTML": escaped("&#%d;"),
    "HTML, hexadecimal": escaped("&#x%x;"),
    "quoted-printable": escaped("=%02X"),
    "base64": in_base64,
    "base64, one to the right": lambda text: in_base64("x" + text),
    "base64, two to the right": lambda text: in_base64("xy" + text),
    "base64 twice": lambda text: in_base64("x" + in_base64("user:" + text)),
    "base64 in a URL": lambda text: quote(in_base64(text), safe=""),
    "hexadecimal": lambda text: text.encode().hex(),
    "hexadecimal, with colons": lambda text: text.encode().hex(":"),
    "numbers": lambda text: str(list(text.encode())),
    "UTF-16": lambda text: text.encode("utf-16").decode("latin-1"),
    "two lines": lambda text: f"{text[:9]}'\n    '{text[9:]}",
    "one by one": lambda text: repr(list(text)),
}


@given(
    st.sampled_from(sorted(SPELLINGS)),
    st.integers(0, 48),
    st.integers(16, 64),
    st.text(max_size=300),
    st.text(max_size=300),
)
def test_any_distinctive_part_is_seen(spelling: str, start: int, size: int, before: str, after: str) -> None:
    """Any 16 consecutive characters of the key are seen, however they are spelled and whatever stands around them."""
    part = RANDOM[start : start + max(size, 16)]
    seen = BIRD.check("a text", f"{before} {SPELLINGS[spelling](part)} {after}")

    assert seen
    for sighting in seen:
        assert not Canary.check(BIRD, "the excerpt", str(sighting))


@pytest.mark.parametrize(
    "text",
    [
        "sk-or-v1-" + RANDOM[:8] + "..." + RANDOM[-7:],
        RANDOM[20:35],
        f"fingerprint {BIRD.key.fingerprint}",
        Canary().key.reveal(),
        "a" * 100,
        "",
    ],
    ids=itertools.count(),  # and not the texts: each process that takes part in a run has a key of its own
)
def test_what_is_no_key_is_not_seen(text: str) -> None:
    """What people abbreviate a key to, its fingerprint, and other keys are no sightings."""
    assert [] == BIRD.check("a text", text)


def test_each_place_is_told_once() -> None:
    """Two keys in one text, one of them escaped, are two sightings: what was found is not told again."""
    text = f"{KEY} and {escaped('%%%02x')(KEY)}"

    assert ["plain", "escaped, plain"] == [sighting.form for sighting in BIRD.check("a text", text)]


class Slotted:
    __slots__ = ("__private", "shown")

    def __init__(self, private: object = None, shown: object = None) -> None:
        self.__private = private
        self.shown = shown


class OneSlot:
    __slots__ = "only"

    def __init__(self, only: object) -> None:
        self.only = only


class Held:
    def __init__(self, held: object) -> None:
        self.held = held


class Mute(Held):
    def __repr__(self) -> str:
        raise RuntimeError("no text")


class Unreadable(UserDict[str, str]):
    def items(self) -> Any:
        raise RuntimeError("not now")


class Talking:
    __slots__ = ()

    def __repr__(self) -> str:
        return KEY


CIRCLE: list[Any] = [KEY]
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("value", "count"),
    [
        ({"deep": [({KEY},)]}, 1),
        ({KEY: 1}, 1),
        (UserDict({"a": KEY}), 1),
        (deque([KEY]), 1),
        (bytearray(KEY.encode()), 1),
        (memoryview(KEY.encode()), 1),
        (Held({"a": Held(Held(KEY))}), 1),
        (Held(Held(Held(Held(KEY)))), 0),
        (Slotted(private=KEY), 1),
        (Slotted(shown=KEY), 1),
        (OneSlot(KEY), 1),
        (Mute(KEY), 1),
        (Unreadable(a=KEY), 1),
        (Talking(), 1),
        (CIRCLE, 1),
        (gzip.compress(KEY.encode()), 1),
        (gzip.compress(KEY.encode())[:12], 0),
        (gzip.compress(KEY.encode()).replace(b"\x1f\x8b\x08", b"\x1f\x8b\x07"), 0),
        (range(10**9), 0),
        (BIRD, 0),
        ([BIRD.key, BIRD.caller("acme"), BIRD.headers()], 0),
        (lambda: KEY, 0),
    ],
    ids=itertools.count(),
)
def test_where_a_value_is_searched(value: object, count: int) -> None:
    """Containers are searched at any depth, attributes three levels deep; what is there to hold a key is not opened."""
    found = BIRD.check("a value", value)
    places = {sighting.where for sighting in found}

    assert count == min(len(places), 1)


def test_a_search_has_an_end() -> None:
    """A value that holds very many others is searched in part."""
    assert [] == BIRD.check("many", [[] for _ in range(60_000)] + [[KEY]])


def explode(text: str) -> None:
    """An exception whose text is clean, with the key in an object in a local."""
    kept = {"deep": [Held(text)]}
    raise ValueError(f"clean: {len(kept)}")


def raised(function: Callable[[], object]) -> BaseException:
    with pytest.raises(BaseException) as caught:
        function()
    return caught.value


def with_note() -> None:
    error = ValueError("clean")
    error.add_note(f"see {KEY}")
    raise error


def with_cause() -> None:
    try:
        explode(KEY)
    except ValueError as error:
        raise RuntimeError("clean") from error


def hidden_context() -> None:
    try:
        explode(KEY)
    except ValueError:
        raise RuntimeError("clean") from None


def group() -> None:
    raise ExceptionGroup("clean", [ValueError("clean"), ValueError(KEY)])


def with_request() -> None:
    raise httpx.ReadTimeout("clean", request=httpx.Request("GET", "https://a.example", headers={"x-key": KEY}))


class Untold(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def without_text() -> None:
    raise Untold(KEY)


@pytest.mark.parametrize(
    "function", [with_note, with_cause, hidden_context, group, with_request, without_text, lambda: explode(KEY)]
)
def test_what_an_exception_carries(function: Callable[[], object]) -> None:
    """Texts, notes, attributes, causes, contexts, groups, and the locals of all frames are searched."""
    assert BIRD.check("an exception", raised(function))


def test_a_clean_exception() -> None:
    """An exception of code that was given the caller, and opened no key, is clean."""

    def work(caller: kwai.Caller) -> None:
        raise ValueError(f"{caller} failed")

    assert [] == BIRD.check("an exception", raised(lambda: work(BIRD.caller())))


def client(headers: dict[str, str]) -> None:
    """What a test's own HTTP client does: it turns the headers into something else."""
    sent = dict(headers)
    raise OSError(f"could not connect, {len(sent)} headers")


def test_frames_of_the_test_and_its_client() -> None:
    """The frames that hold the key because they send it, the test's and its client's, are not searched."""
    canary = Canary()

    def of_the_test() -> None:
        key = canary.key.reveal()
        assert key
        client(canary.headers())

    assert [] == canary.check("an exception", raised(of_the_test))


async def clean(request: Request) -> Response:
    raise RuntimeError(f"{kwai.current_caller()} {dict(request.headers)}")


async def leaking(request: Request) -> Response:
    caller = kwai.current_caller()
    assert caller is not None
    explode(caller.credentials[0].api_key.reveal())
    return PlainTextResponse("never")


@pytest.mark.parametrize(("path", "seen"), [("/clean", False), ("/leaking", True)])
def test_an_exception_of_an_app_in_the_same_process(path: str, seen: bool) -> None:
    """Of an exception that passed the middleware, what is inside of it is searched; outside, the test's client is."""
    app = Starlette(routes=[Route("/clean", clean), Route("/leaking", leaking)])
    asked = TestClient(kwai.ASGIMiddleware(app))

    error = raised(lambda: asked.get(path, headers=BIRD.headers()))

    assert seen == bool(BIRD.check("an exception", error))


def flask_app() -> flask.Flask:
    app = flask.Flask("app")
    app.wsgi_app = kwai.WSGIMiddleware(app.wsgi_app)  # type: ignore[method-assign]  # the way Flask documents it

    @app.get("/")
    def index() -> flask.Response:
        return flask.Response(f"for {flask.request.args.get('whom', '')}", headers={"x-whom": "nobody"})

    return app


class Redirected:
    """A response of a library that is not known here."""

    status_code = 200

    def __init__(self) -> None:
        self.headers = {"a": "b"}
        self.history = [httpx.Response(307, headers={"location": f"https://a.example/{KEY}"})]


RESPONSES = [
    (lambda: httpx.Response(200, text="hi", request=httpx.Request("GET", "https://a.example/" + KEY)), False),
    (lambda: httpx.Response(200, headers={"x-key": KEY}), True),
    (lambda: flask_app().test_client().get("/?whom=you"), False),
    (lambda: flask_app().test_client().get(f"/?whom={KEY}"), True),
    (lambda: PlainTextResponse(KEY), True),
    (lambda: PlainTextResponse("hi"), False),
    (Redirected, True),
]


@pytest.mark.parametrize(("make", "seen"), RESPONSES)
def test_responses_of_any_library(make: Callable[[], object], seen: bool) -> None:
    """Of a response its headers, its body and its redirects are searched, not the request that the test has sent."""
    assert seen == bool(BIRD.check("a response", make()))


def test_files_and_folders(tmp_path: Path) -> None:
    """A file is searched, or all files below a folder."""
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "app.log").write_text(KEY)
    (tmp_path / "clean.log").write_text("hi")

    assert [] == BIRD.check("a file", tmp_path / "clean.log")
    assert ["logs: app.log"] == [sighting.where for sighting in BIRD.check("logs", tmp_path)]


@pytest.fixture
def fresh() -> Canary:
    return Canary()


@pytest.mark.parametrize("url", [GATEWAY, OPENROUTER])
def test_a_call_on_the_wire(flavour: Flavour, fresh: Canary, url: str) -> None:
    """A call that our transport sends pays with the key and has it nowhere else; the app's own request has none."""
    own: list[Any] = []

    async def look_async(request: Any) -> None:
        look(request)

    def look(request: Any) -> None:
        own.extend(fresh.check("the app's own request", request))

    def answer(request: Any) -> Any:
        own.extend(fresh.sent(request))
        return flavour.library.Response(200, json={})

    hooks = {"request": [look_async if flavour.asynchronous else look]}
    asked = flavour.answering(answer, client={"event_hooks": hooks})
    with kwai.bind_caller(fresh.caller()):
        response = flavour.post(asked, url, json={"model": "m", "messages": []}, headers={"authorization": "Bearer a"})
    flavour.close(asked)

    assert [] == [*own, *fresh.check("the answer's request", response.request)]
    assert fresh.was_used
    fresh.verify()


def parameters(body: object) -> str:
    return base64.b64encode(json.dumps(body).encode()).decode()


CREDENTIALS = {"customer_credentials": {"openrouter": {"api_key": KEY}}}
IN_PLACE: list[tuple[str, dict[str, Any]]] = [
    (GATEWAY, {"json": CREDENTIALS}),
    (GATEWAY, {"json": {"respan_params": CREDENTIALS}}),
    (GATEWAY, {"json": {"respan_params": json.dumps(CREDENTIALS)}}),
    (GATEWAY, {"json": {"metadata": {"keywordsai_params": CREDENTIALS}}}),
    (GATEWAY, {"content": b"no JSON", "headers": {"X-Data-Respan-Params": parameters(CREDENTIALS)}}),
    (OPENROUTER, {"json": {}, "headers": {"Authorization": f"Bearer {KEY}"}}),
    (RELAY, {"json": {}, "headers": {"x-openrouter-api-key": KEY}}),
    (OPENROUTER.replace("openrouter.ai", "openrouter.ai:443"), {"headers": {"Authorization": f"Bearer {KEY}"}}),
]
OUT_OF_PLACE: list[tuple[str, str, dict[str, Any]]] = [
    ("body metadata.note", GATEWAY, {"json": {"metadata": {"note": KEY}}}),
    ("body a name", GATEWAY, {"json": {KEY: 1}}),
    ("body messages.content", GATEWAY, {"json": {"messages": [{"content": f"my key is {KEY}"}]}}),
    ("body metadata.customer_credentials.openrouter.api_key", GATEWAY, {"json": {"metadata": CREDENTIALS}}),
    ("header authorization", GATEWAY, {"headers": {"authorization": f"Bearer {KEY}"}}),
    ("header x-data-respan-params", GATEWAY, {"headers": {"x-data-respan-params": parameters({"a": KEY})}}),
    ("header x-data-respan-params", GATEWAY, {"headers": {"x-data-respan-params": KEY}}),
    ("header x-data-respan-params", OPENROUTER, {"headers": {"x-data-respan-params": parameters(CREDENTIALS)}}),
    ("header x-openrouter-api-key", OPENROUTER, {"headers": {"x-openrouter-api-key": KEY}}),
    ("header authorization", RELAY, {"headers": {"authorization": f"Bearer {KEY}"}}),
    (f"header {RANDOM}", OPENROUTER, {"headers": {RANDOM: "1"}}),
    ("URL", f"{OPENROUTER}?key={KEY}", {}),
    ("body customer_credentials", OPENROUTER, {"json": CREDENTIALS}),
    ("header authorization", "http://openrouter.ai/api/v1/chat/completions", {"headers": {"authorization": KEY}}),
    ("header authorization", "https://openrouter.ai/api/v1/keys", {"headers": {"authorization": KEY}}),
    ("body ", "https://evil.example/", {"content": gzip.compress(b"") + KEY.encode()}),
]


@pytest.mark.parametrize(("url", "options"), IN_PLACE)
def test_where_the_key_belongs(url: str, options: dict[str, Any]) -> None:
    """Each place where a vendor documents the customer's key is one at which it may be, and counts as its use."""
    canary = Canary()
    canary.key = BIRD.key

    assert [] == canary.sent(httpx.Request("POST", url, **options))
    assert canary.was_used


@pytest.mark.parametrize(("place", "url", "options"), OUT_OF_PLACE, ids=itertools.count())
def test_where_it_does_not_belong(place: str, url: str, options: dict[str, Any]) -> None:
    """Anywhere else in a request, and in a request to anyone else, the key is seen."""
    seen = BIRD.sent(httpx.Request("POST", url, **options))

    assert seen
    assert any(f": {place}".replace(RANDOM, "****") in sighting.where for sighting in seen)


def test_only_the_documented_method() -> None:
    """A request by another method is to no endpoint: the key does not belong into it."""
    assert BIRD.sent(httpx.Request("GET", OPENROUTER, headers={"authorization": f"Bearer {KEY}"}))


class Prepared:
    """A request as the library `requests` prepares it."""

    def __init__(self) -> None:
        self.method, self.url, self.body = "POST", OPENROUTER, '{"model": "m"}'
        self.headers = {"Authorization": f"Bearer {KEY}"}


def test_requests_of_another_library() -> None:
    """What `requests` calls a request is read, too; a member that stands twice in its body is read twice."""
    prepared = Prepared()
    assert [] == BIRD.sent(prepared)
    prepared.body = f'{{"model": "{KEY}", "model": "m"}}'
    assert ["request to openrouter.ai: body model"] == [sighting.where for sighting in BIRD.sent(prepared)]
    prepared.body = ""
    assert [] == BIRD.sent(prepared)


def test_routes_of_the_apps_own() -> None:
    """With the client's settings its own routes are known."""
    request = httpx.Request(
        "POST", "https://llm.example/v1/chat/completions", headers={"authorization": f"Bearer {KEY}"}
    )
    settings = kwai.Settings(routes=(kwai.Route("https://llm.example/v1", kind="direct"),))

    assert BIRD.sent(request)
    assert [] == BIRD.sent(request, settings=settings)


@pytest.fixture
def many(fresh: Canary) -> Canary:
    """One that has seen the same twice, and something else."""
    fresh.check("a log", fresh.key.reveal())
    fresh.check("a log", fresh.key.reveal())
    fresh.watch("a report", lambda: {"vars": fresh.key.reveal()})
    return fresh


def test_a_complaint_lists_everything(many: Canary) -> None:
    """What fails a test is every sighting, each once, and whether the key was used."""
    with pytest.raises(AssertionError) as caught:
        many.verify()

    lines = str(caught.value).splitlines()
    assert ["  1. a log [plain]: sk-or-v1-**** (2 times)", "  2. a report['vars'] [plain]: sk-or-v1-****"] == lines[1:3]
    assert "  3. it paid no call" in lines[3]
    assert many.key.reveal()[-16:] not in str(caught.value)
    with pytest.raises(AssertionError) as caught:
        many.verify(used=False)
    assert "it paid no call" not in str(caught.value)


def test_what_it_hands_out(fresh: Canary) -> None:
    """Headers and caller hold the key under the names that the app wants, and show nothing of it."""
    key = fresh.key.reveal()
    renamed = fresh.headers("acme", {"x-one": "1"}, key_header="x-key", identifier_header="x-tenant")

    assert {"x-one": "1", "x-key": key, "x-tenant": "acme"} == renamed
    assert {"X-OpenRouter-Key": key} == fresh.headers(None)
    assert "holding" == fresh.caller("acme", group="holding").group
    assert fresh.caller(None).identifier is None
    shown = f"{fresh!r} {renamed!r} {renamed} {fresh.caller()!r} {fresh._spellings!r}"
    assert [] == fresh.check("what they show", shown)


def post(vendor: Sandbox, path: str, body: dict[str, Any], **headers: str) -> None:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    httpx.post(vendor.url + path, json={"model": "m", **ASKED, **body}, headers=headers, trust_env=False)


ASKED = {"messages": [{"role": "user", "content": "Hello?"}], "prompt_messages": []}
CHAT, DIRECT, LOGS = "/api/chat/completions", "/api/v1/chat/completions", "/api/request-logs/create/"
ARRIVED: list[tuple[str, dict[str, Any], dict[str, str], bool, list[str]]] = [
    (CHAT, CREDENTIALS, {"authorization": "Bearer app"}, True, []),
    (CHAT, {}, {"authorization": "Bearer app", "x_data_respan_params": parameters(CREDENTIALS)}, True, []),
    (DIRECT, {}, {"authorization": f"Bearer {KEY}"}, True, []),
    (CHAT, {}, {}, False, []),
    (CHAT, {"note": KEY}, {"authorization": "Bearer app"}, False, ["body.note"]),
    (CHAT, {"note": in_base64(KEY)}, {"authorization": "Bearer app"}, False, ["body.note"]),
    (DIRECT, {"note": KEY}, {"authorization": f"Bearer {KEY}"}, True, ["body.note"]),
    (DIRECT, {}, {"authorization": f"Bearer {KEY}", "x_note": KEY}, True, ["headers.x-note"]),
    (LOGS, {"note": KEY}, {"authorization": "Bearer app"}, False, ["record 1.log.note"]),
    (LOGS, {}, {"authorization": f"Bearer {KEY}"}, False, [".posted_by", ".headers.authorization"]),
    (LOGS, {"metadata": {"key_fingerprint": BIRD.key.fingerprint}}, {"authorization": "Bearer app"}, False, []),
]


@pytest.mark.parametrize(("path", "body", "headers", "used", "places"), ARRIVED)
def test_what_arrived_at_a_sandbox(
    kwai_sandbox: Sandbox, path: str, body: dict[str, Any], headers: dict[str, str], used: bool, places: list[str]
) -> None:
    """At the vendors the key may pay, which counts as its use; elsewhere in calls, and in records, it is seen."""
    canary = Canary()
    canary.key = BIRD.key
    canary._spellings = BIRD._spellings
    post(kwai_sandbox, path, body, **headers)

    seen = canary.check("the vendors", kwai_sandbox)

    assert used == canary.was_used
    assert bool(places) == bool(seen)
    for place in places:
        assert any(place in sighting.where for sighting in seen), [str(sighting) for sighting in seen]


def test_the_place_itself_is_shown_without_the_key(fresh: Canary) -> None:
    """A name of a place that holds the key, escaped or not, is masked as well."""
    key = fresh.key.reveal()
    seen = fresh.check(f"a file named {escaped('%%%02x')(key)}", key) + fresh.check(f"a file named {key}", key)

    assert ["****", "a file named sk-or-v1-****"] == [sighting.where for sighting in seen]
