"""Answers through the door for requests: read in any way they are the server's, and each ends as one observation."""

from __future__ import annotations

import gc
import gzip
import io
import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
import urllib3
from requests.adapters import BaseAdapter

from kwai_middleware import Route, bind_caller
from kwai_middleware._outbound.observation import Ending
from kwai_middleware.requests_adapter import KwaiAdapter, session
from tests.support.callers import GATEWAY, caller, key_of, settings
from tests.support.exposure import exposures
from tests.support.raw_server import Connection, raw_server
from tests.support.three_parts import PARTS, WHOLE, ThreeParts

KEY = key_of("acme")
BODY = b'{"model":"m"}'


@pytest.fixture
def server() -> Iterator[ThreeParts]:
    served = ThreeParts()
    with raw_server(served) as raw:
        served.url = f"{raw.url}/v1"
        yield served
        served.go_on.set()


@pytest.fixture
def calls() -> list[Any]:
    return []


@pytest.fixture(params=["gateway", "direct"])
def client(request: pytest.FixtureRequest, server: ThreeParts, calls: list[Any]) -> Iterator[requests.Session]:
    listed = settings(routes=(Route(server.url, kind=request.param),))
    with session(settings=listed, deliver=calls.append) as made:
        yield made


def _open(client: requests.Session, server: ThreeParts, **options: Any) -> requests.Response:
    with bind_caller(caller()):
        return client.post(f"{server.url}/chat/completions", data=BODY, **{"stream": True, **options})


def _copied(response: Any) -> bytes:
    target = io.BytesIO()
    shutil.copyfileobj(response.raw, target, 7)
    return target.getvalue()


WAYS: dict[str, Callable[[Any], bytes]] = {
    "content": lambda response: response.content,
    "text": lambda response: response.text.encode(),
    "iter_content": lambda response: b"".join(response.iter_content(5)),
    "iter_content of what is there": lambda response: b"".join(response.iter_content(None)),
    "iter_lines": lambda response: b"\n".join(response.iter_lines()) + b"\n",
    "the response itself": lambda response: b"".join(response),
    "raw.read": lambda response: response.raw.read(),
    "raw.read in pieces": lambda response: b"".join(iter(lambda: response.raw.read(4), b"")),
    "raw.read1": lambda response: b"".join(iter(lambda: response.raw.read1(4), b"")),
    "raw.stream": lambda response: b"".join(response.raw.stream(6)),
    "raw.data": lambda response: response.raw.data,
    "lines of raw": lambda response: b"".join(response.raw),
    "raw.readline": lambda response: b"".join(iter(response.raw.readline, b"")),
    "shutil": _copied,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("framing", ["chunked", "length", "until closed"])
def test_an_answer_read_to_its_end(
    client: requests.Session, server: ThreeParts, calls: list[Any], way: Any, framing: str
) -> None:
    """The app gets the server's bytes, and the observation holds them, with their times."""
    server.go_on.set()
    if framing == "length":
        server.with_length()
    elif framing == "until closed":
        server.head, server.ending = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", "close"
    response = _open(client, server)
    assert isinstance(response.raw, urllib3.HTTPResponse)
    assert WHOLE == way(response)
    [call] = calls
    assert (Ending.END, WHOLE, 200, False) == (call.ending, b"".join(call.chunks), call.status, call.decoded)
    assert (BODY, "acme", None) == (call.request_body, call.caller.identifier, call.error)
    assert call.started <= call.answered <= call.arrivals[0] <= call.arrivals[-1] <= call.ended
    if framing == "chunked":
        assert [b"1", b"2"] == [value for name, value in call.response_headers if name == b"X-Id"]
    response.close()
    del response
    gc.collect()
    assert 1 == len(calls)


def test_chunks_of_urllib3(client: requests.Session, server: ThreeParts, calls: list[Any]) -> None:
    """Who reads chunk by chunk gets them as the server cut them; asking for nothing ends nothing."""
    server.go_on.set()
    response = _open(client, server)
    assert [] == list(response.raw.read_chunked(0))
    assert [] == list(response.raw.stream(0))
    assert b"" == response.raw.read(0)
    assert [] == calls
    assert PARTS == list(response.raw.read_chunked())
    assert [Ending.END] == [call.ending for call in calls]


@pytest.mark.parametrize("decodes", [True, False])
@pytest.mark.parametrize("size", [None, 3])
def test_an_answer_that_is_coded(
    client: requests.Session, server: ThreeParts, calls: list[Any], decodes: bool, size: int | None
) -> None:
    """What was decoded above us is noted as that, piece by piece to its very end."""
    server.go_on.set()
    packed = gzip.compress(WHOLE)
    server.parts, server.last_words = [packed], b""
    server.head = f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(packed)}\r\n\r\n".encode()
    response = _open(client, server)
    assert (WHOLE if decodes else packed) == b"".join(response.raw.stream(size, decode_content=decodes))
    [call] = calls
    assert (Ending.END, decodes) == (call.ending, call.decoded)
    assert (WHOLE if decodes else packed) == b"".join(call.chunks)


