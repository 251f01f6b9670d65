"""Lists of weighted keys in a header: what is read, what is refused, and that no key is left lying about."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._caller import Caller, Credential
from kwai_middleware._context import Binding, current_slot
from kwai_middleware._inbound.asgi_request import ASGIRequest, HeaderNames
from kwai_middleware._inbound.request import InboundRequest
from kwai_middleware._inbound.resolver import Resolver
from kwai_middleware._inbound.wsgi_request import WSGIRequest, environ_key, sent_headers
from kwai_middleware._secret import Secret
from kwai_middleware._slot import Slot, WeightedKey
from kwai_middleware.credentials import HeaderCredentials
from kwai_middleware.errors import ConfigurationError, InvalidHeader
from kwai_middleware.structlog_processors import mask_keys
from tests.apps.doors import DOORS, LOOPBACK, ASGIDoor, Door, Headers, Seen, WSGIDoor
from tests.support.exposure import exposures
from tests.test_project import run_python

NAME = "x-openrouter-key"
KEY = "sk-or-v1-0123456789abcdef"
LISTS = HeaderCredentials(lists=True)


@pytest.fixture(params=DOORS, ids=lambda door: door.name)
def door(request: pytest.FixtureRequest) -> Door:
    """Each test holds for both doors."""
    chosen: Door = request.param
    return chosen


def credentials(*keys: tuple[str, float], provider: str = "openrouter") -> tuple[Credential, ...]:
    """Keys of one provider with their weights."""
    return tuple(Credential(provider=provider, api_key=Secret(key), weight=weight) for key, weight in keys)


def weighted(*keys: tuple[str, float]) -> tuple[WeightedKey, ...]:
    """Keys with their weights."""
    return tuple(WeightedKey(Secret(key), weight) for key, weight in keys)


def ask(door: Door, *values: str | bytes, **options: Any) -> Seen:
    """Send each value in a line of its own."""
    return door.ask([(NAME, value) for value in values], **{"credentials": LISTS, **options})


class TestReading:
    """What a list becomes."""

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            pytest.param("sk-or-v1-aaa", [("sk-or-v1-aaa", 1)], id="one"),
            pytest.param(" sk-a , sk-b\t,\tsk-c ", [("sk-a", 1), ("sk-b", 1), ("sk-c", 1)], id="blanks"),
            pytest.param("\tsk-a\t", [("sk-a", 1)], id="tabs-around"),
            pytest.param("sk-a;w=3,sk-b;weight=2", [("sk-a", 3), ("sk-b", 2)], id="weights"),
            pytest.param("sk-a; w=0.5, sk-b;w=2.125", [("sk-a", 0.5), ("sk-b", 2.125)], id="decimals"),
            pytest.param("sk-a;w=0.001,sk-b;w=999999999999999", [("sk-a", 0.001), ("sk-b", 1e15 - 1)], id="bounds"),
            pytest.param('"1key/with:odd=chars";w=0.5', [("1key/with:odd=chars", 0.5)], id="quoted"),
            pytest.param('"a,b", "c;w=3"', [("a,b", 1), ("c;w=3", 1)], id="quoted-delimiters"),
            pytest.param('"a\\"b\\\\c"', [('a"b\\c', 1)], id="escapes"),
            pytest.param("*a/b:c!#$%&'*+-.^_`|~", [("*a/b:c!#$%&'*+-.^_`|~", 1)], id="all-of-a-token"),
            pytest.param('sk-a, "1/b:c";w=0.5, sk-c;w=3', [("sk-a", 1), ("1/b:c", 0.5), ("sk-c", 3)], id="all"),
        ],
    )
    def test_each_key_is_a_credential_with_its_weight(
        self, door: Door, value: str, expected: list[tuple[str, float]]
    ) -> None:
        """The keys become credentials of the header's provider, in the order sent; a key without weight has 1."""
        seen = ask(door, value)
        assert Caller(credentials=credentials(*expected)) == seen.caller
        assert [] == seen.app_headers

    def test_several_lines_are_one_list(self, door: Door) -> None:
        """Header lines of one name belong together, whether or not the server has joined them."""
        seen = ask(door, "sk-a;w=3, sk-b", "sk-c", '"4=d";w=0.5')
        expected = credentials(("sk-a", 3), ("sk-b", 1), ("sk-c", 1), ("4=d", 0.5))
        assert Caller(credentials=expected) == seen.caller
        assert [] == seen.app_headers

    def test_a_list_is_the_callers_beside_an_identity(self, door: Door) -> None:
        """The identity is read as ever, and a list counts as a key where one is required."""
        seen = door.ask([("x-customer-id", "acme"), (NAME, "sk-a,sk-b")], credentials=LISTS, required_key=True)
        assert Caller(identifier="acme", credentials=credentials(("sk-a", 1), ("sk-b", 1))) == seen.caller
        assert door.ask(credentials=LISTS, required_key=True).status == 401
        assert door.ask(credentials=LISTS).caller is None

    def test_only_the_headers_named_hold_lists(self, door: Door) -> None:
        """The others hold one key each, as ever, and say so."""
        some = HeaderCredentials({"X-OpenRouter-Key": "openrouter", "x-b": "openai"}, lists=("X-OpenRouter-Key",))
        seen = door.ask([("x-b", "a=b"), (NAME, "sk-a,sk-b")], credentials=some)
        expected = (*credentials(("sk-a", 1), ("sk-b", 1)), *credentials(("a=b", 1), provider="openai"))
        assert Caller(credentials=expected) == seen.caller
        for headers in ([("x-b", "a,b")], [("x-b", "a"), ("x-b", "b")]):
            seen = door.ask(headers, credentials=some)
            assert seen.status == 400
            assert seen.problem["header"] == "x-b"

    def test_authorization_may_stand_beside_a_list(self, door: Door) -> None:
        """It is a bearer key even where other headers hold lists."""
        both = HeaderCredentials({"authorization": "openai", NAME: "openrouter"}, lists=[NAME])
        seen = door.ask([("authorization", "Bearer t"), (NAME, "sk-a;w=2")], credentials=both)
        assert Caller(credentials=(*credentials(("t", 1), provider="openai"), *credentials(("sk-a", 2)))) == seen.caller

    def test_sixteen_keys_in_4096_bytes_are_taken(self, door: Door) -> None:
        """That many, and that long, is allowed."""
        keys = [f"k{number:x}" for number in range(16)]
        assert Caller(credentials=credentials(*((key, 1) for key in keys))) == ask(door, ",".join(keys)).caller
        assert Caller(credentials=credentials(("k" * 4096, 1))) == ask(door, "k" * 4096).caller

    @given(
        keys=st.dictionaries(
            st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40),
            st.one_of(
                st.none(),
                st.integers(1, 10**15 - 1),
                st.decimals(Decimal("0.001"), Decimal(10**9), places=3, allow_nan=False),
            ),
            min_size=1,
            max_size=16,
        )
    )
    def test_whatever_a_client_writes_by_the_rfc_is_read_as_it_meant(self, keys: dict[str, Any]) -> None:
        """Any keys with any weights, serialised by the RFC's own rules, arrive as they were."""
        value = http_sf.ser([(key, {} if weight is None else {"w": weight}) for key, weight in keys.items()])
        expected = [(key, 1.0 if weight is None else float(weight)) for key, weight in keys.items()]
        assert Caller(credentials=credentials(*expected)) == ask(ASGIDoor(), value).caller


