"""FastAPI under uvicorn, as a real process: each request sees its own caller, and nobody sees another's."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import websockets.sync.client
from websockets.exceptions import InvalidStatus

from kwai_middleware._caller import Caller
from kwai_middleware._context import bind_caller
from tests.apps.who_asgi import SECRET
from tests.support.processes import DEADLINE, UNMEASURED, Process, free_port, running
from tests.support.reverse_proxy import nginx

KEY = "sk-or-v1-0123456789abcdef"
NOBODY = {"caller": None, "logged": None, "key": None}
ACME = {"caller": "acme", "logged": "acme", "key": None}
ACME_WITH_KEY = {**ACME, "key": KEY}
WHO = {"X-Customer-Id": "acme"}
WHO_WITH_KEY = {**WHO, "X-OpenRouter-Key": KEY}
LARGE = b"x" * 500_000
"""More than the 64 KiB from which asyncio pauses reading, and resumes it in the context of the request."""


class SkipsWhenAbsent:
    """How not to do it: binds an identity when there is one, and nothing when there is none."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        identifier = dict(scope.get("headers", ())).get(b"x-customer-id")
        if identifier is None:
            await self.app(scope, receive, send)
        else:
            with bind_caller(Caller(identifier=identifier.decode())):
                await self.app(scope, receive, send)


class Server:
    """A running uvicorn."""

    def __init__(self, port: int, process: Process) -> None:
        self.port = port
        self.process = process

    def connect(self) -> http.client.HTTPConnection:
        """A connection of one's own."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)


@contextlib.contextmanager
def uvicorn(*options: str, door: str = "plain") -> Iterator[Server]:
    """Run the app behind one of its doors, or behind one of this file."""
    port = free_port()
    door = f"tests.apps.who_asgi:{door}" if ":" not in door else door
    argv = ["-m", "uvicorn", "tests.apps.who_asgi:app", "--port", str(port), *options]
    ready = f"http://127.0.0.1:{port}/docs"
    with running(argv, ready=ready, env={"KWAI_TEST_DOOR": door, **UNMEASURED}) as process:
        yield Server(port, process)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The app under either loop."""
    with uvicorn("--loop", request.param) as running_server:
        yield running_server


@pytest.fixture(scope="module")
def trusting() -> Iterator[Server]:
    """A uvicorn that believes every proxy."""
    with uvicorn("--forwarded-allow-ips", "*") as running_server:
        yield running_server


def ask(connection: http.client.HTTPConnection, path: str, headers: Any = None, body: bytes | None = None) -> Any:
    """Send a request and return what was answered, as JSON."""
    connection.request("GET" if body is None else "POST", path, body=body, headers=headers or {})
    with connection.getresponse() as response:
        content = response.read()
        assert response.status == 200, content
        return json.loads(content)


def of(answer: Any) -> Any:
    """The part of an answer that says who is current."""
    return {name: answer[name] for name in NOBODY}


def ask_after_large_body(connection: http.client.HTTPConnection) -> tuple[Any, Any]:
    """A customer's request with a large body, and an anonymous one on the same connection."""
    with contextlib.closing(connection):
        first, second = ask_in_turn(connection, (WHO, LARGE), ({}, None))
        return first, second


def ask_in_turn(connection: http.client.HTTPConnection, *requests: tuple[dict[str, str], bytes | None]) -> list[Any]:
    """Requests with these headers and bodies, all on one connection, and who each was for."""
    answers: list[Any] = []
    ends = set[Any]()
    for headers, body in requests:
        answer = ask(connection, "/who", headers, body)
        assert body is None or len(body) == answer["bytes"]
        ends.add(connection.sock.getsockname())
        answers.append(of(answer))
    assert len(ends) == 1
    return answers