@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize("way", ["close", "with", "left and closed"])
def test_an_answer_that_is_not_read_to_its_end(
    client: requests.Session, server: ThreeParts, calls: list[Any], framing: str, way: str
) -> None:
    """Leaving and closing is the app's own decision, not an error; what had come until then is there."""
    if framing == "length":
        server.with_length(len(WHOLE) + 1)
    response = _open(client, server)
    if way == "close":
        response.close()
    elif way == "with":
        with response:
            pass
    else:
        for _ in response.iter_content(len(PARTS[0])):
            break
        response.close()
    [call] = calls
    assert Ending.CLOSED is call.ending
    assert (PARTS[0] if way == "left and closed" else b"") == b"".join(call.chunks)


def test_an_iteration_that_is_left_can_be_gone_on_with(
    client: requests.Session, server: ThreeParts, calls: list[Any]
) -> None:
    """As without us; it is one call, and whole."""
    server.go_on.set()
    server.with_length()
    response = _open(client, server)
    assert PARTS[0] == next(response.iter_content(len(PARTS[0])))
    gc.collect()
    assert [] == calls
    assert WHOLE[len(PARTS[0]) :] == b"".join(response.iter_content(5))
    assert [(Ending.END, WHOLE)] == [(call.ending, b"".join(call.chunks)) for call in calls]


def test_an_answer_that_nobody_closes(client: requests.Session, server: ThreeParts, calls: list[Any]) -> None:
    """The garbage collector finds it, once."""
    response = _open(client, server)
    assert [] == calls
    del response
    gc.collect()
    assert [Ending.ABANDONED] == [call.ending for call in calls]


@pytest.mark.parametrize("way", ["content", "iter_lines", "raw.read in pieces", "raw.read1", "lines of raw"])
@pytest.mark.parametrize("ending", ["reset", "stall", "junk"])
def test_an_answer_that_ends_badly(
    client: requests.Session, server: ThreeParts, calls: list[Any], way: str, ending: str
) -> None:
    """The exception is the library's own and shows no key; the observation names it and has what had come."""
    server.ending, server.last_words = ending, b"not a chunk\r\n"
    server.go_on.set()
    response = _open(client, server, timeout=(30, 0.3 if ending == "stall" else 30))
    own_error = ValueError("the app was handling this")
    with pytest.raises((requests.RequestException, urllib3.exceptions.HTTPError)) as caught:
        try:
            raise own_error
        except ValueError:
            WAYS[way](response)
    assert own_error.__traceback__ is not None
    assert [] == exposures(caught.value, KEY, below="_told", attributes=False)
    response.close()
    [call] = calls
    assert (Ending.TIMEOUT if ending == "stall" else Ending.ERROR) is call.ending
    assert call.error is not None
    if way not in ("content",):
        assert PARTS[0] in b"".join(call.chunks)