NOT_A_LIST = "is not a list of keys; expected are 1 to 16 keys as an RFC 9651 list, such as: "
NO_KEY = "has something in its list that is neither a token nor a quoted string; expected "
NO_WEIGHT = "has a key with something else beside it than a weight above 0 (w=3, w=0.5); expected "
EMPTY = "has a key that is empty or has a blank in it; expected "
BROKEN = [
    pytest.param("sk-secret,", NOT_A_LIST, id="trailing-comma"),
    pytest.param(",sk-secret", NOT_A_LIST, id="leading-comma"),
    pytest.param("sk-secret sk-other", NOT_A_LIST, id="two-words"),
    pytest.param("sk-secret=", NOT_A_LIST, id="no-token"),
    pytest.param("1sk-secret", NOT_A_LIST, id="digit-first"),
    pytest.param('"sk-secret', NOT_A_LIST, id="open-quote"),
    pytest.param('"sk-secret\\x"', NOT_A_LIST, id="bad-escape"),
    pytest.param('"sk-secret\u00e9"', NOT_A_LIST, id="non-ascii"),
    pytest.param(b"sk-secret\xff", NOT_A_LIST, id="bytes"),
    pytest.param("sk-secret\x00", NOT_A_LIST, id="nul"),
    pytest.param("sk-secret;w=1;w=2", NOT_A_LIST, id="weight-twice"),
    pytest.param("sk-secret;w=", NOT_A_LIST, id="weight-missing"),
    pytest.param("sk-secret;w=1.2345", NOT_A_LIST, id="weight-too-fine"),
    pytest.param("sk-secret;w=1e3", NOT_A_LIST, id="weight-exponent"),
    pytest.param("sk-secret;w=9999999999999999", NOT_A_LIST, id="weight-too-large"),
    pytest.param("sk-secret;W=1", NOT_A_LIST, id="upper-case-parameter"),
    pytest.param("sk-secret ;w=1", NOT_A_LIST, id="blank-before-parameter"),
    pytest.param("", "has 0 keys; expected are 1 to 16 keys", id="empty"),
    pytest.param(" \t ", "has 0 keys; expected are 1 to 16 keys", id="blank"),
    pytest.param(",".join(f"sk-secret{n}" for n in range(17)), "has 17 keys; expected are 1 to 16 keys", id="many"),
    pytest.param("sk-secret," + "k" * 4096, "is longer than 4096 bytes", id="long"),
    pytest.param("(sk-secret sk-b)", NO_KEY, id="inner-list"),
    pytest.param(":c2stc2VjcmV0:", NO_KEY, id="bytes-sequence"),
    pytest.param('%"sk-secret"', NO_KEY, id="display-string"),
    pytest.param("sk-secret, @1659578233", NO_KEY, id="date"),
    pytest.param("sk-secret, ?1", NO_KEY, id="boolean"),
    pytest.param("sk-secret, 12", NO_KEY, id="integer"),
    pytest.param("sk-secret, 1.5", NO_KEY, id="decimal"),
    pytest.param("sk-secret;w", NO_WEIGHT, id="weight-bare"),
    pytest.param("sk-secret;w=?1", NO_WEIGHT, id="weight-boolean"),
    pytest.param("sk-secret;w=0", NO_WEIGHT, id="weight-zero"),
    pytest.param("sk-secret;w=0.0", NO_WEIGHT, id="weight-zero-decimal"),
    pytest.param("sk-secret;w=-1", NO_WEIGHT, id="weight-negative"),
    pytest.param("sk-secret;w=heavy", NO_WEIGHT, id="weight-token"),
    pytest.param('sk-secret;w="3"', NO_WEIGHT, id="weight-string"),
    pytest.param("sk-secret;w=@3", NO_WEIGHT, id="weight-date"),
    pytest.param("sk-secret;q=3", NO_WEIGHT, id="other-parameter"),
    pytest.param("sk-secret;w=3;provider=openai", NO_WEIGHT, id="one-parameter-more"),
    pytest.param("sk-secret;w=3;weight=3", NO_WEIGHT, id="weight-by-both-names"),
    pytest.param('sk-secret, ""', EMPTY, id="empty-key"),
    pytest.param('"sk-secret b"', EMPTY, id="blank-in-key"),
    pytest.param("sk-secret, sk-secret;w=2", "has a key twice; expected ", id="key-twice"),
    pytest.param('sk-secret, "sk-secret"', "has a key twice; expected ", id="key-twice-quoted"),
]


