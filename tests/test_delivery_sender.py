"""One post to the logs API: what goes out, and that every way for it to go wrong has a verdict."""

from __future__ import annotations

import datetime
import ssl
import threading
import time
from pathlib import Path

import pytest
import trustme

from kwai_middleware._delivery.sender import Sender
from kwai_middleware._delivery.verdict import Fate, Verdict
from kwai_middleware._secret import Secret
from tests.support.processes import free_port
from tests.support.raw_server import Connection, raw_server

KEY = Secret("the-app-key-itself")
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


def sent(server_url: str, timeout: float = 20.0) -> Verdict:
    """Send one record to a server with a fresh connection."""
    sender = Sender(f"{server_url}/api", KEY)
    try:
        return sender.send(b'{"model":"m"}', timeout)
    finally:
        sender.close()


def test_what_goes_out() -> None:
    """One POST with the record as it is, the app's key as bearer, and no wish for a compressed answer."""
    requests: list[tuple[bytes, bytes]] = []

    def serve(connection: Connection) -> None:
        requests.append(connection.request())
        connection.send(OK)

    with raw_server(serve) as server:
        assert Verdict(Fate.DELIVERED) == sent(server.url)
    [(head, body)] = requests
    lines = head.decode().lower().split("\r\n")
    assert "post /api/request-logs/create/ http/1.1" == lines[0]
    assert {
        f"host: 127.0.0.1:{server.port}",
        "authorization: bearer the-app-key-itself",
        "content-type: application/json",
        "accept: application/json",
        "accept-encoding: identity",
        "user-agent: kwai-middleware",
        "content-length: 13",
    } == set(lines[1:])
    assert b'{"model":"m"}' == body


def test_a_connection_is_used_again_until_it_is_closed() -> None:
    """Records share a connection; after `close` the next one opens another."""
    connections: list[Connection] = []

    def serve(connection: Connection) -> None:
        connections.append(connection)
        while True:
            connection.request()
            connection.send(OK)

    with raw_server(serve) as server:
        sender = Sender(f"{server.url}/api", KEY)
        for _ in range(3):
            assert Fate.DELIVERED is sender.send(b"{}", 20.0).fate
        assert 1 == len(connections)
        sender.close()
        sender.close()
        assert Fate.DELIVERED is sender.send(b"{}", 20.0).fate
        assert 2 == len(connections)
        sender.close()


def test_a_connection_that_the_vendor_closed_in_between_is_no_failure() -> None:
    """A kept connection that has been closed meanwhile is replaced, not reported."""
    closed = threading.Event()

    def serve(connection: Connection) -> None:
        connection.request()
        connection.send(OK)
        connection.sock.close()
        closed.set()

    with raw_server(serve) as server:
        sender = Sender(f"{server.url}/api", KEY)
        assert Fate.DELIVERED is sender.send(b"{}", 20.0).fate
        assert closed.wait(20)
        assert Fate.DELIVERED is sender.send(b"{}", 20.0).fate
        sender.close()


def test_a_huge_answer_is_not_read() -> None:
    """Of ten megabytes a few kilobytes are taken; the status was all that mattered."""
    sent_bytes = 0
    left = threading.Event()

    def serve(connection: Connection) -> None:
        nonlocal sent_bytes
        connection.request()
        connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10485760\r\n\r\n")
        try:
            for _ in range(160):
                connection.send(b"x" * 65536)
                sent_bytes += 65536
        finally:
            left.set()

    with raw_server(serve) as server:
        assert Fate.DELIVERED is sent(server.url).fate
        assert left.wait(20)
    assert sent_bytes < 10485760


def test_an_answer_that_trickles_does_not_hold_the_thread() -> None:
    """A body that comes byte by byte, each in time, is left when the time of the whole is over."""

    def serve(connection: Connection) -> None:
        connection.request()
        connection.send(b"HTTP/1.1 503 No\r\ncontent-length: 5000\r\n\r\n")
        while True:
            connection.send(b"x")
            time.sleep(0.02)  # the trickle itself, not a wait for something

    with raw_server(serve) as server:
        assert Verdict(Fate.FAILED, "HTTP 503") == sent(server.url, 0.2)


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(b"", id="closes"),
        pytest.param(b"\x00\x01garbage\r\n\r\n", id="garbage"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{}", id="half a body"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000, id="endless header"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", id="bad chunk"),
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", id="another protocol"),
    ],
)
def test_what_is_no_answer_is_a_failure_to_be_tried_again(reply: bytes) -> None:
    """Garbage, half an answer, nothing at all: the record is kept, and the reason says what was seen."""

    def serve(connection: Connection) -> None:
        connection.request()
        connection.send(reply)

    with raw_server(serve) as server:
        verdict = sent(server.url)
    assert Fate.FAILED is verdict.fate
    assert verdict.reason
    assert "the-app-key-itself" not in verdict.reason