def test_an_interrupt_in_the_middle_of_an_answer(server: ThreeParts, calls: list[Any]) -> None:
    """A worker's time-out or Ctrl-C passes, and the call counts as cancelled."""

    class Interrupted(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise KeyboardInterrupt

    made = _with_raw(Interrupted(WHOLE), calls)
    with bind_caller(caller()), pytest.raises(KeyboardInterrupt):
        made.post(GATEWAY, data=BODY)
    assert [Ending.CANCELLED] == [call.ending for call in calls]


@pytest.mark.parametrize("moment", ["not there", "head", "junk head", "time-out", "write"])
@pytest.mark.parametrize("kind", ["gateway", "direct"])
def test_no_exception_shows_the_key(calls: list[Any], moment: str, kind: Any) -> None:
    """Type, text and request of the exception are the library's and the app's; no frame holds the key."""
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

    body = BODY if moment != "write" else b'{"model":"' + b"x" * 20_000_000 + b'"}'
    with raw_server(handle, receive_buffer=4096) as server:
        url = server.url
        if moment != "not there":
            error = _failing(url, kind, calls, body)
            let_go.set()
    if moment == "not there":
        error = _failing(url, kind, calls, body)
    assert isinstance(error, requests.RequestException)
    assert error.request is not None
    assert body == error.request.body
    assert KEY not in str(error.request.headers)
    assert [] == exposures(error, KEY, below="send")
    [call] = calls
    assert (Ending.TIMEOUT if moment == "time-out" else call.ending, None) == (call.ending, call.status)
    assert call.ending in (Ending.ERROR, Ending.TIMEOUT)


def _failing(url: str, kind: Any, calls: list[Any], body: bytes) -> BaseException:
    with session(settings=settings(routes=(Route(f"{url}/v1", kind=kind),)), deliver=calls.append) as client:
        with bind_caller(caller()), pytest.raises(requests.RequestException) as caught:
            client.post(f"{url}/v1/chat/completions", data=body, timeout=(0.5, 0.3))
        return caught.value


def test_the_search_for_exposures_finds_a_key_that_is_there() -> None:
    """The same failure with a key that the app itself put into the body shows it in many frames."""

    def reset(connection: Connection) -> None:
        connection.request()
        connection.reset()

    with raw_server(reset) as server, pytest.raises(requests.RequestException) as caught:
        requests.post(f"{server.url}/", json={"customer_credentials": KEY}, timeout=30)
    assert [] != exposures(caught.value, KEY, below="send")


# --- what other adapters answer


class _Gives(BaseAdapter):
    """Answers with what the test says."""

    def __init__(self, give: Callable[[Any], Any]) -> None:
        super().__init__()
        self._give = give

    def send(self, request: Any, *arguments: Any, **options: Any) -> Any:
        return self._give(request)

    def close(self) -> None:
        pass


def _with_raw(raw: Any, calls: list[Any], **attributes: Any) -> requests.Session:
    def give(request: Any) -> requests.Response:
        response = requests.Response()
        response.status_code, response.raw, response.request, response.url = 200, raw, request, request.url
        vars(response).update(attributes)
        return response

    made = requests.Session()
    made.mount("https://", KwaiAdapter(_Gives(give), settings=settings(), deliver=calls.append))
    return made


@pytest.mark.parametrize("raw", [None, io.BytesIO(b"never read")], ids=["no stream", "a stream"])
def test_an_answer_that_is_read_already(calls: list[Any], raw: Any) -> None:
    """Caches hand over whole answers, whose stream is never read."""
    made = _with_raw(raw, calls, _content=b"{}", _content_consumed=True)
    assert b"{}" == made.post(GATEWAY, data=BODY, stream=True).content
    assert [(Ending.END, (b"{}",), True)] == [(call.ending, call.chunks, call.decoded) for call in calls]


@pytest.mark.parametrize("way", ["content", "pieces", "closed", "dropped"])
def test_an_answer_that_is_any_file(calls: list[Any], way: str) -> None:
    """Adapters of all kinds hand over what can be read; it is watched as any other."""
    made = _with_raw(io.BytesIO(WHOLE), calls)
    with bind_caller(caller()):
        response = made.post(GATEWAY, data=BODY, stream=True)
    assert response.raw.seekable()
    if way == "content":
        assert WHOLE == response.content
    elif way == "pieces":
        assert WHOLE == b"".join(response.iter_content(5))
    elif way == "closed":
        response.close()
        assert response.raw.closed
    del response
    gc.collect()
    expected = {"closed": Ending.CLOSED, "dropped": Ending.ABANDONED}.get(way, Ending.END)
    assert [(expected, WHOLE if expected is Ending.END else b"")] == [
        (call.ending, b"".join(call.chunks)) for call in calls
    ]


def test_a_kind_of_answer_of_the_users_own_stays_one(calls: list[Any]) -> None:
    """Caches and recorders look at what kind of answer it is."""

    class Own(urllib3.HTTPResponse):
        pass

    for _ in range(2):
        made = _with_raw(Own(io.BytesIO(WHOLE), {}, 200, preload_content=False), calls)
        response = made.post(GATEWAY, data=BODY)
        assert isinstance(response.raw, Own)
        assert WHOLE == response.content
    assert [WHOLE, WHOLE] == [b"".join(call.chunks) for call in calls]
