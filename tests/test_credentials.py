"""Key headers: what is read from them, that they are taken out of the request, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._caller import Caller, Credential
from kwai_middleware._context import current_slot
from kwai_middleware._secret import Secret
from kwai_middleware.credentials import HeaderCredentials
from kwai_middleware.errors import ConfigurationError
from kwai_middleware.identity import HeaderIdentity
from tests.apps.doors import DOORS, ASGIDoor, Door, Peer, WSGIDoor

KEY = "sk-or-v1-0123456789abcdef"
STRANGER: Peer = ("203.0.113.9", 41000)
TWO = HeaderCredentials({"X-OpenRouter-Key": "openrouter", "x-openai-key": "openai"})
BEARER = HeaderCredentials({"authorization": "openrouter"})


@pytest.fixture(params=DOORS, ids=lambda door: door.name)
def door(request: pytest.FixtureRequest) -> Door:
    """Each test holds for both doors."""
    chosen: Door = request.param
    return chosen


def of(*credentials: tuple[str, str]) -> Caller:
    """A caller of whom only keys are known."""
    return Caller(
        credentials=tuple(Credential(provider=provider, api_key=Secret(key)) for provider, key in credentials)
    )


@pytest.mark.parametrize("peer", [("127.0.0.1", 5), STRANGER, ("203.0.113.9", 0), None])
def test_a_key_is_taken_from_anyone(door: Door, peer: Peer) -> None:
    """A key is a bearer secret: who has it may use it, from wherever; alone it makes a caller without identifier."""
    assert of(("openrouter", KEY)) == door.ask([("x-openrouter-key", KEY)], peer=peer).caller


def test_a_strangers_key_counts_without_the_strangers_identity(door: Door) -> None:
    """From an unproven peer the key is taken and the identity is not."""
    headers = [("x-customer-id", "acme"), ("x-openrouter-key", KEY)]
    seen = door.ask(headers, peer=STRANGER)
    assert of(("openrouter", KEY)) == seen.caller
    assert seen.customer_id is None


def test_several_providers_have_a_header_each(door: Door) -> None:
    """Keys come in the order in which the app has named the headers."""
    headers = [("x-openai-key", "sk-b"), ("x-openrouter-key", "sk-a")]
    assert of(("openrouter", "sk-a"), ("openai", "sk-b")) == door.ask(headers, credentials=TWO).caller


@pytest.mark.parametrize("value", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER   {KEY}", f" Bearer {KEY} "])
def test_authorization_carries_a_bearer_key(door: Door, value: str) -> None:
    """The scheme is written in any case, and taken off."""
    assert of(("openrouter", KEY)) == door.ask([("authorization", value)], credentials=BEARER).caller


@pytest.mark.parametrize("value", [KEY, f"Basic {KEY}", "Bearer", "Bearer ", "Bearer two words", f"Bearer{KEY}", ""])
def test_another_authorization_is_refused(door: Door, value: str) -> None:
    """What is not one bearer key is 400, not "no key"."""
    seen = door.ask([("authorization", value)], credentials=BEARER)
    assert seen.status == 400
    assert not seen.app_ran
    assert seen.problem["header"] == "authorization"


def test_a_key_header_is_taken_out_in_place(door: Door) -> None:
    """Neither the app nor what sits outside of us sees the key in the request from then on."""
    outside: dict[str, Any] = {}

    def through(app: Any) -> Any:
        if door.name == "asgi":

            async def outer(scope: Any, receive: Any, send: Any) -> None:
                outside["headers"] = scope["headers"]
                await app(scope, receive, send)

            return outer

        def outer_wsgi(environ: Any, start_response: Any) -> Any:
            outside["headers"] = environ
            return app(environ, start_response)

        return outer_wsgi

    headers = [("accept", "*/*"), ("x-openrouter-key", KEY), ("x-customer-id", "acme"), ("x-other", "1")]
    seen = door.ask(headers, through=through)
    assert KEY not in repr(outside)
    assert "openrouter" not in dict(seen.app_headers)
    assert [("accept", "*/*"), ("x-customer-id", "acme"), ("x-other", "1")] == seen.app_headers
    assert KEY not in repr(seen.request)


@pytest.mark.parametrize(
    "kind", [tuple, iter, lambda headers: (header for header in headers)], ids=["tuple", "iterator", "generator"]
)
def test_headers_that_are_no_list_are_replaced(kind: Any) -> None:
    """ASGI allows any iterable of headers, also one that can be read only once."""

    def through(app: Any) -> Any:
        async def outer(scope: Any, receive: Any, send: Any) -> None:
            scope["headers"] = kind(scope["headers"])
            await app(scope, receive, send)

        return outer

    seen = ASGIDoor().ask([("x-openrouter-key", KEY), ("accept", "*/*"), ("x-customer-id", "acme")], through=through)
    assert Caller(identifier="acme", credentials=of(("openrouter", KEY)).credentials) == seen.caller
    assert [("accept", "*/*"), ("x-customer-id", "acme")] == seen.app_headers


def test_headers_that_are_lists_are_taken_out_too() -> None:
    """A header may come as a list of two."""

    def through(app: Any) -> Any:
        async def outer(scope: Any, receive: Any, send: Any) -> None:
            scope["headers"] = [[name, value] for name, value in scope["headers"]]
            await app(scope, receive, send)

        return outer

    seen = ASGIDoor().ask([("x-openrouter-key", KEY), ("accept", "*/*")], through=through)
    assert of(("openrouter", KEY)) == seen.caller
    assert [("accept", "*/*")] == seen.app_headers


@pytest.mark.parametrize(
    "headers", [[("x-openrouter-key", "two words")], [("x-openrouter-key", "a"), ("x-openrouter-key", "b")]]
)
def test_a_broken_key_is_taken_out_too(door: Door, headers: Any) -> None:
    """A request that is refused for its key does not leave it for an access log to see."""
    seen = door.ask([*headers, ("accept", "*/*")])
    assert seen.status == 400
    assert "openrouter" not in repr(seen.request).lower()


def test_it_is_taken_out_when_the_identity_is_refused(door: Door) -> None:
    """Also a request that is refused for another header has lost its key by then."""
    seen = door.ask([("x-openrouter-key", KEY), ("x-customer-id", "a,b")])
    assert seen.status == 400
    assert seen.problem["header"] == "x-customer-id"
    assert KEY not in repr(seen.request)


def test_strip_can_be_switched_off(door: Door) -> None:
    """An app that needs the header itself can have it left in."""
    seen = door.ask([("x-openrouter-key", KEY)], credentials=HeaderCredentials(strip=False))
    assert of(("openrouter", KEY)) == seen.caller
    assert [("x-openrouter-key", KEY)] == seen.app_headers
    refused = door.ask([("x-openrouter-key", "")], credentials=HeaderCredentials(strip=False))
    assert refused.status == 400


@pytest.mark.parametrize("peer", [("127.0.0.1", 5), STRANGER])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        pytest.param("", "is empty, or has a blank", id="empty"),
        pytest.param("   ", "is empty, or has a blank", id="blank"),
        pytest.param("two words", "is empty, or has a blank", id="words"),
        pytest.param("tab\tbed", "is empty, or has a blank", id="tab"),
        pytest.param("k\u00e9y", "is empty, or has a blank", id="non-ascii"),
        pytest.param(b"\xff\xfe", "is empty, or has a blank", id="bytes"),
        pytest.param("a,b", "has a comma", id="comma"),
        pytest.param("a" * 4097, "is longer than 4096 bytes", id="long"),
    ],
)
def test_a_malformed_key_is_refused_whoever_sends_it(door: Door, peer: Peer, value: str | bytes, reason: str) -> None:
    """A header that is there but has no usable key is 400: never the app's own key, and never an echo."""
    seen = door.ask([("x-openrouter-key", value)], peer=peer)
    assert seen.status == 400
    assert not seen.app_ran
    assert seen.problem["header"] == "x-openrouter-key"
    assert f"The header x-openrouter-key {reason}" in seen.problem["detail"]
    shown = value.decode("latin-1") if isinstance(value, bytes) else value
    assert len(shown) < 4 or shown not in seen.body.decode()


