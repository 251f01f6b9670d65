"""The door for aiohttp: calls are the caller's, requests stay the app's, and each attempt is one record."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kwai_middleware import (
    CannotAttribute,
    ConfigurationError,
    MissingCredential,
    Route,
    bind_caller,
    carry_caller,
)
from kwai_middleware._outbound.observation import Ending
from kwai_middleware.aiohttp_middleware import KwaiMiddleware, session
from kwai_middleware.sandbox import Sandbox
from tests.support.callers import GATEWAY, caller, settings
from tests.support.door_calls import (
    APP,
    BODY,
    KEY,
    OK,
    QUESTION,
    assert_all_are_their_own,
    assert_is_the_callers,
    chat_url,
)
from tests.support.examples import HOUSE_KEY, sandbox_process
from tests.support.processes import PROJECT
from tests.support.raw_server import Connection, raw_server

TEXT = BODY.decode()


@pytest.fixture(scope="module")
def vendors() -> Iterator[Sandbox]:
    with sandbox_process() as sandbox:
        yield sandbox


# --- against the vendors


@pytest.mark.parametrize("route", ["gateway", "relay", "direct"])
@pytest.mark.parametrize("streamed", [False, True], ids=["unary", "streamed"])
def test_a_call_on_every_route(vendors: Sandbox, route: str, streamed: bool) -> None:
    """The caller pays and is named, the app gets its answer, and the record has all of it."""
    vendors.reset()
    calls: list[Any] = []
    body = {"model": "openai/gpt-4o", "messages": QUESTION, "stream": streamed}

    async def ask() -> bytes:
        async with session(settings=vendors.settings(), deliver=calls.append) as client:
            with bind_caller(caller()):
                answer = client.post(
                    chat_url(vendors, route), json=body, headers={"authorization": f"Bearer {HOUSE_KEY}"}
                )
                async with answer as response:
                    if not streamed:
                        return json.dumps(await response.json()).encode()
                    return b"".join([line async for line in response.content])

    assert b"three" in asyncio.run(ask())
    assert_is_the_callers(vendors, calls, route, streamed=streamed)


@pytest.mark.parametrize("model", ["sandbox/gzip", "sandbox/zstd"])
@pytest.mark.parametrize("decodes", [True, False])
def test_a_compressed_answer(vendors: Sandbox, model: str, decodes: bool) -> None:
    """Whether aiohttp decodes it or hands over the bytes as they came, the record has the text."""
    calls: list[Any] = []

    async def ask() -> tuple[str, bytes]:
        async with session(settings=vendors.settings(), deliver=calls.append) as client:
            body = {"model": model, "messages": QUESTION, "stream": True}
            headers = {**APP, "accept-encoding": "gzip, zstd"}
            with bind_caller(caller()):
                response = await client.post(
                    chat_url(vendors, "direct"), json=body, headers=headers, auto_decompress=decodes
                )
            return response.headers["Content-Encoding"], await response.read()

    coding, content = asyncio.run(ask())
    knows = coding in aiohttp.ClientRequest.DEFAULT_HEADERS["Accept-Encoding"]
    assert (decodes and knows) == content.startswith(b": OPENROUTER")
    [record] = [call.build() for call in calls]
    assert ("complete", "one two three") == (record.outcome, record.completions[0]["content"])


def test_sixteen_customers_share_one_session(vendors: Sandbox) -> None:
    """Tasks that stream at the same time are each their own caller's."""
    vendors.reset()
    calls: list[Any] = []
    customers = [f"customer-{number}" for number in range(16)]

    async def ask(client: Any, customer: str) -> None:
        with bind_caller(caller(customer)):
            body = {"model": "openai/gpt-4o", "messages": QUESTION, "stream": True}
            async with client.post(chat_url(vendors, "gateway"), json=body, headers=APP) as response:
                assert b"[DONE]" in await response.read()

    async def all_of_them() -> None:
        async with session(settings=vendors.settings(), deliver=calls.append) as client:
            await asyncio.gather(*(ask(client, customer) for customer in customers))

    asyncio.run(all_of_them())
    assert_all_are_their_own(vendors, calls, customers)


