"""Keys exist on the wire copy and nowhere else: not in responses, hooks, redirects or exceptions."""

from __future__ import annotations

import dataclasses
import json
import pickle
import threading
import tracemalloc
from typing import Any

import pytest

from kwai_middleware._context import bind_caller
from kwai_middleware._outbound.tracebacks import drop_inner_frames
from kwai_middleware._outbound.wire import WireBody
from kwai_middleware._route import Route
from tests.support.callers import GATEWAY, OPENROUTER, caller, key_of, settings
from tests.support.exposure import exposures
from tests.support.flavours import Flavour
from tests.support.raw_server import Connection, raw_server
from tests.support.wired import RELAY

KEY = key_of("acme")
BODY = b'{"model":"m"}'
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


def _apps_own(request: Any) -> bool:
    return bool(BODY == request.content and "Bearer app" == request.headers["authorization"])


@pytest.mark.parametrize("url", [GATEWAY, OPENROUTER])
def test_the_response_and_the_hooks_name_the_apps_own_request(flavour: Flavour, url: str) -> None:
    """Loggers and hooks that print a request print what the app wrote."""
    seen: list[Any] = []

    def on_request(request: Any) -> None:
        seen.append(request)

    def on_response(response: Any) -> None:
        seen.append(response.request)

    async def on_request_async(request: Any) -> None:
        on_request(request)

    async def on_response_async(response: Any) -> None:
        on_response(response)

    hooks = (on_request_async, on_response_async) if flavour.asynchronous else (on_request, on_response)

    def handler(request: Any) -> Any:
        assert not _apps_own(request)
        # An inner layer may name the request that it was given.
        return flavour.library.Response(200, json={}, request=request)

    client = flavour.answering(
        handler,
        settings=settings(),
        deliver=lambda call: None,
        client={"event_hooks": {"request": [hooks[0]], "response": [hooks[1]]}},
    )
    with bind_caller(caller()):
        response = flavour.post(client, url, content=BODY, headers={"authorization": "Bearer app"})
    assert [True, True, True] == [_apps_own(request) for request in (*seen, response.request)]
    assert KEY not in repr(vars(response))
    flavour.close(client)


def test_a_response_that_names_the_apps_own_request_is_left_alone(flavour: Flavour) -> None:
    """When nothing is added there is no copy, and the request below is the app's own."""
    client = flavour.answering(
        lambda request: flavour.library.Response(200, json={}, request=request),
        settings=settings(),
        deliver=lambda call: None,
    )
    request = client.build_request("POST", OPENROUTER, content=BODY)
    assert request is flavour.send(client, request).request
    flavour.close(client)


def _redirecting(location: str) -> Any:
    def handle(connection: Connection) -> None:
        connection.request()
        connection.send(f"HTTP/1.1 307 Away\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n".encode())

    return handle


@pytest.mark.parametrize("kind", ["gateway", "direct"])
def test_a_redirect_to_a_stranger_carries_nothing_of_ours(flavour: Flavour, kind: Any) -> None:
    """The second hop is built from the app's own request, and hooks see that request at both."""
    seen: list[bytes] = []
    arrived: list[tuple[bytes, bytes]] = []

    def stranger(connection: Connection) -> None:
        arrived.append(connection.request())
        connection.send(OK)

    def hook(request: Any) -> None:
        seen.append(b"".join(request.stream) + repr(request.headers.raw).encode())

    async def async_hook(request: Any) -> None:
        hook(request)

    with (
        raw_server(stranger) as elsewhere,
        raw_server(_redirecting(f"{elsewhere.url}/api/chat/completions")) as gateway,
    ):
        client = flavour.client(
            settings=settings(routes=(Route(f"{gateway.url}/api", kind=kind),)),
            deliver=lambda call: None,
            follow_redirects=True,
            event_hooks={"request": [async_hook if flavour.asynchronous else hook]},
        )
        with bind_caller(caller()):
            response = flavour.post(
                client, f"{gateway.url}/api/chat/completions", content=BODY, headers={"authorization": "Bearer app"}
            )
        assert 200 == response.status_code
        assert [True, True] == [what.startswith(BODY) and KEY.encode() not in what for what in seen]
        [(head, body)] = arrived
        assert BODY == body
        assert KEY.encode() not in head
        assert b"customer" not in head + body
        flavour.close(client)