def test_a_key_sent_twice_is_refused(door: Door) -> None:
    """Two keys in one header's name are 400, also when they are the same."""
    for second in (KEY, "sk-other"):
        seen = door.ask([("x-openrouter-key", KEY), ("x-openrouter-key", second)])
        assert seen.status == 400
        assert not seen.app_ran
        assert KEY not in seen.body.decode()


def test_the_longest_key_is_taken(door: Door) -> None:
    """4096 bytes are not too many."""
    assert of(("openrouter", "k" * 4096)) == door.ask([("x-openrouter-key", "k" * 4096)]).caller


def test_the_slot_keeps_what_was_taken_out() -> None:
    """An inner middleware can find the key, masked, in the slot."""
    kept: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        kept.append(current_slot().withheld)
        assert current_slot() is scope["kwai_middleware"]

    from kwai_middleware.asgi import ASGIMiddleware

    door = ASGIDoor()
    from tests.apps.doors import Seen

    seen = Seen(request=door.scope([("x-openrouter-key", KEY)], "GET", "/", None))
    door.send(ASGIMiddleware(app), seen)
    assert [{"x-openrouter-key": Secret(KEY)}] == kept


@pytest.mark.parametrize("headers", [{}, None, [("x-a", "openrouter")], "x-openrouter-key"])
def test_no_mapping_is_a_configuration_error(headers: Any) -> None:
    """Without a header there is nothing to read, and the message says what to write instead."""
    with pytest.raises(ConfigurationError, match="credentials=None"):
        HeaderCredentials(headers)


