"""The trace id that all calls of one unit of work share: where it comes from, and who shares it."""

from __future__ import annotations

import asyncio
import contextvars
import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._caller import Caller
from kwai_middleware._carrying import carry_caller
from kwai_middleware._context import NOBODY, Slot, bind_caller, current_caller, current_slot
from kwai_middleware._inbound.request import InboundRequest
from kwai_middleware._inbound.trace_ids import RequestSlot, trace_id_in
from kwai_middleware.asgi import ASGIMiddleware
from kwai_middleware.credentials import HeaderCredentials
from kwai_middleware.errors import ConfigurationError
from kwai_middleware.wsgi import WSGIMiddleware
from tests.apps.doors import DOORS, LOOPBACK, ASGIDoor, Door, Headers, Seen, WSGIDoor

ACME = Caller(identifier="acme")
BETA = Caller(identifier="beta")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
MADE = re.compile(r"[0-9a-f]{32}")


def trace_id() -> str:
    """The trace id of what runs now."""
    return current_slot().trace_id


@pytest.fixture(params=DOORS, ids=lambda door: door.name)
def door(request: pytest.FixtureRequest) -> Door:
    """Each test holds for both doors."""
    chosen: Door = request.param
    return chosen


class Traced(Seen):
    """Also sees the trace id, twice."""

    trace_id: str = ""

    def look(self) -> None:
        super().look()
        self.trace_id = trace_id()
        assert self.trace_id == trace_id()


def requested(door: Door, headers: Headers) -> Traced:
    """A request that no app has seen yet."""
    seen = Traced()
    seen.request = (
        door.scope(headers, "GET", "/", LOOPBACK)
        if isinstance(door, ASGIDoor)
        else door.environ(headers, "GET", "/", LOOPBACK)
    )
    return seen


def ask(door: Door, headers: Headers = (), through: Callable[[Any], Any] = lambda app: app, **options: Any) -> Traced:
    """What a request with these headers came to see."""
    seen = requested(door, headers)
    door.send(through(door.wrap(seen, **options)), seen)
    assert seen.app_ran
    return seen


WHO = pytest.mark.parametrize(
    "who", [[], [("x-customer-id", "acme")], [("x-openrouter-key", "sk-a")]], ids=["nobody", "customer", "key"]
)


