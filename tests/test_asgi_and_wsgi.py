"""What both doors promise alike: callables, requirements, refusals, nesting, and that nobody else's caller is seen."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import pytest
import structlog

from kwai_middleware._caller import Caller, Credential
from kwai_middleware._context import bind_caller, current_caller, current_slot
from kwai_middleware._inbound.request import InboundRequest
from kwai_middleware._secret import Secret
from kwai_middleware.credentials import HeaderCredentials
from kwai_middleware.errors import ConfigurationError, InvalidHeader, RequestRefused, Unauthenticated
from kwai_middleware.identity import HeaderIdentity
from tests.apps.doors import DOORS, Door, Seen

KEY = "sk-or-v1-0123456789abcdef"
ACME = Caller(identifier="acme")
BETA = Caller(identifier="beta")
PREFLIGHT = [("origin", "https://app.example"), ("access-control-request-method", "POST")]


@pytest.fixture(params=DOORS, ids=lambda door: door.name)
def door(request: pytest.FixtureRequest) -> Door:
    """Each test holds for both doors."""
    chosen: Door = request.param
    return chosen


def credential(key: str, provider: str = "openrouter") -> Credential:
    """A key of one provider."""
    return Credential(provider=provider, api_key=Secret(key))


def plain(answer: Any) -> Callable[[InboundRequest], Any]:
    """A function that gives this answer."""
    return lambda request: answer


def in_async_function(answer: Any) -> Callable[[InboundRequest], Any]:
    """An async function that gives it."""

    async def give(request: InboundRequest) -> Any:
        await asyncio.sleep(0)
        return answer

    return give


def in_async_object(answer: Any) -> Callable[[InboundRequest], Any]:
    """An object with an async __call__ that gives it."""

    class Giver:
        async def __call__(self, request: InboundRequest) -> Any:
            await asyncio.sleep(0)
            return answer

    return Giver()


def in_partial(answer: Any) -> Callable[[InboundRequest], Any]:
    """A partial of an async function that gives it."""

    async def give(given: Any, request: InboundRequest) -> Any:
        await asyncio.sleep(0)
        return given

    return functools.partial(give, answer)


def in_awaitable(answer: Any) -> Callable[[InboundRequest], Any]:
    """A plain function that returns something to await."""
    give = in_async_function(answer)
    return lambda request: give(request)


KINDS = [plain, in_async_function, in_async_object, in_partial, in_awaitable]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def giving(request: pytest.FixtureRequest) -> Callable[[Any], Callable[[InboundRequest], Any]]:
    """Each kind of callable there is."""
    kind: Callable[[Any], Callable[[InboundRequest], Any]] = request.param
    return kind


class TestCallables:
    """`identify` and `credentials` that an app brings."""

    def test_identify_says_who(self, door: Door, giving: Any) -> None:
        """Whatever kind of callable it is, its caller is current, for us and for structlog."""
        seen = door.ask(identify=giving(ACME))
        assert ACME == seen.caller
        assert seen.customer_id == "acme"

    def test_identify_may_say_nobody(self, door: Door, giving: Any) -> None:
        """None is nobody, and the app is served."""
        seen = door.ask([("x-customer-id", "ignored")], identify=giving(None))
        assert seen.app_ran
        assert seen.caller is None

    @pytest.mark.parametrize("kind", [tuple, list])
    def test_credentials_say_whose_keys(self, door: Door, giving: Any, kind: Any) -> None:
        """A tuple or a list of keys becomes the caller's."""
        seen = door.ask(credentials=giving(kind([credential("a"), credential("b", "openai")])))
        assert Caller(credentials=(credential("a"), credential("b", "openai"))) == seen.caller

    def test_no_keys_leave_nobody(self, door: Door, giving: Any) -> None:
        """Without a key and an identity there is no caller."""
        assert door.ask(credentials=giving(())).caller is None

    def test_identifys_keys_come_first(self, door: Door) -> None:
        """Keys from both places are the caller's, those that `identify` gave before those of `credentials`."""
        own = Caller(identifier="acme", byok="only", credentials=(credential("a"),))
        seen = door.ask([("x-openrouter-key", "b")], identify=plain(own))
        assert own.with_credentials((credential("a"), credential("b"))) == seen.caller

    @pytest.mark.parametrize("answer", ["acme", False, 0, {}, ("acme",), Caller], ids=repr)
    def test_another_answer_of_identify_is_a_type_error(self, door: Door, giving: Any, answer: Any) -> None:
        """A wrong answer never means nobody, which would let the app's own key pay."""
        with pytest.raises(TypeError, match=rf"^identify: expected a Caller or None, got {type(answer).__name__}$"):
            door.ask(identify=giving(answer))

    @pytest.mark.parametrize("answer", [None, KEY, credential(KEY), {"openrouter": KEY}, 5])
    def test_another_answer_of_credentials_is_a_type_error(self, door: Door, giving: Any, answer: Any) -> None:
        """A forgotten return never means no keys, and no key is quoted."""
        with pytest.raises(TypeError, match=r"^credentials: expected a list or tuple of Credential, got ") as caught:
            door.ask(credentials=giving(answer))
        assert KEY not in str(caught.value)

    @pytest.mark.parametrize("answer", [[KEY], (Secret(KEY),), [credential("a"), None]])
    def test_other_things_in_its_list_are_a_type_error(self, door: Door, giving: Any, answer: Any) -> None:
        """Each of the keys is looked at."""
        with pytest.raises(TypeError, match=r"^credentials: expected Credential objects, got ") as caught:
            door.ask(credentials=giving(answer))
        assert KEY not in str(caught.value)

    @pytest.mark.parametrize("name", ["identify", "credentials", "required", "required_key"])
    @pytest.mark.parametrize("is_async", [False, True])
    def test_their_own_exception_passes_through(self, door: Door, name: str, is_async: bool) -> None:
        """A database that is down is an error of the app's, and not nobody."""

        def fail(request: InboundRequest) -> Any:
            raise ConnectionError("the database is down")

        async def fail_later(request: InboundRequest) -> Any:
            await asyncio.sleep(0)
            raise ConnectionError("the database is down")

        with pytest.raises(ConnectionError, match="the database is down"):
            door.ask(**{name: fail_later if is_async else fail})
        assert current_caller() is None

    @pytest.mark.parametrize("name", ["identify", "credentials", "required", "required_key"])
    def test_they_may_refuse(self, door: Door, name: str) -> None:
        """A refusal raised by any of them is answered as the library's own are, in its own words."""

        class Blocked(RequestRefused):
            status = 403
            title = "Customer blocked"

        def refuse(request: InboundRequest) -> Any:
            raise Blocked("This customer is blocked.")

        seen = door.ask(**{name: refuse})
        assert seen.status == 403
        assert not seen.app_ran
        assert seen.problem == {
            "type": "urn:kwai-middleware:customer-blocked",
            "title": "Customer blocked",
            "status": 403,
            "detail": "This customer is blocked.",
        }
        assert "www-authenticate" not in seen.headers

    def test_a_refusal_may_have_any_status(self, door: Door) -> None:
        """A status that HTTP has no words for is sent all the same."""

        class Odd(RequestRefused):
            status = 499

        def refuse(request: InboundRequest) -> Any:
            raise Odd("No.", header="x-token")

        seen = door.ask(identify=refuse)
        assert seen.status == 499
        assert seen.problem["header"] == "x-token"

    def test_they_run_for_nobody(self, door: Door) -> None:
        """A server may run a request in a context of the previous one; callables must not see its caller."""
        before: list[Any] = []

        async def identify(request: InboundRequest) -> Caller:
            before.append((current_caller(), structlog.contextvars.get_contextvars()))
            return ACME

        def keys(request: InboundRequest) -> list[Credential]:
            before.append((current_caller(), structlog.contextvars.get_contextvars()))
            return []

        with bind_caller(BETA):
            assert ACME == door.ask(identify=identify, credentials=keys).caller
            assert BETA == current_caller()
        assert [(None, {}), (None, {})] == before

    def test_credentials_know_the_caller(self, door: Door) -> None:
        """A callable that looks keys up goes by who was identified, not by what the client says."""
        asked: list[Caller | None] = []

        def keys(request: InboundRequest) -> list[Credential]:
            asked.append(request.caller)
            return [] if request.caller is None else [credential(f"key-of-{request.caller.identifier}")]

        seen = door.ask([("x-customer-id", "acme")], credentials=keys)
        assert ACME.with_credentials((credential("key-of-acme"),)) == seen.caller
        assert door.ask([("x-customer-id", "acme")], credentials=keys, peer=("203.0.113.9", 5)).caller is None
        assert [ACME, None] == asked

    def test_none_asks_nobody(self, door: Door) -> None:
        """Either source can be switched off; its headers are then the app's own affair."""
        headers = [("x-customer-id", "acme"), ("x-openrouter-key", KEY)]
        seen = door.ask(headers, identify=None)
        assert Caller(credentials=(credential(KEY),)) == seen.caller
        seen = door.ask(headers, credentials=None)
        assert ACME == seen.caller
        assert ("x-openrouter-key", KEY) in seen.app_headers
        assert door.ask(headers, identify=None, credentials=None).caller is None
        assert ACME == door.ask(headers, identify=plain(ACME), credentials=None).caller
        keys = plain([credential("a")])
        assert Caller(credentials=(credential("a"),)) == door.ask(headers, identify=None, credentials=keys).caller

    @pytest.mark.parametrize("name", ["identify", "credentials"])
    @pytest.mark.parametrize("value", ["acme", 5, HeaderIdentity, HeaderCredentials, True])
    def test_what_is_no_callable_is_a_configuration_error(self, door: Door, name: str, value: Any) -> None:
        """A class is not one either: its parentheses were forgotten."""
        with pytest.raises(ConfigurationError, match=f"^{name}: a callable that takes the request, or None$"):
            door.ask(**{name: value})

    @pytest.mark.parametrize("options", [{"identify": HeaderCredentials()}, {"credentials": HeaderIdentity()}])
    def test_changed_places_are_a_configuration_error(self, door: Door, options: Any) -> None:
        """The two readers of headers cannot be mistaken for each other."""
        with pytest.raises(ConfigurationError, match="changed places"):
            door.ask(**options)


