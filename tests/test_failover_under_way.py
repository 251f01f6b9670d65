"""What may happen while keys are tried: cancellations, broken connections, many callers at once, retries of SDKs."""

from __future__ import annotations

import asyncio
import functools
import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import openai
import pytest
import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3 import HTTPResponse
from urllib3.exceptions import ProtocolError
from urllib3.util.retry import Retry

from kwai_middleware import Caller, Secret, Settings, aiohttp_middleware, bind_caller, carry_caller, requests_adapter
from kwai_middleware._outbound.replays import Replay
from kwai_middleware.sandbox import Sandbox
from tests.support.callers import OPENROUTER, caller, settings
from tests.support.door_calls import APP, QUESTION
from tests.support.every_door import Door, door
from tests.support.examples import sandbox_process
from tests.support.exposure import exposures
from tests.support.flavours import ASYNC_FLAVOURS, SYNC_FLAVOURS, Flavour
from tests.support.keyed_vendor import KeyedVendor, answer
from tests.support.processes import DEADLINE
from tests.support.raw_server import Connection
from tests.test_failover import BAD, FRAMED, credentials, fingerprints, new_key, routed, vendor, with_keys

__all__ = ["door", "vendor"]


@pytest.fixture(scope="module")
def vendors() -> Iterator[Sandbox]:
    with sandbox_process() as sandbox:
        yield sandbox


# --- against the sandbox


@pytest.mark.parametrize(
    ("ending", "status"), [("dead", 401), ("broke", 402), ("spent", 403), ("slow", 429)], ids=lambda each: str(each)
)
@pytest.mark.parametrize("route", ["direct", "relay"])
def test_a_stream_of_the_key_that_pays(door: Door, vendors: Sandbox, ending: str, status: int, route: str) -> None:
    """However the first key is refused, the app's stream is whole; the vendor's journal and the records show both."""
    vendors.reset()
    bad, good = f"{new_key()}-{ending}", new_key()
    base = vendors.relay_url if route == "relay" else vendors.openrouter_url
    body = b'{"model":"sandbox/echo","stream":true,"messages":[{"role":"user","content":"one two three"}]}'
    answered = door.ask(
        f"{base.rstrip('/')}/chat/completions",
        with_keys(bad, good),
        body,
        {"content-type": "application/json"},
        base_url=vendors.gateway_url,
        openrouter_base_url=vendors.openrouter_url,
    )
    assert 200 == answered.status
    assert b"[DONE]" in answered.raw
    calls = vendors.calls(wait=2)
    assert fingerprints(bad, good) == [call["paid_by"]["fingerprint"] for call in calls]
    assert [status, 200] == [call["status"] for call in calls]
    first, second = door.records
    assert [("error", status, 1), ("complete", 200, 2)] == [
        (record.outcome, record.status_code, record.attempt) for record in (first, second)
    ]
    assert (True, "one two three") == (second.stream, second.completions[0]["content"])


# --- what fails on the way


def test_a_failure_of_the_second_attempt_is_the_apps(door: Door, vendor: KeyedVendor) -> None:
    """The exception is the library's own, and in its frames there is no key."""
    dead, lost = new_key(), new_key()
    vendor.answers = {dead: answer(401, BAD), lost: Connection.reset}
    with pytest.raises(Exception) as failed:
        door.ask(f"{vendor.url}/chat/completions", with_keys(dead, lost), **routed(vendor))
    assert isinstance(failed.value, OSError) or "Error" in type(failed.value).__name__
    below = {"requests": "send", "aiohttp": "__call__"}.get(door.name, "handle_request")
    below = "handle_async_request" if "async" in door.name else below
    assert [] == [*exposures(failed.value, dead, below=below), *exposures(failed.value, lost, below=below)]
    assert ["error", "error"] == [record.outcome for record in door.records]
    assert [1, 2] == [record.attempt for record in door.records]