class TestRefusals:
    """What is no list of keys is a 400 that says what one is."""

    @pytest.mark.parametrize(("value", "reason"), BROKEN)
    def test_what_is_no_list_of_keys_is_refused(self, door: Door, value: str | bytes, reason: str) -> None:
        """The answer names the header and what is expected, holds nothing of the value, and the app does not run."""
        seen = ask(door, value)
        assert seen.status == 400
        assert not seen.app_ran
        assert seen.problem["header"] == NAME
        assert seen.problem["detail"].startswith(f"The header {NAME} {reason}")
        assert "secret" not in seen.body.decode()
        assert "openrouter" not in repr(seen.request).lower()

    @pytest.mark.parametrize(
        "values",
        [
            pytest.param([KEY, KEY], id="same-key"),
            pytest.param([KEY, ""], id="empty-line"),
            pytest.param([KEY, "two words"], id="broken-line"),
            pytest.param([f"k{n}" for n in range(17)], id="many"),
            pytest.param(["a" * 2500, "b" * 2500], id="long-together"),
            pytest.param(["a" * 5000, "b", "c"], id="long"),
            pytest.param([f"{n:x}" * 200 for n in range(2000)], id="thousands"),
        ],
    )
    def test_lines_that_are_no_list_together_are_refused(self, door: Door, values: list[str]) -> None:
        """The bounds are those of all lines together, and all of them are taken out of the request."""
        seen = ask(door, *values)
        assert seen.status == 400
        assert seen.problem["header"] == NAME
        assert KEY not in seen.body.decode()
        assert "openrouter" not in repr(seen.request).lower()

    @pytest.mark.parametrize(("value", "reason"), BROKEN)
    @pytest.mark.parametrize("strip", [True, False])
    def test_no_frame_of_a_refusal_holds_the_value(
        self, door: Door, value: str | bytes, reason: str, strip: bool
    ) -> None:
        """An error report with the locals of each frame shows nothing of a key that was refused."""
        request, resolver = received(door, [(NAME, value)], HeaderCredentials(lists=True, strip=strip))
        with pytest.raises(InvalidHeader) as caught:
            resolver.resolve(request)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None
        found = exposures(caught.value, "secret", below="resolve", attributes=strip)
        assert [] == found

    def test_without_lists_a_comma_and_a_second_line_stay_refused(self, door: Door) -> None:
        """Several keys are never taken for one where no list was asked for."""
        for values in (["sk-a,sk-b"], ["sk-a", "sk-b"]):
            assert ask(door, *values, credentials=HeaderCredentials()).status == 400
        plain = ask(door, '"quoted";w=3', credentials=HeaderCredentials())
        assert Caller(credentials=credentials(('"quoted";w=3', 1))) == plain.caller


