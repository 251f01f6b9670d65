"""Real threads that come back, wake-ups that are not lost, and real sockets with and without TLS."""

from __future__ import annotations

import contextlib
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from kwai_middleware import _native as native
from kwai_middleware._delivery.native_http import NativeConnection
from kwai_middleware._delivery.native_tls import TLSSocket
from kwai_middleware._delivery.worker import Worker
from tests.support.paces import Counting
from tests.support.processes import DEADLINE, free_port
from tests.support.raw_server import Connection, RawServer, raw_server


class Vendor:
    """The client's trust and the server's proof."""

    def __init__(self) -> None:
        authority = trustme.CA()
        self.trust = ssl.create_default_context()
        authority.configure_trust(self.trust)
        self.proof = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self.proof)


@pytest.fixture(scope="module")
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
def echo(vendor: Vendor) -> Iterator[RawServer]:
    """A TLS server that answers each request with its body, and closes when asked to."""

    def serve(connection: Connection) -> None:
        with vendor.proof.wrap_socket(connection.sock, server_side=True) as tls:
            inner = Connection(tls)
            while True:
                head, body = inner.request()
                inner.send(
                    b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%s\r\n"
                    % (len(body), CLOSE if CLOSE.strip() in head else b"")
                )
                inner.send(body)
                if CLOSE.strip() in head:
                    return

    with raw_server(serve) as server:
        yield server


CLOSE = b"connection: close\r\n"


def test_a_ring_before_the_sleep_is_not_lost() -> None:
    """Who rings first and who sleeps first does not matter, and many rings are one."""
    bell = native.Doorbell()
    for _ in range(3):
        bell.ring()
    bell.wait(None)
    bell.wait(0)
    bell.wait(-1)
    threading.Timer(0.01, bell.ring).start()
    bell.wait(DEADLINE)
    bell.ring()
    bell.wait_in_app(DEADLINE)
    bell.wait_in_app(0)


def test_our_threads_can_be_named_traced_and_profiled() -> None:
    """What `threading` arranges for its own threads, debuggers and profilers find in ours too."""
    seen: list[Any] = []

    def hook(*_: Any) -> None:
        return None

    def look() -> None:
        seen.extend([threading.current_thread().name, sys.gettrace(), sys.getprofile()])
        sys.settrace(trace)
        sys.setprofile(None)

    trace, profile = threading.gettrace(), threading.getprofile()
    threading.settrace(hook)
    threading.setprofile(hook)
    try:
        thread = threading.Thread(target=native._named, args=(look, "kwai-test"))
        thread.start()
        thread.join()
    finally:
        threading.settrace(trace)  # type: ignore[arg-type]  # None takes it off again
        threading.setprofile(profile)
    assert ["kwai-test", hook, hook] == seen


def test_a_worker_runs_once_at_a_time_and_comes_back_when_it_dies(nothing_is_swallowed: list[BaseException]) -> None:
    """Asked for twice it runs once; dead of an error it begins anew, counted; done, it can be asked for again."""
    ended = threading.Semaphore(0)
    go_on = threading.Event()
    runs: list[int] = []

    def run() -> None:
        runs.append(len(runs))
        if len(runs) <= 2:
            raise MemoryError
        assert go_on.wait(DEADLINE)

    worker = Worker("kwai-test", run, ended.release)
    assert not worker.running
    assert worker.ensure()
    assert worker.ensure()
    assert worker.running
    borrowed: list[str] = []
    worker.borrow(lambda: borrowed.append("while it runs"))
    go_on.set()
    assert ended.acquire(timeout=DEADLINE)
    assert ([0, 1, 2], 2) == (runs, worker.restarts)
    assert 2 == len(nothing_is_swallowed)
    nothing_is_swallowed.clear()
    worker.borrow(lambda: borrowed.append("afterwards"))
    assert ["afterwards"] == borrowed
    assert ended.acquire(timeout=DEADLINE)
    assert worker.ensure()
    assert ended.acquire(timeout=DEADLINE)
    assert 4 == len(runs)