class TestRequest:
    """What a callable gets to see."""

    def look(self, door: Door, look: Callable[[InboundRequest], Any], *args: Any, **options: Any) -> Any:
        """What `look` finds in a request."""
        found: list[Any] = []

        def identify(request: InboundRequest) -> None:
            found.append(look(request))

        door.ask(*args, identify=identify, **options)
        return found[0]

    def test_method_path_and_peer(self, door: Door) -> None:
        """The request tells what it is, the same under both doors."""

        def look(request: InboundRequest) -> Any:
            return request.method, request.path, request.peer

        found = self.look(door, look, method="POST", path="/caf\u00e9/1", peer=("203.0.113.9", 5))
        assert found == ("POST", "/caf\u00e9/1", ("203.0.113.9", 5))
        assert self.look(door, lambda request: request.peer, peer=None) is None

    def test_the_servers_own_object_is_there(self, door: Door) -> None:
        """What is not on the request can be looked up in the scope or environ; the other one is None."""
        seen_request: list[InboundRequest] = []

        def identify(request: InboundRequest) -> None:
            seen_request.append(request)

        seen = door.ask(identify=identify)
        (request,) = seen_request
        assert (request.scope is seen.request) == (door.name == "asgi")
        assert (request.environ is seen.request) == (door.name == "wsgi")
        assert (request.scope is None) == (door.name == "wsgi")
        assert (request.environ is None) == (door.name == "asgi")

    def test_a_header_is_found_in_any_case(self, door: Door) -> None:
        """Names are compared as HTTP does."""
        found = self.look(door, lambda request: request.header("X-Session"), [("x-session", " abc ")])
        assert found == "abc"
        assert self.look(door, lambda request: request.header("x-session")) is None
        assert self.look(door, lambda request: request.header("x-session"), [("x-session", "")]) is None

    def test_a_header_sent_twice_is_refused(self, door: Door) -> None:
        """The first value never wins, whatever the server makes of two."""
        headers = [("x-session", "a"), ("x-session", "b")]
        seen = door.ask(headers, identify=lambda request: Caller(identifier=request.header("x-session")))
        assert seen.status == 400
        assert seen.problem["header"] == "x-session"

    def test_a_comma_is_taken_on_request(self, door: Door) -> None:
        """A header that may have commas can be read, too."""
        headers = [("accept", "a/b, c/d")]
        assert self.look(door, lambda request: request.header("accept", commas=True), headers) == "a/b, c/d"
        assert door.ask(headers, identify=lambda request: request.header("accept")).status == 400

    def test_a_long_header_is_taken_on_request(self, door: Door) -> None:
        """A token longer than other headers can be read, too."""
        headers = [("x-token", "t" * 5000)]
        assert self.look(door, lambda request: request.header("x-token", at_most=8192), headers) == "t" * 5000
        assert door.ask(headers, identify=lambda request: request.header("x-token")).status == 400

    def test_raw_values(self, door: Door) -> None:
        """All values as received, joined or not, for what knows how to read them."""
        found = self.look(door, lambda request: request.values("X-Many"), [("x-many", "a"), ("x-many", b"\xff")])
        assert b",".join(found) == b"a,\xff"
        assert list(self.look(door, lambda request: request.values("x-many"))) == []

    def test_a_secret_is_taken_out_and_still_known(self, door: Door) -> None:
        """A callable of the app's can read keys as safely as the library does."""

        def keys(request: InboundRequest) -> list[Credential]:
            first, second = request.secret("X-My-Key"), request.secret("x-my-key")
            assert first is not None
            assert first is second
            assert request.header("x-my-key") is None
            return [Credential(api_key=first)]

        seen = door.ask([("x-my-key", KEY), ("accept", "*/*")], credentials=keys)
        assert Caller(credentials=(credential(KEY),)) == seen.caller
        assert [("accept", "*/*")] == seen.app_headers
        assert KEY not in repr(seen.request)

    def test_a_secret_can_be_left_in(self, door: Door) -> None:
        """Taking out is the default, and can be switched off."""
        headers = [("x-my-key", KEY)]
        assert Secret(KEY) == self.look(door, lambda request: request.secret("x-my-key", strip=False), headers)
        seen = door.ask(headers, identify=lambda request: request.secret("x-my-key", strip=False) and None)
        assert headers == seen.app_headers

    @pytest.mark.parametrize("strip", [True, False])
    def test_a_broken_secret_is_refused_each_time(self, door: Door, strip: bool) -> None:
        """A broken key is never "no key", also when it is asked for again."""

        def keys(request: InboundRequest) -> list[Credential]:
            with pytest.raises(InvalidHeader):
                request.secret("x-my-key", strip=strip)
            request.secret("x-my-key", strip=strip)
            raise AssertionError

        seen = door.ask([("x-my-key", "two words")], credentials=keys)
        assert seen.status == 400
        assert seen.problem["header"] == "x-my-key"
        assert ("words" in repr(seen.request)) == (not strip)

    def test_no_secret_is_none(self, door: Door) -> None:
        """Without the header there is no key."""
        assert self.look(door, lambda request: request.secret("x-my-key")) is None

    def test_key_headers_are_gone_before_identify_runs(self, door: Door) -> None:
        """No code of the app's gets to see a key in the scope or environ."""
        shown = self.look(door, lambda request: repr(request.scope or request.environ), [("x-openrouter-key", KEY)])
        assert KEY not in shown

    def test_no_key_lies_about_in_the_request_while_identify_runs(self, door: Door) -> None:
        """An error report that shows the request and all it holds shows no key."""

        def look(request: InboundRequest) -> str:
            return repr([getattr(request, name) for name in InboundRequest.__slots__])

        assert KEY not in self.look(door, look, [("x-openrouter-key", KEY), ("x-other", "1")])
        assert "words" not in self.look_refused(door, look, [("x-openrouter-key", "two words")])

    def look_refused(self, door: Door, look: Callable[[InboundRequest], str], headers: Any) -> str:
        """What `look` finds in a request that is refused afterwards."""
        found: list[str] = []
        assert door.ask(headers, identify=lambda request: found.append(look(request))).status == 400
        return found[0]

    def test_a_broken_key_is_refused_also_with_other_identities(self, door: Door) -> None:
        """Key headers are read the same way, whoever identifies."""
        seen = door.ask([("x-openrouter-key", "")], identify=plain(ACME))
        assert seen.status == 400

    def test_readers_of_headers_can_be_called_by_other_callables(self, door: Door) -> None:
        """An app may fall back from its session to the headers, with the proof and the rules they have."""
        from_headers = HeaderIdentity(proxy_secret="between-us")
        keys_from_headers = HeaderCredentials()

        def identify(request: InboundRequest) -> Caller | None:
            return from_headers(request)

        def keys(request: InboundRequest) -> tuple[Credential, ...]:
            return keys_from_headers(request)

        headers = [("x-customer-id", "acme"), ("x-openrouter-key", KEY), ("x-customer-group", "g")]
        seen = door.ask([*headers, ("x-kwai-proxy", "between-us")], identify=identify, credentials=keys)
        assert Caller(identifier="acme", group="g", credentials=(credential(KEY),)) == seen.caller
        assert [("x-customer-id", "acme"), ("x-customer-group", "g")] == seen.app_headers
        unproven = door.ask(headers, identify=identify, credentials=keys)
        assert Caller(credentials=(credential(KEY),)) == unproven.caller
        assert door.ask(identify=identify, credentials=keys).caller is None


