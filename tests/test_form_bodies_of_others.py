"""Forms that aiohttp and requests send in pieces: seen by us, and on the wire as they would have been without us."""

from __future__ import annotations

import asyncio
import io
import json
import re
import socket
import threading
from array import array
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3.util.retry import Retry
from yarl import URL

from kwai_middleware import Route, aiohttp_middleware, bind_caller, requests_adapter
from kwai_middleware._outbound.budget import in_use
from kwai_middleware._outbound.observation import Ending
from kwai_middleware._outbound.sent_bodies import END, HEAD
from tests.support.budget import begin_with_nothing_held
from tests.support.callers import caller, key_of, settings
from tests.support.raw_server import Connection, raw_server
from tests.test_formats_transcription import form_of

SOUND = b"RIFF" * 262_144
FIELDS = {"model": "whisper-1", "language": "de"}
BODY = form_of(FIELDS, {"file": ("speech.wav", SOUND, "audio/wav")})
WORDS = f"[file speech.wav, audio/wav, {len(SOUND)} bytes]"
APP = {"authorization": "Bearer app"}
FORM = {**APP, "content-type": "multipart/form-data; boundary=b0und"}
OK = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n{"text":"Hi"}'
TOO_LARGE = b"HTTP/1.1 413 No\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
BUSY = b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n"
WHO = [pytest.param(None, id="nobody"), pytest.param(caller(), id="a key")]
PIECE = 64 * 1024


class Vendor:
    """A server that keeps every byte of the requests that come, and answers what the test says."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[bytes] = []
        self.wire: list[bytes] = []

    def __call__(self, connection: Connection) -> None:
        while request := _request(connection.sock):
            # The library draws lots for a boundary, always of one length; who pays is another promise.
            boundary = re.search(rb"boundary=(\w+)", request)
            request = request if boundary is None else request.replace(boundary[1], b"b" * len(boundary[1]))
            self.wire.append(request.replace(key_of("acme").encode(), b"app"))
            connection.send(self.answers.pop(0) if self.answers else OK)

    def route(self, kind: Any = "direct") -> dict[str, Any]:
        """Settings that list it."""
        return {"routes": (Route(f"{self.url}/v1", kind=kind),)}


def _request(sock: socket.socket) -> bytes:
    """All bytes of one request; none at the end of the connection."""
    read = bytearray()
    while more := sock.recv(1 << 20):
        read += more
        head, _, _ = bytes(read[:4096]).partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        if len(read) == len(head) + 4 + int(length[1]) if length else read.endswith(b"\r\n0\r\n\r\n"):
            break
    return bytes(read)


@pytest.fixture
def vendor() -> Iterator[Vendor]:
    served = Vendor()
    with raw_server(served) as raw:
        served.url = raw.url
        yield served


@pytest.fixture
def speech(tmp_path: Path) -> Path:
    """A file on disk."""
    path = tmp_path / "speech.wav"
    path.write_bytes(SOUND)
    return path


def pieces(body: bytes = BODY, size: int = PIECE) -> Iterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def async_pieces(body: bytes = BODY) -> AsyncIterator[bytes]:
    for piece in pieces(body):
        yield piece


def _says_all(call: Any) -> None:
    """The record has the form's fields and its file in words, and little was held for it."""
    record = call.build()
    assert ("complete", "whisper-1", False) == (record.outcome, record.model, record.truncated)
    assert (WORDS, {"language": b'"de"'}) == (json.loads(record.input or b""), record.parameters)
    assert len(call.request_sent.head) <= HEAD
    assert len(call.request_sent.end) <= END


# --- aiohttp


def _form(file: Any, **options: Any) -> dict[str, Any]:
    form = aiohttp.FormData(FIELDS)
    form.add_field("file", file, filename="speech.wav", content_type="audio/wav")
    return {"data": form, "headers": APP, **options}


def _parts(file: Any, **options: Any) -> dict[str, Any]:
    """A form made part by part."""
    writer = aiohttp.MultipartWriter("form-data", boundary="b0und")
    for name, value in FIELDS.items():
        writer.append(value).set_content_disposition("form-data", name=name)
    part = writer.append(file, {"content-type": "audio/wav"})
    part.set_content_disposition("form-data", name="file", filename="speech.wav")
    return {"data": writer, "headers": APP, **options}


