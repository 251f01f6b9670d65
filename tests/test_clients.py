"""The ready clients: every transport in them is wrapped, whatever the options and the environment say."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
import trustme
from hypothesis import example, given
from hypothesis import strategies as st

from kwai_middleware import httpx2_transport, httpx_transport
from kwai_middleware._context import bind_caller
from kwai_middleware._outbound.proxies import environment_proxies, unproxied_routes
from kwai_middleware._route import Route
from kwai_middleware.errors import ConfigurationError
from tests.support.callers import GATEWAY, caller, key_of, settings
from tests.support.flavours import ASYNC_FLAVOURS, Flavour
from tests.support.proxy import forward_proxy
from tests.support.raw_server import Connection, raw_server

PARAMS = {"customer_identifier": "acme"}


class _Gateway(ThreadingHTTPServer):
    """Keeps what arrives at it."""

    daemon_threads = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.bodies: list[Any] = []
        self.scheme = "http"

    @property
    def base(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}/api"


class _Answer(BaseHTTPRequestHandler):
    server: _Gateway

    def do_POST(self) -> None:
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def gateway() -> Iterator[_Gateway]:
    with _Gateway() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def tls_gateway() -> Iterator[tuple[_Gateway, ssl.SSLContext]]:
    authority = trustme.CA()
    with _Gateway() as server:
        server.scheme = "https"
        serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(serving)
        server.socket = serving.wrap_socket(server.socket, server_side=True)
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server, trusting
        server.shutdown()
        thread.join()


def _call(flavour: Flavour, gateway: _Gateway, **options: Any) -> None:
    """One call through a ready client; it must have arrived with the caller's key."""
    client = flavour.client(
        settings=settings(routes=(Route(gateway.base, kind="gateway"),)), deliver=lambda call: None, **options
    )
    with bind_caller(caller()):
        assert 200 == flavour.post(client, f"{gateway.base}/chat/completions", content=b'{"model":"m"}').status_code
    assert [
        {"model": "m", "customer_credentials": {"openrouter": {"api_key": key_of("acme")}}, "customer_params": PARAMS}
    ] == gateway.bodies
    flavour.close(client)


def test_a_plain_client(flavour: Flavour, gateway: _Gateway) -> None:
    """Without any option."""
    _call(flavour, gateway)


def test_a_client_with_a_proxy(flavour: Flavour, gateway: _Gateway) -> None:
    """A client that is given a proxy would never call a transport of its own for proxied URLs."""
    seen: list[str] = []
    with forward_proxy(seen) as proxy:
        _call(flavour, gateway, proxy=proxy.url)
    assert [f"POST {gateway.base}/chat/completions HTTP/1.1"] == seen