class TestRequired:
    """Requests that must come with an identity or a key."""

    def test_a_missing_identity_is_401(self, door: Door) -> None:
        """The answer asks for authentication, is not cached, and the app does not run."""
        seen = door.ask(required=True)
        assert seen.status == 401
        assert not seen.app_ran
        assert seen.headers["www-authenticate"] == 'Kwai realm="caller"'
        assert seen.headers["cache-control"] == "no-store"
        assert seen.headers["content-length"] == str(len(seen.body))
        assert seen.problem["type"] == "urn:kwai-middleware:authentication-required"

    def test_a_key_is_no_identity_and_an_identity_no_key(self, door: Door) -> None:
        """Each requirement asks for its own."""
        assert door.ask([("x-openrouter-key", KEY)], required=True).status == 401
        assert door.ask([("x-customer-group", "g")], required=True).status == 401
        assert door.ask([("x-customer-id", "acme")], required_key=True).status == 401
        assert door.ask([("x-customer-id", "acme")], required=True).status == 200
        assert door.ask([("x-openrouter-key", KEY)], required_key=True).status == 200
        both = [("x-customer-id", "acme"), ("x-openrouter-key", KEY)]
        assert door.ask(both, required=True, required_key=True).status == 200

    def test_a_missing_key_names_the_headers(self, door: Door) -> None:
        """The client's developer reads where the key goes; with other sources there is nothing to name."""
        credentials = HeaderCredentials({"x-b-key": "openai", "x-a-key": "openrouter"})
        seen = door.ask(required_key=True, credentials=credentials)
        assert seen.problem["header"] == "x-a-key"
        assert "x-a-key or x-b-key" in seen.problem["detail"]
        seen = door.ask(required_key=True, credentials=plain(()))
        assert "header" not in seen.problem
        assert seen.status == 401
        seen = door.ask(required_key=True, credentials=None)
        assert seen.status == 401

    @pytest.mark.parametrize("name", ["required", "required_key"])
    def test_a_condition_decides_by_request(self, door: Door, giving: Any, name: str) -> None:
        """A callable of any kind may say where a caller is needed."""
        assert door.ask(**{name: giving(True)}).status == 401
        assert door.ask(**{name: giving(False)}).status == 200
        by_path = {name: lambda request: request.path.startswith("/api/")}
        assert door.ask(path="/api/1", **by_path).status == 401
        assert door.ask(path="/health", **by_path).status == 200

    def test_a_condition_is_asked_only_when_it_matters(self, door: Door) -> None:
        """With an identity and a key there, nothing is left to ask."""
        asked: list[str] = []

        def condition(request: InboundRequest) -> bool:
            asked.append("asked")
            return True

        headers = [("x-customer-id", "acme"), ("x-openrouter-key", KEY)]
        assert door.ask(headers, required=condition, required_key=condition).status == 200
        assert [] == asked

    def test_a_condition_knows_the_caller(self, door: Door) -> None:
        """A key may be required of some customers only."""

        def condition(request: InboundRequest) -> bool:
            return request.caller is not None and request.caller.group == "free"

        def has_key(request: InboundRequest) -> bool:
            assert request.caller is not None
            return len(request.caller.credentials) > 0

        assert door.ask([("x-openrouter-key", KEY)], required=has_key).status == 401
        assert door.ask([("x-customer-group", "free")], required=has_key).status == 200
        assert door.ask([("x-customer-group", "free")], required_key=condition).status == 401
        assert door.ask([("x-customer-group", "paid")], required_key=condition).status == 200

    @pytest.mark.parametrize("name", ["required", "required_key"])
    @pytest.mark.parametrize("answer", [None, 0, 1, "yes"])
    def test_another_answer_is_a_type_error(self, door: Door, giving: Any, name: str, answer: Any) -> None:
        """A forgotten return does not let everyone in."""
        with pytest.raises(TypeError, match=rf"^{name}: expected True or False, got {type(answer).__name__}$"):
            door.ask(**{name: giving(answer)})

    @pytest.mark.parametrize("name", ["required", "required_key"])
    @pytest.mark.parametrize("value", [None, 1, "yes"])
    def test_another_condition_is_a_configuration_error(self, door: Door, name: str, value: Any) -> None:
        """What is neither a truth value nor a callable is refused at start."""
        with pytest.raises(ConfigurationError, match=f"^{name}: True, False, or a callable"):
            door.ask(**{name: value})

    @pytest.mark.parametrize("options", [{}, {"identify": plain(None)}], ids=["headers", "callable"])
    def test_a_preflight_always_passes(self, door: Door, options: Any) -> None:
        """A browser asks before it sends anything of ours; it would never get to send it."""
        seen = door.ask(PREFLIGHT, method="OPTIONS", required=True, required_key=True, **options)
        assert seen.app_ran
        assert seen.status == 200
        assert seen.caller is None

    def test_a_preflight_with_broken_headers_passes_as_nobodys(self, door: Door) -> None:
        """What a preflight carries is not looked at, and a key in it is taken out all the same."""
        headers = [*PREFLIGHT, ("x-openrouter-key", "two words"), ("x-customer-id", "a,b")]
        seen = door.ask(headers, method="OPTIONS")
        assert seen.app_ran
        assert seen.caller is None
        assert "words" not in repr(seen.request)
        assert door.ask([*PREFLIGHT, ("x-customer-id", "acme")], method="OPTIONS").caller is None

    def test_no_callable_is_asked_about_a_preflight(self, door: Door) -> None:
        """A look into a database for each preflight would be wasted."""

        def fail(request: InboundRequest) -> Any:
            raise AssertionError

        assert door.ask(PREFLIGHT, method="OPTIONS", identify=fail, credentials=fail, required=fail).app_ran

    @pytest.mark.parametrize(
        ("headers", "method"), [(PREFLIGHT[:1], "OPTIONS"), (PREFLIGHT[1:], "OPTIONS"), (PREFLIGHT, "GET")]
    )
    def test_other_requests_are_no_preflight(self, door: Door, headers: Any, method: str) -> None:
        """Neither an OPTIONS request by itself nor those headers open the door."""
        assert door.ask(headers, method=method, required=True).status == 401
        assert door.ask(headers, method=method, identify=plain(None), required=True).status == 401

    def test_a_refused_head_has_no_body(self, door: Door) -> None:
        """HEAD gets the headers that GET would get, and nothing after them."""
        seen = door.ask(method="HEAD", required=True)
        assert seen.status == 401
        assert seen.body == b""
        assert door.ask(required=True).headers == seen.headers


