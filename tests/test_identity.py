"""Identity headers: what is read from them, from whom they are believed, and what is refused."""

from __future__ import annotations

import logging
import socket
import unicodedata
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware import _notices
from kwai_middleware._caller import TEXT_LIMITS, Caller
from kwai_middleware._inbound.asgi_request import HeaderNames
from kwai_middleware._inbound.peers import Doubt, TrustedPeers
from kwai_middleware._secret import Secret
from kwai_middleware.errors import ConfigurationError
from kwai_middleware.identity import HeaderIdentity
from tests.apps.doors import DOORS, LOOPBACK, ASGIDoor, Door, Peer, WSGIDoor

FIELDS = {
    "x-customer-id": "identifier",
    "x-customer-name": "name",
    "x-customer-email": "email",
    "x-customer-group": "group",
    "x-thread-id": "thread",
}
PROXY_SECRET = "between-proxy-and-app-0123456789"
STRANGER: Peer = ("203.0.113.9", 41000)


@pytest.fixture(params=DOORS, ids=lambda door: door.name)
def door(request: pytest.FixtureRequest) -> Door:
    """Each test holds for both doors."""
    chosen: Door = request.param
    return chosen


def is_ignored(door: Door, caplog: pytest.LogCaptureFixture, doubt: Doubt, headers: Any, **options: Any) -> None:
    """Assert that identity headers are taken as nobody's, counted, and 401 where an identity is required."""
    before = _notices.counts().get("identity_headers_ignored", 0)
    _notices._warned.pop(("identity_headers_ignored", doubt.name), None)
    with caplog.at_level(logging.WARNING, "kwai_middleware"):
        for _ in range(2):
            seen = door.ask(headers, **options)
            assert seen.app_ran
            assert seen.caller is None
    assert before + 2 == _notices.counts()["identity_headers_ignored"]
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == 1
    assert doubt.value in warnings[0]
    assert "acme" not in warnings[0]
    assert door.ask(headers, required=True, **options).status == 401


def test_every_field_is_read(door: Door) -> None:
    """Each header fills its own field, and only that one."""
    seen = door.ask([(header, f"my {field}") for header, field in FIELDS.items()])
    assert Caller(**{field: f"my {field}" for field in FIELDS.values()}) == seen.caller
    assert seen.customer_id == "my identifier"


@pytest.mark.parametrize("header", FIELDS)
def test_a_field_may_come_alone(door: Door, header: str) -> None:
    """A group without an identifier is a caller without an identifier."""
    assert Caller(**{FIELDS[header]: "x"}) == door.ask([(header, "x")]).caller


def test_nobody_without_headers(door: Door) -> None:
    """A request with none of the headers is nobody's, and the app is served."""
    seen = door.ask([("accept", "*/*")])
    assert seen.app_ran
    assert seen.caller is None
    assert seen.customer_id is None


def test_other_names_can_be_given(door: Door) -> None:
    """Headers are named by the app, in any case, and a field without one is not read."""
    identify = HeaderIdentity(identifier="X-Tenant", name=None, email=None, group=None, thread=None)
    headers = [("x-tenant", "acme"), ("x-customer-id", "no"), ("x-customer-name", "no")]
    assert Caller(identifier="acme") == door.ask(headers, identify=identify).caller


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param("  acme\t", "acme", id="blanks"),
        pytest.param("Z\u00fcrich", "Z\u00fcrich", id="utf-8"),
        pytest.param("Zu\u0308rich", "Z\u00fcrich", id="composed"),
        pytest.param("\u2003acme\u00a0", "acme", id="unicode-blanks"),
        pytest.param("a b", "a b", id="inner-blank"),
        pytest.param("\u00fc" * 120, "\u00fc" * 120, id="longest"),
        pytest.param("u\u0308" * 120, "\u00fc" * 120, id="longest-composed"),
    ],
)
def test_values_are_unicode_in_one_form(door: Door, value: str, text: str) -> None:
    """Values are UTF-8; one customer has one spelling, whatever was typed."""
    caller = door.ask([("x-customer-id", value)]).caller
    assert caller is not None
    assert text == caller.identifier