AIOHTTP: dict[str, Callable[[Path], dict[str, Any]]] = {
    "in memory": lambda speech: _form(io.BytesIO(SOUND)),
    "bytes": lambda speech: _form(SOUND),
    "on disk": lambda speech: _form(speech.open("rb")),
    "of a generator": lambda speech: _form(async_pieces(SOUND)),
    "compressed on its way": lambda speech: _parts(io.BytesIO(SOUND), compress="deflate"),
    "in chunks": lambda speech: _form(io.BytesIO(SOUND), chunked=True),
    "parts": lambda speech: _parts(memoryview(array("H", SOUND))),
    "a generator": lambda speech: {"data": async_pieces(), "headers": FORM},
    "of a length": lambda speech: {"data": async_pieces(), "headers": {**FORM, "Content-Length": str(len(BODY))}},
    "cut": lambda speech: {
        "data": async_pieces(BODY + b"junk"),
        "headers": {**FORM, "Content-Length": str(len(BODY))},
    },
}


def _aiohttp(vendor: Vendor, form: Callable[[], Any], who: Any = None, **options: Any) -> list[Any]:
    """Send forms through a session of ours; returns what was handed over for the records."""
    calls: list[Any] = []
    middlewares = options.pop("middlewares", ())

    async def act() -> None:
        listed = settings(**(vendor.route() | options))
        async with aiohttp_middleware.session(settings=listed, deliver=calls.append, middlewares=middlewares) as client:
            with bind_caller(who):
                await _post(client, vendor, form())

    asyncio.run(act())
    return calls


async def _post(client: aiohttp.ClientSession, vendor: Vendor, form: dict[str, Any]) -> int:
    async with client.post(f"{vendor.url}/v1/audio/transcriptions", **form) as response:
        await response.read()
        return response.status


@pytest.mark.parametrize("make", AIOHTTP.values(), ids=AIOHTTP)
@pytest.mark.parametrize("who", WHO)
def test_a_form_of_aiohttp_is_seen_and_goes_out_as_it_is(vendor: Vendor, speech: Path, make: Any, who: Any) -> None:
    """The record has its fields, and the file's name, type and size; the wire is that of plain aiohttp."""

    async def plainly() -> None:
        async with aiohttp.ClientSession() as client:
            await _post(client, vendor, make(speech))

    asyncio.run(plainly())
    [call] = _aiohttp(vendor, lambda: make(speech), who)
    assert vendor.wire[0] == vendor.wire[1]
    _says_all(call)


@pytest.mark.parametrize("who", WHO)
def test_aiohttp_on_the_gateway(vendor: Vendor, speech: Path, who: Any) -> None:
    """There it is read before it goes out, unless the request may win: seen either way."""
    for on_conflict in ("context", "body"):
        [call] = _aiohttp(
            vendor, lambda: _form(speech.open("rb")), who, on_conflict=on_conflict, **vendor.route("gateway")
        )
        _says_all(call)
    assert SOUND in vendor.wire[0]
    assert SOUND in vendor.wire[1]


@pytest.mark.parametrize("who", WHO)
def test_the_apps_request_of_aiohttp_stays_as_it_was(who: Any) -> None:
    """What is inside gets its very payload; without a key its very headers too, for nothing in them changes."""
    calls: list[Any] = []

    async def act() -> None:
        async with aiohttp.ClientSession() as client:
            request = aiohttp.ClientRequest(
                "POST", URL("https://openrouter.ai/api/v1/audio/transcriptions"), loop=asyncio.get_running_loop(),
                session=client, **_parts(SOUND[:1000]),
            )  # fmt: skip
            before = dict(vars(request))

            async def handler(given: Any) -> Any:
                assert request is not given
                assert request.body is given.body
                assert (who is None) == (request.headers is given.headers)
                raise aiohttp.ClientConnectionError("no further")

            middleware = aiohttp_middleware.KwaiMiddleware(settings=settings(), deliver=calls.append)
            with bind_caller(who), pytest.raises(aiohttp.ClientConnectionError):
                await middleware(request, handler)
            assert before == vars(request)
            assert [] == request._traces

    asyncio.run(act())
    assert (0, Ending.ERROR) == (calls[0].request_sent.size, calls[0].ending)


@pytest.mark.parametrize("who", WHO)
def test_traces_hear_of_a_form_as_without_us(vendor: Vendor, who: Any) -> None:
    """Ours stands beside the app's, which are told of the same parts."""
    heard: list[list[Any]] = []

    async def listen(client: Any, context: Any, told: Any) -> None:
        heard[-1].append((type(told), getattr(told, "chunk", None)))

    async def act() -> None:
        for door in ((), (aiohttp_middleware.KwaiMiddleware(settings=settings(**vendor.route())),)):
            heard.append([])
            traces = aiohttp.TraceConfig()
            for signal in (
                traces.on_request_headers_sent, traces.on_request_chunk_sent, traces.on_response_chunk_received,
            ):  # fmt: skip
                signal.append(listen)
            async with aiohttp.ClientSession(trace_configs=[traces], middlewares=door) as client:
                with bind_caller(who):
                    await _post(client, vendor, _parts(io.BytesIO(SOUND)))

    asyncio.run(act())
    assert heard[0] == heard[1]
    assert len(heard[0]) > 10