def test_a_thread_with_a_loop_of_its_own(vendors: Sandbox) -> None:
    """A carried caller is the caller there too; a bare thread starts as nobody."""
    calls: list[Any] = []

    async def ask() -> int:
        async with session(settings=vendors.settings(), deliver=calls.append) as client:
            body = {"model": "sandbox/echo", "messages": QUESTION}
            async with client.post(chat_url(vendors, "direct"), json=body, headers=APP) as response:
                await response.read()
                return response.status

    def work() -> int:
        return asyncio.run(ask())

    with bind_caller(caller()), ThreadPoolExecutor(1) as executor:
        assert 200 == executor.submit(carry_caller(work)).result(30)
        executor.submit(work).result(30)
    carried, bare = calls
    assert ("acme", None) == (carried.caller.identifier, bare.caller)


def test_the_plain_middleware_reads_its_settings_from_the_environment(
    vendors: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one line for a user is enough: settings and delivery are the environment's."""
    vendors.reset()
    monkeypatch.setenv("OPENROUTER_BASE_URL", vendors.openrouter_url)
    monkeypatch.setenv("KEYWORDSAI_BASE_URL", vendors.gateway_url)
    monkeypatch.setenv("KEYWORDSAI_API_KEY", "keywordsai-app-key-0123")

    async def ask() -> None:
        async with aiohttp.ClientSession(middlewares=(KwaiMiddleware(),), raise_for_status=True) as client:
            with bind_caller(caller()):
                body = {"model": "sandbox/echo", "messages": QUESTION}
                async with client.post(chat_url(vendors, "direct"), json=body) as response:
                    await response.read()

    asyncio.run(ask())
    assert "acme" == vendors.logs(wait=1)[0]["log"]["customer_params"]["customer_identifier"]


# --- what goes to the wire


class _Vendor:
    """A server that keeps what arrived, head and body, and answers what the test says."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.url = ""
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []

    def __call__(self, connection: Connection) -> None:
        while True:
            head, body = connection.request()
            if b"chunked" in head.lower():
                body = connection.chunks()
            self.heads.append(head)
            self.bodies.append(body)
            connection.send(self.answers.pop(0) if self.answers else OK)

    def lengths(self) -> list[bool]:
        """Whether each body was as long as its head said."""
        return [
            b"chunked" in head.lower() or f"content-length: {len(body)}\r\n".encode() in head.lower() + b"\r\n"
            for head, body in zip(self.heads, self.bodies, strict=True)
        ]


@pytest.fixture
def vendor() -> Iterator[_Vendor]:
    served = _Vendor()
    with raw_server(served) as raw:
        served.url = raw.url
        yield served


def _run(
    vendor: _Vendor,
    act: Callable[[Any, str], Awaitable[Any]],
    kind: Any = "gateway",
    deliver: Any = None,
    who: Any = None,
    session_options: Any = None,
    refuse: Any = "raise",
    **options: Any,
) -> Any:
    """Run `act` with a session and the URL of a model call at the vendor."""
    listed = settings(routes=(Route(f"{vendor.url}/v1", kind=kind),), **options)

    async def acting() -> Any:
        async with session(
            settings=listed, deliver=deliver or (lambda call: None), refuse=refuse, **(session_options or {})
        ) as client:
            with bind_caller(caller() if who is None else who):
                return await act(client, f"{vendor.url}/v1/chat/completions")

    return asyncio.run(acting())


async def _parts(*parts: Any) -> AsyncIterator[Any]:
    for part in parts:
        yield part


class _Upper(aiohttp.BytesPayload):
    """A payload of the app's own, which writes something else than it holds."""

    async def write_with_length(self, writer: Any, content_length: int | None) -> None:
        await writer.write(BODY)


BODIES: dict[str, Callable[[], dict[str, Any]]] = {
    "json": lambda: {"json": {"model": "m"}},
    "bytes": lambda: {"data": BODY},
    "text": lambda: {"data": TEXT},
    "a buffer": lambda: {"data": bytearray(BODY)},
    "a large one": lambda: {"data": io.BytesIO(b'{"model":"m"' + b" " * 200_000 + b"}")},
    "a generator": lambda: {"data": _parts(BODY[:5], BODY[5:])},
    "a file": lambda: {"data": io.BytesIO(BODY)},
    "a file of text": lambda: {"data": io.StringIO(TEXT)},
    "a payload": lambda: {"data": aiohttp.BytesPayload(BODY)},
    "a payload of its own": lambda: {"data": _Upper(b"x" * len(BODY))},
    "compressed on its way": lambda: {"data": BODY, "compress": "deflate"},
    "in chunks": lambda: {"data": BODY, "chunked": True},
}


@pytest.mark.parametrize("make", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("kind", ["gateway", "relay", "direct"])
def test_every_kind_of_body_carries_the_key(vendor: _Vendor, make: Any, kind: Any) -> None:
    """What arrives is the app's body with the caller's key and name, and a length that is right."""
    calls: list[Any] = []

    async def act(client: Any, url: str) -> Any:
        async with client.post(url, headers=APP, **make()) as response:
            await response.read()
            return response

    response = _run(vendor, act, kind, calls.append)
    [body], [head] = vendor.bodies, vendor.heads
    if b"deflate" in head:
        import zlib

        body = zlib.decompress(body) if not body.startswith(b"{") else body
    own = json.loads(body)
    assert "m" == own.pop("model")
    if kind == "direct":
        assert f"Bearer {KEY}".encode() in head
        assert {} == own
    else:
        assert (kind == "gateway") == (KEY in json.dumps(own))
        assert "acme" in json.dumps(own)
        assert (kind == "relay") == (KEY.encode() in head)
    assert [True] == vendor.lengths() or b"deflate" in head
    assert "Bearer app" == response.request_info.headers["Authorization"]
    assert KEY not in str(response.request_info)
    assert 1 == len(calls)
    if kind != "direct":
        assert b'"m"' in calls[0].request_body


def test_forms_have_a_header_beside_them(vendor: _Vendor, tmp_path: Path) -> None:
    """Form fields are no members of a JSON object; one that says whose it is, is refused before a byte is sent."""
    (tmp_path / "a.wav").write_bytes(b"RIFF" * 1000)

    async def act(client: Any, url: str) -> None:
        async with client.post(url, data={"model": "m"}):
            pass
        with (tmp_path / "a.wav").open("rb") as file:
            async with client.post(url, data={"model": "m", "file": file}):
                pass
        with pytest.raises(CannotAttribute, match="names a parameter"):
            await client.post(url, data={"customer_identifier": "forged"})
        with pytest.raises(CannotAttribute, match="in pieces"):
            await client.post(url, data=_parts(*[b" " * (9 << 20)] * 4))
        with pytest.raises(CannotAttribute, match="compressed"):
            await client.post(url, data=BODY, headers={"content-encoding": "gzip"})

    _run(vendor, act)
    assert 2 == len(vendor.bodies)
    assert all(b"x-data-respan-params" in head.lower() for head in vendor.heads)
    assert b"RIFF" * 1000 in vendor.bodies[1]


def test_a_body_that_cannot_carry_it_is_refused(vendor: _Vendor) -> None:
    """Where the vendor documents no header for it, it goes nowhere."""

    async def act(client: Any, url: str) -> None:
        with pytest.raises(CannotAttribute, match="send it as json="):
            await client.post(url, data={"model": "m"})

    _run(vendor, act, "relay")
    assert [] == vendor.bodies


def test_a_body_that_fails_to_be_read_fails_as_without_us(vendor: _Vendor) -> None:
    """What it raises reaches the app, and nothing was sent."""

    async def failing() -> AsyncIterator[bytes]:
        yield BODY[:5]
        raise OSError("the disk is gone")

    async def act(client: Any, url: str) -> None:
        with pytest.raises(OSError, match="the disk is gone"):
            await client.post(url, data=failing())

    _run(vendor, act)
    assert [] == vendor.bodies


def test_a_length_that_cuts_a_body_is_obeyed(vendor: _Vendor) -> None:
    """Aiohttp sends no more than the header says: that is what is looked into and goes out."""

    async def act(client: Any, url: str) -> None:
        for data in (BODY + b"junk", _parts(BODY, b"junk")):
            async with client.post(url, data=data, headers={"Content-Length": str(len(BODY))}):
                pass

    _run(vendor, act)
    assert ["acme"] * 2 == [json.loads(body)["customer_params"]["customer_identifier"] for body in vendor.bodies]
    assert [True, True] == vendor.lengths()


def test_a_call_without_a_body_is_a_call(vendor: _Vendor) -> None:
    """The vendor gives its own error for it."""
    calls: list[Any] = []

    async def act(client: Any, url: str) -> None:
        async with client.post(url):
            pass

    _run(vendor, act, "direct", calls.append)
    assert ([b""], b"") == (vendor.bodies, calls[0].request_body)


UNTOUCHED = [
    "https://api.keywordsai.co/api/users",
    "https://user:word@openrouter.ai/api/v1/chat/completions",
    "https://openrouter.ai:8443/api/v1/chat/completions",
    "https://openrouter.ai.evil.example/api/v1/chat/completions",
]


async def _sent(url: str, calls: list[Any], **options: Any) -> tuple[Any, Any]:
    """The request object that the app has, and the one that goes on."""
    from yarl import URL

    async with aiohttp.ClientSession() as client:
        request = aiohttp.ClientRequest(
            "POST", URL(url), data=BODY, headers=APP, loop=asyncio.get_running_loop(), session=client
        )
        seen: list[Any] = []

        async def handler(given: Any) -> Any:
            seen.append((given, given.headers.copy(), await given.body.as_bytes(), given.body.decode()))
            raise aiohttp.ClientConnectionError("no further")

        middleware = KwaiMiddleware(settings=settings(**options), deliver=calls.append)
        with bind_caller(caller()), pytest.raises(aiohttp.ClientConnectionError):
            await middleware(request, handler)
        return request, seen[0]


@pytest.mark.parametrize("url", UNTOUCHED)
def test_what_is_not_on_the_list_is_the_apps_own_request(url: str) -> None:
    """What is inside gets the very object."""
    calls: list[Any] = []
    request, (given, *_) = asyncio.run(_sent(url, calls))
    assert request is given
    assert [] == calls


@pytest.mark.parametrize("url", [GATEWAY, "https://openrouter.ai:443/api/v1/chat/completions?a=b"])
def test_what_is_inside_can_read_the_body_and_holds_no_key_afterwards(url: str) -> None:
    """What signs or imitates finds the bytes; what keeps the request finds the app's own in it when it is over."""
    calls: list[Any] = []
    request, (given, headers, body, text) = asyncio.run(_sent(url, calls))
    assert request is not given
    assert KEY in str(headers) + text
    assert text.encode() == body
    assert vars(request) == vars(given)
    assert (BODY, "Bearer app") == (request.body._value, request.headers["authorization"])
    assert [Ending.ERROR] == [call.ending for call in calls]


@pytest.mark.parametrize("refuse", ["raise", "response"])
def test_a_refused_call(vendor: _Vendor, refuse: Any) -> None:
    """Nothing is sent; the app gets our exception, or an answer that says the same."""
    calls: list[Any] = []

    async def act(client: Any, url: str) -> None:
        if refuse == "raise":
            with pytest.raises(MissingCredential, match="byok='only'"):
                await client.post(url, data=BODY)
            return
        async with client.post(url, data=BODY) as response:
            assert (401, "missing_credential") == (response.status, response.headers["x-kwai-refused"])
            assert "byok='only'" in (await response.json())["error"]["message"]
            assert ("Unauthorized", url) == (response.reason, str(response.url))
        with pytest.raises(aiohttp.ClientResponseError, match="401"):
            await client.post(url, data=BODY, raise_for_status=True)

    who = caller(credentials=())
    _run(vendor, act, "direct", calls.append, who, refuse=refuse, byok="only")
    assert ([], []) == (vendor.heads, calls)


def test_a_word_that_means_nothing_is_refused_at_once() -> None:
    """Not at the first call."""
    with pytest.raises(ConfigurationError, match="'raise' or 'response'"):
        KwaiMiddleware(settings=settings(), deliver=lambda call: None, refuse="hide")  # type: ignore[arg-type]  # so it is


# --- sent again, and who else looks on


def _attempts(calls: list[Any]) -> list[tuple[bool, int]]:
    records = [call.build() for call in calls]
    return [(record.call_id == records[0].call_id, record.attempt) for record in records]


def test_a_redirect_is_judged_by_where_it_goes(vendor: _Vendor) -> None:
    """A listed address is the second attempt, with the key; a stranger gets what the app wrote, and nothing of ours."""
    stranger = _Vendor()
    calls: list[Any] = []
    with raw_server(stranger) as elsewhere:
        for location in (f"{vendor.url}/v1/chat/completions/", f"{elsewhere.url}/v1/chat/completions"):
            vendor.answers.append(f"HTTP/1.1 307 Away\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n".encode())

        async def act(client: Any, url: str) -> None:
            async with client.post(url, data=BODY, headers=APP) as response:
                assert KEY not in str([each.request_info for each in (response, *response.history)])

        _run(vendor, act, deliver=calls.append)
    assert [(True, 1), (True, 2)] == _attempts(calls)
    assert [True, True] == [KEY.encode() in body for body in vendor.bodies]
    assert [BODY] == stranger.bodies
    assert b"acme" not in stranger.heads[0]
    assert b"uthorization" not in stranger.heads[0]


def test_a_middleware_that_sends_again_makes_attempts_of_one_call(vendor: _Vendor) -> None:
    """Retries and answered challenges send the app's own request once more; another request is another call."""
    calls: list[Any] = []
    seen: list[Any] = []

    async def thrice(request: Any, handler: Any) -> Any:
        for _ in range(2):
            response = await handler(request)
            seen.append((response.request_info, dict(request.headers), await request.body.as_bytes()))
            response.release()
        return await handler(request)

    async def act(client: Any, url: str) -> None:
        async with client.post(url, data=BODY, headers=APP):
            pass
        async with client.post(url, data=BODY, headers=APP, middlewares=(client._middlewares[-1],)):
            pass

    _run(vendor, act, deliver=calls.append, session_options={"middlewares": [thrice]})
    assert [(True, 1), (True, 2), (True, 3), (False, 1)] == _attempts(calls)
    assert 1 == len(set(vendor.bodies))
    assert KEY not in str(seen)
    assert [BODY, BODY] == [body for *_, body in seen]


@pytest.mark.parametrize("kind", ["gateway", "relay", "direct"])
def test_traces_hear_of_the_apps_own_request(vendor: _Vendor, kind: Any) -> None:
    """Whatever a trace is told while the request goes out, it is what the app wrote."""
    heard: list[Any] = []
    traces = aiohttp.TraceConfig()

    async def listen(client: Any, context: Any, told: Any) -> None:
        heard.append((type(told).__name__, str(getattr(told, "headers", "")), getattr(told, "chunk", None)))

    for signal in (
        traces.on_request_start, traces.on_request_headers_sent, traces.on_request_chunk_sent,
        traces.on_response_chunk_received, traces.on_request_end,
    ):  # fmt: skip
        signal.append(listen)

    async def act(client: Any, url: str) -> None:
        body = b'{"model":"m"' + b" " * 200_000 + b"}"
        async with client.post(url, data=io.BytesIO(body), headers=APP) as response:
            await response.read()
        async with client.post(url, data=BODY, headers=APP) as response:
            await response.read()

    _run(vendor, act, kind, session_options={"trace_configs": [traces]})
    assert KEY not in str(heard)
    assert "acme" not in str(heard)
    chunks = [chunk for name, _, chunk in heard if name == "TraceRequestChunkSentParams" and chunk]
    assert BODY == chunks[-1]
    assert 200_013 == sum(map(len, chunks[:-1]))
    assert [b"{}", b"{}"] == [chunk for name, _, chunk in heard if name == "TraceResponseChunkReceivedParams"]


def test_an_answer_that_a_middleware_inside_has_read(vendor: _Vendor) -> None:
    """Its content will not be read again; it is recorded as it is."""
    calls: list[Any] = []

    async def reads(request: Any, handler: Any) -> Any:
        response = await handler(request)
        await response.read()
        return response

    async def act(client: Any, url: str) -> bytes:
        async with client.post(url, data=BODY, middlewares=(client._middlewares[-1], reads)) as response:
            content: bytes = await response.read()
            return content

    assert b"{}" == _run(vendor, act, deliver=calls.append)
    assert [(Ending.END, (b"{}",), True)] == [(call.ending, call.chunks, call.decoded) for call in calls]


def test_an_answer_that_cannot_be_watched_reaches_the_app(
    vendor: _Vendor, nothing_is_swallowed: list[BaseException]
) -> None:
    """A middleware inside may hand over what is hardly an answer: it is the app's, and nothing stays open."""
    calls: list[Any] = []

    async def breaks(request: Any, handler: Any) -> Any:
        response = await handler(request)
        response._raw_headers = None
        return response

    async def act(client: Any, url: str) -> bytes:
        async with client.post(url, data=BODY, middlewares=(client._middlewares[-1], breaks)) as response:
            content: bytes = await response.read()
            return content

    assert b"{}" == _run(vendor, act, deliver=calls.append)
    assert [(Ending.ABANDONED, None)] == [(call.ending, call.status) for call in calls]
    assert [TypeError] == [type(error) for error in nothing_is_swallowed]
    nothing_is_swallowed.clear()


def test_nothing_is_left_of_a_call(vendor: _Vendor) -> None:
    """No copy of a request outlives its call."""

    async def act(client: Any, url: str) -> None:
        async with client.post(url, data=BODY, headers=APP) as response:
            await response.read()
        gc.collect()
        left = [each for each in gc.get_objects() if isinstance(each, aiohttp.ClientRequest)]
        assert [] == [each for each in left if KEY in str(each.headers)]

    _run(vendor, act, "direct")


def test_a_connector_of_the_apps_own_stays(vendor: _Vendor) -> None:
    """Ours has room for a thousand connections; the app's has what the app gave it."""

    async def act(client: Any, url: str) -> int:
        limit: int = client.connector.limit
        return limit

    async def own() -> int:
        connector = aiohttp.TCPConnector(limit=7)
        async with session(settings=settings(), deliver=lambda call: None, connector=connector) as client:
            return client.connector.limit  # type: ignore[union-attr]  # it is open

    assert 1000 == _run(vendor, act)
    assert 7 == asyncio.run(own())


WITHOUT = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in ("requests", "aiohttp"):
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)

sys.meta_path.insert(0, Absent())
import kwai_middleware
for name in ("requests_adapter", "aiohttp_middleware"):
    try:
        __import__(f"kwai_middleware.{name}")
    except ModuleNotFoundError as error:
        print(error.name, error)
"""


def test_without_its_library_a_door_says_how_to_get_it() -> None:
    """Everything else works, and the door names the command that installs what is missing."""
    done = subprocess.run(
        [sys.executable, "-B", "-c", WITHOUT], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=True
    )
    for name in ("requests", "aiohttp"):
        assert f"{name} kwai_middleware.{name}_" in done.stdout
        assert f"pip install 'kwai-middleware[{name}]'" in done.stdout
