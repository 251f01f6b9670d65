"""URLs and redirects that look like a route, or nearly are one: the key goes where the route leads, and no further."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from kwai_middleware import Route, Settings
from tests.support.callers import settings
from tests.support.door_calls import KEY, OK
from tests.support.every_client import CLIENTS, follow, send
from tests.support.raw_server import Connection, RawServer, raw_server

PATH = "/api/v1/chat/completions"
HOST = "openrouter.ai"

OTHER_HOSTS = [
    "\u043epenrouter.ai",  # a Cyrillic letter
    "openrouter.\u0430i",
    "xn--penrouter-9uf.ai",
    "openrouter.ai.evil.example",
    "openrouter.ai@evil.example",
    "openrouter.ai:443@evil.example",
    "openrouter.ai:x@evil.example:443",
    "evil.example\\@openrouter.ai",
    "openrouter.ai\\.evil.example",
    "openrouter.ai\\@evil.example",
    "openrouter.ai%2eevil.example",
    "openrouter.ai%00.evil.example",
    "openrouter.ai.",
    "openrouter.ai..",
    ".openrouter.ai",
    "www.openrouter.ai",
    "openrouter-ai",
    "openrouterai",
    "openrouter.ai:80",
    "openrouter.ai:8443",
    "openrouter.ai:4430",
    "openrouter.ai:65979",  # 443, modulo 65536
    "user@openrouter.ai",
    "user:word@openrouter.ai",
    "[openrouter.ai]",
    "openrouter.ai evil.example",
    "evil.example/openrouter.ai",
    "evil.example?openrouter.ai",
    "evil.example#@openrouter.ai",
    "evil.example;openrouter.ai",
    "openrouter\u00ad.ai.evil.example",
    "open\u200brouter.aj",
    "127.0.0.1",
    "2130706433",
    "[::1]",
]
OTHER_PATHS = [
    "/api/v1/keys",
    "/api/v1/key",
    "/api/v1/credits",
    "/api/v1/auth/keys",
    "/api/v1/chat/completions/../../keys",
    "/api/v1/chat/completions/%2e%2e/keys",
    "/api/v1/chat/completions/..%2fkeys",
    "/api/v1/chat/completions;x",
    "/api/v1/chat/completions;x=/",
    "/api/v1/chat/completions%3bx",
    "/api/v1/chat%2fcompletions",
    "/api/v1/chat/completions%20",
    "/api/v1/chat/completions%00",
    "/api/v1/chat/completions%3f",
    "/api/v1/chat/completions.json",
    "/api/v1/chat/completions//",
    "/api/v1//chat/completions",
    "//api/v1/chat/completions",
    "/API/V1/chat/completions",
    "/api/v1/Chat/Completions",
    "/api/v1\\chat\\completions",
    "/api/v1/chat/completions\\",
    "/api/v1/chat/completion\u0455",
    "/api/v1/chat/\uff43ompletions",
    "/evil?/api/v1/chat/completions",
    "/evil#/api/v1/chat/completions",
    "/evil;/api/v1/chat/completions",
]
OTHER_SCHEMES = ["http://openrouter.ai", "http://openrouter.ai:443", "ws://openrouter.ai", "wss://openrouter.ai"]
STRANGERS = [
    *(f"https://{host}{PATH}" for host in OTHER_HOSTS),
    *(f"https://{HOST}{path}" for path in OTHER_PATHS),
    *(f"{origin}{PATH}" for origin in OTHER_SCHEMES),
]

# Some clients read these as the route itself, and some do not: what the client understands decides.
IN_OTHER_WORDS = [
    "HTTPS://OpenRouter.AI/api/v1/chat/completions",
    "https://openrouter.ai:443/api/v1/chat/completions",
    "https://openrouter.ai:0443/api/v1/chat/completions",
    "https://openrouter.ai:/api/v1/chat/completions/",
    "https://@openrouter.ai/api/v1/chat/completions",
    "https://:@openrouter.ai/api/v1/chat/completions",
    "https://openrouter.ai/api/v1/./chat/completions",
    "https://openrouter.ai/api/v1/keys/../chat/completions",
    "https://openrouter.ai/api/v1/%2e/chat/completions",
    "https://openrouter.ai/api/v1/keys/%2e%2e/chat/completions",
    "https://openrouter.ai/%61pi/v1/chat/completions",
    "https://openrouter.ai/api/v1/chat/completions#/../keys",
    "https://openrouter.ai/api/v1/chat/completions?to=evil.example",
    "https://openrouter%2eai/api/v1/chat/completions",
    "https://%6fpenrouter.ai/api/v1/chat/completions",
    "https://openrouter.ai\t/api/v1/chat/completions",
    "https://open\nrouter.ai/api/v1/chat/completions",
    " https://openrouter.ai/api/v1/chat/completions",
    "https:/\\openrouter.ai/api/v1/chat/completions",
    "https:///openrouter.ai/api/v1/chat/completions",
    "https://\uff4f\uff50\uff45\uff4erouter.ai/api/v1/chat/completions",
    "https://openrouter\u3002ai/api/v1/chat/completions",
    "https://openrouter\uff0eai/api/v1/chat/completions",
    "https://openrouter\uff61ai/api/v1/chat/completions",
    "https://open\u00adrouter.ai/api/v1/chat/completions",
    "https://open\u200brouter.ai/api/v1/chat/completions",
    "https://\u24deopenrouter.ai/api/v1/chat/completions",
]


@pytest.mark.parametrize("client", CLIENTS)
def test_what_is_not_the_route_gets_no_key(client: str) -> None:
    """Look-alike hosts, other ports, schemes and endpoints, users in URLs, tricks with paths: nothing of ours."""
    for url in STRANGERS:
        wire = send(client, url, settings())
        assert wire is None or (KEY not in wire.text and "acme" not in wire.text), url


@pytest.mark.parametrize("client", CLIENTS)
def test_other_words_for_the_route_get_the_key_only_as_the_route(client: str) -> None:
    """Where a client reads something odd as the route, it also goes there; otherwise it gets no key."""
    paid = 0
    for url in IN_OTHER_WORDS:
        wire = send(client, url, settings())
        if wire is not None and KEY in wire.text:
            assert ("https", HOST, 443) == wire[:3], url
            assert wire.target.partition("?")[0] in (PATH, PATH + "/"), url
            paid += 1
    assert paid > 4


LOOPBACK_TWINS = [
    "localhost", "LOCALHOST", "localhost.", "localhost.localdomain", "127.1", "127.0.1", "2130706433", "0x7f000001",
    "0177.0.0.1", "127.0.0.01", "127.0.0.1.", "0", "0.0.0.0", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "127.0.0.2",
    "\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021", "127.0.0.1%2e", "user@127.0.0.1", "127.0.0.1@127.0.0.2",
]  # fmt: skip


class Arrivals:
    """A server on all of this machine's addresses that keeps all bytes, and sends everybody on at most once."""

    def __init__(self) -> None:
        self.location: str | None = None
        self.heads: list[bytes] = []
        self.bytes: list[bytes] = []
        self._lock = threading.Lock()

    def __call__(self, connection: Connection) -> None:
        first = connection.sock.recv(3, 2)  # MSG_PEEK
        if first[:1] == b"\x16":
            self.bytes.append(connection.sock.recv(1 << 16))  # TLS, which is not spoken here
            return
        head, body = connection.request()
        with self._lock:
            location, self.location = self.location, None
            self.heads.append(head)
            self.bytes.append(head + body)
        if location is None:
            connection.send(OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
        else:
            answer = f"HTTP/1.1 307 Away\r\nlocation: {location}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            connection.send(answer.encode())


@pytest.fixture(scope="module")
def vendor() -> Iterator[tuple[Arrivals, RawServer]]:
    """Where the route leads."""
    arrivals = Arrivals()
    with raw_server(arrivals, backlog=64) as server:
        yield arrivals, server


@pytest.fixture(scope="module")
def stranger() -> Iterator[tuple[Arrivals, RawServer]]:
    """On another port of the same host."""
    arrivals = Arrivals()
    with raw_server(arrivals, backlog=64) as server:
        yield arrivals, server


def routed(url: str, kind: Any = "direct") -> Settings:
    """Settings with one route."""
    return settings(routes=(Route(f"{url}/api", kind=kind),))


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("kind", ["direct", "gateway"])
def test_a_redirect_carries_the_key_to_the_route_only(vendor: Any, stranger: Any, client: str, kind: Any) -> None:
    """To another port, scheme, user, endpoint or spelling of the same machine the vendor cannot send a key."""
    (arrivals, first), (others, second) = vendor, stranger
    port = first.port
    path = "/api/chat/completions"
    locations = [
        *(f"http://{host}:{port}{path}" for host in ("localhost", "user:word@127.0.0.1", "127.1", "2130706433")),
        f"https://127.0.0.1:{port}{path}",
        f"{second.url}{path}",
        f"//127.0.0.1:{second.port}{path}",
        f"//127.0.0.1:{port}@127.0.0.1:{second.port}{path}",
        f"http://127.0.0.1:{port}\\@127.0.0.1:{second.port}{path}",
        *(f"{first.url}{other}" for other in ("/api/keys", f"/{path}", f"{path}/../keys", f"{path};x", f"{path}%2f")),
        *("/api/keys", "/api//chat/completions", "completions/../../keys", "?x=1&to=/../keys#/"),
    ]
    for location in locations:
        arrivals.location, arrivals.bytes, arrivals.heads, others.bytes = location, [], [], []
        follow(client, f"{first.url}{path}", routed(first.url, kind))
        seen = arrivals.bytes
        assert KEY.encode() in seen[0], location
        for head, text in zip(arrivals.heads[1:], seen[1:], strict=False):
            target = head.split(b" ")[1].partition(b"?")[0].decode()
            assert target == path or KEY.encode() not in text, location
            if f"host: 127.0.0.1:{port}" not in head.decode().lower() or b"dXNlcjp3b3Jk" in text:
                assert KEY.encode() not in text, location
        assert KEY.encode() not in b"".join(others.bytes), location


@pytest.mark.parametrize("client", CLIENTS)
def test_other_words_for_this_machine_are_not_the_route(vendor: Any, client: str) -> None:
    """A route to 127.0.0.1 is that host and no other spelling of it, though the same server may answer."""
    arrivals, server = vendor
    for host in LOOPBACK_TWINS:
        arrivals.location, arrivals.bytes, arrivals.heads = None, [], []
        with contextlib.suppress(UnicodeError):
            follow(client, f"http://{host}:{server.port}/api/chat/completions", routed(server.url))
        for head, text in zip(arrivals.heads, arrivals.bytes, strict=True):
            meant = f"host: 127.0.0.1:{server.port}\r\n" in head.decode().lower() + "\r\n"
            assert KEY.encode() not in text or (meant and "@" not in host), host
    arrivals.bytes = []
    follow(client, f"{server.url}/api/chat/completions", routed(server.url))
    assert KEY.encode() in arrivals.bytes[0]
