"""Flask under gunicorn, as a real process: each request sees its own caller, and no thread keeps one."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import DEADLINE, UNMEASURED, free_port, running
from tests.support.reverse_proxy import nginx

KEY = "sk-or-v1-0123456789abcdef"
NOBODY = {"caller": None, "logged": None, "key": None}
ACME = {"caller": "acme", "logged": "acme", "key": None}
WHO = {"X-Customer-Id": "acme"}
THREADS = 4


@contextlib.contextmanager
def gunicorn(*options: str, bind: str | None = None, ready: str | None = None, **environ: str) -> Iterator[int]:
    """Run the app with a few threads, which serve all requests by turns; gives the port."""
    port = free_port()
    argv = [
        "-m",
        "gunicorn",
        "tests.apps.who_wsgi:app",
        "--bind",
        bind or f"127.0.0.1:{port}",
        "--worker-class",
        "gthread",
    ]
    argv += ["--threads", str(THREADS), "--keep-alive", "60", *options]
    with running(argv, ready=ready or f"http://127.0.0.1:{port}/who", env={**UNMEASURED, **environ}):
        yield port


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Where the app listens."""
    with gunicorn() as listening:
        yield listening


@contextlib.contextmanager
def connect(port: int) -> Iterator[http.client.HTTPConnection]:
    """A connection of one's own."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)) as connection:
        yield connection


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


def seen(port: int, count: int) -> Any:
    """What the app has noted."""
    with connect(port) as connection:
        answer = ask(connection, f"/seen?count={count}")
        assert NOBODY == answer["now"]
        return answer["seen"]


def test_requests_see_their_own_caller(port: int) -> None:
    """Twice as many connections as threads, with and without headers: each request sees its own caller."""

    def customer(number: int) -> None:
        for turn in range(20):
            with connect(port) as connection:
                mine = f"customer-{number}-{turn}"
                headers = {"x-customer-id": mine, "x-openrouter-key": f"sk-{mine}"} if turn % 3 else {}
                expected = {"caller": mine, "logged": mine, "key": f"sk-{mine}"} if turn % 3 else NOBODY
                answer = ask(connection, "/who", headers, b"x" * 200_000 if turn % 5 == 0 else None)
                assert expected == of(answer)
                assert [] == answer["key_headers"]
                assert NOBODY == of(ask(connection, "/who"))

    with ThreadPoolExecutor(2 * THREADS) as executor:
        list(executor.map(customer, range(2 * THREADS)))
    assert [] == seen(port, 0)


@pytest.mark.parametrize("where", ["", "&elsewhere"])
def test_a_stream_read_to_its_end_has_its_caller(port: int, where: str) -> None:
    """Each step of a streamed view, its end and its close run for the caller, on whatever thread they are taken."""
    with connect(port) as connection:
        connection.request("GET", f"/stream?steps=5{where}", headers=WHO)
        with connection.getresponse() as response:
            assert response.read() == b"acme " * 5
    assert [["stream ended", ACME], ["closed", ACME]] == seen(port, 2)


@pytest.mark.parametrize("where", ["", "&elsewhere"])
def test_a_stream_half_read_has_its_caller(port: int, where: str) -> None:
    """A client that goes away ends the stream and closes it for the caller, and leaves nobody on any thread."""
    with connect(port) as connection:
        connection.request("GET", f"/stream?steps=100000{where}", headers=WHO)
        with connection.getresponse() as response:
            assert {b"acme"} == set(response.read(100_000).split()[:-1])
    assert [["stream ended", ACME], ["closed", ACME]] == sorted(seen(port, 2), reverse=True)


@pytest.mark.parametrize("where", ["", "&elsewhere"])
def test_a_stream_never_read_has_its_caller(port: int, where: str) -> None:
    """HEAD: what the view returned is closed for the caller."""
    with connect(port) as connection:
        connection.request("HEAD", f"/stream?steps=5{where}", headers=WHO)
        with connection.getresponse() as response:
            assert response.read() == b""
    assert [["closed", ACME]] == seen(port, 1)


def test_an_exception_in_a_view_leaves_nobody(port: int) -> None:
    """After a view that fails, the threads serve others as nobody's."""
    for _ in range(2 * THREADS):
        with connect(port) as connection:
            connection.request("GET", "/boom", headers=WHO)
            with connection.getresponse() as response:
                response.read()
                assert response.status == 500
    with ThreadPoolExecutor(THREADS) as executor:

        def anonymous(_: int) -> Any:
            with connect(port) as connection:
                return of(ask(connection, "/who"))

        assert [NOBODY] * 16 == list(executor.map(anonymous, range(16)))
    assert [["view", ACME]] * (2 * THREADS) == seen(port, 2 * THREADS)


def test_two_headers_of_one_name_are_refused(port: int) -> None:
    """Gunicorn joins them with a comma; it is 400 and not one customer with a strange name."""
    with connect(port) as connection:
        connection.putrequest("GET", "/who")
        connection.putheader("x-customer-id", "acme")
        connection.putheader("x-customer-id", "beta")
        connection.endheaders()
        with connection.getresponse() as response:
            assert response.status == 400
            assert json.loads(response.read())["header"] == "x-customer-id"


def test_a_malformed_key_is_refused(port: int) -> None:
    """Over a real connection: 400, and not the app's own key."""
    with connect(port) as connection:
        connection.request("GET", "/who", headers={"x-openrouter-key": "two words"})
        with connection.getresponse() as response:
            assert response.status == 400
            assert json.loads(response.read())["header"] == "x-openrouter-key"


class TestPeers:
    """What gunicorn tells of the peer."""

    def test_a_local_proxy_is_believed_unless_its_client_could_be_it(self, port: int) -> None:
        """Gunicorn shows the connection's own address; a header that names the same one casts doubt on it."""
        with connect(port) as connection:
            answer = ask(connection, "/who", {**WHO, "x-forwarded-for": "203.0.113.9"})
            assert answer["client"][0] == "127.0.0.1"
            assert answer["caller"] == "acme"
            assert ask(connection, "/who", {**WHO, "x-forwarded-for": "127.0.0.1:9"})["caller"] is None

    def test_a_stranger_is_not_believed(self) -> None:
        """A peer that is not listed is nobody's proxy."""
        with gunicorn(KWAI_TEST_PEERS="10.0.0.0/8") as other, connect(other) as connection:
            assert ask(connection, "/who", WHO)["caller"] is None

    @pytest.mark.parametrize(("peers", "caller"), [("127.0.0.1", None), ("unix 10.0.0.1", "acme")])
    def test_a_unix_socket_is_believed_when_it_is_written(self, tmp_path: Path, peers: str, caller: str | None) -> None:
        """On a unix socket there is no address; only the word for it matches."""
        path = str(tmp_path / "app.sock")
        with nginx("", {}, path) as url, gunicorn(bind=f"unix:{path}", ready=f"{url}/who", KWAI_TEST_PEERS=peers):
            connection = http.client.HTTPConnection("localhost", timeout=DEADLINE)
            connection.sock = socket.socket(socket.AF_UNIX)
            with contextlib.closing(connection):
                connection.sock.settimeout(DEADLINE)
                connection.sock.connect(path)
                answer = ask(connection, "/who", WHO)
        assert answer["client"][0] == ""
        assert caller == answer["caller"]