class Stalled:
    """Answers with a head and a part of the body, and waits until the client leaves."""

    def __init__(self, status: int) -> None:
        self.status = status
        self.has_begun = threading.Event()
        self.has_ended = threading.Event()

    def __call__(self, connection: Connection) -> None:
        connection.send(b'HTTP/1.1 %d No\r\ncontent-length: 1000\r\n\r\n{"error":' % self.status)
        self.has_begun.set()
        connection.wait_until_closed()
        self.has_ended.set()


def _arriving(library: Any, has_arrived: asyncio.Event) -> Any:
    """A transport that tells when the head of an answer has come, right before ours gets it."""

    class Arriving(library.AsyncHTTPTransport):
        async def handle_async_request(self, request: Any) -> Any:
            response = await super().handle_async_request(request)
            has_arrived.set()
            return response

    return Arriving()


async def _cancelled(library: str, url: str, given: Settings, calls: list[Any], stalled: Stalled, when: str) -> None:
    has_arrived = asyncio.Event()

    async def arriving(request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
        response: aiohttp.ClientResponse = await handler(request)
        has_arrived.set()
        return response

    if library == "aiohttp":
        ours = aiohttp_middleware.KwaiMiddleware(settings=given, deliver=calls.append)
        client: Any = aiohttp.ClientSession(middlewares=(ours, arriving))
    else:
        [(module, door, _)] = [each.values[0] for each in ASYNC_FLAVOURS if str(each.id) == f"{library}-async"]  # type: ignore[misc]  # pytest types the values as objects
        transport = door.AsyncKwaiTransport(_arriving(module, has_arrived), settings=given, deliver=calls.append)
        client = module.AsyncClient(transport=transport)

    async def read() -> None:
        response = await client.post(url, **{"data" if library == "aiohttp" else "content": b"{}"})
        await response.read()

    async with client:
        task = asyncio.create_task(read())
        if when == "looked into":
            await has_arrived.wait()
        else:
            assert await asyncio.to_thread(stalled.has_begun.wait, DEADLINE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert await asyncio.to_thread(stalled.has_ended.wait, DEADLINE)


@pytest.mark.parametrize("library", ["httpx", "httpx2", "aiohttp"])
@pytest.mark.parametrize("when", ["looked into", "second attempt"])
def test_a_cancellation(vendor: KeyedVendor, library: str, when: str) -> None:
    """While an answer is looked into, or the next attempt waits: the connection is closed, and no key is tried."""
    first, second, third = new_key(), new_key(), new_key()
    stalled = Stalled(403 if when == "looked into" else 200)
    vendor.answers = {first: answer(401, BAD), second: stalled}
    if when == "looked into":
        vendor.answers = {first: stalled}
    calls: list[Any] = []
    given = settings(**routed(vendor))
    with bind_caller(with_keys(first, second, third)):
        asyncio.run(_cancelled(library, f"{vendor.url}/chat/completions", given, calls, stalled, when))
    assert ([first] if when == "looked into" else [first, second]) == vendor.keys
    records = [call.build() for call in calls]
    assert "cancelled" == records[-1].outcome
    assert len(vendor.keys) == len(records)


@pytest.mark.parametrize("limit", ["total", "sock_read"])
def test_a_time_limit_while_aiohttps_answer_is_looked_into(vendor: KeyedVendor, limit: str) -> None:
    """The limit of the whole call ends it; that of one read is the answer's own affair, and found where it is read."""
    first, second = new_key(), new_key()
    vendor.answers[first] = Stalled(401)
    calls: list[Any] = []

    async def asked() -> int:
        made = aiohttp_middleware.session(
            settings=settings(**routed(vendor)),
            deliver=calls.append,
            timeout=aiohttp.ClientTimeout(**{limit: 0.5}),
        )
        async with made as client:
            with bind_caller(with_keys(first, second)):
                response = await client.post(f"{vendor.url}/chat/completions", data=b"{}")
            return response.status

    if limit == "total":
        with pytest.raises(TimeoutError):
            asyncio.run(asked())
        assert [first] == vendor.keys
        assert ["timeout"] == [call.build().outcome for call in calls]
    else:
        assert 200 == asyncio.run(asked())
        assert [first, second] == vendor.keys


# --- many at once


@pytest.mark.parametrize("library", ["requests", "httpx", "httpx2-async", "aiohttp"])
def test_sixty_four_callers_at_once(vendor: KeyedVendor, library: str) -> None:
    """Each has two keys, the first of them dead, and one client for all: nobody's call is ever made with another's."""
    customers = {f"customer-{number}": (new_key(), new_key()) for number in range(64)}
    vendor.answers = {dead: answer(401, BAD) for dead, _ in customers.values()}
    calls: list[Any] = []
    given = settings(**routed(vendor))
    url = f"{vendor.url}/chat/completions"

    def body(customer: str) -> bytes:
        return b'{"user":"%s"}' % customer.encode()

    def who(customer: str) -> Caller:
        return caller(customer, credentials=credentials(*customers[customer]))

    def on_threads(client: Any, option: str) -> None:
        with client, ThreadPoolExecutor(16) as executor:
            asked = []
            for customer in customers:
                with bind_caller(who(customer)):
                    ask = carry_caller(functools.partial(client.post, url, **{option: body(customer)}))
                    asked.append(executor.submit(ask))
            assert {200} == {each.result(DEADLINE).status_code for each in asked}

    async def in_tasks() -> None:
        if library == "aiohttp":
            client: Any = aiohttp_middleware.session(settings=given, deliver=calls.append)
        else:
            client = ASYNC_FLAVOURS[1].values[0][1].async_client(settings=given, deliver=calls.append)  # type: ignore[index]

        async def ask(customer: str) -> int:
            with bind_caller(who(customer)):
                if library == "aiohttp":
                    return int((await client.post(url, data=body(customer))).status)
                return int((await client.post(url, content=body(customer))).status_code)

        async with client:
            assert {200} == set(await asyncio.gather(*map(ask, customers)))

    if library == "requests":
        on_threads(requests_adapter.session(settings=given, deliver=calls.append), "data")
    elif library == "httpx":
        on_threads(SYNC_FLAVOURS[0].values[0][1].client(settings=given, deliver=calls.append), "content")  # type: ignore[index]
    else:
        asyncio.run(in_tasks())
    for customer, keys in customers.items():
        assert list(keys) == [asked.key for asked in vendor.asked if asked.body == body(customer)]
    assert 128 == len(vendor.asked)
    records = [call.build() for call in calls]
    told = {(record.caller.identifier, record.attempt, record.key_fingerprint) for record in records}
    assert told == {
        (customer, number, Secret(key).fingerprint)
        for customer, keys in customers.items()
        for number, key in enumerate(keys, 1)
    }
    assert 64 == len({record.call_id for record in records})


# --- retries of others


def test_a_retry_of_openais_sdk_begins_with_the_key_that_is_awake(flavour: Flavour) -> None:
    """The key that failed is not asked again; attempts are counted through, and the SDK sees one answer for each."""
    dead, alive = new_key(), new_key()
    paid: list[str] = []
    calls: list[Any] = []

    def handler(request: Any) -> Any:
        paid.append(request.headers["authorization"].removeprefix("Bearer "))
        status = 401 if paid[-1] == dead else 503 if len(paid) < 3 else 200
        return flavour.library.Response(status, headers={"retry-after-ms": "1"}, json={"choices": []})

    client = flavour.answering(handler, settings=settings(), deliver=calls.append)
    make = openai.AsyncOpenAI if flavour.asynchronous else openai.OpenAI
    sdk = make(api_key="app", base_url="https://openrouter.ai/api/v1", http_client=client, max_retries=2)
    with bind_caller(with_keys(dead, alive)):
        flavour.run(sdk.chat.completions.create(model="m", messages=QUESTION))  # type: ignore[arg-type]
    flavour.run(sdk.close())
    assert [dead, alive, alive] == paid
    records = [call.build() for call in calls]
    assert [1, 2, 3] == [record.attempt for record in records]
    assert 1 == len({record.call_id for record in records})


def test_retries_of_urllib3_are_attempts_with_the_key_of_that_time(vendor: KeyedVendor) -> None:
    """Below the adapter urllib3 repeats what it was given; above, the next key is tried."""
    dead, alive = new_key(), new_key()
    failures = [answer(503), answer(200)]
    vendor.answers = {dead: answer(401, BAD), alive: lambda connection: connection.send(failures.pop(0))}
    calls: list[Any] = []
    inner = HTTPAdapter(max_retries=Retry(1, status_forcelist=[503], allowed_methods=None, backoff_factor=0))
    adapter = requests_adapter.KwaiAdapter(inner, settings=settings(**routed(vendor)), deliver=calls.append)
    with requests.Session() as client, bind_caller(with_keys(dead, alive)):
        client.mount("http://", adapter)
        assert 200 == client.post(f"{vendor.url}/chat/completions", data=b"{}").status_code
    records = [call.build() for call in calls]
    assert [(1, 401), (2, 503), (3, 200)] == [(record.attempt, record.status_code) for record in records]
    assert fingerprints(dead, alive, alive) == [record.key_fingerprint for record in records]


# --- answers that come in other ways


@pytest.mark.parametrize("kind", ["content", "urllib3", "file"])
@pytest.mark.parametrize("status", [401, 403])
def test_adapters_that_are_no_connection(kind: str, status: int) -> None:
    """What they hand over is looked into where that leaves it as it is; the status is known anyway."""
    dead, alive = new_key(), new_key()
    body = b'{"error":{"message":"Key limit exceeded (total limit)"}}'

    class Canned(BaseAdapter):
        def send(self, request: Any, *arguments: Any, **options: Any) -> requests.Response:
            response = requests.Response()
            response.request, response.url = request, request.url
            response.status_code = status if dead in request.headers["authorization"] else 200
            if kind == "content":
                response._content, response._content_consumed = body, True  # type: ignore[attr-defined]
            elif kind == "file":
                response.raw = io.BytesIO(body)
            else:
                response.raw = HTTPResponse(io.BytesIO(body), status=response.status_code, preload_content=False)
            return response

        def close(self) -> None:
            """Nothing is open."""

    calls: list[Any] = []
    with requests.Session() as client, bind_caller(with_keys(dead, alive)):
        client.mount("https://", requests_adapter.KwaiAdapter(Canned(), settings=settings(), deliver=calls.append))
        response = client.post(OPENROUTER, data=b"{}", headers=APP)
    is_seen = status == 401 or kind != "file"
    assert (200 if is_seen else 403) == response.status_code
    assert (2 if is_seen else 1) == len(calls)


def test_a_middleware_inside_that_has_read_the_answer(vendor: KeyedVendor) -> None:
    """A middleware of the app's may read; then it is all there."""
    spent, alive = new_key(), new_key()
    vendor.answers[spent] = answer(403, b'{"error":{"message":"Key limit exceeded (total limit)"}}')
    calls: list[Any] = []

    async def reads(request: aiohttp.ClientRequest, handler: Any) -> aiohttp.ClientResponse:
        response: aiohttp.ClientResponse = await handler(request)
        await response.read()
        return response

    async def asked() -> int:
        ours = aiohttp_middleware.KwaiMiddleware(settings=settings(**routed(vendor)), deliver=calls.append)
        async with aiohttp.ClientSession(middlewares=(ours, reads)) as client:
            with bind_caller(with_keys(spent, alive)):
                return (await client.post(f"{vendor.url}/chat/completions", data=b"{}")).status

    assert 200 == asyncio.run(asked())
    first, second = [call.build() for call in calls]
    assert "Key limit exceeded (total limit)" == first.error_message
    assert 2 == second.attempt


@pytest.mark.parametrize(
    "framing", ["length", "chunks", "gzip", "large", "large chunks", "as much as is looked at", "nothing"]
)
@pytest.mark.parametrize("way", ["read", "read 7", "read 90000", "read1", "read1 7", "lines", "content"])
def test_every_way_to_read_what_requests_has_looked_into(vendor: KeyedVendor, framing: str, way: str) -> None:
    """Piece by piece the same as without, though where a chunk ends may have been forgotten; and nothing stays open."""
    vendor.otherwise = FRAMED[framing][0]
    kind, _, size = way.partition(" ")

    def pieces(*keys: str) -> list[bytes]:
        with requests_adapter.session(settings=settings(**routed(vendor)), deliver=lambda call: None) as client:
            with bind_caller(with_keys(*keys)):
                response = client.post(f"{vendor.url}/chat/completions", data=b"{}", headers=APP, stream=True)
            if kind == "content":
                return [response.content]
            if kind == "lines":
                return list(response.iter_lines())
            amount = {"amt": int(size)} if size else {}
            read = functools.partial(getattr(response.raw, kind), decode_content=False, **amount)
            return list(iter(read, b""))

    looked_into, plain = pieces(new_key(), new_key()), pieces(new_key())
    if kind == "read1":
        assert b"".join(plain) == b"".join(looked_into)
    else:
        assert plain == looked_into


def test_what_urllib3_reads_from_is_the_connection_still(vendor: KeyedVendor) -> None:
    """Who asks an answer for its file gets that of the connection."""
    vendor.otherwise = FRAMED["large"][0]
    with requests_adapter.session(settings=settings(**routed(vendor)), deliver=lambda call: None) as client:
        with bind_caller(with_keys(new_key(), new_key())):
            response = client.post(f"{vendor.url}/chat/completions", data=b"{}", headers=APP, stream=True)
        assert 0 <= response.raw.fileno()
        assert not response.raw.closed
        response.close()
        assert response.raw.closed


@pytest.mark.parametrize("kind", ["read", "read1"])
def test_what_broke_while_requests_looked_is_told_to_who_reads(vendor: KeyedVendor, kind: str) -> None:
    """As urllib3 tells it."""

    def reset(connection: Connection) -> None:
        connection.send(b"HTTP/1.1 403 No\r\ncontent-length: 1000\r\n\r\n")
        connection.reset()

    vendor.otherwise = reset
    calls: list[Any] = []
    with requests_adapter.session(settings=settings(**routed(vendor)), deliver=calls.append) as client:
        with bind_caller(with_keys(new_key(), new_key())):
            response = client.post(f"{vendor.url}/chat/completions", data=b"{}", headers=APP, stream=True)
        with pytest.raises(ProtocolError):
            getattr(response.raw, kind)(10)
    assert ["error"] == [call.build().outcome for call in calls]


def test_an_interrupt_while_requests_looks_into_an_answer() -> None:
    """The answer is closed, and the record says how it ended."""
    calls: list[Any] = []
    opened: list[io.BytesIO] = []

    class Interrupted(io.BytesIO):
        def read(self, amount: int | None = -1) -> bytes:
            raise KeyboardInterrupt

    class Canned(BaseAdapter):
        def send(self, request: Any, *arguments: Any, **options: Any) -> requests.Response:
            response = requests.Response()
            opened.append(Interrupted())
            response.status_code, response.request, response.url = 401, request, request.url
            response.raw = HTTPResponse(opened[0], status=401, preload_content=False)
            return response

        def close(self) -> None:
            """Nothing is open."""

    with requests.Session() as client, bind_caller(with_keys(new_key(), new_key())):
        client.mount("https://", requests_adapter.KwaiAdapter(Canned(), settings=settings(), deliver=calls.append))
        with pytest.raises(KeyboardInterrupt):
            client.post(OPENROUTER, data=b"{}", headers=APP)
    assert opened[0].closed
    assert ["cancelled"] == [call.build().outcome for call in calls]


def test_aiohttp_with_small_buffers(vendor: KeyedVendor) -> None:
    """What does not fit is not waited for: the app reads it, all of it."""
    vendor.otherwise, body = FRAMED["large chunks"]

    async def asked() -> bytes:
        made = aiohttp_middleware.session(
            settings=settings(**routed(vendor)), deliver=lambda call: None, read_bufsize=1024
        )
        async with made as client:
            with bind_caller(with_keys(new_key(), new_key())):
                response = await client.post(f"{vendor.url}/chat/completions", data=b"{}")
            return await response.read()

    assert body == asyncio.run(asked())


# --- the stream that stands for another


class Parts:
    """A stream, synchronous and asynchronous, that can be iterated as often as wanted."""

    def __init__(self, *parts: bytes | BaseException) -> None:
        self.parts = parts
        self.closed = 0

    def __iter__(self) -> Iterator[bytes]:
        for part in self.parts:
            if isinstance(part, BaseException):
                raise part
            yield part

    async def __aiter__(self) -> Any:
        for part in self:
            yield part

    def close(self) -> None:
        self.closed += 1

    async def aclose(self) -> None:
        self.closed += 1


def test_a_replayed_stream_may_be_read_again_or_not_at_all() -> None:
    """A second iteration is the stream's own affair, and so is closing."""
    parts = Parts(b"a", b"b")
    replay = Replay(parts)
    assert (b"ab", True, False) == replay.look()
    assert [[b"a", b"b"], [b"a", b"b"]] == [list(replay), list(replay)]
    replay.close()
    assert 1 == parts.closed

    async def asynchronously() -> list[bytes]:
        replay = Replay(parts)
        await replay.aclose()
        assert (b"ab", True, False) == await replay.look_async()
        read = [part async for part in replay] + [part async for part in replay]
        await replay.aclose()
        return read

    assert [b"a", b"b", b"a", b"b"] == asyncio.run(asynchronously())
    assert 3 == parts.closed


def test_an_interrupt_while_a_stream_is_looked_into_closes_it() -> None:
    """It is no answer that anybody would read any more."""
    for look in (Replay.look, lambda replay: asyncio.run(replay.look_async())):
        parts = Parts(b"a", SystemExit())
        with pytest.raises(SystemExit):
            look(Replay(parts))
        assert 1 == parts.closed


def test_a_failure_while_a_stream_is_looked_into_is_found_where_it_was() -> None:
    """After what came before it."""
    replay = Replay(Parts(b"a", OSError("gone")))
    assert (b"a", False, False) == replay.look()
    read = iter(replay)
    assert b"a" == next(read)
    with pytest.raises(OSError, match="gone"):
        next(read)

    async def asynchronously() -> list[bytes]:
        replay = Replay(Parts(b"a", OSError("gone")))
        assert (b"a", False, False) == await replay.look_async()
        read = []
        with pytest.raises(OSError, match="gone"):
            async for part in replay:
                read.append(part)
        return read

    assert [b"a"] == asyncio.run(asynchronously())


def test_a_stream_without_generators_is_left_as_it_is() -> None:
    """Iterators that cannot be closed need not be."""

    class Counting:
        def __init__(self) -> None:
            self.left = [b"a", b"b"]

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> bytes:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop(0)

        async def aclose_stream(self) -> None:
            """Not the name that is looked for."""

    async def asynchronously() -> bytes:
        replay = Replay(Counting())
        seen = await replay.look_async()
        chunks: Any = replay.__aiter__()
        await chunks.aclose()
        return seen.body

    assert b"ab" == asyncio.run(asynchronously())