def received(door: Door, headers: Headers, keys: HeaderCredentials) -> tuple[InboundRequest, Resolver]:
    """A request as a door has it when it asks for its caller."""
    resolver = Resolver(None, keys, False, False)
    interest = resolver.interest
    if isinstance(door, ASGIDoor):
        scope = door.scope(headers, "GET", "/", LOOPBACK)
        return ASGIRequest(scope, HeaderNames(*interest).take(scope), interest, None), resolver
    environ = door.environ(headers, "GET", "/", LOOPBACK)
    sent = sent_headers(environ, {environ_key(name): name for name in interest.known}, interest.secret)
    return WSGIRequest(environ, sent, interest, None), resolver


class TestTakingOut:
    """List headers are gone from the request, in place."""

    @pytest.mark.parametrize("lines", [1, 3, 9, 16])
    def test_every_line_is_taken_out_in_place(self, door: Door, lines: int) -> None:
        """What sits outside of us holds the same list or environ, and sees no key in it from then on."""
        outside: list[Any] = []

        def through(app: Any) -> Any:
            def outer(request: Any, *rest: Any) -> Any:
                outside.append(request["headers"] if door.name == "asgi" else request)
                return app(request, *rest)

            return outer

        headers = [("accept", "*/*"), *((NAME, f"{KEY}-{n}") for n in range(lines)), ("x-other", "1")]
        seen = door.ask(headers, credentials=LISTS, through=through)
        assert Caller(credentials=credentials(*((f"{KEY}-{n}", 1) for n in range(lines)))) == seen.caller
        assert KEY not in repr(outside)
        assert [("accept", "*/*"), ("x-other", "1")] == seen.app_headers

    def test_a_header_sent_often_is_taken_out_where_it_holds_one_key_too(self) -> None:
        """However many lines a client sends, none stays."""
        headers = [("accept", "*/*"), *[(NAME, KEY)] * 500, ("x-other", "1")]
        seen = ASGIDoor().ask(headers)
        assert seen.status == 400
        assert [(b"accept", b"*/*"), (b"x-other", b"1")] == seen.request["headers"]

    def test_strip_can_be_switched_off(self, door: Door) -> None:
        """An app that needs the header itself can have it left in."""
        seen = ask(door, "sk-a;w=2, sk-b", credentials=HeaderCredentials(lists=True, strip=False))
        assert Caller(credentials=credentials(("sk-a", 2), ("sk-b", 1))) == seen.caller
        assert [(NAME, "sk-a;w=2, sk-b")] == seen.app_headers
        broken = ask(door, "sk-a sk-b", credentials=HeaderCredentials(lists=True, strip=False))
        assert broken.status == 400

    @pytest.mark.parametrize("values", [[KEY], [f"{KEY};w=2", "sk-b"], [f"{KEY} broken"], [f"{KEY}1", f"{KEY}1"]])
    def test_no_key_lies_about_in_the_request_while_callables_run(self, door: Door, values: list[str]) -> None:
        """An error report that shows the request and all it holds shows no key of a list, broken or not."""
        shown: list[str] = []

        def identify(request: InboundRequest) -> None:
            shown.append(repr([getattr(request, name) for name in InboundRequest.__slots__]))

        ask(door, *values, identify=identify)
        assert KEY not in shown[0]

    def test_each_withheld_key_is_masked_in_logs(self) -> None:
        """The processor for structlog knows all keys of a list, also those that are not the caller's."""
        first, second = "1st=key-0123456789", "2nd=key-0123456789"
        single = "3rd=key-0123456789"
        with Binding(Slot(None, {NAME: weighted((first, 1), (second, 2)), "x-one": Secret(single)})):
            event = {"event": f"{first} {second} {single} other"}
            assert {"event": "**** **** **** other"} == mask_keys(None, "info", event)