@pytest.mark.parametrize("value", ["", "  ", "\t", "\u00a0"])
def test_an_empty_header_counts_as_absent(door: Door, value: str) -> None:
    """A proxy that sets a header from an empty variable says nothing by it."""
    seen = door.ask([("x-customer-id", value), ("x-customer-group", "g")])
    assert Caller(group="g") == seen.caller
    assert door.ask([("x-customer-id", value)]).caller is None


@pytest.mark.parametrize("header", FIELDS)
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param(b"ac\xffme", "is not valid UTF-8", id="not-utf-8"),
        pytest.param(b"ac\xc3", "is not valid UTF-8", id="cut"),
        pytest.param(b"ac\xed\xa0\x80", "is not valid UTF-8", id="surrogate"),
        pytest.param("ac\x00me", "has a control character", id="nul"),
        pytest.param("ac\tme", "has a control character", id="tab"),
        pytest.param("ac\x1b[31mme", "has a control character", id="escape"),
        pytest.param("ac\x85me", "has a control character", id="c1"),
        pytest.param("a" * 4097, "is longer than 4096 bytes", id="bytes"),
    ],
)
def test_a_malformed_value_is_refused(door: Door, header: str, value: str | bytes, reason: str) -> None:
    """The answer is 400, names the header and never the value; the app does not run."""
    if door.name == "wsgi" and b"\x00" in (value if isinstance(value, bytes) else value.encode()):
        value = "ac\x01me"
    seen = door.ask([(header, value)])
    assert seen.status == 400
    assert not seen.app_ran
    assert seen.problem == {
        "type": "urn:kwai-middleware:invalid-header",
        "title": "Invalid header",
        "status": 400,
        "detail": f"The header {header} {reason}.",
        "header": header,
    }


@pytest.mark.parametrize("header", FIELDS)
def test_a_value_longer_than_its_field_is_refused(door: Door, header: str) -> None:
    """One character more than the field takes is 400, and exactly as many is not."""
    limit = TEXT_LIMITS[FIELDS[header]]
    assert Caller(**{FIELDS[header]: "a" * limit}) == door.ask([(header, "a" * limit)]).caller
    seen = door.ask([(header, "a" * (limit + 1))])
    assert seen.status == 400
    assert f"The header {header} is longer than" in seen.problem["detail"]


@pytest.mark.parametrize("header", [header for header in FIELDS if header != "x-customer-name"])
def test_a_header_sent_twice_is_refused(door: Door, header: str) -> None:
    """Two values, or one with a comma as servers make of two, are 400: never the first one, never the last."""
    for headers in ([(header, "a"), (header, "a")], [(header, "a,b")], [(header, "a"), ("accept", "x"), (header, "b")]):
        seen = door.ask(headers)
        assert seen.status == 400
        assert not seen.app_ran
        assert header == seen.problem["header"]


def test_a_name_may_have_a_comma(door: Door) -> None:
    """A name is written as people write it."""
    assert Caller(name="Lovelace, Ada") == door.ask([("x-customer-name", "Lovelace, Ada")]).caller


def test_a_name_sent_twice_is_refused_where_it_can_be_told() -> None:
    """Under ASGI each header is seen by itself."""
    assert ASGIDoor().ask([("x-customer-name", "a"), ("x-customer-name", "b")]).status == 400


def test_a_wsgi_value_that_is_no_byte_string_is_refused() -> None:
    """Something that puts real Unicode into an environ does not keep to WSGI; it is refused, not guessed."""
    through = _with_environ({"HTTP_X_CUSTOMER_ID": "\u4e2d"})
    seen = WSGIDoor().ask([], through=through)
    assert seen.status == 400
    assert "not valid UTF-8" in seen.problem["detail"]


def test_names_in_mixed_case_are_the_same_headers() -> None:
    """A middleware or server that does not write ASGI's lower case changes nothing, also for names not seen before."""
    for name in (b"X-Customer-Id", b"X-CUSTOMER-ID", b"x-Customer-iD"):
        for _ in range(2):
            seen = ASGIDoor().ask([], through=_with_headers([(name, b"acme"), (b"ACCEPT", b"*/*")]))
            assert Caller(identifier="acme") == seen.caller


