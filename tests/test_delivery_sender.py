"""One post to the logs API: what goes out, and that every way for it to go wrong has a verdict."""

from __future__ import annotations

import base64
import datetime
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from kwai_middleware._delivery.sender import Sender
from kwai_middleware._delivery.verdict import Fate, Verdict
from kwai_middleware._delivery.way import way_to
from kwai_middleware._secret import Secret
from tests.support.exposure import exposures
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
        pytest.param(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000, id="endless header"),
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


@pytest.mark.parametrize("framing", ["content-length: 50", "transfer-encoding: chunked", "x-y: z"])
def test_a_success_without_its_end_is_a_success(framing: str) -> None:
    """The status says that the vendor has the record; a body that breaks off is no reason to send it twice."""
    connections = 0

    def serve(connection: Connection) -> None:
        nonlocal connections
        connections += 1
        connection.request()
        connection.send(f"HTTP/1.1 201 OK\r\n{framing}\r\n\r\n2\r\n{{}}\r\n".encode())

    with raw_server(serve) as server:
        sender = Sender(f"{server.url}/api", KEY)
        assert [Fate.DELIVERED] * 2 == [sender.send(b"{}", 20.0).fate for _ in range(2)]
        sender.close()
    assert 2 == connections


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (OK, 1),
        (b"HTTP/1.1 204 OK\r\n\r\n", 1),
        (b"HTTP/1.1 201 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 1),
        (b"HTTP/1.1 422 No\r\ncontent-length: 6000\r\n\r\n" + b"x" * 6000, 1),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}", 3),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}", 3),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n" + b"x" * 60000, 3),
    ],
    ids=["length", "no content", "chunked", "refusal", "close", "old", "long"],
)
def test_a_connection_is_kept_where_the_answer_allows_it(reply: bytes, expected: int) -> None:
    """Every short answer read to its end leaves the connection for the next record."""
    connections = 0

    def serve(connection: Connection) -> None:
        nonlocal connections
        connections += 1
        while True:
            connection.request()
            connection.send(reply)

    with raw_server(serve) as server:
        sender = Sender(f"{server.url}/api", KEY)
        assert 1 == len({sender.send(b"{}", 20.0).fate for _ in range(3)})
        sender.close()
    assert expected == connections


def test_a_reset_is_a_failure_to_be_tried_again() -> None:
    """A connection that is torn down mid-way keeps the record."""
    with raw_server(lambda connection: (connection.head(), connection.reset())[0] and None) as server:
        assert Fate.FAILED is sent(server.url).fate


def test_nobody_there_is_a_failure_to_be_tried_again() -> None:
    """A refused connection keeps the record."""
    verdict = sent(f"http://127.0.0.1:{free_port()}")
    assert (Fate.FAILED, False) == (verdict.fate, verdict.is_connected)
    assert verdict.reason.startswith("ConnectionRefusedError: ")


@pytest.mark.parametrize("name", ["nobody.localhost.invalid", "no..name", "x" * 300])
def test_a_name_that_nobody_has_is_a_failure_to_be_tried_again(name: str) -> None:
    """A host that cannot be resolved keeps the record."""
    verdict = sent(f"http://{name}")
    assert (Fate.FAILED, False) == (verdict.fate, verdict.is_connected)


def test_one_who_accepts_and_never_answers_is_left() -> None:
    """The wait for an answer ends with the time-out."""
    with raw_server(lambda connection: connection.wait_until_closed()) as server:
        verdict = sent(server.url, 0.2)
    assert (Fate.FAILED, True) == (verdict.fate, verdict.reason.startswith("TimeoutError"))
    assert verdict.is_connected


def test_headers_that_trickle_do_not_hold_the_thread() -> None:
    """An answer that never gets to its body, each byte in time, is left when the time of the whole is over."""

    def serve(connection: Connection) -> None:
        connection.request()
        connection.send(b"HTTP/1.1 200 OK\r\nx-y: ")
        while True:
            connection.send(b"z")
            time.sleep(0.02)  # the trickle itself, not a wait for something

    with raw_server(serve) as server:
        verdict = sent(server.url, 0.2)
    assert (Fate.FAILED, True) == (verdict.fate, verdict.reason.startswith("TimeoutError"))


