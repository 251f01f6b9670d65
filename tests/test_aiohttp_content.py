"""Answers through the door for aiohttp: read in any way they are the server's, and each ends as one observation."""

from __future__ import annotations

import asyncio
import gc
import gzip
import threading
from collections.abc import Awaitable, Callable, Iterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest
from aiohttp import StreamReader
from aiohttp.streams import EMPTY_PAYLOAD

from kwai_middleware import Route, bind_caller
from kwai_middleware._aiohttp_content import ObservedContent
from kwai_middleware._aiohttp_requests import WirePayload, gathered_payload, held
from kwai_middleware._outbound.observation import Ending
from kwai_middleware._outbound.wire import WireBody
from kwai_middleware.aiohttp_middleware import _is_decoded, session
from tests.support.callers import caller, key_of, settings
from tests.support.exposure import exposures
from tests.support.raw_server import Connection, raw_server
from tests.support.three_parts import PARTS, WHOLE, ThreeParts

KEY = key_of("acme")
BODY = b'{"model":"m"}'


@pytest.fixture
def server() -> Iterator[ThreeParts]:
    served = ThreeParts()
    with raw_server(served) as raw:
        served.url = raw.url
        yield served
        served.go_on.set()


@pytest.fixture
def calls() -> list[Any]:
    return []


def _run(server: Any, calls: list[Any], act: Callable[[Any, Any], Awaitable[Any]], **options: Any) -> Any:
    """Run `act` with a session and a function that makes one call."""
    kind = options.pop("kind", "gateway")
    listed = settings(routes=(Route(f"{server.url}/v1", kind=kind),))

    async def acting() -> Any:
        async with session(settings=listed, deliver=calls.append, **options) as client:

            def post(**more: Any) -> Any:
                return client.post(f"{server.url}/v1/chat/completions", **{"data": BODY, **more})

            with bind_caller(caller()):
                return await act(client, post)

    return asyncio.run(acting())


async def _all_of(read: Callable[[], Awaitable[bytes]]) -> bytes:
    pieces = []
    while piece := await read():
        pieces.append(piece)
    return b"".join(pieces)


async def _chunks(response: Any) -> bytes:
    return b"".join([chunk async for chunk, _ in response.content.iter_chunks()])


async def _iterated(iterator: Any) -> bytes:
    return b"".join([piece async for piece in iterator])


async def _until(response: Any) -> bytes:
    return b"".join([await response.content.readuntil(b"\n\n") for _ in PARTS])


async def _nowait(response: Any) -> bytes:
    await response.content.wait_eof()
    piece: bytes = response.content.read_nowait(3)
    return piece + response.content.read_nowait()


async def _text(response: Any) -> bytes:
    return str(await response.text()).encode()


async def _put_back(response: Any) -> bytes:
    piece = await response.content.readexactly(4)
    with pytest.warns(DeprecationWarning, match="unread_data"):
        response.content.unread_data(piece)
    rest: bytes = await response.content.read()
    return rest