def tls_connection(vendor: Vendor, port: int) -> NativeConnection:
    """A connection over the TLS that stands in for the one that gevent has patched."""
    connection = NativeConnection("localhost", port, DEADLINE)
    connection.connect()
    connection.sock = TLSSocket(connection.sock, vendor.trust, "localhost")  # type: ignore[arg-type]  # it is one
    return connection


def exchange(connection: NativeConnection, /, *body: bytes, **headers: str) -> bytes:
    """Send a request and read its answer."""
    connection.request("POST", "/", body, headers)
    with connection.getresponse() as response:
        return response.read()


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
def test_tls_over_a_real_socket_carries_any_size(vendor: Vendor, echo: RawServer, size: int) -> None:
    """What is sent comes back whole, request after request on the same connection."""
    connection = tls_connection(vendor, echo.port)
    for _ in range(2):
        assert b"x" * size == exchange(connection, b"x" * size)
        assert not native.is_readable(connection.sock)
    connection.close()
    connection.close()


@pytest.mark.parametrize("pieces", [(b"a",) * 1000, (b"a" * 3000,) * 70, (b"", b"a" * 200_000, b"b"), ()])
def test_a_body_in_pieces_arrives_whole(vendor: Vendor, echo: RawServer, pieces: tuple[bytes, ...]) -> None:
    """Small pieces and large ones, with TLS and without: the server sees one body."""
    connection = NativeConnection("localhost", echo.port, DEADLINE, vendor.trust)
    connection.connect()
    assert b"".join(pieces) == exchange(connection, *pieces)
    connection.close()