class TestNesting:
    """Inside another middleware."""

    def nest(self, door: Door, headers: Headers, outer: Any, inner: Any) -> Seen:
        """Ask through two middlewares, the inner one with `override`."""

        def through(app: Any) -> Any:
            return type(app)(app, credentials=outer)

        return door.ask(headers, through=through, credentials=inner, override=True)

    def test_an_overriding_one_finds_the_whole_list(self, door: Door) -> None:
        """All keys that the outer one has taken out are found, with their weights."""
        seen = self.nest(door, [(NAME, "sk-a;w=3"), (NAME, "sk-b")], LISTS, HeaderCredentials(lists=True))
        assert Caller(credentials=credentials(("sk-a", 3), ("sk-b", 1))) == seen.caller

    def test_an_overriding_one_that_reads_one_key_takes_no_list_for_one(self, door: Door) -> None:
        """A list of one is that key; of several none is chosen in silence."""
        seen = self.nest(door, [(NAME, "sk-a;w=3")], LISTS, HeaderCredentials())
        assert Caller(credentials=credentials(("sk-a", 1))) == seen.caller
        seen = self.nest(door, [(NAME, "sk-a, sk-b")], LISTS, HeaderCredentials())
        assert seen.status == 400
        assert seen.problem["header"] == NAME

    def test_an_overriding_one_that_reads_lists_finds_the_one_key(self, door: Door) -> None:
        """What the outer one took out as one key is a list of one."""
        seen = self.nest(door, [(NAME, "a=b")], HeaderCredentials(), LISTS)
        assert Caller(credentials=credentials(("a=b", 1))) == seen.caller

    def test_an_overriding_one_finds_nothing_where_nothing_was(self, door: Door) -> None:
        """Without the header there are no keys, inside as outside."""
        assert self.nest(door, [], LISTS, LISTS).caller is None


