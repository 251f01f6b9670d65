"""Forms with files on their way out: seen by us, and on the wire as they would have been without us."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from kwai_middleware._caller import Caller
from kwai_middleware._context import bind_caller
from kwai_middleware._outbound.attempts import Attempt
from kwai_middleware._outbound.attribution import attribute
from kwai_middleware._outbound.budget import in_use
from kwai_middleware._outbound.exchange import begun
from kwai_middleware._outbound.observation import Ending
from kwai_middleware._outbound.routes import Endpoint
from kwai_middleware._outbound.sent_bodies import END, HEAD
from tests.support.budget import begin_with_nothing_held
from tests.support.callers import caller, key_of, settings
from tests.support.flavours import Flavour
from tests.support.raw_server import Connection, raw_server
from tests.support.wired import wired_call
from tests.test_formats_transcription import form_of

DIRECT = "https://openrouter.ai/api/v1/audio/transcriptions"
GATEWAY = "https://api.keywordsai.co/api/audio/transcriptions"
SOUND = b"RIFF" * 100_000
WORDS = "[file speech.wav, audio/wav, 400000 bytes]"
FORM: dict[str, Any] = {
    "data": {"model": "whisper-1", "language": "de"},
    "files": {"file": ("speech.wav", SOUND, "audio/wav")},
    "headers": {"authorization": "Bearer app", "content-type": "multipart/form-data; boundary=b0und"},
}
BODY = form_of(FORM["data"], FORM["files"])
WHO = [pytest.param(None, id="nobody"), pytest.param(caller(), id="a key")]


class Inner:
    """A transport that reads a body piece by piece as a real one does, or more often, as one that repeats requests."""

    def __init__(self, flavour: Flavour) -> None:
        self.times = 1
        self.bodies: list[bytes] = []
        self.requests: list[Any] = []
        self._response = flavour.library.Response

    def handle_request(self, request: Any) -> Any:
        self.bodies += [b"".join([bytes(chunk) for chunk in request.stream]) for _ in range(self.times)]
        return self._answered(request)

    async def handle_async_request(self, request: Any) -> Any:
        self.bodies += [b"".join([bytes(chunk) async for chunk in request.stream]) for _ in range(self.times)]
        return self._answered(request)

    def close(self) -> None:
        pass

    async def aclose(self) -> None:
        pass

    def _answered(self, request: Any) -> Any:
        self.requests.append(request)
        return self._response(200, json={"text": "Hi"})


@pytest.fixture
def inner(flavour: Flavour) -> Inner:
    """A transport inside ours."""
    return Inner(flavour)


def posted(
    flavour: Flavour, inner: Any, who: Caller | None = None, url: str = DIRECT, *, form: Any = None, **options: Any
) -> tuple[Any, Any]:
    """Send a form; returns the response and what was handed over for the record."""
    calls: list[Any] = []
    client = flavour.around(inner, settings=settings(**options), deliver=calls.append)
    try:
        with bind_caller(who):
            response = flavour.post(client, url, **(FORM if form is None else form))
    finally:
        flavour.close(client)
    return response, calls[0]


@pytest.mark.parametrize("who", WHO)
def test_a_form_is_seen_and_goes_out_as_it_is(flavour: Flavour, inner: Inner, who: Caller | None) -> None:
    """The record has its fields, and the file's name, type and size; the wire has the same bytes as without us."""
    response, call = posted(flavour, inner, who)

    record = call.build()
    assert [BODY] == inner.bodies
    wire = inner.requests[0].headers
    assert (str(len(BODY)), FORM["headers"]["content-type"]) == (wire["content-length"], wire["content-type"])
    assert f"Bearer {key_of('acme') if who else 'app'}" == wire["authorization"]
    assert ("whisper-1", "complete", False) == (record.model, record.outcome, record.truncated)
    assert (WORDS, {"language": b'"de"'}) == (json.loads(record.input or b""), record.parameters)
    assert "Bearer app" == response.request.headers["authorization"]
    assert response.request is not inner.requests[0]


