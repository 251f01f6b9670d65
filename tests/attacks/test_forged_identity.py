"""Identity headers that a client forges, against real servers that believe every proxy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.apps.who_asgi import SECRET
from tests.support.attacked import Server, uvicorn
from tests.support.raw_client import UNTRUSTED, Lines, ask

ACME = ("X-Customer-Id", "acme")
KEY = ("X-OpenRouter-Key", "sk-or-v1-0123456789abcdef")

FORGED: list[Lines] = [
    [("X-Forwarded-For", address)]
    for address in (
        "127.0.0.1",
        "127.0.0.1:1",
        "127.0.0.1:65535",
        "::1",
        "[::1]",
        "[::1]:80",
        "::ffff:127.0.0.1",
        "[::ffff:127.0.0.1]:80",
        "[::ffff:7f00:1]:80",
        "0:0:0:0:0:0:0:1",
        "[0:0::1]:443",
        "::1%lo",
        "[::1%lo]:80",
        "[::1%a=b]:80",
        "[::1%a b]:80",
        '[::1%a";b]:80',
        "[::ffff:127.0.0.1%x=y]:80",
        "testclient:1",
        "[testclient]:1",
        "unix",
        "unix:1",
        "[unix]:1",
        "127.0.0.1:1, 203.0.113.9",
        "203.0.113.9, 127.0.0.1:1",
        "127.0.0.1:1,127.0.0.1:1",
    )
]
FORGED += [
    [("X-Forwarded-For", "127.0.0.1:1"), ("X-Forwarded-For", "203.0.113.9")],
    [("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-For", "127.0.0.1:1")],
    [("Forwarded", "for=127.0.0.1")],
    [("Forwarded", 'for="127.0.0.1:1"')],
    [("Forwarded", 'for="[::1]:80";by=unix')],
    [("X-Real-IP", "127.0.0.1")],
    [("X-Client-IP", "127.0.0.1"), ("True-Client-IP", "127.0.0.1"), ("CF-Connecting-IP", "127.0.0.1")],
    [("X-Forwarded-Host", "127.0.0.1"), ("X-Forwarded-Port", "80"), ("X-Forwarded-Proto", "https")],
    [("X-Forwarded-For", "127.0.0.1:1"), ("X-Forwarded-For", "127.0.0.1:2"), ("Forwarded", "for=127.0.0.1:3")],
    [("X-Kwai-Proxy", ""), ("X-Forwarded-For", "127.0.0.1:1")],
    [("REMOTE_ADDR", "127.0.0.1"), ("Remote-Addr", "127.0.0.1"), ("Client", "127.0.0.1")],
]


@pytest.fixture(scope="module")
def uvicorn_unix() -> Iterator[Server]:
    """On a unix socket, with an app that believes loopback and the test client, as by default."""
    with uvicorn(unix=True) as server:
        yield server


@pytest.fixture(scope="module")
def uvicorn_only_unix() -> Iterator[Server]:
    """On a unix socket, with an app that believes what comes over one."""
    with uvicorn(unix=True, door="only_unix") as server:
        yield server


@pytest.fixture(
    params=["uvicorn_h11", "uvicorn_httptools", "uvicorn_unix", "gunicorn_threads", "gunicorn_threads unix"]
)
def address(request: pytest.FixtureRequest) -> int | str:
    """Where a server listens whose client is not to be believed."""
    name, _, unix = request.param.partition(" ")
    server: Server = request.getfixturevalue(name)
    return server.more if unix else server.address


def test_no_header_makes_a_stranger_a_proxy(address: int | str) -> None:
    """Whatever a client writes of its address, its identity is nobody's; its key is its own."""
    for forged in FORGED:
        answer = ask(address, [ACME, KEY, *forged], source=UNTRUSTED)
        assert 200 == answer.status, forged
        assert (None, None, KEY[1]) == tuple(answer.document[name] for name in ("caller", "logged", "key")), forged


def test_over_a_unix_socket_no_address_counts(uvicorn_only_unix: Server) -> None:
    """An app that believes its unix socket believes no address that the server has from a header."""
    assert "acme" == ask(uvicorn_only_unix.address, [ACME]).document["caller"]
    for forged in FORGED:
        if forged[0][0] == "X-Forwarded-For":
            assert ask(uvicorn_only_unix.address, [ACME, *forged]).document["caller"] is None, forged