@pytest.mark.parametrize("name", ["", "x key", None, 5])
def test_a_bad_header_name_is_a_configuration_error(name: Any) -> None:
    """A name that no request can have is refused at start."""
    with pytest.raises(ConfigurationError, match=r"^HeaderCredentials: the name of a header"):
        HeaderCredentials({name: "openrouter"})


@pytest.mark.parametrize("provider", ["", "OpenRouter", "open router", None, 5])
def test_a_bad_provider_is_a_configuration_error(provider: Any) -> None:
    """A provider that the vendor cannot know is refused at start, with what is allowed."""
    with pytest.raises(ConfigurationError, match=r"^HeaderCredentials: Credential.provider: 1 to 64 characters"):
        HeaderCredentials({"x-key": provider})


def test_one_header_cannot_be_two_providers() -> None:
    """Two spellings of one name are one header."""
    with pytest.raises(ConfigurationError, match="same name"):
        HeaderCredentials({"x-key": "openrouter", "X-Key": "openai"})


def test_one_header_cannot_be_identity_and_key(door: Door) -> None:
    """A header is either public or secret."""
    with pytest.raises(ConfigurationError, match="read the same header"):
        door.ask(identify=HeaderIdentity(identifier="x-openrouter-key"))


def test_it_can_be_logged() -> None:
    """The object shows the headers it reads."""
    assert repr(TWO) == "HeaderCredentials({'x-openrouter-key': 'openrouter', 'x-openai-key': 'openai'})"


def test_names_are_found_in_any_case_under_wsgi() -> None:
    """WSGI writes names in upper case with underscores."""
    assert of(("openrouter", KEY)) == WSGIDoor().ask([("X-OPENROUTER-KEY", KEY)]).caller


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.name)
@given(sent=st.lists(st.one_of(st.binary(max_size=60), st.text("!~aZ-_ \t,", max_size=60).map(str.encode)), max_size=2))
def test_any_bytes_are_a_key_or_a_400(door: Door, sent: list[bytes]) -> None:
    """Whatever a key header holds, it becomes exactly that key or a 400 without it; never anything else."""
    seen = door.ask([("x-openrouter-key", value) for value in sent])
    if not sent:
        assert seen.app_ran
        assert seen.caller is None
    elif seen.app_ran:
        assert len(sent) == 1
        assert of(("openrouter", sent[0].strip(b" \t").decode("ascii"))) == seen.caller
    else:
        assert seen.status == 400
        assert seen.problem["header"] == "x-openrouter-key"
        assert seen.problem["detail"].removeprefix("The header x-openrouter-key ") in {
            "was sent more than once.",
            "has a comma, as two headers of that name become one with.",
            "is empty, or has a blank, a control or a non-ASCII character.",
        }