@pytest.mark.parametrize("kind", ["gateway", "direct"])
def test_a_redirect_to_another_listed_host_is_attributed_again(flavour: Flavour, kind: Any) -> None:
    """Each hop is judged by where it goes."""
    arrived: list[tuple[bytes, bytes]] = []

    def other(connection: Connection) -> None:
        arrived.append(connection.request())
        connection.send(OK)

    with raw_server(other) as second, raw_server(_redirecting(f"{second.url}/api/chat/completions")) as first:
        listed = settings(base_url=f"{first.url}/api", routes=(Route(f"{second.url}/api", kind=kind),))
        client = flavour.client(settings=listed, deliver=lambda call: None, follow_redirects=True)
        with bind_caller(caller()):
            flavour.post(
                client, f"{first.url}/api/chat/completions", content=BODY, headers={"authorization": "Bearer app"}
            )
        [(head, body)] = arrived
        if kind == "gateway":
            assert {
                "model": "m",
                "customer_credentials": {"openrouter": {"api_key": KEY}},
                "customer_params": {"customer_identifier": "acme"},
            } == json.loads(body)
        else:
            assert BODY == body
            assert f"Bearer {KEY}".encode() in head
        flavour.close(client)


def test_a_ready_client_does_not_follow_redirects_by_itself(flavour: Flavour) -> None:
    """As the library's own client does not."""
    with raw_server(_redirecting("http://127.0.0.1:9/")) as gateway:
        client = flavour.client(settings=settings(base_url=f"{gateway.url}/api"), deliver=lambda call: None)
        with bind_caller(caller()):
            assert 307 == flavour.post(client, f"{gateway.url}/api/chat/completions", content=BODY).status_code
        flavour.close(client)


class _Failure:
    """One way in which a request fails after the key was put on the wire."""

    def __init__(self, error: str, handle: Any, body: bytes = BODY, stream: bool = False) -> None:
        self.error, self.handle, self.body, self.stream = error, handle, body, stream


def _reset_on_request(connection: Connection) -> None:
    connection.request()
    connection.reset()


def _never_read(connection: Connection) -> None:
    connection.head()
    _stalled.wait(30)


def _never_answer(connection: Connection) -> None:
    connection.request()
    connection.wait_until_closed()


def _junk(connection: Connection) -> None:
    connection.request()
    connection.send(b"not http at all\r\n\r\n")


def _cut(connection: Connection) -> None:
    connection.request()
    connection.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
    connection.reset()


def _stall(connection: Connection) -> None:
    connection.request()
    connection.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
    connection.wait_until_closed()


_stalled = threading.Event()
FAILURES = [
    pytest.param(_Failure("ReadError", _reset_on_request), id="reset"),
    pytest.param(_Failure("WriteTimeout", _never_read, b'{"model":"' + b"x" * 20_000_000 + b'"}'), id="write time-out"),
    pytest.param(_Failure("ReadTimeout", _never_answer), id="read time-out"),
    pytest.param(_Failure("RemoteProtocolError", _junk), id="junk"),
    pytest.param(_Failure("ReadError|RemoteProtocolError", _cut, stream=True), id="cut stream"),
    pytest.param(_Failure("ReadTimeout", _stall, stream=True), id="stalled stream"),
]


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("kind", ["gateway", "direct"])
def test_no_exception_shows_the_key(flavour: Flavour, failure: _Failure, kind: Any) -> None:
    """Type, text and request of the exception are the library's and the app's; no frame holds the key."""
    _stalled.clear()
    with raw_server(failure.handle, receive_buffer=4096) as server:
        base = f"{server.url}/api"
        client = flavour.client(
            settings=settings(routes=(Route(base, kind=kind),)),
            deliver=lambda call: None,
            timeout=flavour.library.Timeout(30, write=0.2, read=0.2 if "Timeout" in failure.error else 30),
        )
        own_error = ValueError("the app was handling this")
        with pytest.raises(flavour.library.TransportError) as caught, bind_caller(caller()):
            try:
                raise own_error
            except ValueError:
                flavour.chunks(
                    flavour.open(
                        client,
                        f"{base}/chat/completions",
                        content=failure.body,
                        headers={"authorization": "Bearer app"},
                    )
                )
        _stalled.set()
        error = caught.value
        assert type(error).__name__ in failure.error.split("|")
        assert failure.body == error.request.content
        assert [] == exposures(error, KEY, below="handle_async_request" if flavour.asynchronous else "handle_request")
        # The open response still hangs on the connection that sent the request; no reporter digs that deep.
        assert [] == exposures(error, KEY, below="chunks", attributes=False)
        assert own_error.__traceback__ is not None
        flavour.close(client)