class TestBrought:
    """What a request brings."""

    @WHO
    def test_a_traceparent_names_the_trace(self, door: Door, who: Headers) -> None:
        """The trace that the request is part of goes on, whoever it is for, and it makes nobody somebody."""
        seen = ask(door, [("traceparent", PARENT), ("x-request-id", "r-1"), *who])
        assert seen.trace_id == TRACE
        assert (seen.caller is None) == (not who)
        assert ("traceparent", PARENT) in seen.app_headers

    @WHO
    def test_without_one_the_request_id_is_taken(self, door: Door, who: Headers) -> None:
        """Many proxies give each request an id."""
        assert ask(door, [("X-Request-Id", "r-1/2:3"), *who]).trace_id == "r-1/2:3"

    @WHO
    def test_without_both_one_is_made_for_each_request(self, door: Door, who: Headers) -> None:
        """A made one has the form of a trace id, and no two requests have the same."""
        made = {ask(door, who).trace_id for _ in range(5)}
        assert len(made) == 5
        assert all(MADE.fullmatch(each) for each in made)

    @pytest.mark.parametrize(
        "value",
        [
            pytest.param(PARENT, id="00"),
            pytest.param(PARENT.replace("-01", "-00"), id="not-sampled"),
            pytest.param(PARENT.replace("-01", "-ff"), id="flags"),
            pytest.param(f" {PARENT}\t", id="blanks"),
            pytest.param(PARENT.replace("00-", "01-", 1), id="later"),
            pytest.param(PARENT.replace("00-", "fe-", 1) + "-and-more", id="later-and-longer"),
            pytest.param(PARENT.replace("00-", "cc-", 1) + "-", id="later-dash"),
        ],
    )
    def test_well_formed_parents_are_taken(self, door: Door, value: str) -> None:
        """Version 00 to the letter, and of a later one the part that W3C promises will stay."""
        assert ask(door, [("traceparent", value), ("x-request-id", "r-1")]).trace_id == TRACE

    @pytest.mark.parametrize(
        "value",
        [
            pytest.param("", id="empty"),
            pytest.param(TRACE, id="bare"),
            pytest.param(PARENT + "-", id="00-dash"),
            pytest.param(PARENT + "-more", id="00-and-more"),
            pytest.param(PARENT + "0", id="longer"),
            pytest.param(PARENT[:-1], id="shorter"),
            pytest.param(PARENT.upper(), id="upper-case"),
            pytest.param(PARENT.replace("00-", "ff-", 1), id="version-ff"),
            pytest.param(PARENT.replace("00-", "0-", 1), id="short-version"),
            pytest.param(PARENT.replace("00-", "01-", 1) + "x", id="later-and-no-dash"),
            pytest.param(PARENT.replace(TRACE, "0" * 32), id="zero-trace"),
            pytest.param(PARENT.replace("00f067aa0ba902b7", "0" * 16), id="zero-parent"),
            pytest.param(PARENT.replace("4bf9", "4bg9"), id="no-hex"),
            pytest.param(PARENT.replace("4bf9", "4b\u0660\u0660"), id="digits-of-another-script"),
            pytest.param(f"{PARENT},{PARENT}", id="comma"),
            pytest.param(b"\xff" * 55, id="bytes"),
            pytest.param(PARENT + "\n", id="line-end"),
            pytest.param("0" * 100_000, id="long"),
        ],
    )
    def test_other_parents_are_ignored(self, door: Door, value: str | bytes) -> None:
        """It is not a header of ours: a malformed one is no error, and the next best counts."""
        assert ask(door, [("traceparent", value), ("x-request-id", "r-1")]).trace_id == "r-1"
        assert MADE.fullmatch(ask(door, [("traceparent", value)]).trace_id)

    @pytest.mark.parametrize("value", ["r", "!~", "a" * 128, " r-1 ", 'quote"back\\slash', TRACE])
    def test_visible_request_ids_are_taken(self, door: Door, value: str) -> None:
        """1 to 128 characters of visible ASCII, whatever they are."""
        assert ask(door, [("x-request-id", value)]).trace_id == value.strip()

    @pytest.mark.parametrize(
        "value", ["", " ", "a" * 129, "two words", "a,b", "r\x00", "r\n", "k\u00e9y", b"\xff", "r\x7f"]
    )
    def test_other_request_ids_are_ignored(self, door: Door, value: str | bytes) -> None:
        """A log could not show them, or they may be two."""
        assert MADE.fullmatch(ask(door, [("x-request-id", value)]).trace_id)

    @pytest.mark.parametrize("times", [2, 50])
    def test_what_is_sent_twice_is_ignored(self, door: Door, times: int) -> None:
        """The first never wins, also when all are the same; the request is served."""
        parents = [("traceparent", PARENT)] * times
        assert ask(door, [*parents, ("x-request-id", "r-1")]).trace_id == "r-1"
        assert MADE.fullmatch(ask(door, [*parents, *[("x-request-id", "r-1")] * times]).trace_id)

    def test_names_are_found_in_any_case_and_kind(self) -> None:
        """Not every ASGI server keeps to lower case, nor to bytes in tuples."""
        assert trace_id_in([[bytearray(b"TraceParent"), memoryview(PARENT.encode())]]) == TRACE

    def test_a_text_that_is_not_of_bytes_is_ignored(self) -> None:
        """WSGI headers are bytes as characters; what is not, was not sent by a client."""
        seen = requested(WSGIDoor(), [])
        seen.request["HTTP_X_REQUEST_ID"] = "r\u0660"
        WSGIMiddleware(lambda environ, start: [seen.look()])(seen.request, lambda *args: None)  # type: ignore[func-returns-value,list-item,arg-type]  # nobody reads the body
        assert MADE.fullmatch(seen.trace_id)

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([b"traceparent", b"x-request-id", b"TRACEPARENT", b"other"]),
                st.one_of(
                    st.binary(max_size=80),
                    st.from_regex(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}.{0,3}", fullmatch=True),
                ),
            ),
            max_size=4,
        )
    )
    def test_any_bytes_are_a_trace_id_or_none(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Whatever is sent, what comes out is short, visible ASCII without comma, or nothing."""
        found = trace_id_in(headers)
        assert found is None or re.fullmatch(r"[!-+\--~]{1,128}", found)

    def test_a_trace_header_holds_no_key(self) -> None:
        """What calls are known by stands in every log, so no key can be configured to come in it."""
        for name in ("traceparent", "X-Request-ID"):
            with pytest.raises(ConfigurationError, match="traceparent and x-request-id hold what calls are known by"):
                HeaderCredentials({name: "openrouter"})

    def test_a_key_that_a_callable_takes_out_of_a_trace_header_is_no_trace_id(self, door: Door) -> None:
        """What is a secret to the app is gone before the trace id is looked for."""
        seen = ask(door, [("x-request-id", "sk-a")], identify=lambda request: request.secret("x-request-id") and None)
        assert MADE.fullmatch(seen.trace_id)


class TestShared:
    """One id for all that is one unit of work."""

    @WHO
    @pytest.mark.parametrize("brought", [[], [("traceparent", PARENT)]], ids=["made", "brought"])
    @pytest.mark.parametrize("inner", [{}, {"override": True}, {"override": True, "identify": lambda request: BETA}])
    def test_an_inner_middleware_shares_it(self, door: Door, who: Headers, brought: Headers, inner: Any) -> None:
        """Also one that decides anew who the customer is."""
        outside: list[str] = []

        def through(app: Any) -> Any:
            def between(*request: Any) -> Any:
                outside.append(trace_id())
                return app(*request)

            return type(app)(between)

        seen = ask(door, [*who, *brought], through, **inner)
        assert [seen.trace_id] == outside

    @pytest.mark.parametrize("options", [{}, {"override": True}])
    @WHO
    def test_a_wsgi_door_below_an_asgi_door_shares_it(self, who: Headers, options: Any) -> None:
        """A bridge serves both in one context, and the calls of both are one trace."""
        door, outside = WSGIDoor(), list[str]()
        inside = Traced()
        app = door.wrap(inside, **options)

        async def bridge(scope: Any, receive: Any, send: Any) -> None:
            outside.append(trace_id())
            inside.request = door.environ([], "GET", "/", LOOPBACK)
            await asyncio.to_thread(door.send, app, inside)

        asgi = ASGIDoor()
        asgi.send(ASGIMiddleware(bridge), requested(asgi, who))
        assert inside.app_ran
        assert [inside.trace_id] == outside

    def test_a_preflight_has_one_too(self, door: Door) -> None:
        """It is nobody's, and a request of its own."""
        seen = requested(door, [("origin", "https://a.example"), ("access-control-request-method", "POST")])
        seen.request["method" if isinstance(door, ASGIDoor) else "REQUEST_METHOD"] = "OPTIONS"
        door.send(door.wrap(seen, required=True), seen)
        assert MADE.fullmatch(seen.trace_id)

    def test_callables_of_the_app_change_nothing(self, door: Door) -> None:
        """Whoever identifies, the trace is the one that the request brought."""

        async def identify(request: InboundRequest) -> Caller:
            return BETA

        seen = ask(door, [("traceparent", PARENT)], identify=identify)
        assert BETA == seen.caller
        assert seen.trace_id == TRACE

    def test_all_threads_agree_on_it(self) -> None:
        """Whichever asks first, all that ask get the same."""
        for _ in range(50):
            slot, barrier = RequestSlot(None), threading.Barrier(4, timeout=30)

            def look(slot: Slot = slot, barrier: threading.Barrier = barrier) -> str:
                barrier.wait()
                return slot.trace_id

            with ThreadPoolExecutor(4) as executor:
                assert len({future.result() for future in [executor.submit(look) for _ in range(4)]}) == 1

    def test_who_asks_while_it_is_being_found_gets_the_same(self) -> None:
        """A signal handler may interrupt the search, or another thread overtake it: the first answer counts for all."""
        interrupting: list[str] = []

        class Interrupted(list[tuple[bytes, bytes]]):
            def __iter__(self) -> Any:
                if not interrupting:
                    interrupting.append("")
                    interrupting.append(slot.trace_id)
                return super().__iter__()

        slot = RequestSlot(None, _headers=Interrupted())
        assert [slot.trace_id] == interrupting[1:]

    def test_it_does_not_show_what_the_request_brought(self) -> None:
        """A slot in an error report is its name only: its headers may hold what nobody should read."""
        assert "secret" not in repr(RequestSlot(ACME, _headers=[(b"cookie", b"secret")]))


class TestBlocks:
    """`bind_caller` and `carry_caller`."""

    def test_outside_of_everything_each_call_has_its_own(self) -> None:
        """Calls that nothing holds together are no trace."""
        assert len({trace_id() for _ in range(5)}) == 5
        assert NOBODY is current_slot()
        assert len({carry_caller(trace_id)() for _ in range(5)}) == 5

    @pytest.mark.parametrize("caller", [ACME, None])
    def test_a_block_has_one(self, caller: Caller | None) -> None:
        """The calls of a block are one trace, also for nobody; another block, even of the same binding, is another."""
        binding, seen = bind_caller(caller), list[str]()
        for block in (binding, binding, bind_caller(caller)):
            with block:
                seen.append(trace_id())
                assert trace_id() == seen[-1]
        assert len(set(seen)) == 3

    def test_a_block_inside_a_block_shares_it(self) -> None:
        """It is the same unit of work, with another payer."""
        with bind_caller(ACME):
            with bind_caller(BETA):
                inner = trace_id()
                with bind_caller(None):
                    assert trace_id() == inner
            assert trace_id() == inner

    @WHO
    def test_a_block_inside_a_request_shares_it(self, door: Door, who: Headers) -> None:
        """A call on somebody else's bill is still part of the request."""

        class Binding(Traced):
            def look(self) -> None:
                with bind_caller(BETA):
                    self.inner = trace_id()
                    assert BETA == current_caller()
                super().look()

        for brought in ([], [("traceparent", PARENT)]):
            seen = Binding()
            seen.request = requested(door, [*who, *brought]).request
            door.send(door.wrap(seen), seen)
            assert seen.trace_id == seen.inner

    def test_a_job_that_a_worker_runs_after_the_request_that_started_it_has_its_own(self) -> None:
        """A worker inherits the context of the request that started it, and its jobs are none of that request's."""
        inherited: list[contextvars.Context] = []

        class Starting(Traced):
            def look(self) -> None:
                super().look()
                inherited.append(contextvars.copy_context())

        seen = Starting()
        seen.request = requested(ASGIDoor(), [("traceparent", PARENT)]).request
        ASGIDoor().send(ASGIDoor().wrap(seen), seen)

        def job() -> str:
            with bind_caller(BETA):
                return trace_id()

        assert seen.trace_id == TRACE
        assert inherited[0].run(trace_id) == TRACE
        assert len({inherited[0].run(job), inherited[0].run(job), TRACE}) == 3

    def test_what_is_carried_keeps_it(self) -> None:
        """A thread that works for a request, or a block, is part of it, and so are blocks inside."""

        def work() -> tuple[str, str]:
            with bind_caller(BETA):
                inner = trace_id()
            return trace_id(), inner

        with bind_caller(ACME):
            mine, carried = trace_id(), carry_caller(work)
        with ThreadPoolExecutor(1) as executor:
            assert (mine, mine) == executor.submit(carried).result()
            assert (mine, mine) == executor.submit(carried).result()

    def test_tasks_share_it(self) -> None:
        """Concurrent calls of one block are one trace, those of two blocks are two."""

        async def call() -> str:
            await asyncio.sleep(0)
            return trace_id()

        async def block() -> set[str]:
            with bind_caller(ACME):
                return set(await asyncio.gather(call(), call(), asyncio.to_thread(trace_id)))

        async def main() -> list[set[str]]:
            return await asyncio.gather(block(), block())

        first, second = asyncio.run(main())
        assert (1, 1, 2) == (len(first), len(second), len(first | second))