@pytest.mark.parametrize("who", WHO)
def test_a_form_of_aiohttp_that_is_sent_again(vendor: Vendor, speech: Path, who: Any) -> None:
    """Repeated outside of us each time is a record that has seen it; repeated inside, it is seen once."""

    async def twice(request: Any, handler: Any) -> Any:
        await (await handler(request)).read()
        return await handler(request)

    calls = _aiohttp(vendor, lambda: _form(speech.open("rb")), who, middlewares=(twice,))
    inside: list[Any] = []
    ours = aiohttp_middleware.KwaiMiddleware(settings=settings(**vendor.route()), deliver=inside.append)

    async def act() -> None:
        async with aiohttp.ClientSession(middlewares=(ours, twice)) as client:
            with bind_caller(who):
                await _post(client, vendor, _form(speech.open("rb")))

    asyncio.run(act())
    assert (2, 1, 4) == (len(calls), len(inside), len(vendor.wire))
    assert 1 == len(set(vendor.wire))
    for call in (*calls, *inside):
        _says_all(call)


def test_a_redirected_form_of_aiohttp(vendor: Vendor, speech: Path) -> None:
    """The client sends the same form again through us: each record has seen it."""
    moved = f"{vendor.url}/v1/audio/transcriptions/"
    vendor.answers.append(f"HTTP/1.1 307 Away\r\nlocation: {moved}\r\ncontent-length: 0\r\n\r\n".encode())
    calls = _aiohttp(vendor, lambda: _form(speech.open("rb")), caller())
    assert ["redirected", "complete"] == [call.build().outcome for call in calls]
    assert [WORDS] * 2 == [json.loads(call.build().input) for call in calls]


LARGE = 16_000_000


class Given:
    """A form that is larger than any buffer; knows how much of it was asked for."""

    def __init__(self) -> None:
        self.size = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in pieces(BODY[:PIECE].ljust(LARGE, b"x")):
            self.size += len(piece)
            yield piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


@contextmanager
def answers_early() -> Iterator[Any]:
    """A server that reads the head of a request, refuses it, and leaves the rest where it is."""
    done = threading.Event()

    def refuse(connection: Connection) -> None:
        connection.head()
        connection.send(TOO_LARGE)
        done.wait(30)

    with raw_server(refuse, receive_buffer=4096) as raw:
        try:
            yield raw
        finally:
            done.set()


@pytest.mark.parametrize("who", WHO)
def test_an_upload_of_aiohttp_that_is_cut_short(who: Any) -> None:
    """An answer that comes early is read as without us; the record has what went out, and nothing was read ahead."""
    given = Given()
    calls: list[Any] = []

    async def act() -> int:
        with answers_early() as vendor:
            listed = settings(routes=(Route(f"{vendor.url}/v1", kind="direct"),))
            async with aiohttp_middleware.session(settings=listed, deliver=calls.append) as client:
                with bind_caller(who):
                    return await _post(client, vendor, {"data": given, "headers": FORM})

    assert 413 == asyncio.run(act())
    _cut_short(calls, given)


def _cut_short(calls: list[Any], given: Given) -> None:
    [call] = calls
    record = call.build()
    assert PIECE <= given.size == call.request_sent.size < LARGE
    assert (413, "whisper-1") == (record.status_code, record.model)
    assert json.loads(record.input or b"").startswith("[file speech.wav, audio/wav, at least ")


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("door", ["cancelled", "failing"])
def test_an_upload_of_aiohttp_that_breaks_off(vendor: Vendor, who: Any, door: str) -> None:
    """Cancellation and errors of the app's own generator reach the app as without us; the record has what went out."""
    calls: list[Any] = []

    async def act(middlewares: Any) -> tuple[Any, str]:
        stalled = asyncio.Event()

        async def body() -> AsyncIterator[bytes]:
            yield BODY[:PIECE]
            if door == "failing":
                raise LookupError("the disk is gone")
            stalled.set()
            await asyncio.Event().wait()

        async with aiohttp.ClientSession(middlewares=middlewares) as client:
            with bind_caller(who):
                task = asyncio.ensure_future(_post(client, vendor, {"data": body(), "headers": FORM}))
            if door == "cancelled":
                await stalled.wait()
                task.cancel()
            with pytest.raises((asyncio.CancelledError, aiohttp.ClientError)) as caught:
                await task
            return caught.type, str(caught.value.__cause__)

    ours = aiohttp_middleware.KwaiMiddleware(settings=settings(**vendor.route()), deliver=calls.append)
    assert asyncio.run(act(())) == asyncio.run(act((ours,)))
    [call] = calls
    assert (Ending.CANCELLED if door == "cancelled" else Ending.ERROR, PIECE) == (call.ending, call.request_sent.size)
    assert "whisper-1" == call.build().model


