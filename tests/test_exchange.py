"""Exactly one observation per attempt, with the right ending, whatever the app and the network do."""

from __future__ import annotations

import asyncio
import copy
import gc
import itertools
import pickle
import threading
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._caller import Credential
from kwai_middleware._context import bind_caller
from kwai_middleware._outbound.attempts import Attempt
from kwai_middleware._outbound.attribution import attribute
from kwai_middleware._outbound.budget import Reservation, in_use
from kwai_middleware._outbound.exchange import Exchange, begun
from kwai_middleware._outbound.kept_chunks import TAIL
from kwai_middleware._outbound.observation import Ending, Observation
from kwai_middleware._outbound.routes import Endpoint
from kwai_middleware._route import Route
from kwai_middleware._secret import Secret
from tests.support.budget import begin_with_nothing_held, wait_until_all_is_given_back
from tests.support.callers import OPENROUTER, caller, key_of, settings
from tests.support.flavours import ASYNC_FLAVOURS, Flavour
from tests.support.raw_server import Connection, raw_server

HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    b"transfer-encoding: chunked\r\nX-Generation-Id: gen-1\r\n\r\n"
)
LAST = b"0\r\n\r\n"
PARTS = [b"data: 1\n\n", b"data: 2\n\n", b"data: [DONE]\n\n"]


def _chunked(part: bytes) -> bytes:
    return f"{len(part):x}\r\n".encode() + part + b"\r\n"


class _Calls(list[Observation]):
    """Takes observations, and lets a test wait for them."""

    def __init__(self) -> None:
        super().__init__()
        self._arrived = threading.Condition()

    def deliver(self, call: Any) -> None:
        with self._arrived:
            self.append(call)
            self._arrived.notify_all()

    def wait(self, number: int) -> None:
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self) >= number, 30)


class _Stream:
    """A server whose answer is three parts and then whatever the test wants."""

    def __init__(self) -> None:
        self.url = ""
        self.go_on = threading.Event()
        self.last_words = LAST
        self.reset = False

    def __call__(self, connection: Connection) -> None:
        while True:
            connection.request()
            connection.send(HEAD + b"".join(_chunked(part) for part in PARTS))
            self.go_on.wait(30)
            if self.reset:
                connection.reset()
                return
            connection.send(self.last_words)


@pytest.fixture
def calls() -> _Calls:
    return _Calls()


@pytest.fixture
def server() -> Any:
    stream = _Stream()
    with raw_server(stream) as raw:
        stream.url = f"{raw.url}/api/v1"
        yield stream
        stream.go_on.set()


def _client(flavour: Flavour, server: Any, calls: _Calls, **options: Any) -> Any:
    return flavour.client(settings=settings(routes=(Route(server.url),)), deliver=calls.deliver, **options)


def _open(flavour: Flavour, client: Any, server: Any) -> Any:
    with bind_caller(caller()):
        return flavour.open(client, f"{server.url}/chat/completions", content=b'{"model":"m"}')


def test_an_answer_read_to_its_end(flavour: Flavour, server: Any, calls: _Calls) -> None:
    """The observation holds everything that was seen, as it came."""
    server.go_on.set()
    client = _client(flavour, server, calls)
    response = _open(flavour, client, server)
    assert b"".join(PARTS) == b"".join(flavour.chunks(response))
    flavour.close(response)
    [call] = calls
    assert Ending.END is call.ending
    assert b"".join(PARTS) == b"".join(call.chunks)
    assert 200 == call.status
    assert (b"X-Generation-Id", b"gen-1") in call.response_headers
    assert b'{"model":"m"}' == call.request_body
    assert call.caller is not None
    assert "acme" == call.caller.identifier
    assert len(call.chunks) == len(call.arrivals)
    assert call.answered is not None
    assert call.started <= call.answered <= call.arrivals[0] <= call.arrivals[-1] <= call.ended
    assert not call.decoded
    assert call.gap_after is None
    assert call.error is None
    flavour.close(client)