def test_a_client_with_the_environments_proxy(
    flavour: Flavour, gateway: _Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that is given a transport would not look at the environment."""
    seen: list[str] = []
    with forward_proxy(seen) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        _call(flavour, gateway)
    assert 1 == len(seen)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "ALL_PROXY"])
def test_no_proxy_elsewhere_gets_a_call_to_this_machine(
    flavour: Flavour, gateway: _Gateway, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """It would get the caller's key in clear over the network, for a server that it cannot even reach."""
    seen: list[str] = []
    with forward_proxy(seen) as proxy:
        monkeypatch.setenv(variable, proxy.url.replace("127.0.0.1", "0.0.0.0"))
        _call(flavour, gateway)
    assert [] == seen


def test_a_tunnel_through_the_environments_proxy(
    flavour: Flavour, tls_gateway: tuple[_Gateway, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    """HTTPS_PROXY, with the TLS settings of the client; the proxy sees the host and nothing of the call."""
    gateway, trusting = tls_gateway
    seen: list[str] = []
    with forward_proxy(seen) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        _call(flavour, gateway, verify=trusting)
    assert [f"CONNECT 127.0.0.1:{gateway.server_port} HTTP/1.1"] == seen


def test_no_proxy_is_obeyed(flavour: Flavour, gateway: _Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host in NO_PROXY is called directly, by a wrapped transport all the same."""
    seen: list[str] = []
    with forward_proxy(seen) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        _call(flavour, gateway)
    assert [] == seen


def test_what_the_library_cannot_read_is_no_mount(
    flavour: Flavour, gateway: _Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry of NO_PROXY that is no host keeps nobody from working."""
    monkeypatch.setenv("NO_PROXY", "a b,☃..,http://[")
    _call(flavour, gateway)


def test_trust_env_off_ignores_the_environment(
    flavour: Flavour, gateway: _Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it does in the library's own client."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    _call(flavour, gateway, trust_env=False)


def test_mounted_transports_are_wrapped(flavour: Flavour, gateway: _Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mount comes before the environment's proxy, and None means no mount."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    _call(flavour, gateway, mounts={"http://": flavour.real_transport_class(), "http://other.example": None})


def test_a_certificate_is_checked_unless_asked_off(
    flavour: Flavour, tls_gateway: tuple[_Gateway, ssl.SSLContext]
) -> None:
    """Verification is the library's default, and only `verify=False` turns it off."""
    gateway, _ = tls_gateway
    with pytest.raises(flavour.library.ConnectError):
        _call(flavour, gateway)
    _call(flavour, gateway, verify=False)


@pytest.mark.parametrize("flavour", ASYNC_FLAVOURS, indirect=True)
def test_more_than_a_hundred_calls_at_a_time(flavour: Flavour) -> None:
    """The libraries' own limit is 100 connections, which an app under load would wait for; `limits` still counts."""
    most = 130
    everybody = threading.Event()
    arrived: list[int] = []

    def handle(connection: Connection) -> None:
        connection.request()
        arrived.append(1)
        if len(arrived) >= most:
            everybody.set()
        everybody.wait(30)
        connection.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")

    async def run() -> None:
        timeout = flavour.library.Timeout(30, pool=20)
        async with flavour.client(settings=settings(), deliver=lambda call: None, timeout=timeout) as client:
            await asyncio.gather(*(client.post(server.url, content=b"{}") for _ in range(most)))

    with raw_server(handle, backlog=most) as server:
        flavour.run(run())
        assert most == len(arrived)
        arrived.clear()
        everybody.clear()
        limits = flavour.library.Limits(max_connections=1)
        with pytest.raises(flavour.library.PoolTimeout):
            flavour.run(_two_with(flavour, server.url, limits))
        everybody.set()


async def _two_with(flavour: Flavour, url: str, limits: Any) -> None:
    """Two calls at once, of which the second does not get a connection."""
    timeout = flavour.library.Timeout(30, pool=0.2)
    options = {"settings": settings(), "deliver": lambda call: None, "timeout": timeout, "limits": limits}
    async with flavour.client(**options) as client:
        await asyncio.gather(*(client.post(url, content=b"{}") for _ in range(2)))


@pytest.mark.parametrize(
    ("option", "protocol"), [({}, "http/1.1"), ({"http2": True}, "h2"), ({"http2": True, "http1": False}, "h2")]
)
def test_http2_is_offered_when_asked_for(flavour: Flavour, option: dict[str, bool], protocol: str) -> None:
    """The options that only a transport knows reach the transports that are built here."""
    authority = trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.set_alpn_protocols(["h2", "http/1.1"])
    authority.issue_cert("127.0.0.1").configure_cert(serving)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    agreed: list[str | None] = []

    def handle(connection: Connection) -> None:
        with serving.wrap_socket(connection.sock, server_side=True) as secure:
            agreed.append(secure.selected_alpn_protocol())

    with raw_server(handle) as server:
        client = flavour.client(settings=settings(), deliver=lambda call: None, verify=trusting, **option)
        with pytest.raises(flavour.library.TransportError):
            flavour.post(client, f"https://127.0.0.1:{server.port}/")
        flavour.close(client)
    assert [protocol] == agreed


@pytest.mark.filterwarnings("ignore:`cert=...` is deprecated:DeprecationWarning")
def test_a_client_certificate_is_shown(flavour: Flavour, tmp_path: Path) -> None:
    """`cert` reaches the transport too: the server that demands one lets the call in."""
    authority = trustme.CA()
    own = authority.issue_cert("client.example")
    own.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "client.pem"))
    with _Gateway() as server:
        serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        serving.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(serving)
        authority.issue_cert("127.0.0.1").configure_cert(serving)
        server.scheme = "https"
        server.socket = serving.wrap_socket(server.socket, server_side=True)
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            _call(flavour, server, verify=trusting, cert=str(tmp_path / "client.pem"))
        finally:
            server.shutdown()
            thread.join()


def test_the_time_out_is_the_librarys_own(flavour: Flavour) -> None:
    """SDKs apply theirs only when they find the default; a given one is kept."""
    client = flavour.client(settings=settings())
    assert flavour.plain_client_class().timeout == client.timeout
    assert flavour.library.Timeout(7) == flavour.client(settings=settings(), timeout=7).timeout


def test_a_transport_is_refused_with_a_hint(flavour: Flavour) -> None:
    """There would be nothing left to build; the message names the way that works."""
    with pytest.raises(ConfigurationError, match=r"Client\(transport=KwaiTransport"):
        flavour.client(settings=settings(), transport=flavour.real_transport_class())
    flavour.close(flavour.client(settings=settings(), transport=None))


@pytest.mark.parametrize("option", ["timeout", "limits"])
def test_an_object_of_the_other_library_is_refused(flavour: Flavour, option: str) -> None:
    """The library takes it, and fails at the first request with a bare TypeError."""
    other = httpx if flavour.library is httpx2 else httpx2
    foreign = other.Timeout(5) if option == "timeout" else other.Limits()
    with pytest.raises(ConfigurationError, match=f"{option}=.*give {flavour.library.__name__}"):
        flavour.client(settings=settings(), **{option: foreign})


def test_wrap_picks_the_fitting_wrapper(flavour: Flavour) -> None:
    """One function for either kind of transport."""
    wrapped = flavour.door.wrap(flavour.real_transport_class())
    assert flavour.transport_class is type(wrapped)
    flavour.close(wrapped)


@pytest.mark.parametrize(
    ("door", "library", "other"), [(httpx_transport, httpx, httpx2), (httpx2_transport, httpx2, httpx)]
)
def test_wrap_refuses_what_is_both_or_neither(door: Any, library: Any, other: Any) -> None:
    """The names of the two wrappers are in the message; so is the other module."""
    with pytest.raises(ConfigurationError, match=r"KwaiTransport\(\.\.\.\) or AsyncKwaiTransport"):
        door.wrap(library.MockTransport(lambda request: None))
    for neither in (other.HTTPTransport(), object()):
        with pytest.raises(ConfigurationError, match=f"a transport of {library.__name__}, got"):
            door.wrap(neither)


def test_wrapping_twice_is_refused(flavour: Flavour) -> None:
    """Each call would be recorded twice."""
    wrapped = flavour.transport_class(flavour.real_transport_class(), settings=settings())
    with pytest.raises(ConfigurationError, match="wrapped already"):
        flavour.transport_class(wrapped, settings=settings())
    flavour.close(wrapped)


def test_a_client_is_no_transport(flavour: Flavour) -> None:
    """The likely mix-ups have an error that names the way out."""
    client = flavour.plain_client_class()
    with pytest.raises(ConfigurationError, match="make a whole client"):
        flavour.transport_class(client)
    with pytest.raises(ConfigurationError, match="'raise' or 'response'"):
        flavour.transport_class(flavour.real_transport_class(), refuse="perhaps")
    flavour.close(client)


def test_settings_come_from_the_environment_at_construction(flavour: Flavour, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong value is an error at start, and names its variable."""
    monkeypatch.setenv("KWAI_BYOK", "sometimes")
    with pytest.raises(ConfigurationError, match="KWAI_BYOK: one of prefer, only, off"):
        flavour.client()
    with pytest.raises(ConfigurationError, match="KWAI_BYOK"):
        flavour.transport_class(flavour.real_transport_class())


def test_the_wrapper_opens_and_closes_what_it_wraps(flavour: Flavour) -> None:
    """A client enters, leaves and closes its transports; the one inside is told each time, once."""
    events: list[str] = []

    class Inner(flavour.library.AsyncBaseTransport if flavour.asynchronous else flavour.library.BaseTransport):  # type: ignore[misc]  # known at run time
        def handle_request(self, request: Any) -> Any:
            return flavour.library.Response(200)

        async def handle_async_request(self, request: Any) -> Any:
            return flavour.library.Response(200)

        def __enter__(self) -> Any:
            events.append("enter")

        def __exit__(self, *details: Any) -> None:
            events.append("exit")

        async def __aenter__(self) -> Any:
            events.append("enter")

        async def __aexit__(self, *details: Any) -> None:
            events.append("exit")

        def close(self) -> None:
            events.append("close")

        async def aclose(self) -> None:
            events.append("close")

    client = flavour.around(Inner(), settings=settings())

    async def in_async_with() -> None:
        async with client:
            await client.post(GATEWAY, content=b"{}")

    if flavour.asynchronous:
        flavour.run(in_async_with())
    else:
        with client:
            client.post(GATEWAY, content=b"{}")
    flavour.close(flavour.transport_class(Inner(), settings=settings()))
    assert ["enter", "exit", "close"] == events


_hosts = st.sampled_from(
    [
        "",
        "*",
        "localhost",
        "LOCALHOST",
        "example.com",
        ".example.com",
        "*.example.com",
        "127.0.0.1",
        "10.0.0.0/8",
        "::1",
        "[::1]",
        "fe80::/10",
        "http://a.example",
        "https://b.example:8080",
        "a.example:81",
        " spaced.example ",
        "x_y",
        "a b",
    ]
)
_urls = st.sampled_from(
    ["", "http://proxy.example:3128", "proxy.example:3128", "https://user:word@proxy.example", "socks5://p.example"]
)


@example(
    http="http://proxy.example",
    https="proxy.example",
    everything="",
    none_for=["http://a.example", "127.0.0.1", "::1", "fe80::/10", "[::1]", "*.example.com", "example.com", ""],
)
@given(http=_urls, https=_urls, everything=_urls, none_for=st.lists(_hosts, max_size=5))
def test_the_environment_is_read_as_the_libraries_read_it(
    http: str, https: str, everything: str, none_for: list[str]
) -> None:
    """The same mounts as the libraries' own private reader makes, for what both can parse."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in (("http", http), ("https", https), ("all", everything), ("no", ",".join(none_for))):
            monkeypatch.delenv(f"{name}_proxy".upper(), raising=False)
            monkeypatch.setenv(f"{name}_proxy", value)
        theirs = httpx2._utils.get_environment_proxies()
        ours = {
            pattern: proxy
            for pattern, proxy in environment_proxies().items()
            if httpx2_transport._clients._reads(pattern)
        }
        assert theirs == ours


def test_which_routes_are_called_directly_in_spite_of_a_proxy() -> None:
    """Those by plain HTTP to this machine, whatever its name; the others are the proxy's."""
    given = settings(
        base_url="http://localhost:4000/api",
        routes=(Route("http://[::1]:81/v1"), Route("https://127.0.0.1/v1"), Route("http://a.example", insecure=True)),
    )
    directly = {"http://localhost": None, "http://[::1]": None}
    assert directly == unproxied_routes({"http://": "http://proxy.example:3128"}, given)
    assert directly == unproxied_routes({"all://": "http://[broken"}, given)
    assert {} == unproxied_routes({"https://": "http://proxy.example:3128", "http://": None}, given)
    assert {} == unproxied_routes({"http://": "http://localhost:3128"}, given)