# --- requests


class Reader:
    """A file that is no file: only read() is there."""

    def __init__(self) -> None:
        self._pieces = pieces()

    def read(self, size: int = -1) -> bytes:
        return next(self._pieces, b"")

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces


REQUESTS: dict[str, Callable[[Path], Any]] = {
    "a generator": lambda speech: pieces(),
    "a generator of text": lambda speech: (piece.decode() for piece in pieces()),
    "a file": lambda speech: io.BytesIO(BODY),
    "a file on disk": lambda speech: speech.open("rb"),
    "what only reads": lambda speech: Reader(),
    "a list's iterator": lambda speech: iter([*pieces(), b""]),
    "an array": lambda speech: array("B", BODY),
}


def _requests(vendor: Any, data: Callable[[], Any], who: Any, inner: BaseAdapter | None = None) -> list[Any]:
    """Send a form through a session of ours; returns what was handed over for the records."""
    calls: list[Any] = []
    listed = settings(routes=(Route(f"{vendor.url}/v1", kind="direct"),))
    with requests.Session() as client, bind_caller(who):
        client.mount("http://", requests_adapter.KwaiAdapter(inner, settings=listed, deliver=calls.append))
        sent = data()
        response = client.post(f"{vendor.url}/v1/audio/transcriptions", data=sent, headers=FORM)
        assert sent is response.request.body
        _let_go_of(sent)
    return calls


def _let_go_of(body: Any) -> None:
    if isinstance(body, io.IOBase):
        body.close()