class TestCallables:
    """`request.secrets` for callables of the app's."""

    def test_it_reads_takes_out_and_remembers(self, door: Door) -> None:
        """A callable can read a list as safely as the library does, also more than once."""

        def keys(request: InboundRequest) -> list[Credential]:
            first, second = request.secrets("X-My-Keys"), request.secrets("x-my-keys")
            assert first is second
            return [Credential(api_key=key, weight=weight) for key, weight in first]

        headers = [("x-my-keys", "sk-a;w=3"), ("accept", "*/*"), ("x-my-keys", "sk-b")]
        seen = door.ask(headers, credentials=keys)
        assert Caller(credentials=credentials(("sk-a", 3), ("sk-b", 1))) == seen.caller
        assert [("accept", "*/*")] == seen.app_headers

    @pytest.mark.parametrize("strip", [True, False])
    def test_a_broken_list_is_refused_each_time(self, door: Door, strip: bool) -> None:
        """A broken list never means "no keys", also when it is asked for again; no frame holds it."""

        def keys(request: InboundRequest) -> list[Credential]:
            for _ in range(2):
                with pytest.raises(InvalidHeader) as caught:
                    request.secrets("x-my-keys", strip=strip)
                assert [] == exposures(caught.value, KEY, below="secrets", attributes=strip)
            with pytest.raises(InvalidHeader):
                request.secret("x-my-keys", strip=strip)
            request.secrets("x-my-keys", strip=strip)
            raise AssertionError

        seen = door.ask([("x-my-keys", f"{KEY} b")], credentials=keys)
        assert seen.status == 400
        assert seen.problem["header"] == "x-my-keys"
        assert (KEY in repr(seen.request)) == (not strip)

    def test_it_can_leave_the_header_in(self, door: Door) -> None:
        """Taking out is the default, and can be switched off."""
        found: list[Any] = []
        headers = [("x-my-keys", "sk-a, sk-b")]
        seen = door.ask(headers, identify=lambda request: found.append(request.secrets("x-my-keys", strip=False)))
        assert [weighted(("sk-a", 1), ("sk-b", 1))] == found
        assert headers == seen.app_headers

    def test_without_the_header_there_are_none(self, door: Door) -> None:
        """No keys are an empty list."""
        found: list[Any] = []
        door.ask(identify=lambda request: found.append(request.secrets("x-my-keys")))
        assert [()] == found

    def test_what_is_read_as_a_list_and_as_one_key_is_the_same(self, door: Door) -> None:
        """A list of one is one key, one key is a list of one, and of several none is chosen in silence."""
        found: list[Any] = []

        def identify(request: InboundRequest) -> None:
            found.append((request.secrets("x-list"), request.secret("x-list")))
            found.append((request.secret("x-one"), request.secrets("x-one")))
            request.secrets("x-many")
            request.secret("x-many")

        seen = door.ask([("x-list", "sk-a;w=2"), ("x-one", "a=b"), ("x-many", "a, b")], identify=identify)
        assert [
            (weighted(("sk-a", 2)), Secret("sk-a")),
            (Secret("a=b"), weighted(("a=b", 1))),
        ] == found
        assert seen.status == 400
        assert seen.problem["header"] == "x-many"

    def test_lists_of_the_library_are_found_by_callables(self, door: Door) -> None:
        """What was taken out before `identify` runs can be asked for there."""
        found: list[Any] = []
        ask(door, "sk-a;w=2", "sk-b", identify=lambda request: found.append(request.secrets(NAME)))
        assert [weighted(("sk-a", 2), ("sk-b", 1))] == found

    def test_the_reader_of_headers_can_be_called_by_a_callable(self, door: Door) -> None:
        """An app may fall back from its own store of keys to the headers."""

        async def keys(request: InboundRequest) -> tuple[Credential, ...]:
            return LISTS(request)

        seen = ask(door, "sk-a;w=2", "sk-b", credentials=keys)
        assert Caller(credentials=credentials(("sk-a", 2), ("sk-b", 1))) == seen.caller
        assert [] == seen.app_headers
        assert ask(door, "sk-a", "sk-a", credentials=keys).status == 400