WAYS: dict[str, Callable[[Any], Awaitable[bytes]]] = {
    "read": lambda response: response.read(),
    "text": _text,
    "content.read": lambda response: response.content.read(),
    "content.read in pieces": lambda response: _all_of(lambda: response.content.read(4)),
    "content.readany": lambda response: _all_of(response.content.readany),
    "content.readline": lambda response: _all_of(response.content.readline),
    "content.readuntil": _until,
    "content.readexactly": lambda response: response.content.readexactly(len(WHOLE)),
    "content.read_nowait": _nowait,
    "iter_any": lambda response: _iterated(response.content.iter_any()),
    "iter_chunked": lambda response: _iterated(response.content.iter_chunked(5)),
    "iter_chunks": _chunks,
    "async for": lambda response: _iterated(response.content),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("framing", ["chunked", "length", "until closed"])
def test_an_answer_read_to_its_end(server: ThreeParts, calls: list[Any], way: Any, framing: str) -> None:
    """The app gets the server's bytes, and the observation holds them, with their times."""
    server.go_on.set()
    if framing == "length":
        server.with_length()
    elif framing == "until closed":
        server.head, server.ending = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", "close"

    async def act(client: Any, post: Any) -> bytes:
        async with post() as response:
            assert isinstance(response.content, StreamReader)
            content: bytes = await way(response)
            content += await response.content.read()  # some ways end before the server says that it was all
            assert response.content.at_eof()
            assert len(WHOLE) == response.content.total_bytes
            return content

    assert WHOLE == _run(server, calls, act)
    [call] = calls
    assert (Ending.END, WHOLE, 200, False) == (call.ending, b"".join(call.chunks), call.status, call.decoded)
    assert (BODY, "acme", None) == (call.request_body, call.caller.identifier, call.error)
    assert call.started <= call.answered <= call.arrivals[0] <= call.arrivals[-1] <= call.ended
    if framing == "chunked":
        assert [b"1", b"2"] == [value for name, value in call.response_headers if name == b"X-Id"]


def test_what_a_reader_knows_and_does_it_knows_and_does_here(server: ThreeParts, calls: list[Any]) -> None:
    """It is aiohttp's own reader in all but the reading; what is put back and read again is the app's affair."""
    server.go_on.set()
    server.with_length()

    async def act(client: Any, post: Any) -> None:
        plain = await client.get(server.url)
        response = await post()
        called: list[str] = []
        response.content.on_eof(lambda: called.append("eof"))
        if hasattr(plain.content, "set_read_chunk_size"):
            plain.content.set_read_chunk_size(1 << 20)
        response.content.set_read_chunk_size(1 << 20)
        await response.content.wait_eof()
        assert (True, ["eof"], None) == (response.content.is_eof(), called, response.content.exception())
        assert plain.content.get_read_buffer_limits() == response.content.get_read_buffer_limits()
        assert repr(plain.content) == repr(response.content)
        assert WHOLE == await _put_back(response)
        plain.release()

    _run(server, calls, act)
    assert [Ending.END] == [call.ending for call in calls]


def test_reading_all_moves_the_bound_as_far_as_without_us(server: ThreeParts, calls: list[Any]) -> None:
    """The reader shows it, and it decides how much is decoded at once."""
    server.go_on.set()

    async def act(client: Any, post: Any) -> None:
        plain, ours = await client.get(server.url), await post()
        assert await plain.content.read() == await ours.content.read()
        assert plain.content.get_read_buffer_limits() == ours.content.get_read_buffer_limits()

    _run(server, calls, act)


@pytest.mark.parametrize("decodes", [True, False])
def test_an_answer_that_is_coded(server: ThreeParts, calls: list[Any], decodes: bool) -> None:
    """What aiohttp decoded is noted as that."""
    server.go_on.set()
    packed = gzip.compress(WHOLE)
    server.parts = [packed]
    server.with_length(coding="gzip")

    async def act(client: Any, post: Any) -> bytes:
        async with post() as response:
            content: bytes = await response.read()
            return content

    assert (WHOLE if decodes else packed) == _run(server, calls, act, auto_decompress=decodes)
    [call] = calls
    assert (Ending.END, decodes) == (call.ending, call.decoded)


def test_an_answer_without_a_body(server: ThreeParts, calls: list[Any]) -> None:
    """There is nothing to wait for."""
    server.go_on.set()
    server.parts = []
    server.with_length(0)

    async def act(client: Any, post: Any) -> None:
        async with post() as response:
            assert EMPTY_PAYLOAD.at_eof()
            assert [Ending.END] == [call.ending for call in calls]
            assert (b"", b"") == (await response.read(), await response.content.readline())

    _run(server, calls, act)
    assert 1 == len(calls)


@pytest.mark.parametrize("way", ["close", "release", "context", "left", "failed"])
def test_an_answer_that_is_not_read_to_its_end(server: ThreeParts, calls: list[Any], way: str) -> None:
    """Leaving and closing is the app's own decision, not an error; what had come until then is there."""

    class Own(Exception):
        pass

    async def act(client: Any, post: Any) -> None:
        if way in ("close", "release"):
            getattr(await post(), way)()
        elif way == "failed":
            with pytest.raises(Own):
                async with post():
                    raise Own
        else:
            async with post() as response:
                if way == "left":
                    async for _ in response.content:
                        break

    _run(server, calls, act)
    assert [(Ending.CLOSED, PARTS[0][:-1] if way == "left" else b"")] == [
        (call.ending, b"".join(call.chunks)) for call in calls
    ]


def test_an_answer_that_nobody_closes(server: ThreeParts, calls: list[Any]) -> None:
    """When nothing holds it any more the garbage collector finds it, once."""
    server.go_on.set()

    async def act(client: Any, post: Any) -> None:
        response = await post()
        await response.content.wait_eof()
        del response
        await _collected(calls)

    _run(server, calls, act)
    assert [Ending.ABANDONED] == [call.ending for call in calls]


async def _collected(calls: list[Any]) -> None:
    async with asyncio.timeout(30):
        while not calls:
            gc.collect()
            await asyncio.sleep(0)


def test_an_answer_that_breaks_off_while_nobody_reads(server: ThreeParts, calls: list[Any]) -> None:
    """It broke off all the same, and that is what is recorded."""
    server.ending = "reset"

    async def act(client: Any, post: Any) -> None:
        response = await post()
        server.go_on.set()
        with pytest.raises(aiohttp.ClientError):
            await response.content._inner.wait_eof()  # what the app does not see
        response.close()
        del response
        await _collected(calls)

    _run(server, calls, act)
    assert [Ending.ERROR] == [call.ending for call in calls]


@pytest.mark.parametrize("way", ["read", "content.readany", "content.readexactly", "iter_chunks", "async for"])
@pytest.mark.parametrize("ending", ["reset", "stall", "cut short"])
@pytest.mark.parametrize("kind", ["gateway", "direct"])
def test_an_answer_that_ends_badly(server: ThreeParts, calls: list[Any], way: str, ending: str, kind: str) -> None:
    """The exception is the library's own and shows no key; the observation names it and has what had come."""
    server.ending = ending
    own_error = ValueError("the app was handling this")

    async def act(client: Any, post: Any) -> BaseException:
        timeout = aiohttp.ClientTimeout(total=60, sock_read=0.3 if ending == "stall" else None)
        async with post(timeout=timeout) as response:
            whole = await response.content.readexactly(1)
            server.go_on.set()
            with pytest.raises((aiohttp.ClientError, TimeoutError)) as caught:
                try:
                    raise own_error
                except ValueError:
                    for _ in range(1000):
                        whole += await (response.content.readexactly(1000) if "exactly" in way else WAYS[way](response))
            return caught.value

    error = _run(server, calls, act, kind=kind)
    assert own_error.__traceback__ is not None
    assert [] == exposures(error, KEY, below="_told")
    [call] = calls
    assert (Ending.TIMEOUT if ending == "stall" else Ending.ERROR) is call.ending
    assert type(error).__name__ in call.error[0] or isinstance(error, aiohttp.ClientPayloadError)
    assert PARTS[0] in b"".join(call.chunks)


def test_fewer_bytes_than_wanted(server: ThreeParts, calls: list[Any]) -> None:
    """The answer is whole; that the app wanted more of it is between the app and aiohttp."""
    server.go_on.set()

    async def act(client: Any, post: Any) -> None:
        async with post() as response:
            with pytest.raises(asyncio.IncompleteReadError) as caught:
                await response.content.readexactly(1000)
            assert (WHOLE, 1000) == (caught.value.partial, caught.value.expected)

    _run(server, calls, act)
    assert [Ending.END] == [call.ending for call in calls]


@pytest.mark.parametrize("moment", ["waiting for the head", "in the body", "and dropped"])
def test_a_cancelled_task(server: ThreeParts, calls: list[Any], moment: str) -> None:
    """Cancellation passes, at once, and is one observation."""
    if moment == "waiting for the head":
        server.head, server.parts = b"HTTP/1.1 100 Continue\r\n\r\n", []
        server.ending = "stall"

    async def act(client: Any, post: Any) -> None:
        started = asyncio.Event()
        kept: list[Any] = []

        async def work() -> None:
            if moment == "and dropped":
                kept.append(await post())
                await kept[0].content.readexactly(1)
                started.set()
                await kept[0].content.readexactly(1000)
            else:
                async with post() as response:
                    async for _ in response.content:
                        started.set()

        task = asyncio.create_task(work())
        if moment == "waiting for the head":
            await asyncio.wait_for(asyncio.to_thread(server.asked.wait, 30), 30)
        else:
            await asyncio.wait_for(started.wait(), 30)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=30)
        assert [True] == [each.cancelled() for each in done]
        if moment == "and dropped":
            server.go_on.set()
            await kept[0].content._inner.wait_eof()
            del task, done, _
            kept.clear()
            await _collected(calls)

    _run(server, calls, act)
    assert [Ending.CANCELLED] == [call.ending for call in calls]