@pytest.mark.parametrize("who", WHO)
def test_little_of_it_is_held(flavour: Flavour, inner: Inner, who: Caller | None) -> None:
    """However large the file is: its two ends, and that is accounted for."""
    begin_with_nothing_held()
    before = in_use()
    _, call = posted(flavour, inner, who)
    seen = call.request_sent
    assert (HEAD, END, len(BODY)) == (len(seen.head), len(seen.end), seen.size)
    assert HEAD + END <= in_use() - before < HEAD + END + 2 * 64 * 1024
    call.release()
    assert before == in_use()


def test_without_room_it_is_only_counted(flavour: Flavour, inner: Inner) -> None:
    """A budget that is used up costs the record its request, and the app nothing."""
    begin_with_nothing_held()
    limit = in_use() + 1024 * 1024
    held = b" " * (1024 * 1024 - 1000)
    blocker = posted(flavour, inner, form={"content": held, "headers": FORM["headers"]}, max_open_bytes=limit)
    _, call = posted(flavour, inner, max_open_bytes=limit)
    assert (b"", b"", len(BODY)) == (call.request_sent.head, call.request_sent.end, call.request_sent.size)
    assert (True, None) == (call.build().truncated, call.build().input)
    assert BODY == inner.bodies[-1]
    blocker[1].release()


@pytest.mark.parametrize("who", WHO)
def test_the_gateway_reads_it_before_it_goes_out(flavour: Flavour, inner: Inner, who: Caller | None) -> None:
    """What is gathered there is seen in the same way; the body goes out as it is, with a header beside it."""
    _, call = posted(flavour, inner, who, GATEWAY)
    assert [BODY] == inner.bodies
    assert ("whisper-1", WORDS) == (call.build().model, json.loads(call.build().input))
    assert HEAD == len(call.request_sent.head)
    assert (who is not None) == ("x-data-respan-params" in inner.requests[0].headers)


def test_where_the_request_may_win_nothing_is_gathered(flavour: Flavour, inner: Inner) -> None:
    """With on_conflict='body' a form goes to the gateway piece by piece, and is seen on its way."""
    _, call = posted(flavour, inner, caller(), GATEWAY, on_conflict="body")
    assert ([BODY], WORDS) == (inner.bodies, json.loads(call.build().input))


@pytest.mark.parametrize("who", WHO)
def test_a_body_that_is_sent_again_is_seen_once(flavour: Flavour, inner: Inner, who: Caller | None) -> None:
    """A layer inside that repeats a request reads its body anew: the record has the last time only."""
    inner.times = 3
    _, call = posted(flavour, inner, who)
    assert ([BODY] * 3, len(BODY)) == (inner.bodies, call.request_sent.size)
    assert WORDS == json.loads(call.build().input)


def test_a_redirect_and_a_challenge_are_attempts_of_their_own(flavour: Flavour) -> None:
    """The client sends the same form again through us: each record has seen it."""
    calls: list[Any] = []
    bodies: list[bytes] = []

    async def answer_async(request: Any) -> Any:
        return answer(request, await request.aread())

    def answer(request: Any, body: bytes | None = None) -> Any:
        bodies.append(request.read() if body is None else body)
        moved = {"location": DIRECT + "/"} if not request.url.path.endswith("/") else None
        return flavour.library.Response(307 if moved else 200, headers=moved, json={"text": "Hi"})

    client = flavour.answering(
        answer_async if flavour.asynchronous else answer, settings=settings(), deliver=calls.append
    )
    flavour.post(client, DIRECT, follow_redirects=True, **FORM)
    assert ([BODY] * 2, ["redirected", "complete"]) == (bodies, [call.build().outcome for call in calls])
    assert [WORDS] * 2 == [json.loads(call.build().input) for call in calls]
    assert [1, 2] == [call.build().attempt for call in calls]
    flavour.close(client)