def test_a_reset_is_a_failure_to_be_tried_again() -> None:
    """A connection that is torn down mid-way keeps the record."""
    with raw_server(lambda connection: (connection.head(), connection.reset())[0] and None) as server:
        assert Fate.FAILED is sent(server.url).fate


def test_nobody_there_is_a_failure_to_be_tried_again() -> None:
    """A refused connection keeps the record."""
    verdict = sent(f"http://127.0.0.1:{free_port()}")
    assert Fate.FAILED is verdict.fate
    assert verdict.reason.startswith("ConnectError: ")


def test_a_name_that_nobody_has_is_a_failure_to_be_tried_again() -> None:
    """A host that cannot be resolved keeps the record."""
    assert Fate.FAILED is sent("http://nobody.localhost.invalid").fate


def test_one_who_accepts_and_never_answers_is_left() -> None:
    """The wait for an answer ends with the time-out."""
    with raw_server(lambda connection: connection.wait_until_closed()) as server:
        verdict = sent(server.url, 0.2)
    assert (Fate.FAILED, True) == (verdict.fate, verdict.reason.startswith("ReadTimeout"))


def test_a_redirect_is_not_followed() -> None:
    """The record and the key stay where they were meant to go."""
    elsewhere: list[Connection] = []
    with raw_server(elsewhere.append) as other:
        reply = f"HTTP/1.1 307 Go\r\nlocation: {other.url}/x\r\ncontent-length: 0\r\n\r\n".encode()

        def serve(connection: Connection) -> None:
            connection.request()
            connection.send(reply)

        with raw_server(serve) as server:
            assert Verdict(Fate.REFUSED, "HTTP 307") == sent(server.url)
    assert [] == elsewhere


def test_the_app_log_stays_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """A record sent is no line in the log of an app that logs everything at info."""

    def serve(connection: Connection) -> None:
        connection.request()
        connection.send(OK)

    caplog.set_level("INFO")
    with raw_server(serve) as server:
        assert Fate.DELIVERED is sent(server.url).fate
    assert [] == caplog.messages


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that nobody has signed, with its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    authority = trustme.CA()
    authority.issue_cert(
        "127.0.0.1", not_after=datetime.datetime(2035, 1, 1)
    ).private_key_and_cert_chain_pem.write_to_path(path)
    return path


def test_a_certificate_that_nobody_signed_is_a_failure_to_be_tried_again(certificate: Path) -> None:
    """Without a proof of who answers, nothing of the record or the key is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    received: list[bytes] = []

    def serve(connection: Connection) -> None:
        with context.wrap_socket(connection.sock, server_side=True) as tls:
            received.append(tls.recv(100))

    with raw_server(serve) as server:
        verdict = sent(server.url.replace("http:", "https:"))
    assert Fate.FAILED is verdict.fate
    assert "certificate verify failed" in verdict.reason.lower()
    assert [] == [data for data in received if data]


@pytest.mark.parametrize("with_scheme", [True, False], ids=["url", "host and port"])
@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy"])
def test_the_proxy_of_the_environment_is_used(
    monkeypatch: pytest.MonkeyPatch, variable: str, with_scheme: bool
) -> None:
    """Records leave a network the way that everything else leaves it."""
    heads: list[bytes] = []

    def serve(connection: Connection) -> None:
        heads.append(connection.request()[0])
        connection.send(OK)

    with raw_server(serve) as proxy:
        monkeypatch.setenv(variable, proxy.url if with_scheme else f"127.0.0.1:{proxy.port}")
        assert Fate.DELIVERED is sent("http://logs.example.invalid").fate
    assert b"POST http://logs.example.invalid/api/request-logs/create/ HTTP/1.1" == heads[0].split(b"\r\n")[0]


def test_no_proxy_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment exempts is reached directly."""

    def serve(connection: Connection) -> None:
        connection.request()
        connection.send(OK)

    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    with raw_server(serve) as server:
        assert Fate.DELIVERED is sent(server.url).fate