@pytest.mark.parametrize("whose", ["the call's", "the app's"])
def test_a_time_limit_while_there_is_no_connection_yet(server: ThreeParts, calls: list[Any], whose: str) -> None:
    """The one that aiohttp was given is a time-out, the app's own around the call is a cancellation."""
    limit = aiohttp.ClientTimeout(total=0.05 if whose == "the call's" else None)

    async def acting() -> None:
        listed = settings(routes=(Route(f"{server.url}/v1"),))
        url, connector = f"{server.url}/v1/chat/completions", aiohttp.TCPConnector(limit=1)
        # The first call has the only connection.
        sharing = session(settings=listed, deliver=calls.append, connector=connector)
        async with sharing as client, client.post(url, data=BODY):
            with pytest.raises(TimeoutError):
                call = client.post(url, data=BODY, timeout=limit)
                await asyncio.wait_for(call, None if whose == "the call's" else 0.05)

    asyncio.run(acting())
    expected = Ending.TIMEOUT if whose == "the call's" else Ending.CANCELLED
    assert [expected, Ending.CLOSED] == [call.ending for call in calls]


def test_a_wait_that_is_given_up_is_not_the_end(server: ThreeParts, calls: list[Any]) -> None:
    """Aiohttp lets one read on after it; the answer is one, and whole."""

    async def act(client: Any, post: Any) -> bytes:
        async with post() as response:
            begun: bytes = await response.content.readexactly(len(WHOLE))
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(response.content.readany(), 0.01)
            assert [] == calls
            server.go_on.set()
            rest: bytes = await response.content.read()
            return begun + rest

    assert WHOLE == _run(server, calls, act)
    assert [(Ending.END, WHOLE)] == [(call.ending, b"".join(call.chunks)) for call in calls]