def test_an_announcement_is_not_taken_for_the_end() -> None:
    """A 1xx that is none of ours ends the connection: what follows it would be the answer to the next record."""
    replies = [b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n", OK]

    def serve(connection: Connection) -> None:
        connection.request()
        connection.send(replies.pop(0))
        connection.wait_until_closed()

    with raw_server(serve) as server:
        sender = Sender(f"{server.url}/api", KEY)
        assert [Fate.FAILED, Fate.DELIVERED] == [sender.send(b"{}", 20.0).fate for _ in range(2)]
        sender.close()


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


@pytest.fixture
def api_of_one() -> Iterator[str]:
    """A base URL whose server takes everything."""

    def serve(connection: Connection) -> None:
        while True:
            connection.request()
            connection.send(OK)

    with raw_server(serve) as server:
        yield f"{server.url}/api"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate that nobody has signed, with its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    authority = trustme.CA()
    authority.cert_pem.write_to_path(path.with_name("authority.pem"))
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
    assert (Fate.FAILED, False) == (verdict.fate, verdict.is_connected)
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


def test_a_tunnel_through_a_proxy(monkeypatch: pytest.MonkeyPatch, certificate: Path, tmp_path: Path) -> None:
    """A record for https goes through the proxy in a tunnel: it sees the host and its own password, not the key."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    outside: list[bytes] = []
    inside: list[bytes] = []

    def serve(connection: Connection) -> None:
        outside.append(connection.request()[0])
        connection.send(b"HTTP/1.1 200 Connected\r\n\r\n")
        with context.wrap_socket(connection.sock, server_side=True) as tls:
            tunnel = Connection(tls)
            while True:
                inside.append(tunnel.request()[0])
                tunnel.send(OK)

    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_name("authority.pem")))
    with raw_server(serve) as proxy:
        monkeypatch.setenv("https_proxy", f"http://na%40me:pass@127.0.0.1:{proxy.port}")
        sender = Sender("https://127.0.0.1/api", KEY)
        assert [Fate.DELIVERED] * 2 == [sender.send(b"{}", 20.0).fate for _ in range(2)]
        sender.close()
    [head] = outside
    assert head.startswith(b"CONNECT 127.0.0.1:443 HTTP/1.")
    assert b"proxy-authorization: Basic " + base64.b64encode(b"na@me:pass") in head
    assert b"the-app-key-itself" not in head
    assert [True, True] == [b"authorization: Bearer the-app-key-itself" in head for head in inside]
    assert [False, False] == [b"proxy-authorization" in head for head in inside]


def test_a_proxy_that_opens_no_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the record or the key is said to it; what it answers is the reason."""
    received: list[bytes] = []

    def serve(connection: Connection) -> None:
        received.append(connection.request()[0])
        connection.send(b"HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n")
        received.append(connection.sock.recv(1))

    with raw_server(serve) as proxy:
        monkeypatch.setenv("https_proxy", proxy.url)
        verdict = sent("https://[::1]:8443")
    assert Verdict(Fate.FAILED, "OSError: the proxy opens no tunnel: HTTP 407", is_connected=False) == verdict
    assert [b"CONNECT [::1]:8443 HTTP/1.1\r\nhost: [::1]:8443", b""] == received


def test_a_password_of_a_plain_proxy_goes_with_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user name alone, too, is what the proxy gets."""
    heads: list[bytes] = []

    def serve(connection: Connection) -> None:
        heads.append(connection.request()[0])
        connection.send(OK)

    with raw_server(serve) as proxy:
        monkeypatch.setenv("http_proxy", f"http://name@127.0.0.1:{proxy.port}")
        assert Fate.DELIVERED is sent("http://logs.example.invalid").fate
    assert b"proxy-authorization: Basic " + base64.b64encode(b"name:") in heads[0]


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("socks5://127.0.0.1:1", "a proxy that is not an http:// one"),
        ("https://127.0.0.1:1", "a proxy that is not an http:// one"),
        ("http://127.0.0.1:port", "a proxy that is no URL"),
        ("http://[127.0.0.1", "a proxy that is no URL"),
    ],
)
def test_a_proxy_that_cannot_be_spoken_to_is_named_as_the_reason(
    monkeypatch: pytest.MonkeyPatch, proxy: str, words: str
) -> None:
    """Records wait, and `last_error` says what is in the way."""
    monkeypatch.setenv("http_proxy", proxy)
    verdict = sent("http://logs.example.invalid")
    assert (Fate.FAILED, False) == (verdict.fate, verdict.is_connected)
    assert words in verdict.reason


def test_an_ip_address_of_the_newer_kind_is_a_host() -> None:
    """`http://[::1]:8700/api` is a base URL like any other."""
    way = way_to("http://[::1]/api/request-logs/create/", 1.0)
    assert ("::1", 80, "/api/request-logs/create/") == (way.connection.host, way.connection.port, way.target)


def test_an_unforeseen_error_closes_the_connection_and_goes_on(api_of_one: str) -> None:
    """What is nobody's network error is not swallowed here, and leaves nothing half sent behind."""
    sender = Sender(api_of_one, KEY)
    with pytest.raises(TypeError):
        sender.send({"not": "bytes"}, 20.0)  # type: ignore[arg-type]  # the point of the test
    assert Fate.DELIVERED is sender.send(b"{}", 20.0).fate
    sender.close()


@pytest.mark.parametrize("timeout", [20.0, "no number"])
def test_an_unforeseen_error_shows_no_key(api_of_one: str, timeout: Any) -> None:
    """An error reporter that takes the locals of every frame with it does not get the app's key."""
    sender = Sender(api_of_one, KEY)
    assert Fate.DELIVERED is sender.send(b"{}", 20.0).fate
    with pytest.raises(TypeError) as caught:
        sender.send(b"{}" if timeout == "no number" else {"not": "bytes"}, timeout)  # type: ignore[arg-type]
    assert [] == exposures(caught.value, KEY.reveal(), below="send")
    sender.close()


def test_a_connection_that_was_idle_for_long_is_not_trusted(api_of_one: str) -> None:
    """Something on the way may have forgotten it without a word."""
    sender = Sender(api_of_one, KEY)
    assert Fate.DELIVERED is sender.send(b"{}", 20.0).fate
    first = sender._way
    sender._used_at -= 3600.0
    assert Fate.DELIVERED is sender.send(b"{}", 20.0).fate
    assert first is not sender._way
    sender.close()


def test_a_late_answer_is_not_taken_for_the_next_one() -> None:
    """After a time-out the next record goes over a fresh connection, and gets its own answer."""
    connections: list[Connection] = []

    def serve(connection: Connection) -> None:
        connections.append(connection)
        connection.request()
        if len(connections) == 1:
            connection.wait_until_closed()
        connection.send(OK)

    with raw_server(serve) as server:
        sender = Sender(f"{server.url}/api", KEY)
        assert Fate.FAILED is sender.send(b"{}", 0.1).fate
        assert Fate.DELIVERED is sender.send(b"{}", 20.0).fate
        sender.close()
    assert 2 == len(connections)