class TestNesting:
    """A middleware inside another one, as in a mounted app or by a shared factory."""

    def nest(self, door: Door, headers: Any, outer: dict[str, Any], inner: dict[str, Any]) -> Seen:
        """Send a request through both."""
        outer_middleware = type(door.wrap(Seen()))
        return door.ask(headers, through=lambda app: outer_middleware(app, **outer), **inner)

    def test_an_inner_one_leaves_everything_to_the_outer_one(self, door: Door) -> None:
        """The key that the outer one took out is still the caller's inside, and nothing is refused twice."""
        headers = [("x-customer-id", "acme"), ("x-openrouter-key", KEY)]
        seen = self.nest(door, headers, {}, {"required_key": True, "identify": plain(BETA)})
        assert ACME.with_credentials((credential(KEY),)) == seen.caller

    def test_nobody_of_the_outer_one_is_nobody_inside(self, door: Door) -> None:
        """The outer answer counts, also when it is nobody."""
        assert self.nest(door, [], {}, {"identify": plain(BETA)}).caller is None

    def test_an_overriding_one_decides_anew_and_finds_the_key(self, door: Door) -> None:
        """The key that was taken out is not lost: else the app's own would pay."""
        headers = [("x-customer-id", "acme"), ("x-openrouter-key", KEY)]
        seen = self.nest(door, headers, {}, {"override": True, "identify": plain(BETA)})
        assert BETA.with_credentials((credential(KEY),)) == seen.caller
        assert seen.customer_id == "beta"
        seen = self.nest(door, headers[1:], {}, {"override": True, "required_key": True})
        assert Caller(credentials=(credential(KEY),)) == seen.caller

    def test_an_overriding_one_knows_the_proof_that_the_outer_one_took_out(self, door: Door) -> None:
        """Both may ask for the proxy's secret, of which there is one."""
        identify = HeaderIdentity(proxy_secret="between-us")
        tenant = HeaderIdentity(identifier="x-tenant", proxy_secret="between-us")
        headers = [("x-tenant", "t"), ("x-kwai-proxy", "between-us")]
        seen = self.nest(door, headers, {"identify": identify}, {"override": True, "identify": tenant})
        assert Caller(identifier="t") == seen.caller

    def test_an_overriding_one_with_other_headers_keeps_to_its_own(self, door: Door) -> None:
        """An inner one that reads another key header does not take the outer one's key."""
        keys = HeaderCredentials({"x-openai-key": "openai"})
        headers = [("x-openrouter-key", KEY), ("x-openai-key", "sk-b")]
        seen = self.nest(door, headers, {}, {"override": True, "credentials": keys})
        assert Caller(credentials=(credential("sk-b", "openai"),)) == seen.caller
        assert [] == seen.app_headers

    def test_an_overriding_ones_callables_see_the_outer_caller(self, door: Door) -> None:
        """What the outer one has found is current while the inner one decides."""

        def identify(request: InboundRequest) -> Caller:
            outer = current_caller()
            assert outer is not None
            return Caller(identifier=f"{outer.identifier}-inner")

        seen = self.nest(door, [("x-customer-id", "acme")], {}, {"override": True, "identify": identify})
        assert Caller(identifier="acme-inner") == seen.caller

    def test_a_key_sent_anew_counts_more_than_the_one_taken_out(self, door: Door) -> None:
        """What stands between the two may put a key of its own into the request."""

        def through(app: Any) -> Any:
            if door.name == "asgi":

                async def between(scope: Any, receive: Any, send: Any) -> None:
                    scope["headers"].append((b"x-openrouter-key", b"sk-new"))
                    await app(scope, receive, send)

                return type(door.wrap(Seen()))(between)

            def between_wsgi(environ: Any, start_response: Any) -> Any:
                environ["HTTP_X_OPENROUTER_KEY"] = "sk-new"
                return app(environ, start_response)

            return type(door.wrap(Seen()))(between_wsgi)

        seen = door.ask([("x-openrouter-key", KEY)], through=through, override=True)
        assert Caller(credentials=(credential("sk-new"),)) == seen.caller