@pytest.mark.parametrize("who", WHO)
def test_a_stream_of_the_apps_own(flavour: Flavour, inner: Inner, who: Caller | None) -> None:
    """An app may write its form by itself, from a buffer that it fills again and again."""

    def pieces() -> Any:
        buffer = bytearray(1000)
        for start in range(0, len(BODY), 1000):
            piece = BODY[start : start + 1000]
            buffer[: len(piece)] = piece
            yield memoryview(buffer)[: len(piece)]

    async def async_pieces() -> Any:
        for piece in pieces():
            yield piece

    content = async_pieces() if flavour.asynchronous else pieces()
    _, call = posted(flavour, inner, who, form={"content": content, "headers": FORM["headers"]})
    assert ([BODY], WORDS) == (inner.bodies, json.loads(call.build().input))


class Unsized(io.RawIOBase):
    """A file of unknown length, such as a pipe; remembers how much of it was read at once."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.most = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        self.most = max(self.most, size if size >= 0 else self.left)
        piece = b"x" * min(self.left, size if size >= 0 else self.left)
        self.left -= len(piece)
        return piece


def test_a_file_of_unknown_length_is_not_read_by_us(flavour: Flavour) -> None:
    """It goes out as the library reads it, in chunks, over a real connection."""
    received: list[int] = []

    def answer(connection: Connection) -> None:
        body = connection.head()
        while not body.endswith(b"\r\n0\r\n\r\n"):
            body = body[-10:] + connection.sock.recv(1 << 16)
            received.append(len(body))
        connection.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n")
        connection.send(b'{"text":"Hi"}')

    file = Unsized(3_000_000)
    with raw_server(answer) as server:
        inner = flavour.real_transport_class()
        base = f"{server.url}/api/v1"
        form = {"files": {"file": ("pipe.wav", file, "audio/wav")}}
        _, call = posted(flavour, inner, caller(), f"{base}/audio/transcriptions", form=form, openrouter_base_url=base)
    assert "[file pipe.wav, audio/wav, 3000000 bytes]" == json.loads(call.build().input)
    assert file.most <= 64 * 1024
    assert len(received) > 1


class Broken(Exception):
    """What the app's own file raises."""


@pytest.mark.parametrize("who", WHO)
def test_a_file_that_fails_is_the_apps_own_failure(flavour: Flavour, inner: Inner, who: Caller | None) -> None:
    """Its exception reaches the app as it is; the record has what was seen until then."""

    class Failing(Unsized):
        def read(self, size: int = -1) -> bytes:
            if not self.left:
                raise Broken
            return super().read(size)

    calls: list[Any] = []
    client = flavour.around(inner, settings=settings(), deliver=calls.append)
    form = {"files": {"file": ("pipe.wav", Failing(100), "audio/wav")}}
    with bind_caller(who), pytest.raises(Broken) as caught:
        flavour.post(client, DIRECT, **form)
    flavour.close(client)
    record = calls[0].build()
    assert ("error", "Broken") == (record.outcome, record.error_code)
    assert json.loads(record.input).startswith("[file pipe.wav, audio/wav, at least 100 bytes]")
    # Without a key in them there is no reason to take the app's frames away.
    frames = [entry.name for entry in caught.traceback]
    assert (who is None) == ("read" in frames)


def test_an_exception_names_the_apps_own_request(flavour: Flavour) -> None:
    """Though another one was on the wire."""
    calls: list[Any] = []
    client = flavour.around(flavour.real_transport_class(), settings=settings(
        openrouter_base_url="http://127.0.0.1:9/api/v1"), deliver=calls.append)  # fmt: skip
    request = client.build_request("POST", "http://127.0.0.1:9/api/v1/audio/transcriptions", **FORM)
    with pytest.raises(flavour.library.ConnectError) as caught:
        flavour.send(client, request)
    assert request is caught.value.request
    assert (0, "") == (calls[0].request_sent.size, json.loads(calls[0].build().input or b'""'))
    flavour.close(client)