@pytest.mark.parametrize("make", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("who", WHO)
def test_a_form_of_requests_is_seen_and_goes_out_as_it_is(vendor: Vendor, speech: Path, make: Any, who: Any) -> None:
    """The record has its fields, and the file's name, type and size; the wire is that of plain requests."""
    speech.write_bytes(BODY)
    body = make(speech)
    with requests.Session() as client:
        client.post(f"{vendor.url}/v1/audio/transcriptions", data=body, headers=FORM)
    _let_go_of(body)
    [call] = _requests(vendor, lambda: make(speech), who)
    assert vendor.wire[0] == vendor.wire[1]
    _says_all(call)


@pytest.mark.parametrize("who", WHO)
def test_a_file_of_text_is_not_seen(vendor: Vendor, who: Any) -> None:
    """It goes out as urllib3 encodes it, which asks what kind of file it is."""
    [call] = _requests(vendor, lambda: io.StringIO(BODY.decode()), who)
    assert (0, None) == (call.request_sent.size, call.build().model)
    assert SOUND in vendor.wire[0]


def test_an_adapter_that_is_no_connection_gets_the_apps_own_body() -> None:
    """What it does with it nobody knows."""
    seen: list[Any] = []

    class Inner(BaseAdapter):
        def send(self, request: Any, *arguments: Any, **options: Any) -> Any:
            seen.append(request.body)
            response = requests.Response()
            response.status_code, response.request, response.url = 200, request, request.url
            return response

        def close(self) -> None:
            pass

    vendor = Vendor()
    vendor.url = "http://127.0.0.1:9"
    for who in (None, caller()):
        _requests(vendor, lambda: io.BytesIO(BODY), who, Inner())
    assert [io.BytesIO, io.BytesIO] == [type(body) for body in seen]


class Signs(HTTPAdapter):
    """An adapter of the app's own that reads a body before it goes out."""

    def add_headers(self, request: Any, **options: Any) -> None:
        request.headers["x-length"] = str(len(request.body.read()))
        request.body.seek(0)


def test_a_file_that_is_read_twice_is_seen_once(vendor: Vendor) -> None:
    """Whoever goes back in it sends it anew."""
    [call] = _requests(vendor, lambda: io.BytesIO(BODY), caller(), Signs())
    assert f"x-length: {len(BODY)}\r\n".encode() in vendor.wire[0]
    assert len(BODY) == call.request_sent.size
    _says_all(call)


@pytest.mark.parametrize("who", WHO)
def test_attempts_of_urllib3_have_each_seen_the_form(vendor: Vendor, who: Any) -> None:
    """A file is gone back in for the next one; a generator is at its end then, as without us."""
    vendor.answers += [BUSY, OK, BUSY, OK]
    again = HTTPAdapter(max_retries=Retry(3, status_forcelist=[503], allowed_methods=None, backoff_factor=0))
    calls = _requests(vendor, lambda: io.BytesIO(BODY), who, again)
    assert [503, 200] == [call.status for call in calls]
    assert [WORDS] * 2 == [json.loads(call.build().input) for call in calls]
    calls = _requests(vendor, pieces, who, again)
    assert [len(BODY), 0] == [call.request_sent.size for call in calls]


def test_an_attempt_that_cannot_be_watched_goes_out(vendor: Vendor, nothing_is_swallowed: list[BaseException]) -> None:
    """A fault of ours between two attempts is told to the guard; the form goes out and the app has its answer."""
    vendor.answers += [BUSY, OK]
    ours = settings(**vendor.route())
    calls: list[Any] = []

    class Breaks(Reader):
        def read(self, size: int = -1) -> bytes:
            # A bound that is no number stands for any bug of ours.
            object.__setattr__(ours, "max_call_bytes", None)
            return super().read(size)

        def tell(self) -> int:
            return 0

        def seek(self, place: int) -> None:
            self._pieces = pieces()

    again = Retry(3, status_forcelist=[503], allowed_methods=None, backoff_factor=0)
    with requests_adapter.session(settings=ours, deliver=calls.append, max_retries=again) as client:
        url = f"{vendor.url}/v1/audio/transcriptions"
        assert {"text": "Hi"} == client.post(url, data=Breaks(), headers=FORM).json()
    assert vendor.wire[0] == vendor.wire[1]
    assert len(BODY) < len(vendor.wire[1])
    assert [503] == [call.status for call in calls]
    assert [TypeError] == [type(error) for error in nothing_is_swallowed]
    nothing_is_swallowed.clear()


@pytest.mark.parametrize("who", WHO)
def test_an_upload_of_requests_that_is_cut_short(who: Any) -> None:
    """An answer that comes early is read as without us; the record has what went out, and nothing was read ahead."""
    given = Given()

    def refuse(connection: Connection) -> None:
        connection.head()
        connection.send(TOO_LARGE)

    with raw_server(refuse, receive_buffer=4096) as vendor:
        _cut_short(_requests(vendor, lambda: given, who), given)


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("kind", [LookupError, KeyboardInterrupt])
def test_an_upload_of_requests_that_breaks_off(vendor: Vendor, who: Any, kind: Any) -> None:
    """What the app's own file or generator raises reaches the app as it is; the record has what went out."""

    class Failing(Reader):
        def read(self, size: int = -1) -> bytes:
            piece = super().read(size)
            if BODY.startswith(piece):
                return piece
            raise kind

    def failing() -> Iterator[bytes]:
        yield BODY[:PIECE]
        raise kind

    calls: list[Any] = []
    with requests_adapter.session(settings=settings(**vendor.route()), deliver=calls.append) as client:
        for body in (Failing(), failing()):
            with bind_caller(who), pytest.raises(kind):
                client.post(f"{vendor.url}/v1/audio/transcriptions", data=body, headers=FORM)
    assert [PIECE] * 2 == [call.request_sent.size for call in calls]
    assert [Ending.ERROR if kind is LookupError else Ending.CANCELLED] * 2 == [call.ending for call in calls]
    assert "whisper-1" == calls[0].build().model


@pytest.mark.parametrize("who", WHO)
@pytest.mark.parametrize("library", ["aiohttp", "requests"])
def test_little_of_a_form_is_held(vendor: Vendor, library: str, who: Any) -> None:
    """However large it is: its two ends, and that is accounted for until the record is made."""
    begin_with_nothing_held()
    before = in_use()
    if library == "aiohttp":
        [call] = _aiohttp(vendor, lambda: _form(io.BytesIO(SOUND)), who)
    else:
        [call] = _requests(vendor, lambda: io.BytesIO(BODY), who)
    assert (HEAD, END) == (len(call.request_sent.head), len(call.request_sent.end))
    assert HEAD + END <= in_use() - before < HEAD + END + 2 * 64 * 1024
    call.release()
    assert before == in_use()