def test_two_spellings_of_one_header_are_a_header_sent_twice() -> None:
    """No spelling wins over another."""
    seen = ASGIDoor().ask([], through=_with_headers([(b"X-Customer-Id", b"a"), (b"x-customer-id", b"a")]))
    assert seen.status == 400


def test_strangers_cannot_fill_the_memory_with_names() -> None:
    """Of names that are not looked for only so many are remembered, and ours are found all the same."""
    names = HeaderNames(["x-customer-id"], frozenset())
    noise = [(f"x-{number}".encode(), b"") for number in range(3000)]
    assert {"x-customer-id": b"acme"} == names.take({"headers": [*noise, (b"X-Customer-ID", b"acme")]})
    assert len(names._others) == 1000


def test_strangers_cannot_fill_the_memory_with_long_names() -> None:
    """A name of more than 64 bytes is looked into each time and never remembered."""
    names = HeaderNames(["x-customer-id"], frozenset())
    names.take({"headers": [(b"x" * 64, b""), (b"y" * 65, b""), (b"z" * 60_000, b"")]})
    assert {b"x" * 64} == names._others


def test_ours_are_found_among_thousands_of_names() -> None:
    """However many names a stranger invents."""
    noise = [(f"x-{number}".encode(), b"") for number in range(3000)]
    seen = ASGIDoor().ask([], through=_with_headers([*noise, (b"X-Customer-ID", b"acme")]))
    assert Caller(identifier="acme") == seen.caller


def _with_headers(headers: Any) -> Any:
    def through(app: Any) -> Any:
        async def outer(scope: Any, receive: Any, send: Any) -> None:
            scope["headers"] = headers
            await app(scope, receive, send)

        return outer

    return through


def _with_environ(more: dict[str, Any]) -> Any:
    def through(app: Any) -> Any:
        def outer(environ: Any, start_response: Any) -> Any:
            environ.update(more)
            return app(environ, start_response)

        return outer

    return through