class TestBinding:
    """Always set, always restored."""

    def test_a_request_without_headers_hides_whoever_was_bound(self, door: Door) -> None:
        """An inherited context must not serve one customer's identity to the next request."""
        with bind_caller(BETA):
            seen = door.ask()
            assert seen.app_ran
            assert seen.caller is None
            assert seen.customer_id is None
            assert BETA == current_caller()
        assert seen.request is not None

    @pytest.mark.parametrize("headers", [[], [("x-customer-id", "acme")]])
    def test_an_exception_of_the_app_leaves_nothing_behind(self, door: Door, headers: Any) -> None:
        """The exception passes through as it is."""

        def look(self: Seen) -> None:
            raise ZeroDivisionError

        class Failing(Seen):
            pass

        Failing.look = look  # type: ignore[method-assign]  # this app's view fails
        seen = Failing()
        seen.request = (
            door.scope(headers, "GET", "/", None) if door.name == "asgi" else door.environ(headers, "GET", "/", None)
        )  # type: ignore[union-attr]  # one of the two
        with pytest.raises(ZeroDivisionError):
            door.send(door.wrap(seen), seen)
        assert current_caller() is None
        assert structlog.contextvars.get_contextvars() == {}

    def test_structlog_can_be_left_alone(self, door: Door) -> None:
        """The caller is current, and the app's own logging context is not touched."""
        with structlog.contextvars.bound_contextvars(customer_id="theirs"):
            seen = door.ask([("x-customer-id", "acme")], bind_structlog=False)
        assert ACME == seen.caller
        assert seen.customer_id == "theirs"

    def test_the_slot_is_where_others_can_find_it(self, door: Door) -> None:
        """What does not see the context variable reads the scope or environ."""
        seen = door.ask([("x-customer-id", "acme")])
        slot = seen.request["kwai_middleware" if door.name == "asgi" else "kwai_middleware.caller"]
        assert ACME == slot.caller
        assert slot is not current_slot()


def test_unauthenticated_can_be_raised_by_a_callable(door: Door) -> None:
    """A callable that finds a token invalid gives the same answer as a missing identity."""

    def identify(request: InboundRequest) -> Caller:
        raise Unauthenticated("The token has expired.", header="authorization")

    seen = door.ask(identify=identify)
    assert seen.status == 401
    assert seen.headers["www-authenticate"] == 'Kwai realm="caller"'
    assert seen.problem["detail"] == "The token has expired."