@pytest.mark.parametrize("moment", ["not there", "head", "junk head", "time-out", "write"])
@pytest.mark.parametrize("kind", ["gateway", "direct"])
def test_no_exception_shows_the_key(calls: list[Any], moment: str, kind: str) -> None:
    """Type and text of the exception are the library's, its request is the app's; no frame holds the key."""
    let_go = threading.Event()

    def handle(connection: Connection) -> None:
        if moment == "write":
            connection.head()
            let_go.wait(30)
        else:
            connection.request()
        if moment == "head":
            connection.reset()
        elif moment == "junk head":
            connection.send(b"not http at all\r\n\r\n")
        else:
            connection.wait_until_closed()

    async def act(client: Any, post: Any) -> BaseException:
        body = BODY if moment != "write" else b'{"model":"' + b"x" * 900_000 + b'"}'
        timeout = aiohttp.ClientTimeout(total=0.4 if moment in ("time-out", "write") else 60)
        with pytest.raises((aiohttp.ClientError, TimeoutError)) as caught:
            await post(data=body, timeout=timeout, headers={"authorization": "Bearer app"})
        let_go.set()
        return caught.value

    with raw_server(handle, receive_buffer=4096) as server:
        if moment != "not there":
            error = _run(server, calls, act, kind=kind)
    if moment == "not there":
        error = _run(server, calls, act, kind=kind)
    assert [] == exposures(error, KEY, below="__call__")
    if isinstance(error, aiohttp.ClientResponseError):
        assert "Bearer app" == error.request_info.headers["authorization"]
    [call] = calls
    assert (moment in ("time-out", "write")) == (call.ending is Ending.TIMEOUT)
    assert call.ending in (Ending.ERROR, Ending.TIMEOUT)
    assert call.status is None


def test_an_error_that_names_the_request_names_the_apps(server: ThreeParts, calls: list[Any]) -> None:
    """Aiohttp's errors show a live view of the headers that went out; it shows what the app wrote."""
    server.go_on.set()

    async def act(client: Any, post: Any) -> list[Any]:
        errors: list[Any] = []
        async with post(headers={"authorization": "Bearer app"}) as response:
            with pytest.raises(aiohttp.ContentTypeError) as caught:
                await response.json()
            errors += [caught.value, response]
        return errors

    for named in _run(server, calls, act, kind="direct"):
        assert "Bearer app" == named.request_info.headers["authorization"]
        assert KEY not in repr(named) + str(named.request_info)


@pytest.mark.parametrize("decodes", [True, False])
@pytest.mark.parametrize(("coding", "is_undone"), [("gzip", True), ("x-own", False), ("", False)])
def test_versions_of_aiohttp_that_do_not_tell_what_they_decode(decodes: bool, coding: str, is_undone: bool) -> None:
    """They undo the codings that they ask for, unless the session is told not to."""
    response: Any = SimpleNamespace(content=object(), headers={"Content-Encoding": coding} if coding else {})
    client: Any = SimpleNamespace(auto_decompress=decodes)
    assert (decodes and is_undone) == _is_decoded(response, client)


def test_a_reader_of_an_earlier_version_has_no_bound_to_move() -> None:
    """There is nothing to make room in."""

    class Earlier:
        def at_eof(self) -> bool:
            return False

        def exception(self) -> None:
            return None

    departure: Any = SimpleNamespace(finished=lambda ending: None)
    assert not hasattr(Earlier(), "set_read_chunk_size")
    ObservedContent(Earlier(), departure).set_read_chunk_size(1)  # type: ignore[arg-type]  # as far as it matters here


def test_a_payload_may_write_in_any_way_that_a_writer_knows() -> None:
    """Older payloads know no length, and some say with their last bytes that it is the end."""

    class Own(aiohttp.Payload):
        def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
            return ""

        async def write(self, writer: Any) -> None:
            writer.enable_chunking()
            writer.enable_compression()
            await writer.write_headers("", {})
            await WirePayload(WireBody((b"one ", b"two "))).write(writer)
            await writer.drain()
            await writer.write_eof(b"three")

    assert b"one two three" == asyncio.run(gathered_payload(Own(b""), None, settings()))


def test_bytes_are_not_copied() -> None:
    """What is looked into and recorded are the very bytes that the app has."""
    assert BODY is asyncio.run(held(aiohttp.BytesPayload(BODY), len(BODY)))