class TestPeers:
    """From whom identity headers are believed."""

    @pytest.mark.parametrize(
        "peer", [("127.0.0.1", 50000), ("::1", 50000), ("testclient", 50000), ("::ffff:127.0.0.1", 9)]
    )
    def test_this_machine_and_the_test_client_are_believed_by_default(self, door: Door, peer: Peer) -> None:
        """With no argument, a proxy on the same machine works."""
        assert Caller(identifier="acme") == door.ask([("x-customer-id", "acme")], peer=peer).caller

    @pytest.mark.parametrize(
        "peer", [STRANGER, ("10.0.0.1", 5), ("127.0.0.2", 5), ("localhost", 5), ("x" * 300, 5), ("", 5)]
    )
    def test_others_are_ignored(self, door: Door, caplog: pytest.LogCaptureFixture, peer: Peer) -> None:
        """From an address that is not listed the headers count for nothing."""
        doubt = Doubt.NO_ADDRESS if peer == ("", 5) and door.name == "wsgi" else Doubt.STRANGER
        is_ignored(door, caplog, doubt, [("x-customer-id", "acme")], peer=peer)

    def test_what_is_ignored_is_not_validated(self, door: Door) -> None:
        """A stranger with a malformed identity header is nobody, like a stranger with a good one."""
        seen = door.ask([("x-customer-id", b"\xff"), ("x-customer-id", "b")], peer=STRANGER)
        assert seen.app_ran
        assert seen.caller is None

    @pytest.mark.parametrize(
        ("trusted", "peer"),
        [
            pytest.param(("10.0.0.0/8",), ("10.200.3.4", 5), id="network"),
            pytest.param(("192.168.1.1", "10.1.2.3"), ("10.1.2.3", 5), id="address"),
            pytest.param(("2001:db8::/32",), ("2001:db8::5", 5), id="network-6"),
            pytest.param(("2001:DB8::5",), ("2001:db8:0:0::5", 5), id="spelling-6"),
            pytest.param(("10.0.0.0/8",), ("::ffff:10.1.1.1", 5), id="mapped-peer"),
            pytest.param(("::ffff:10.0.0.0/104",), ("10.1.1.1", 5), id="mapped-network"),
            pytest.param(("::ffff:10.1.1.1",), ("10.1.1.1", 5), id="mapped-address"),
            pytest.param(("*",), STRANGER, id="anyone"),
            pytest.param(("*",), None, id="anyone-without-address"),
            pytest.param(("*",), ("203.0.113.9", 0), id="anyone-rewritten"),
            pytest.param(("unix",), None, id="unix"),
        ],
    )
    def test_listed_peers_are_believed(self, door: Door, trusted: tuple[str, ...], peer: Peer) -> None:
        """Addresses, networks and the three words mean what they say."""
        seen = door.ask([("x-customer-id", "acme")], identify=HeaderIdentity(trusted_peers=trusted), peer=peer)
        assert Caller(identifier="acme") == seen.caller

    @pytest.mark.parametrize(
        ("trusted", "peer", "doubt"),
        [
            pytest.param(("10.0.0.0/8",), ("11.0.0.1", 5), Doubt.STRANGER, id="next-network"),
            pytest.param(("10.0.0.0/8",), ("127.0.0.1", 5), Doubt.STRANGER, id="no-default"),
            pytest.param(("10.0.0.0/8",), ("testclient", 5), Doubt.STRANGER, id="no-default-testclient"),
            pytest.param((), ("127.0.0.1", 5), Doubt.STRANGER, id="nobody"),
            pytest.param(("10.0.0.0/8", "127.0.0.1"), None, Doubt.NO_ADDRESS, id="unix-must-be-written"),
            pytest.param(("0.0.0.0/0", "::/0"), None, Doubt.NO_ADDRESS, id="all-networks-are-no-socket"),
            pytest.param(("unix",), ("127.0.0.1", 5), Doubt.STRANGER, id="only-unix"),
            pytest.param(("unix",), ("unix", 5), Doubt.STRANGER, id="unix-is-no-host"),
            pytest.param(("10.0.0.0/8",), ("10.0.0.1 ", 5), Doubt.STRANGER, id="blank"),
            pytest.param(("::/0",), ("::1%eth0", 5), Doubt.STRANGER, id="zone"),
        ],
    )
    def test_unlisted_peers_are_not(
        self, door: Door, caplog: pytest.LogCaptureFixture, trusted: tuple[str, ...], peer: Peer, doubt: Doubt
    ) -> None:
        """What is not listed is not believed, and nothing is listed that was not written."""
        identify = HeaderIdentity(trusted_peers=trusted)
        is_ignored(door, caplog, doubt, [("x-customer-id", "acme")], identify=identify, peer=peer)

    @pytest.mark.parametrize("trusted", ["unix", "127.0.0.1"])
    @pytest.mark.parametrize("server", [None, ("127.0.0.1", 8000), ("127.0.0.1", 0), ("", None), ...])
    def test_a_connection_that_names_no_address_is_not_yet_a_unix_socket(
        self, caplog: pytest.LogCaptureFixture, server: Any, trusted: str
    ) -> None:
        """A client that resets its TCP connection has no address either; the server's own end must be a socket file.

        The warning says so, and nobody who has no socket is told to trust one.
        """

        def through(app: Any) -> Any:
            async def outer(scope: Any, receive: Any, send: Any) -> None:
                if server is ...:
                    del scope["server"]
                else:
                    scope["server"] = server
                await app(scope, receive, send)

            return outer

        identify = HeaderIdentity(trusted_peers=(trusted,))
        is_ignored(
            ASGIDoor(),
            caplog,
            Doubt.NO_SOCKET,
            [("x-customer-id", "acme")],
            identify=identify,
            peer=None,
            through=through,
        )

    @pytest.mark.parametrize(
        ("family", "caller"), [(socket.AF_INET, None), (socket.AF_UNIX, Caller(identifier="acme"))]
    )
    def test_gunicorns_own_socket_tells_what_it_is(self, family: socket.AddressFamily, caller: Caller | None) -> None:
        """Where the server hands its socket over, that decides; an empty address alone does not."""
        with socket.socket(family) as connection:
            seen = WSGIDoor().ask(
                [("x-customer-id", "acme")],
                identify=HeaderIdentity(trusted_peers=("unix",)),
                peer=None,
                through=_with_environ({"gunicorn.socket": connection}),
            )
        assert caller == seen.caller

    def test_an_environ_without_an_address_is_not_yet_a_unix_socket(self, caplog: pytest.LogCaptureFixture) -> None:
        """A bridge from ASGI leaves out an address it does not know; a server on a unix socket gives an empty one."""

        def through(app: Any) -> Any:
            def outer(environ: Any, start_response: Any) -> Any:
                del environ["REMOTE_ADDR"]
                return app(environ, start_response)

            return outer

        identify = HeaderIdentity(trusted_peers=("unix",))
        headers = [("x-customer-id", "acme")]
        is_ignored(WSGIDoor(), caplog, Doubt.NO_SOCKET, headers, identify=identify, peer=None, through=through)

    @pytest.mark.parametrize("trusted", [("127.0.0.1",), ("0.0.0.0/0",), ("testclient",)])
    def test_an_address_with_port_zero_proves_nothing(
        self, door: Door, caplog: pytest.LogCaptureFixture, trusted: tuple[str, ...]
    ) -> None:
        """Port 0 shows that the server has taken the address from a header."""
        peer = ("testclient" if trusted == ("testclient",) else "127.0.0.1", 0)
        identify = HeaderIdentity(trusted_peers=trusted)
        is_ignored(door, caplog, Doubt.REWRITTEN, [("x-customer-id", "acme")], identify=identify, peer=peer)

    def test_a_port_that_is_missing_proves_nothing_under_asgi(self) -> None:
        """ASGI has a port beside each address; a server without one has not shown its connection."""
        seen = ASGIDoor().ask([("x-customer-id", "acme")], peer=("127.0.0.1", None))  # type: ignore[arg-type]  # no port
        assert seen.app_ran
        assert seen.caller is None

    @pytest.mark.parametrize(
        ("peer", "header", "value"),
        [
            ("127.0.0.1", "x-forwarded-for", "127.0.0.1:9999"),
            ("127.0.0.1", "x-forwarded-for", "127.0.0.1"),
            ("127.0.0.1", "x-forwarded-for", "203.0.113.9, 127.0.0.1: 9"),
            ("127.0.0.1", "x-forwarded-for", "127.0.0.1:+9,203.0.113.9"),
            ("127.0.0.1", "x-forwarded-for", "127.0.0.1:9_9"),
            ("127.0.0.1", "x-forwarded-for", "  127.0.0.1:x"),
            ("::1", "x-forwarded-for", "[::1]:9999"),
            ("::1", "x-forwarded-for", "[::1]:x"),
            ("::1", "x-forwarded-for", "::1"),
            ("::1", "x-forwarded-for", "0:0:0:0:0:0:0:1"),
            ("::1", "x-forwarded-for", "[0:0::1]:5"),
            ("127.0.0.1", "x-forwarded-for", "[::ffff:127.0.0.1]:5"),
            ("::ffff:127.0.0.1", "x-forwarded-for", "127.0.0.1:5"),
            ("127.0.0.1", "forwarded", "for=127.0.0.1:9"),
            ("127.0.0.1", "forwarded", 'proto=https;for="127.0.0.1:9"'),
            ("::1", "forwarded", 'for="[::1]:9";by=203.0.113.9'),
            ("127.0.0.1", "forwarded", 'For="127.0.0.1"'),
            ("127.0.0.1", "x-real-ip", "127.0.0.1"),
            ("testclient", "x-forwarded-for", "testclient:50000"),
        ],
    )
    def test_an_address_that_a_header_names_proves_nothing(
        self, door: Door, caplog: pytest.LogCaptureFixture, peer: str, header: str, value: str
    ) -> None:
        """A server may take address and port from a header; the header then still shows the address."""
        headers = [("x-customer-id", "acme"), (header, value)]
        is_ignored(door, caplog, Doubt.QUOTED, headers, peer=(peer, 9999))

    def test_each_of_several_lines_of_a_header_counts(self, door: Door, caplog: pytest.LogCaptureFixture) -> None:
        """An address in the second X-Forwarded-For line is found like one in the first."""
        headers = [("x-customer-id", "acme"), ("x-forwarded-for", "203.0.113.9"), ("x-forwarded-for", "127.0.0.1:9")]
        is_ignored(door, caplog, Doubt.QUOTED, headers, peer=("127.0.0.1", 9))

    @pytest.mark.parametrize("peer", ["127.0.0.1", "::1"])
    @pytest.mark.parametrize("lines", [1, 20], ids=["in-one-line", "in-many"])
    def test_more_addresses_than_a_loop_has_time_for_prove_nothing(
        self, door: Door, caplog: pytest.LogCaptureFixture, peer: str, lines: int
    ) -> None:
        """Nobody has so many proxies, and whoever writes so much would hold up all others while it is compared."""
        line = ("x-forwarded-for", ", ".join(["2001:db8::7"] * (100 // lines)))
        headers = [("x-customer-id", "acme"), *[line] * lines]
        assert Caller(identifier="acme") == door.ask(headers, peer=(peer, 9999)).caller
        is_ignored(door, caplog, Doubt.QUOTED, [*headers, line], peer=(peer, 9999))

    @pytest.mark.parametrize(
        "value",
        ["203.0.113.9", "203.0.113.9, 10.0.0.1", "[2001:db8::1]:5", "1127.0.0.1", "127.0.0.10", "unknown", ":::", ""],
    )
    def test_a_proxy_that_names_its_client_is_believed(self, door: Door, value: str) -> None:
        """The usual X-Forwarded-For of a proxy on this machine takes nothing from its proof."""
        headers = [("x-customer-id", "acme"), ("x-forwarded-for", value)]
        assert Caller(identifier="acme") == door.ask(headers).caller

    @pytest.mark.parametrize(
        "entry",
        ["localhost", "10.0.0.1/8", "10.0.0", "", "nginx", "10.0.0.0/33", "127.0.0.1:80", 5, b"127.0.0.1", None],
    )
    def test_a_bad_entry_is_a_configuration_error(self, entry: Any) -> None:
        """What could never match is refused at start, with what to write instead."""
        with pytest.raises(ConfigurationError, match=r"^trusted_peers: .* 'unix', 'testclient', '\*'"):
            HeaderIdentity(trusted_peers=(entry,))

    def test_one_text_instead_of_a_tuple_is_a_configuration_error(self) -> None:
        """A forgotten comma does not become a list of characters."""
        with pytest.raises(ConfigurationError, match=r"write \('10.0.0.0/8',\)$"):
            HeaderIdentity(trusted_peers="10.0.0.0/8")

    def test_what_an_address_costs_is_paid_once(self) -> None:
        """The verdict on an address is remembered, for a bounded number of them."""
        peers = TrustedPeers(("10.0.0.0/8",))
        verdicts = {peers._lists(f"10.0.{high}.{low}") for high in range(8) for low in range(256)}
        assert {True} == verdicts
        assert peers._lists.cache_info().currsize == 1024

    def test_what_is_no_address_is_not_remembered(self, door: Door) -> None:
        """A server that takes addresses from headers can be made to show long ones; they do not stay in memory."""
        identify = HeaderIdentity(trusted_peers=("10.0.0.0/8",))
        assert door.ask([("x-customer-id", "acme")], identify=identify, peer=("x" * 5000, 5)).caller is None
        assert identify._peers._lists.cache_info().currsize == 0


class TestWSGIPeers:
    """What only WSGI servers do to an address."""

    def test_a_server_that_tells_no_port_is_believed(self) -> None:
        """REMOTE_PORT is not part of WSGI; wsgiref does not set it."""

        def through(app: Any) -> Any:
            def outer(environ: Any, start_response: Any) -> Any:
                del environ["REMOTE_PORT"]
                return app(environ, start_response)

            return outer

        assert Caller(identifier="acme") == WSGIDoor().ask([("x-customer-id", "acme")], through=through).caller

    @pytest.mark.parametrize("port", ["0", "", "x", "-1", "٣", "123456"])
    def test_a_port_that_is_none_proves_nothing(self, port: str) -> None:
        """A port that no connection can have is like port 0."""
        through = _with_environ({"REMOTE_PORT": port})
        assert WSGIDoor().ask([("x-customer-id", "acme")], through=through).caller is None

    def test_an_address_of_the_proxy_protocol_proves_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        """What gunicorn has read from a PROXY line is not the connection's own address."""
        through = _with_environ({"PROXY_PROTOCOL": "TCP4", "PROXY_ADDR": "127.0.0.1", "PROXY_PORT": "80"})
        is_ignored(WSGIDoor(), caplog, Doubt.REWRITTEN, [("x-customer-id", "acme")], through=through)

    def test_proxy_fix_is_seen_through(self) -> None:
        """Under werkzeug's ProxyFix the real peer counts, whatever address it has put in its place."""
        from werkzeug.middleware.proxy_fix import ProxyFix

        headers = [("x-customer-id", "acme"), ("x-forwarded-for", "203.0.113.9")]
        assert Caller(identifier="acme") == WSGIDoor().ask(headers, through=ProxyFix).caller
        headers = [("x-customer-id", "acme"), ("x-forwarded-for", "127.0.0.1")]
        assert WSGIDoor().ask(headers, through=ProxyFix, peer=STRANGER).caller is None


class TestProxySecret:
    """A header that only the proxy knows."""

    IDENTIFY = HeaderIdentity(proxy_secret=PROXY_SECRET)

    @pytest.mark.parametrize("peer", [STRANGER, None, LOOPBACK, ("127.0.0.1", 0)])
    def test_it_proves_the_proxy_wherever_it_is(self, door: Door, peer: Peer) -> None:
        """With the right secret the address does not matter."""
        headers = [("x-customer-id", "acme"), ("X-Kwai-Proxy", PROXY_SECRET), ("x-forwarded-for", "127.0.0.1:5")]
        assert Caller(identifier="acme") == door.ask(headers, identify=self.IDENTIFY, peer=peer).caller

    @pytest.mark.parametrize("headers", [[("x-customer-id", "acme")], [("accept", "*/*")]])
    @pytest.mark.parametrize("secret", [PROXY_SECRET, "wrong"])
    def test_it_is_taken_out_of_the_request(self, door: Door, headers: Any, secret: str) -> None:
        """Neither the app nor what sits outside of us sees the secret, right or wrong, from then on."""
        seen = door.ask([*headers, ("x-kwai-proxy", secret)], identify=self.IDENTIFY)
        assert "x-kwai-proxy" not in dict(seen.app_headers)
        assert secret not in repr(seen.request)

    @pytest.mark.parametrize(
        "proof",
        [
            pytest.param([], id="missing"),
            pytest.param([("x-kwai-proxy", "wrong")], id="wrong"),
            pytest.param([("x-kwai-proxy", "")], id="empty"),
            pytest.param([("x-kwai-proxy", PROXY_SECRET), ("x-kwai-proxy", PROXY_SECRET)], id="twice"),
            pytest.param([("x-kwai-proxy", f"{PROXY_SECRET},{PROXY_SECRET}")], id="joined"),
            pytest.param([("x-kwai-proxy", PROXY_SECRET.upper())], id="case"),
            pytest.param([("x-kwai-proxy", PROXY_SECRET + "x" * 5000)], id="long"),
            pytest.param([("x-kwai-proxy", b"\xff")], id="bytes"),
        ],
    )
    def test_nothing_else_proves_it(self, door: Door, caplog: pytest.LogCaptureFixture, proof: Any) -> None:
        """Not even this machine's own address does, once there is a secret."""
        is_ignored(door, caplog, Doubt.UNPROVEN, [("x-customer-id", "acme"), *proof], identify=self.IDENTIFY)

    def test_peers_that_are_written_out_are_an_alternative(self, door: Door) -> None:
        """With both given, either is enough."""
        identify = HeaderIdentity(proxy_secret=Secret(PROXY_SECRET), trusted_peers=("10.0.0.0/8",))
        assert door.ask([("x-customer-id", "acme")], identify=identify, peer=("10.0.0.1", 5)).caller is not None
        assert door.ask([("x-customer-id", "acme")], identify=identify, peer=LOOPBACK).caller is None
        headers = [("x-customer-id", "acme"), ("x-kwai-proxy", PROXY_SECRET)]
        assert door.ask(headers, identify=identify, peer=STRANGER).caller is not None

    def test_the_header_can_be_named(self, door: Door) -> None:
        """The proof may come in another header."""
        identify = HeaderIdentity(proxy_secret=PROXY_SECRET, proxy_header="X-From-Proxy")
        headers = [("x-customer-id", "acme"), ("x-from-proxy", PROXY_SECRET)]
        assert Caller(identifier="acme") == door.ask(headers, identify=identify, peer=STRANGER).caller

    def test_without_a_secret_the_header_is_the_apps(self, door: Door) -> None:
        """A header that we have no use for is left where it is."""
        seen = door.ask([("x-kwai-proxy", "something")])
        assert dict(seen.app_headers)["x-kwai-proxy"] == "something"

    @pytest.mark.parametrize("secret", ["", "two words", "a,b", "ä", "line\n", 5, b"bytes"])
    def test_a_secret_that_no_header_carries_is_a_configuration_error(self, secret: Any) -> None:
        """An unset variable (an empty text) does not switch the proof off in silence; nothing is quoted."""
        with pytest.raises(ConfigurationError, match=r"^HeaderIdentity.proxy_secret: ") as caught:
            HeaderIdentity(proxy_secret=secret)
        assert secret == "" or str(secret) not in str(caught.value)

    def test_the_secret_is_nowhere_in_what_the_object_shows(self) -> None:
        """The object can be logged."""
        assert PROXY_SECRET not in repr(self.IDENTIFY)


@pytest.mark.parametrize("name", ["", "x customer", "x:y", "x-cust\u00f6mer", None, 5, b"x-customer-id"])
def test_what_is_no_header_name_is_a_configuration_error(name: Any) -> None:
    """A name that no request can have is refused at start."""
    with pytest.raises(ConfigurationError, match=r"^HeaderIdentity.identifier: the name of a header"):
        HeaderIdentity(identifier=name)


@pytest.mark.parametrize(
    "names", [{"name": "X-Customer-ID"}, {"group": "x-t", "thread": "x-t"}, {"proxy_header": "x-customer-id"}]
)
def test_one_header_cannot_be_two_fields(names: dict[str, str]) -> None:
    """Each field has a header of its own."""
    with pytest.raises(ConfigurationError, match="each field needs a header of its own"):
        HeaderIdentity(**names)  # type: ignore[arg-type]  # texts, all of them


header_values = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=130).map(str.encode),
    st.binary(min_size=1, max_size=3).map(lambda part: part * 1500),
    st.text(alphabet="e\u0301\u0308 \t,\x85\u2028\ud7ff\U0010ffff", max_size=150).map(str.encode),
)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
@given(sent=st.lists(st.tuples(st.sampled_from(sorted(FIELDS)), header_values), max_size=4))
def test_any_bytes_are_a_valid_caller_or_a_400(door: Door, sent: list[tuple[str, bytes]]) -> None:
    """Whatever a header holds, it becomes a caller in one spelling or a 400 without the value; never anything else."""
    seen = door.ask(sent)
    if seen.app_ran:
        assert seen.status == 200
        assert seen.caller is None or seen.caller == msgspec.structs.replace(seen.caller)  # which checks each field
        for field in FIELDS.values():
            text = getattr(seen.caller, field, None)
            if text is not None:
                assert 0 < len(text) <= TEXT_LIMITS[field]
                assert text == text.strip() == unicodedata.normalize("NFC", text)
                assert not any(unicodedata.category(character) == "Cc" for character in text)
                assert field == "name" or "," not in text
    else:
        assert seen.status == 400
        assert seen.caller is None
        assert seen.problem["header"] in dict(sent)