def test_an_answer_left_in_the_middle(flavour: Flavour, server: Any, calls: _Calls) -> None:
    """Leaving the loop and closing the response is the app's own decision, not an error."""
    client = _client(flavour, server, calls)
    response = _open(flavour, client, server)
    flavour.chunks(response, at_most=1)
    flavour.close(response)
    [call] = calls
    assert Ending.CLOSED is call.ending
    assert b"".join(call.chunks).startswith(PARTS[0])
    flavour.close(client)


def test_an_answer_closed_without_being_read(flavour: Flavour, server: Any, calls: _Calls) -> None:
    """The head was there, and that is what is known."""
    client = _client(flavour, server, calls)
    flavour.close(_open(flavour, client, server))
    [call] = calls
    assert Ending.CLOSED is call.ending
    assert () == call.chunks
    flavour.close(client)


def test_an_answer_that_nobody_closes(flavour: Flavour, server: Any, calls: _Calls) -> None:
    """The garbage collector finds it, once."""
    client = _client(flavour, server, calls)
    response = _open(flavour, client, server)
    assert [] == calls
    del response
    gc.collect()
    [call] = calls
    assert Ending.ABANDONED is call.ending
    flavour.close(client)


def test_an_answer_that_breaks_off(flavour: Flavour, server: Any, calls: _Calls) -> None:
    """The exception is the library's own, and the observation names it."""
    server.reset = True
    server.go_on.set()
    client = _client(flavour, server, calls)
    response = _open(flavour, client, server)
    with pytest.raises((flavour.library.ReadError, flavour.library.RemoteProtocolError)) as caught:
        flavour.chunks(response)
    flavour.close(response)
    [call] = calls
    assert Ending.ERROR is call.ending
    assert (type(caught.value).__name__, str(caught.value)) == call.error
    flavour.close(client)


def test_an_answer_that_stalls(flavour: Flavour, server: Any, calls: _Calls) -> None:
    """A time limit of the client is a time-out, with what had come so far."""
    client = _client(flavour, server, calls, timeout=30)
    response = _open(flavour, client, server)
    response.request.extensions["timeout"]["read"] = 0.2  # of the body only: the head may take its time
    with pytest.raises(flavour.library.ReadTimeout):
        flavour.chunks(response)
    flavour.close(response)
    [call] = calls
    assert Ending.TIMEOUT is call.ending
    assert b"".join(PARTS) == b"".join(call.chunks)
    flavour.close(client)


def test_a_server_that_is_not_there(flavour: Flavour, calls: _Calls) -> None:
    """A failed attempt is an observation too, without a status."""
    with raw_server(lambda connection: None) as gone:
        url = f"{gone.url}/api/v1"
    client = flavour.client(settings=settings(routes=(Route(url),)), deliver=calls.deliver)
    with bind_caller(caller()), pytest.raises(flavour.library.ConnectError):
        flavour.post(client, f"{url}/chat/completions", content=b"{}")
    [call] = calls
    assert (Ending.ERROR, None, None) == (call.ending, call.status, call.answered)
    flavour.close(client)