@pytest.mark.parametrize(("size", "rests"), [(60_000, 0), (1_000_000, 15)])
def test_a_large_body_goes_out_bit_by_bit(vendor: Vendor, echo: RawServer, size: int, rests: int) -> None:
    """The app has its turn in between, and so has whatever receives it; a small body goes at once."""
    connection = NativeConnection("localhost", echo.port, DEADLINE, vendor.trust)
    connection.connect()
    body = bytes(range(250)) * (size // 250)
    with Counting() as counting:
        assert body == exchange(connection, body)
    connection.close()
    assert rests <= counting.moments
    assert bool(rests) == bool(counting.moments)


def test_an_answer_that_ends_the_connection_is_read_to_its_end(vendor: Vendor, echo: RawServer) -> None:
    """The end of the stream is an end."""
    connection = tls_connection(vendor, echo.port)
    assert b"abc" == exchange(connection, b"abc", connection="close")
    assert native.is_readable(connection.sock)
    connection.close()


def test_a_stream_that_is_cut_is_at_its_end(vendor: Vendor) -> None:
    """A server that goes away without a word of TLS leaves nothing to wait for."""

    def serve(connection: Connection) -> None:
        with vendor.proof.wrap_socket(connection.sock, server_side=True) as tls:
            tls.recv(1)

    with raw_server(serve) as server:
        sock = socket.create_connection(("localhost", server.port), DEADLINE)
        secure = TLSSocket(sock, vendor.trust, "localhost")
        assert 1 == secure.send(memoryview(b"x"))
        assert 0 == secure.recv_into(bytearray(10))
        secure.close()


def test_the_proof_must_be_for_the_right_name(vendor: Vendor, echo: RawServer) -> None:
    """A good certificate of another server is none; the socket is closed at once."""
    with pytest.raises(ssl.SSLCertVerificationError):
        NativeConnection("127.0.0.1", echo.port, DEADLINE, vendor.trust).connect()
    with socket.create_connection(("127.0.0.1", echo.port)) as sock:
        with pytest.raises(ssl.SSLCertVerificationError):
            TLSSocket(sock, vendor.trust, "127.0.0.1")
        assert -1 == sock.fileno()


def test_a_tunnel_leads_to_the_name_behind_it(vendor: Vendor, echo: RawServer) -> None:
    """Through a proxy, TLS is with the server behind it."""

    def serve(connection: Connection) -> None:
        head, _ = connection.request()
        assert head.startswith(b"CONNECT localhost:443 ")
        with socket.create_connection(("localhost", echo.port)) as onward:
            connection.send(b"HTTP/1.1 200 OK\r\n\r\n")

            def back() -> None:
                with contextlib.suppress(OSError):
                    while data := onward.recv(65536):
                        connection.send(data)

            answers = threading.Thread(target=back)
            answers.start()
            while data := connection.sock.recv(65536):
                onward.sendall(data)
            onward.shutdown(socket.SHUT_RDWR)
            answers.join()

    with raw_server(serve) as proxy:
        connection = NativeConnection("127.0.0.1", proxy.port, DEADLINE, vendor.trust)
        connection.set_tunnel("localhost", 443, {})
        connection.connect()
        assert b"through" == exchange(connection, b"through")
        connection.close()


def test_a_step_ends_when_its_time_is_over(vendor: Vendor, echo: RawServer) -> None:
    """Also one that makes progress all along: nothing is begun when the time is over."""
    connection = NativeConnection("localhost", echo.port, DEADLINE, vendor.trust)
    connection.connect()
    connection.timeout = 0.0
    with pytest.raises(TimeoutError):
        connection.request("POST", "/", (b"",), {})
    with pytest.raises(TimeoutError):
        connection.getresponse()
    connection.close()


def test_nobody_there_is_an_os_error() -> None:
    """The error of the last address that was tried is the one that is raised."""
    with pytest.raises(ConnectionRefusedError):
        native.connect("localhost", free_port(), time.monotonic() + DEADLINE)


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """A port at which, on any loopback address, no connection comes about and none is refused."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("", free_port()))
        listener.listen(0)
        port: int = listener.getsockname()[1]
        while True:
            filler = stack.enter_context(socket.socket())
            filler.settimeout(0.05)
            try:
                filler.connect(("127.0.0.1", port))
            except TimeoutError:
                break
        yield port


def loopback(number: int, port: int) -> tuple[Any, ...]:
    """One of the many addresses of loopback, as a resolver would tell it."""
    return socket.AF_INET, socket.SOCK_STREAM, 0, "", (f"127.0.0.{number}", port)


def test_many_addresses_that_are_silent_take_no_longer_than_one() -> None:
    """The time to connect is that of all addresses together."""
    with silent_port() as port:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            native.connect_to_one([loopback(number, port) for number in range(1, 41)], began + 0.4)
        assert 0.4 * 10 > time.monotonic() - began


def test_an_address_that_is_silent_leaves_time_to_the_next_one(echo: RawServer) -> None:
    """Where the first address leads nowhere, as one of IPv6 may, the second one has its chance."""
    with silent_port() as port:
        addresses = [loopback(1, port), loopback(1, echo.port)]
        with native.connect_to_one(addresses, time.monotonic() + 1.0) as connection:
            assert ("127.0.0.1", echo.port) == connection.getpeername()


def test_when_the_time_is_over_no_address_is_tried(echo: RawServer) -> None:
    """Looking up the name may have taken all of it."""
    with pytest.raises(TimeoutError):
        native.connect("localhost", echo.port, time.monotonic())
    with pytest.raises(OSError, match="no address"):
        native.connect_to_one([], time.monotonic() + DEADLINE)


def test_a_thread_of_ours_handles_no_signal() -> None:
    """A handler in C, such as that by which a uWSGI worker ends, never runs on it; the app keeps its own mask."""
    masks: list[set[int]] = []
    done = threading.Event()

    def look() -> None:
        masks.append({int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())})
        done.set()

    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    try:
        native.start_thread(look, "kwai-looking")
        assert done.wait(DEADLINE)
        assert {signal.SIGUSR2} == signal.pthread_sigmask(signal.SIG_BLOCK, ()) - before
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGALRM, signal.SIGUSR1} <= masks[0]
    assert not {signal.SIGSEGV, signal.SIGABRT} & masks[0]