class TestConfiguration:
    """What cannot work is an error at start."""

    @pytest.mark.parametrize("lists", [NAME, "x", 1, None, 0.5])
    def test_what_is_neither_a_bool_nor_names_is_refused(self, lists: Any) -> None:
        """One name is not taken for a collection of its letters."""
        with pytest.raises(ConfigurationError, match=r"^HeaderCredentials.lists: True, False, or a tuple of"):
            HeaderCredentials(lists=lists)

    @pytest.mark.parametrize("lists", [["x-other"], [NAME, "x-other"]])
    def test_a_list_that_is_not_read_is_refused(self, lists: Any) -> None:
        """A name that is misspelt would leave a header that holds one key."""
        with pytest.raises(ConfigurationError, match=r"^HeaderCredentials.lists: one of them is not a header that"):
            HeaderCredentials(lists=lists)

    @pytest.mark.parametrize("name", ["", 5, "x key"])
    def test_what_is_no_name_of_a_header_is_refused(self, name: Any) -> None:
        """As it is among the headers themselves."""
        with pytest.raises(ConfigurationError, match=r"^HeaderCredentials.lists: the name of a header"):
            HeaderCredentials(lists=[name])

    @pytest.mark.parametrize("lists", [True, ["Authorization"]])
    def test_authorization_holds_no_list(self, lists: Any) -> None:
        """Its form is `Bearer <key>`; the message says what to write instead."""
        with pytest.raises(ConfigurationError, match=r"authorization holds one key.*lists=\('x-openrouter-key',\)"):
            HeaderCredentials({"Authorization": "openai", NAME: "openrouter"}, lists=lists)

    @pytest.mark.parametrize("lists", [False, (), []])
    def test_no_lists_are_none(self, lists: Any) -> None:
        """Nothing named is nothing read as a list."""
        assert ask(WSGIDoor(), "sk-a,sk-b", credentials=HeaderCredentials(lists=lists)).status == 400

    def test_without_the_extra_it_says_how_to_get_it(self) -> None:
        """Where the parser is not installed all else works, and lists name the command at start, not at a request."""
        assert run_python(WITHOUT_HTTP_SF).splitlines() == ["pip install 'kwai-middleware[keylists]'"] * 3


WITHOUT_HTTP_SF = """
import importlib.abc, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] == "http_sf":
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)

sys.meta_path.insert(0, Absent())
from kwai_middleware import HeaderCredentials
from kwai_middleware._context import current_caller
from kwai_middleware.wsgi import WSGIMiddleware
from kwai_middleware.errors import ConfigurationError

for lists in (True, ["x-openrouter-key"]):
    try:
        HeaderCredentials(lists=lists)
    except ConfigurationError as error:
        print(str(error).partition("; ")[2])

def keys(request):
    try:
        request.secrets("x-openrouter-key")
    except ConfigurationError as error:
        frame = error.__traceback__
        while frame is not None:
            assert "sk-secret" not in repr(frame.tb_frame.f_locals.get("value"))
            frame = frame.tb_next
        print(str(error).partition("; ")[2])
    return []

assert HeaderCredentials(lists=False)
WSGIMiddleware(lambda environ, start: [], credentials=keys)({"HTTP_X_OPENROUTER_KEY": "sk-secret"}, None)
"""


def test_the_slot_keeps_the_list() -> None:
    """An inner middleware, and whoever masks keys, finds each key in the slot."""
    kept: list[Any] = []

    class Looking(Seen):
        def look(self) -> None:
            kept.append((current_slot().withheld, list(dict.fromkeys(current_slot().secrets))))

    door, seen = ASGIDoor(), Looking()
    seen.request = door.scope([(NAME, "sk-a;w=2"), (NAME, "sk-b")], "GET", "/", None)
    door.send(door.wrap(seen, credentials=LISTS), seen)
    assert [({NAME: weighted(("sk-a", 2), ("sk-b", 1))}, [Secret("sk-a"), Secret("sk-b")])] == kept
    assert "sk-a" not in repr(kept)