class _Layers:
    """Layers inside that keep the request they were given, and show it around."""

    def __init__(self, library: Any) -> None:
        self.library = library
        self.kept: list[Any] = []

    def retries(self, request: Any) -> Any:
        try:
            raise self.library.ConnectError("refused", request=request)
        except self.library.ConnectError as error:
            raise self.library.TransportError("retries exhausted", request=request) from error

    def status(self, request: Any) -> Any:
        self.library.Response(503, request=request).raise_for_status()

    def read_only(self, request: Any) -> Any:
        class ReadOnly(Exception):
            @property
            def request(self) -> Any:
                return request

        raw = dict(request.headers) | {"body": request.content}
        raise ReadOnly(f"{len(raw)} headers")

    def unrelated(self, request: Any) -> Any:
        class Domain(Exception):
            request = "a request of the domain"

        self.kept.append(request)
        raise Domain("not an error of HTTP")


@pytest.mark.parametrize("layer", ["retries", "status", "read_only", "unrelated"])
@pytest.mark.parametrize("url", [GATEWAY, OPENROUTER])
def test_layers_inside_cannot_show_the_key(flavour: Flavour, layer: str, url: str) -> None:
    """Whatever they raise, and whatever hangs on it, names the app's own request; so does what they keep."""
    layers = _Layers(flavour.library)
    client = flavour.answering(getattr(layers, layer), settings=settings(), deliver=lambda call: None)
    with bind_caller(caller()), pytest.raises(Exception, match=r"refused|exhausted|503|headers|HTTP") as caught:
        flavour.post(client, url, content=BODY, headers={"authorization": "Bearer app"})
    assert [] == exposures(
        caught.value, KEY, below="handle_async_request" if flavour.asynchronous else "handle_request"
    )
    error: BaseException | None = caught.value
    while error is not None:
        for request in (getattr(error, "request", None), getattr(getattr(error, "response", None), "request", None)):
            assert request is None or request == "a request of the domain" or _apps_own(request)
        error = error.__cause__
    assert all(_apps_own(request) for request in layers.kept)
    flavour.close(client)


@pytest.mark.parametrize("url", [GATEWAY, OPENROUTER])
@pytest.mark.parametrize("size", [10, 1_000_000])
def test_layers_inside_can_read_the_request(flavour: Flavour, url: str, size: int) -> None:
    """What signs, caches or imitates looks at `content`, as bytes, and finds it at any size."""
    seen: list[bytes] = []

    class Reads:
        def handle_request(self, request: Any) -> Any:
            seen.append(request.content)
            assert [request.content] == list(request.stream)
            return flavour.library.Response(200)

        async def handle_async_request(self, request: Any) -> Any:
            return self.handle_request(request)

    client = flavour.around(Reads(), settings=settings(), deliver=lambda call: None)
    body = b'{"model":"' + b"m" * size + b'"}'
    with bind_caller(caller()):
        flavour.post(client, url, content=body)
    assert bytes is type(seen[0])
    assert seen[0].startswith(body[:-1])


def test_a_large_body_is_not_copied_for_a_layer_that_only_forwards(flavour: Flavour) -> None:
    """What goes out is the app's bytes and a few more; nobody joins them before somebody wants to see them."""
    library = flavour.library

    class Forwards:
        def handle_request(self, request: Any) -> Any:
            return library.Response(200, content=b"{}")

        async def handle_async_request(self, request: Any) -> Any:
            return self.handle_request(request)

    transport = flavour.transport_class(Forwards(), settings=settings(), deliver=lambda call: None)
    send = transport.handle_async_request if flavour.asynchronous else transport.handle_request
    request = library.Request("POST", GATEWAY, content=b'{"model":"' + b"m" * 4_000_000 + b'"}')
    with bind_caller(caller()):
        tracemalloc.start()
        try:
            flavour.run(send(request))
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert 2_000_000 > most