@pytest.mark.parametrize("name", ["uvicorn_h11", "gunicorn_threads", "gunicorn_sync"])
def test_loopback_and_unix_are_still_believed(request: pytest.FixtureRequest, name: str) -> None:
    """The tests above are no tests of a server that believes nobody."""
    server: Server = request.getfixturevalue(name)
    assert "acme" == ask(server.address, [ACME]).document["caller"]
    if name == "gunicorn_sync":
        assert "acme" == ask(server.more, [ACME]).document["caller"]


@pytest.mark.parametrize("name", ["uvicorn_h11", "uvicorn_httptools", "gunicorn_threads", "gunicorn_sync"])
def test_a_proxy_that_appends_is_refused(request: pytest.FixtureRequest, name: str) -> None:
    """A proxy that adds its header beside the client's, in a line or a list, first or last: 400, and nobody's name."""
    server: Server = request.getfixturevalue(name)
    for header in ("X-Customer-Id", "X-Customer-Email", "X-Customer-Group", "X-Thread-Id", "X-OpenRouter-Key"):
        spellings = (header, header.lower(), header.upper(), header.swapcase())
        for lines in (
            *([(spelling, "spoofed"), (header, "acme")] for spelling in spellings),
            *([(header, "acme"), (spelling, "spoofed")] for spelling in spellings),
            [(header, "spoofed, acme")],
            [(header, "acme,spoofed")],
            [(header, "acme"), ("Accept", "*/*"), (header, "acme")],
            [(header, ""), (header, "spoofed")],
        ):
            answer = ask(server.address, lines)
            assert (400, header.lower()) == (answer.status, answer.document["header"]), lines
            assert "spoofed" not in str(answer.document)


def test_a_twin_with_an_underscore_is_another_header(
    uvicorn_h11: Server, uvicorn_httptools: Server, gunicorn_threads: Server
) -> None:
    """`X_Customer_Id` is no identity and no key, alone and beside the real one, with gunicorn's own header map."""
    for server in (uvicorn_h11, uvicorn_httptools, gunicorn_threads):
        for twin in ("X_Customer_Id", "x_customer-id", "X-Customer_Id"):
            assert ask(server.address, [(twin, "spoofed")]).document["caller"] is None
            for lines in ([(twin, "spoofed"), ACME], [ACME, (twin, "spoofed")]):
                assert "acme" == ask(server.address, lines).document["caller"]
        answer = ask(server.address, [("X_OpenRouter_Key", "sk-spoofed"), KEY])
        assert KEY[1] == answer.document["key"]
        assert ask(server.address, [("X_OpenRouter_Key", "sk-spoofed")]).document["key"] is None


def test_a_twin_beside_the_proxys_header_is_refused_where_wsgi_cannot_tell(gunicorn_sync: Server) -> None:
    """With `--header-map dangerous` a twin beside what the proxy sets is 400; alone it counts: leave it at `drop`."""
    for lines in ([("X_Customer_Id", "spoofed"), ACME], [ACME, ("X_Customer_Id", "spoofed")]):
        for where in (gunicorn_sync.address, gunicorn_sync.more):
            answer = ask(where, lines)
            assert (400, "x-customer-id") == (answer.status, answer.document["header"])
    answer = ask(gunicorn_sync.address, [KEY, ("X_OpenRouter_Key", "sk-spoofed")])
    assert (400, "x-openrouter-key") == (answer.status, answer.document["header"])
    assert "spoofed" == ask(gunicorn_sync.address, [("X_Customer_Id", "spoofed")]).document["caller"]


@pytest.mark.parametrize("implementation", ["h11", "httptools"])
def test_a_secret_that_is_not_sent_exactly_once_proves_nothing(implementation: str) -> None:
    """A client that adds a guess to the proxy's secret, in whatever way, only takes the proof away; it is no error."""
    name = "X-Kwai-Proxy"
    with uvicorn("--http", implementation, door="with_secret") as server:
        assert "acme" == ask(server.address, [ACME, (name, SECRET)], source=UNTRUSTED).document["caller"]
        for lines in (
            [(name, SECRET), (name, "guess")],
            [(name, "guess"), (name.upper(), SECRET)],
            [(name, SECRET), (name, SECRET)],
            [(name, f"{SECRET}, guess")],
            [(name, f"guess,{SECRET}")],
            [("X_Kwai_Proxy", SECRET)],
            [(name, f'"{SECRET}"')],
        ):
            answer = ask(server.address, [ACME, *lines])
            assert (200, None) == (answer.status, answer.document["caller"]), lines
            assert "x-kwai-proxy" not in answer.document["headers"]