@pytest.mark.parametrize("flavour", ASYNC_FLAVOURS, indirect=True)
@pytest.mark.parametrize("moment", ["waiting for the head", "in the stream"])
def test_a_cancelled_task(flavour: Flavour, server: Any, calls: _Calls, moment: str) -> None:
    """Cancellation passes, at once, and is one observation."""
    started = asyncio.Event()

    async def work(client: Any) -> None:
        async with client.stream("POST", f"{server.url}/chat/completions", content=b"{}") as response:
            async for _ in response.aiter_raw():
                started.set()

    async def cancelled(url: str) -> None:
        client = flavour.door.async_client(settings=settings(routes=(Route(url),)), deliver=calls.deliver)
        task = asyncio.create_task(work(client))
        if moment == "in the stream":
            await asyncio.wait_for(started.wait(), 30)
        else:
            await asyncio.wait_for(asyncio.to_thread(entered.wait, 30), 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await client.aclose()

    entered = threading.Event()

    def silent(connection: Connection) -> None:
        connection.request()
        entered.set()
        connection.wait_until_closed()

    if moment == "in the stream":
        flavour.run(cancelled(server.url))
    else:
        with raw_server(silent) as raw:
            server.url = f"{raw.url}/api/v1"
            flavour.run(cancelled(server.url))
    [call] = calls
    assert Ending.CANCELLED is call.ending


def test_an_answer_iterated_a_second_time(flavour: Flavour, server: Any, calls: _Calls) -> None:
    """SDKs look at the stream once more when they clean up: they see what a plain client shows, and it is one call."""

    # The first iteration is held on to: when it is dropped, it is up to the event loop when it ends.
    def again(response: Any) -> list[bytes]:
        first = response.iter_raw()
        assert PARTS == [next(first) for _ in PARTS]
        server.go_on.set()
        return list(response.stream)

    async def again_async(response: Any) -> list[bytes]:
        first = response.aiter_raw()
        assert PARTS == [await anext(first) for _ in PARTS]
        server.go_on.set()
        rest = [chunk async for chunk in response.stream]
        await first.aclose()
        return rest

    def twice(client: Any) -> Any:
        response = _open(flavour, client, server)
        try:
            return flavour.run((again_async if flavour.asynchronous else again)(response))
        except flavour.library.TransportError as error:
            return type(error), str(error)
        finally:
            flavour.close(response)
            flavour.close(client)
            server.go_on.clear()

    assert twice(flavour.plain_client_class()) == twice(_client(flavour, server, calls))
    assert 1 == len(calls)


@pytest.mark.parametrize("url", [OPENROUTER])
def test_an_answer_that_is_read_already(flavour: Flavour, calls: _Calls, url: str) -> None:
    """Caches and mocks hand over whole answers, whose stream is never iterated."""
    client = flavour.answering(
        lambda request: flavour.library.Response(200, content=b"{}"), settings=settings(), deliver=calls.deliver
    )
    assert b"{}" == flavour.post(client, url, content=b"{}").content
    [call] = calls
    assert (Ending.END, (b"{}",), True) == (call.ending, call.chunks, call.decoded)
    flavour.close(client)


def test_an_answer_that_is_closed_already(flavour: Flavour, calls: _Calls) -> None:
    """A layer below may close an answer unread; there is nothing to read, and that is recorded."""

    def closed(request: Any) -> Any:
        response = flavour.library.Response(200, stream=flavour.library.ByteStream(b"never read"))
        response.is_closed = True
        return response

    transport = flavour.transport_class(
        flavour.library.MockTransport(closed), settings=settings(), deliver=calls.deliver
    )
    request = flavour.library.Request("POST", OPENROUTER, content=b"{}")
    flavour.run(transport.handle_async_request(request)) if flavour.asynchronous else transport.handle_request(request)
    [call] = calls
    assert (b"",) == call.chunks


def test_the_caller_is_the_one_at_the_start(flavour: Flavour, server: Any, calls: _Calls) -> None:
    """A stream may be read by another task; the call is still for whom it was made."""
    server.go_on.set()
    client = _client(flavour, server, calls)
    response = _open(flavour, client, server)
    with bind_caller(caller("somebody-else")):
        flavour.chunks(response)
        flavour.close(response)
    [call] = calls
    assert call.caller is not None
    assert "acme" == call.caller.identifier
    flavour.close(client)


@pytest.mark.parametrize("flavour", ASYNC_FLAVOURS, indirect=True)
def test_cancelled_streams_give_their_connection_back(flavour: Flavour, server: Any, calls: _Calls) -> None:
    """With a pool of one connection the call after three cancelled ones still gets through."""

    async def run() -> bytes:
        client = _client(flavour, server, calls, limits=flavour.library.Limits(max_connections=1))
        url = f"{server.url}/chat/completions"

        async def read(first: asyncio.Event) -> bytes:
            whole = b""
            async with client.stream("POST", url, content=b"{}") as response:
                async for chunk in response.aiter_raw():
                    whole += chunk
                    first.set()
            return whole

        for _ in range(3):
            first = asyncio.Event()
            task = asyncio.create_task(read(first))
            await asyncio.wait_for(first.wait(), 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        server.go_on.set()
        whole = await asyncio.wait_for(read(asyncio.Event()), 30)
        await client.aclose()
        return whole

    assert b"".join(PARTS) == flavour.run(run())
    assert [Ending.CANCELLED] * 3 + [Ending.END] == [call.ending for call in calls]


@pytest.mark.parametrize("flavour", ASYNC_FLAVOURS, indirect=True)
def test_a_stream_that_is_no_generator(flavour: Flavour, calls: _Calls) -> None:
    """A transport's stream may be any asynchronous iterable; leaving its iteration ends the exchange all the same."""

    class Numbers:
        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> bytes:
            return b"1"

    class Stream(flavour.library.AsyncByteStream):  # type: ignore[misc,name-defined]  # known at run time
        def __aiter__(self) -> Any:
            return Numbers()

    async def leave() -> None:
        client = flavour.around(
            flavour.library.MockTransport(lambda request: flavour.library.Response(200, stream=Stream())),
            settings=settings(),
            deliver=calls.deliver,
        )
        response = await client.send(client.build_request("POST", OPENROUTER, content=b"{}"), stream=True)
        chunks = response.stream._stream.__aiter__()
        assert b"1" == await anext(chunks)
        await chunks.aclose()
        assert 1 == len(calls)
        await response.aclose()
        await client.aclose()

    flavour.run(leave())
    assert [(Ending.CLOSED, (b"1",))] == [(call.ending, call.chunks) for call in calls]


def test_a_generator_that_fails_while_it_reads(flavour: Flavour, server: Any, calls: _Calls) -> None:
    """An exception thrown into the iteration of the stream goes on, and the exchange is over."""
    client = _client(flavour, server, calls)
    response = _open(flavour, client, server)

    class Own(Exception):
        pass

    if flavour.asynchronous:

        async def throw() -> None:
            chunks = response.stream._stream.__aiter__()
            assert PARTS[0] == (await chunks.asend(None))[: len(PARTS[0])]
            await chunks.athrow(Own())

        with pytest.raises(Own):
            flavour.run(throw())
    else:
        chunks = iter(response.stream._stream)
        next(chunks)
        with pytest.raises(Own):
            chunks.throw(Own())
    flavour.close(response)
    assert 1 == len(calls)
    flavour.close(client)


def test_a_delivery_that_fails_does_not_reach_the_app(
    flavour: Flavour, nothing_is_swallowed: list[BaseException]
) -> None:
    """Whatever `deliver` does, the app gets its answer; the guard counts and reports."""

    def broken(call: Any) -> None:
        raise RuntimeError("a bug of ours")

    client = flavour.answering(
        lambda request: flavour.library.Response(200, content=b"{}"), settings=settings(), deliver=broken
    )
    assert 200 == flavour.post(client, OPENROUTER, content=b"{}").status_code
    assert ["a bug of ours"] == [str(error) for error in nothing_is_swallowed]
    nothing_is_swallowed.clear()
    flavour.close(client)


def test_an_exchange_that_cannot_be_made_does_not_reach_the_app(
    flavour: Flavour, nothing_is_swallowed: list[BaseException]
) -> None:
    """Even then the caller's key pays, streams pass, and errors are the network's."""
    # A bound that is no number stands for any bug of ours in there: nothing of it can be computed.
    settings_of_ours = settings()
    object.__setattr__(settings_of_ours, "max_call_bytes", None)
    sent: list[Any] = []

    def handler(request: Any) -> Any:
        sent.append(request.headers["authorization"])
        if len(sent) == 3:
            raise flavour.library.ConnectError("gone")
        return flavour.library.Response(200, content=b"{}" if len(sent) == 1 else flavour.body([b"one", b"two"]))

    client = flavour.answering(handler, settings=settings_of_ours, deliver=lambda call: None)
    with bind_caller(caller()):
        assert b"{}" == flavour.post(client, OPENROUTER, content=b"{}").content
        assert b"onetwo" == flavour.post(client, OPENROUTER, content=b"{}").content
        with pytest.raises(flavour.library.ConnectError):
            flavour.post(client, OPENROUTER, content=b"{}")
    assert [f"Bearer {key_of('acme')}"] * 3 == sent
    assert [TypeError] * 3 == [type(error) for error in nothing_is_swallowed]
    nothing_is_swallowed.clear()
    flavour.close(client)


def test_a_second_attempt_that_cannot_be_watched_is_made_all_the_same(
    flavour: Flavour, nothing_is_swallowed: list[BaseException]
) -> None:
    """Neither attempt is recorded, and the next key pays."""
    settings_of_ours = settings()
    object.__setattr__(settings_of_ours, "max_call_bytes", None)
    keys = [f"sk-or-v1-unwatched-{flavour.name}-{number}" for number in (1, 2)]
    both = tuple(Credential(api_key=Secret(key), weight=weight) for key, weight in zip(keys, (1, 1e-9), strict=True))
    sent: list[Any] = []

    def handler(request: Any) -> Any:
        sent.append(request.headers["authorization"])
        if len(sent) == 1:
            return flavour.library.Response(401, json={"error": {"message": "User not found.", "code": 401}})
        return flavour.library.Response(200, content=b"{}")

    client = flavour.answering(handler, settings=settings_of_ours, deliver=lambda call: None)
    with bind_caller(caller(credentials=both)):
        assert 200 == flavour.post(client, OPENROUTER, content=b"{}").status_code
    assert [f"Bearer {key}" for key in keys] == sent
    assert [TypeError] * 2 == [type(error) for error in nothing_is_swallowed]
    nothing_is_swallowed.clear()
    flavour.close(client)


def test_an_answer_that_cannot_be_watched_reaches_the_app(
    flavour: Flavour, nothing_is_swallowed: list[BaseException]
) -> None:
    """A layer inside may hand over what is hardly an answer: it is the app's all the same, and nothing stays open."""
    calls = _Calls()
    answer = flavour.library.Response(200, content=b"{}")
    answer.headers = None
    transport = flavour.transport_class(
        flavour.library.MockTransport(lambda request: answer), settings=settings(), deliver=calls.deliver
    )
    request = flavour.library.Request("POST", OPENROUTER, content=b"{}")
    send = transport.handle_async_request if flavour.asynchronous else transport.handle_request
    assert answer is flavour.run(send(request))
    assert [(Ending.ABANDONED, None)] == [(call.ending, call.status) for call in calls]
    assert [AttributeError] == [type(error) for error in nothing_is_swallowed]
    nothing_is_swallowed.clear()


def test_a_chunk_that_cannot_be_kept_does_not_reach_the_app(nothing_is_swallowed: list[BaseException]) -> None:
    """The recording side never fails the stream."""
    exchange = _exchange(_Calls())
    exchange.received(None)  # type: ignore[arg-type]  # the point of the test
    exchange.finished(Ending.CLOSED)
    assert [TypeError] == [type(error) for error in nothing_is_swallowed]
    nothing_is_swallowed.clear()


def _exchange(calls: _Calls, body: bytes | None = b"{}", **options: Any) -> Exchange:
    endpoint = Endpoint("direct", "openrouter", "openrouter.ai", "/api/v1/chat/completions")
    attribution = attribute(endpoint, caller(), settings())
    return begun(
        endpoint, attribution, body, settings(**options), calls.deliver, Attempt(call_id="0" * 32, number=1), "trace"
    )


def test_many_finishers_make_one_observation() -> None:
    """Close, error, end and the garbage collector may meet in several threads at once."""
    for _ in range(50):
        calls = _Calls()
        exchange = _exchange(calls)
        together = threading.Barrier(8)

        def finish(exchange: Exchange = exchange, together: threading.Barrier = together) -> None:
            together.wait()
            exchange.finished(Ending.CLOSED)

        threads = [threading.Thread(target=finish) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 1 == len(calls)


def test_an_observation_masks_what_it_can() -> None:
    """Its repr shows no key, and it cannot be pickled with one."""
    calls = _Calls()
    _exchange(calls).finished(Ending.END)
    assert "sk-or-v1-acme" not in repr(calls[0])
    assert "{}" not in repr(calls[0])
    with pytest.raises(TypeError):
        pickle.dumps(calls[0])


def test_what_comes_after_the_end_changes_nothing() -> None:
    """The recording thread looks into an exchange that a slow layer may still tell things to."""
    calls = _Calls()
    exchange = _exchange(calls)
    exchange.head_arrived(200, ())
    exchange.received(b"in time")
    exchange.finished(Ending.END)
    held = calls[0].reservation.held
    exchange.head_arrived(500, ((b"late", b"yes"),))
    exchange.arrives_decoded()
    exchange.received(b"too late" * 10_000)
    exchange.finished(Ending.ERROR, ValueError("too late"))
    [call] = calls
    assert (200, (), False, (b"in time",)) == (call.status, call.response_headers, call.decoded, call.chunks)
    assert (Ending.END, None, held) == (call.ending, call.error, call.reservation.held)


def test_a_form_that_goes_out_after_the_end_holds_nothing() -> None:
    """A server may have answered before it got the whole body: what still goes out is nobody's to give back."""
    endpoint = Endpoint("direct", "openrouter", "openrouter.ai", "/api/v1/images/edits", "images")
    attribution = attribute(endpoint, caller(), settings())
    calls = _Calls()
    begin_with_nothing_held()
    before = in_use()
    exchange = begun(endpoint, attribution, None, settings(), calls.deliver, Attempt("0" * 32, 1), "trace")
    exchange.sending()
    exchange.finished(Ending.END)
    calls[0].release()
    exchange.sent(b"too late")
    assert before == in_use()


# --- what is kept


def _watched(chunks: Iterable[bytes], limit: int) -> Observation:
    """Have an exchange receive these chunks, with a clock that counts how often it is read."""
    calls = _Calls()
    endpoint = Endpoint("direct", "openrouter", "openrouter.ai", "/api/v1/chat/completions")
    exchange = begun(
        endpoint, attribute(endpoint, caller(), settings()), b"{}", settings(max_call_bytes=limit), calls.deliver,
        Attempt("0" * 32, 1), "trace", itertools.count().__next__,
    )  # fmt: skip
    for chunk in chunks:
        exchange.received(chunk)
    exchange.finished(Ending.END)
    [call] = calls
    call.release()
    return call


@given(st.lists(st.binary(max_size=40_000), max_size=40), st.integers(256 * 1024, 400 * 1024))
def test_head_and_tail_are_kept(chunks: list[bytes], limit: int) -> None:
    """Everything within the limit; beyond it an unbroken head and at least the last 64 KiB."""
    call = _watched(chunks, limit)
    kept, arrivals, gap_after = call.chunks, call.arrivals, call.gap_after
    whole, together = b"".join(chunks), b"".join(kept)
    assert len(kept) == len(arrivals)
    assert list(arrivals) == sorted(arrivals)
    if gap_after is None:
        assert whole == together
    else:
        head, tail = b"".join(kept[:gap_after]), b"".join(kept[gap_after:])
        assert whole.startswith(head)
        assert whole.endswith(tail)
        assert TAIL <= len(tail) + 96 * len(chunks)
    assert len(together) <= limit + TAIL


def test_one_huge_chunk_leaves_only_its_end() -> None:
    """A 300 MB answer in one piece does not stay alive for its last 64 KiB."""
    call = _watched([b"head", b"x" * 30_000_000 + b"usage"], 1 << 20)
    assert (1, [4, TAIL], (1, 2)) == (call.gap_after, [len(chunk) for chunk in call.chunks], call.arrivals)
    assert call.chunks[1].endswith(b"usage")


def test_an_endless_stream_of_crumbs_stays_small() -> None:
    """The bookkeeping of tiny chunks counts as well as their bytes."""
    call = _watched((b"%06d" % number for number in range(200_000)), 1 << 20)
    assert call.gap_after is not None
    assert len(call.chunks) * 96 < 1.2 * (1 << 20)
    assert b"199999" == call.chunks[-1]


def test_what_a_call_holds_is_given_back_once() -> None:
    """Whoever copies a call that is not recorded yet copies nothing of the budget, and no other process gets it."""
    begin_with_nothing_held()
    before = in_use()
    reservation = Reservation(before + 10_000_000)
    assert reservation.grow(1000)
    for twin in (copy.copy(reservation), copy.deepcopy(reservation)):
        twin.release()
    assert before == in_use()
    with pytest.raises(TypeError, match="nothing anywhere else"):
        pickle.dumps(reservation)


def test_many_small_answers_can_be_open_at_once() -> None:
    """What is reserved for an answer grows with it, from 4 KiB on."""
    begin_with_nothing_held()
    before = in_use()
    exchange = _exchange(_Calls())
    seen = {in_use() - before}
    for _ in range(100):
        exchange.received(b"x" * 2000)
        seen.add(in_use() - before)
    exchange.finished(Ending.END)
    assert [4, 8, 16, 32, 64, 128, 192, 256] == [held // 1024 for held in sorted(seen)]
    del exchange
    wait_until_all_is_given_back()


def test_a_request_is_kept_where_no_more_than_that_has_room() -> None:
    """The bound is exact: what is left of it may be just enough for the request."""
    begin_with_nothing_held()
    before = in_use()
    calls = _Calls()
    _exchange(calls, body=b"x" * (1 << 20), max_open_bytes=before + (1 << 20)).finished(Ending.END)
    assert [1 << 20] == [len(call.request_body or b"") for call in calls]
    assert before + (1 << 20) == in_use()


def test_past_the_budget_only_tails_are_kept() -> None:
    """The budget is the process's, not the call's; it is whole again when the calls are gone."""
    begin_with_nothing_held()
    before = in_use()
    calls = _Calls()
    first = _exchange(calls, body=b"x" * (1 << 19), max_open_bytes=before + (1 << 20))
    for _ in range(40):
        first.received(b"y" * 16_000)
    second = _exchange(calls, body=b"x" * (1 << 19), max_open_bytes=before + (1 << 20))
    second.received(b"z" * 100_000)
    assert in_use() - before <= 1 << 20
    first.finished(Ending.END)
    second.finished(Ending.END)
    assert [True, False] == [call.request_kept for call in calls]
    assert calls[1].request_body is None
    assert b"z" * TAIL == b"".join(calls[1].chunks)
    assert 0 == calls[1].gap_after
    calls[0].release()
    calls[0].release()
    calls.clear()
    del first, second
    wait_until_all_is_given_back()


def test_a_forked_child_has_the_whole_budget_even_if_a_lock_was_held() -> None:
    """What the parent held is the parent's, and another of its threads may hold the lock at that very moment."""
    import os

    from kwai_middleware._outbound import budget

    parents = Reservation(1 << 40)
    assert parents.grow(1000)
    held, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with budget._budget.lock:
            held.set()
            let_go.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    child = os.fork()
    if child == 0:
        own = Reservation(1000)
        right = own.grow(1000) and not own.grow(1) and not parents.grow(1)
        parents.release()
        right = right and in_use() == 1000
        own.release()
        os._exit(0 if right and in_use() == 0 else 1)
    let_go.set()
    thread.join()
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