@pytest.mark.parametrize("implementation", ["h11", "httptools"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_the_next_request_of_a_connection_is_nobodys(loop: str, implementation: str) -> None:
    """A server may run the next request in the context of the one before; it sees nobody, here and in structlog."""
    with uvicorn("--loop", loop, "--http", implementation) as server:
        assert (ACME, NOBODY) == ask_after_large_body(server.connect())


def test_a_connection_after_a_large_body_serves_each_its_own(server: Server) -> None:
    """After a form of 2 MB five anonymous requests, another customer and a second form: nobody is mixed up."""
    head = b'--x\r\ncontent-disposition: form-data; name="file"; filename="f"\r\n\r\n'
    form = head + b"x" * 2_000_000 + b"\r\n--x--\r\n"
    large = ({**WHO_WITH_KEY, "content-type": "multipart/form-data; boundary=x"}, form)
    beta = ({"x-customer-id": "beta"}, None)
    with contextlib.closing(server.connect()) as connection:
        answers = ask_in_turn(connection, large, *[({}, None)] * 5, beta, large, ({}, None))
    expected = {"caller": "beta", "logged": "beta", "key": None}
    assert [ACME_WITH_KEY, *[NOBODY] * 5, expected, ACME_WITH_KEY, NOBODY] == answers


def test_a_middleware_that_skips_when_the_header_is_absent_fails_this_test() -> None:
    """The promise above is not kept by chance: the usual way to write such a middleware breaks it."""
    with uvicorn("--loop", "asyncio", door=f"{__name__}:SkipsWhenAbsent") as server:
        assert (ACME, ACME) == ask_after_large_body(server.connect())


def test_requests_see_their_own_caller(server: Server) -> None:
    """Sixteen connections at once, each with many requests, with and without headers: each sees its own."""

    def customer(number: int) -> None:
        with contextlib.closing(server.connect()) as connection:
            for turn in range(20):
                mine = f"customer-{number}-{turn}"
                headers = {"x-customer-id": mine, "x-openrouter-key": f"sk-{mine}"} if turn % 3 else {}
                expected = {"caller": mine, "logged": mine, "key": f"sk-{mine}"} if turn % 3 else NOBODY
                assert expected == of(ask(connection, "/who", headers, LARGE if turn % 5 == 0 else b""))
                assert expected == of(ask(connection, "/who-in-thread", headers))

    with ThreadPoolExecutor(16) as executor:
        list(executor.map(customer, range(16)))


def test_what_a_request_starts_keeps_its_caller(server: Server) -> None:
    """Background tasks, tasks and `to_thread` work for the caller; a bare thread does when it is carried."""
    with contextlib.closing(server.connect()) as connection:
        assert ACME_WITH_KEY == ask(connection, "/start", WHO_WITH_KEY, b"")
        answer = ask(connection, "/seen?count=6")
    assert NOBODY == answer["now"]
    assert {
        "background": ACME_WITH_KEY,
        "background on a thread": ACME_WITH_KEY,
        "task": ACME_WITH_KEY,
        "to_thread": ACME_WITH_KEY,
        "thread": NOBODY,
        "carried thread": ACME_WITH_KEY,
    } == dict(answer["seen"])


def test_an_exception_in_a_view_leaves_nobody(server: Server) -> None:
    """The request after one that failed is nobody's."""
    with contextlib.closing(server.connect()) as connection:
        connection.request("GET", "/boom", headers=WHO)
        with connection.getresponse() as response:
            response.read()
            assert response.status == 500
    with contextlib.closing(server.connect()) as connection:  # uvicorn has hung up on the other one
        assert NOBODY == of(ask(connection, "/who"))
        answer = ask(connection, "/seen?count=0")
    assert "/boom" in answer["ended"]
    assert [] == answer["left"]


def test_a_client_that_leaves_a_stream_leaves_nobody(server: Server) -> None:
    """The stream ends for its caller, and the server's next request is nobody's."""
    with contextlib.closing(server.connect()) as connection:
        connection.request("GET", "/stream", headers=WHO)
        with connection.getresponse() as response:
            assert {b"acme"} == set(response.read(100_000).split()[:-1])
    with contextlib.closing(server.connect()) as connection:
        answer = ask(connection, "/seen?count=1")
        assert [["stream ended", ACME]] == answer["seen"]
        assert NOBODY == answer["now"]
        ends = [*answer["ended"]]
        left = [*answer["left"]]
        while "/stream" not in ends:  # the request ends a moment after its stream
            answer = ask(connection, "/seen?count=0")
            ends += answer["ended"]
            left += answer["left"]
        assert [] == left


def test_a_mounted_app_with_a_middleware_of_its_own_has_the_key(server: Server) -> None:
    """The inner middleware finds the header gone and the caller there: the house does not pay."""
    with contextlib.closing(server.connect()) as connection:
        answer = ask(connection, "/mounted/who", WHO_WITH_KEY)
        assert ACME_WITH_KEY == of(answer)
        assert "x-openrouter-key" not in answer["headers"]
        assert NOBODY == of(ask(connection, "/mounted/who"))


def test_two_headers_of_one_name_are_refused(server: Server) -> None:
    """Sent over a real connection, twice the same header is 400 and not the first or the last."""
    with contextlib.closing(server.connect()) as connection:
        connection.putrequest("GET", "/who")
        connection.putheader("x-customer-id", "acme")
        connection.putheader("x-customer-id", "beta")
        connection.endheaders()
        with connection.getresponse() as response:
            assert response.status == 400
            assert json.loads(response.read())["header"] == "x-customer-id"


@pytest.mark.parametrize("implementation", ["websockets", "websockets-sansio"])
def test_a_websocket_has_its_caller(implementation: str) -> None:
    """Each message is answered for the caller of the handshake; a handshake without one is refused by 401."""
    with uvicorn("--ws", implementation, door="required") as server:
        url = f"ws://127.0.0.1:{server.port}/ws"
        with websockets.sync.client.connect(url, additional_headers=WHO_WITH_KEY, proxy=None) as socket:
            for _ in range(3):
                socket.send("who?")
                assert ACME_WITH_KEY == json.loads(socket.recv(DEADLINE))
        with pytest.raises(InvalidStatus) as caught, websockets.sync.client.connect(url, proxy=None):
            raise AssertionError
        answer = caught.value.response
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Kwai realm="caller"'
        assert json.loads(answer.body)["title"] == "Authentication required"


class TestPeers:
    """What a real server makes of the peer's address."""

    def ask(self, server: Server, **headers: str) -> Any:
        """Who a request with an identity and these headers is for, and from where it seems to come."""
        with contextlib.closing(server.connect()) as connection:
            answer = ask(
                connection, "/who", {**WHO, **{name.replace("_", "-"): text for name, text in headers.items()}}
            )
            return answer["caller"], answer["client"][0]

    def test_a_local_proxy_is_believed_as_long_as_the_server_shows_it(self, server: Server) -> None:
        """By default uvicorn puts in what a local proxy says of its client; then the address proves nothing."""
        assert self.ask(server) == ("acme", "127.0.0.1")
        assert self.ask(server, x_forwarded_for="203.0.113.9") == (None, "203.0.113.9")
        assert self.ask(server, x_forwarded_for="127.0.0.1") == (None, "127.0.0.1")
        assert self.ask(server, x_forwarded_for="127.0.0.1:9999") == (None, "127.0.0.1")
        assert "--no-proxy-headers" in server.process.output

    def test_without_proxy_headers_the_proxy_is_seen_and_believed(self) -> None:
        """Started as the warning says, the app believes its local proxy, whatever client that names."""
        with uvicorn("--no-proxy-headers") as server:
            assert self.ask(server, x_forwarded_for="203.0.113.9") == ("acme", "127.0.0.1")

    @pytest.mark.parametrize(
        "forged",
        [
            "127.0.0.1",
            "127.0.0.1:9999",
            "127.0.0.1:+9",
            "127.0.0.1: 9_9",
            "127.0.0.1:9999, 203.0.113.9",
            "[::1]:9999",
            "[::1]",
            "[127.0.0.1]:9999",
            "testclient:50000",
        ],
    )
    def test_an_address_that_a_client_has_forged_proves_nothing(self, trusting: Server, forged: str) -> None:
        """A server that believes every proxy shows what the client wrote, also with a port; we do not believe it."""
        caller, address = self.ask(trusting, x_forwarded_for=forged)
        assert address in ("127.0.0.1", "::1", "testclient")
        assert caller is None

    def test_a_proxy_secret_is_believed_wherever_it_comes_from(self) -> None:
        """With a secret no setting of the server matters, and the secret is not passed on."""
        with uvicorn("--forwarded-allow-ips", "*", door="with_secret") as server:
            assert self.ask(server, x_forwarded_for="203.0.113.9") == (None, "203.0.113.9")
            assert self.ask(server, x_forwarded_for="203.0.113.9", x_kwai_proxy="wrong") == (None, "203.0.113.9")
            assert self.ask(server, x_forwarded_for="203.0.113.9", x_kwai_proxy=SECRET) == ("acme", "203.0.113.9")
            with contextlib.closing(server.connect()) as connection:
                assert "x-kwai-proxy" not in ask(connection, "/who", {"x-kwai-proxy": SECRET})["headers"]

    @pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
    @pytest.mark.parametrize(("door", "caller"), [("plain", None), ("only_unix", "acme")])
    def test_a_unix_socket_is_believed_when_it_is_written(
        self, tmp_path: Path, loop: str, door: str, caller: str | None
    ) -> None:
        """A server on a unix socket names no address; only the word for it matches."""
        path = str(tmp_path / "app.sock")
        argv = ["-m", "uvicorn", "tests.apps.who_asgi:app", "--uds", path, "--loop", loop]
        environ = {"KWAI_TEST_DOOR": f"tests.apps.who_asgi:{door}", **UNMEASURED}
        with (
            nginx("", {}, path) as url,
            running(argv, ready=f"{url}/docs", env=environ),
            contextlib.closing(UnixConnection(path)) as connection,
        ):
            answer = ask(connection, "/who", WHO)
        assert answer["client"] is None
        assert caller == answer["caller"]

    @pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
    def test_a_client_that_resets_its_connection_is_not_taken_for_a_unix_socket(self, loop: str) -> None:
        """Such a client's address is gone when the server asks for it; that must not make it the proxy."""
        with uvicorn("--loop", loop, door="only_unix") as server:
            for _ in range(200):
                with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as stranger:
                    stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    stranger.sendall(b"GET /note HTTP/1.1\r\nhost: x\r\nx-customer-id: acme\r\n\r\n")
            with contextlib.closing(server.connect()) as connection:
                assert ask(connection, "/note", WHO) is None
                notes = ask(connection, "/seen?count=1")["seen"]
        assert {None} == {note["caller"] for _, note in notes}


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=DEADLINE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(DEADLINE)
        self.sock.connect(self._path)