@pytest.mark.parametrize(
    ("made", "url"), [("request", GATEWAY), ("request", RELAY), ("request", OPENROUTER), ("wire_body", GATEWAY)]
)
def test_an_interrupt_while_the_copy_is_made_does_not_show_the_key(flavour: Flavour, made: str, url: str) -> None:
    """A worker's time-out or Ctrl-C may come at any moment, also before there is a copy."""

    def interrupted(*given: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    transport_class: Any = flavour.transport_class

    class Interrupted(transport_class):
        library = dataclasses.replace(transport_class.library, **{made: interrupted})

    inner = flavour.library.MockTransport(lambda request: flavour.library.Response(200))
    transport = Interrupted(inner, settings=settings(), deliver=lambda call: None)
    request = flavour.library.Request("POST", url, content=BODY, headers={"authorization": "Bearer app"})
    below = "handle_async_request" if flavour.asynchronous else "handle_request"
    with bind_caller(caller()), pytest.raises(KeyboardInterrupt) as caught:
        flavour.run(getattr(transport, below)(request))
    assert [] == exposures(caught.value, KEY, below=below, attributes=False)


@pytest.mark.parametrize("fails", [False, True], ids=["an answer", "an exception"])
def test_layers_outside_are_told_of_the_apps_own_request(flavour: Flavour, fails: bool) -> None:
    """No client is around to say which request it was: what names the wire copy names the app's own."""

    def handler(request: Any) -> Any:
        if fails:
            raise flavour.library.ReadError("cut", request=request)
        return flavour.library.Response(200, json={}, request=request)

    transport = flavour.transport_class(
        flavour.library.MockTransport(handler), settings=settings(), deliver=lambda call: None
    )
    request = flavour.library.Request("POST", OPENROUTER, content=BODY, headers={"authorization": "Bearer app"})
    send = transport.handle_async_request if flavour.asynchronous else transport.handle_request
    with bind_caller(caller()):
        if fails:
            with pytest.raises(flavour.library.ReadError) as caught:
                flavour.run(send(request))
            assert request is caught.value.request
        else:
            response = flavour.run(send(request))
            assert request is response.request
            flavour.read(response)


def test_a_close_that_fails_does_not_show_the_key(flavour: Flavour) -> None:
    """Closing is the transport's work too, and its frames hold what it holds."""

    class Fails:
        def __init__(self, held: str) -> None:
            self.held = held

        def __iter__(self) -> Any:
            return iter([b"1"])

        def close(self) -> None:
            held = self.held
            raise flavour.library.ReadError(f"cannot close {len(held)}")

        async def aclose(self) -> None:
            self.close()

    base = flavour.library.AsyncByteStream if flavour.asynchronous else flavour.library.SyncByteStream
    stream_class = type("Stream", (Fails, base), {})

    class Answers:
        def close(self) -> None:
            pass

        async def aclose(self) -> None:
            pass

        def handle_request(self, request: Any) -> Any:
            return flavour.library.Response(200, stream=stream_class(request.headers["authorization"]))

        async def handle_async_request(self, request: Any) -> Any:
            return self.handle_request(request)

    client = flavour.around(Answers(), settings=settings(), deliver=lambda call: None)
    with bind_caller(caller()):
        response = flavour.open(client, OPENROUTER, content=BODY)
    with pytest.raises(flavour.library.ReadError) as caught:
        flavour.close(response)
    assert [] == exposures(caught.value, KEY, below="aclose" if flavour.asynchronous else "close", attributes=False)
    flavour.close(client)


def test_the_search_for_exposures_finds_a_key_that_is_there(flavour: Flavour) -> None:
    """The same failure with a key that the app itself put into the body shows it in many frames."""
    with raw_server(_reset_on_request) as server:
        client = flavour.plain_client_class()
        with pytest.raises(flavour.library.TransportError) as caught:
            flavour.post(client, f"{server.url}/", json={"customer_credentials": KEY})
        assert [] != exposures(
            caught.value, KEY, below="handle_async_request" if flavour.asynchronous else "handle_request"
        )
        flavour.close(client)


def test_frames_of_an_exception_that_the_app_handles_stay() -> None:
    """Only what happened below our frame is taken out, groups and chains included."""

    def inner() -> None:
        try:
            raise KeyError("deep")
        except KeyError as deep:
            raise ExceptionGroup("both", [ValueError("a"), deep]) from deep

    def ours() -> None:
        try:
            inner()
        except BaseException as error:
            drop_inner_frames(error)
            raise

    try:
        raise OSError("the app's")
    except OSError as handled:
        with pytest.raises(ExceptionGroup) as caught:
            ours()
        assert handled.__traceback__ is not None
    names = [entry.name for entry in caught.traceback]
    assert "test_frames_of_an_exception_that_the_app_handles_stay" == names[0]
    assert "inner" not in names
    assert [None, None] == [error.__traceback__ for error in caught.value.exceptions]


def test_a_body_on_its_way_shows_nothing() -> None:
    """Neither by repr nor by pickle."""
    body = WireBody((b"secret", memoryview(b"more")))
    assert "<WireBody of 10 bytes>" == repr(body)
    assert [b"secret", b"more"] == [bytes(part) for part in body]
    with pytest.raises(TypeError):
        pickle.dumps(body)


def test_header_values_of_http2_are_not_logged(flavour: Flavour, caplog: pytest.LogCaptureFixture) -> None:
    """The header compression's debug log would show every key that was ever sent."""
    import hpack

    caplog.set_level("DEBUG")
    hpack.Encoder().encode([(b"authorization", b"before-any-transport")])
    transport = flavour.transport_class(
        flavour.real_transport_class(http2=True), settings=settings(), deliver=lambda call: None
    )
    hpack.Encoder().encode([(b"authorization", KEY.encode())])
    assert KEY not in caplog.text
    flavour.close(transport)