def test_a_chunk_that_cannot_be_kept_does_not_reach_the_app(
    flavour: Flavour, inner: Inner, nothing_is_swallowed: list[BaseException]
) -> None:
    """What goes wrong on our side is told to the guard, and the body goes out."""

    class Odd(bytes):
        def __getitem__(self, place: Any) -> Any:
            raise RuntimeError

    content = flavour.body([Odd(b"--b0und")])
    posted(flavour, inner, form={"content": content})
    assert [b"--b0und"] == inner.bodies
    assert [RuntimeError] == [type(error) for error in nothing_is_swallowed]
    nothing_is_swallowed.clear()


def test_what_is_no_form_is_not_watched(flavour: Flavour) -> None:
    """On all other endpoints a body that comes in pieces passes untouched and unseen."""
    content = flavour.body([b"--b0und", b"--"])
    sent, call = wired_call(
        flavour, None, url=f"{DIRECT.rpartition('/audio')[0]}/embeddings", request={"content": content}
    )
    assert (None, None, b"--b0und--") == (call.request_sent, call.request_body, sent.content)


class LeavesEarly(Inner):
    """A transport that breaks off a body in the middle, as for a server that answers early."""

    def handle_request(self, request: Any) -> Any:
        sending = iter(request.stream)
        self.bodies.append(next(sending))
        sending.close()
        return self._answered(request)

    async def handle_async_request(self, request: Any) -> Any:
        sending = aiter(request.stream)
        self.bodies.append(await anext(sending))
        await sending.aclose()
        return self._answered(request)


class Generated:
    """A body whose iterations hold something until they are closed."""

    def __init__(self) -> None:
        self.held = 0

    def __iter__(self) -> Iterator[bytes]:
        self.held += 1
        try:
            yield b"--b0und"
            yield b"--"
        finally:
            self.held -= 1

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self:
            yield chunk


class Counted:
    """A body whose iterations hold nothing, and cannot be closed."""

    held = 0

    def __init__(self) -> None:
        self._left = [b"--", b"--b0und"]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._left[::-1])

    def __aiter__(self) -> AsyncIterator[bytes]:
        return CountedChunks(self._left)


class CountedChunks(AsyncIterator[bytes]):
    """One of its iterations."""

    def __init__(self, left: list[bytes]) -> None:
        self._left = left

    async def __anext__(self) -> bytes:
        return self._left.pop()


@pytest.mark.parametrize("kind", [Generated, Counted])
def test_a_sending_that_is_broken_off(flavour: Flavour, kind: Any) -> None:
    """Whoever sends may stop in the middle: what the app's own stream holds is let go of, and the count stands."""
    library = flavour.library

    class Body(kind, library.SyncByteStream, library.AsyncByteStream):  # type: ignore[misc]  # each library its own
        pass

    inner, body, calls = LeavesEarly(flavour), Body(), []
    client = flavour.around(inner, settings=settings(), deliver=calls.append)
    flavour.send(client, library.Request("POST", DIRECT, stream=body))
    flavour.close(client)
    assert ([b"--b0und"], 0, 7) == (inner.bodies, body.held, calls[0].request_sent.size)


def test_an_exchange_that_watches_no_body() -> None:
    """What it is told of one all the same is nothing to it."""
    calls: list[Any] = []
    endpoint = Endpoint("direct", "openrouter", "openrouter.ai", "/api/v1/chat/completions")
    attribution = attribute(endpoint, caller(), settings())
    exchange = begun(endpoint, attribution, None, settings(), calls.append, Attempt("0" * 32, 1), "trace")
    exchange.sending()
    exchange.sent(b"--b0und")
    exchange.finished(Ending.END)
    assert (False, None) == (exchange.watches_body, calls[0].request_sent)
