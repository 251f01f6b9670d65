"""The checks that hold for every client: each answer arrives, each call is its own customer's, nothing else changes."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from kwai_middleware import Secret, bind_caller
from kwai_middleware.sandbox import Sandbox
from tests.support.callers import caller, key_of
from tests.support.clients.client import WORDS, Calls, Client
from tests.support.clients.seen import outcome
from tests.support.flavours import Flavour

__all__ = ["ClientChecks", "Make"]

CUSTOMERS = [f"customer-{number}" for number in range(16)]
FAILURES = {
    "401": "sandbox/error-401",
    "429": "sandbox/error-429",
    "500": "sandbox/error-500",
    "page": "sandbox/html-error-502",
    "cut": "sandbox/cut",
    "stream-error": "sandbox/stream-error",
    "stream-cut": "sandbox/cut",
}
Make = Callable[..., Any]


class ClientChecks:
    """Inherited by the tests of a client.

    Attributes:
        kind: The client.
        flavours: The libraries it stands on, and the ways.
        routes: Where it can go to.
        pays: The routes on which the vendor says that the customer's key pays.
        slow: A model that repeats what was said to it, after a while if it can.
    """

    kind: ClassVar[type[Client]]
    flavours: ClassVar[list[Any]]
    routes: ClassVar[tuple[str, ...]] = ("gateway", "relay", "openrouter")
    pays: ClassVar[tuple[str, ...]] = ("gateway", "relay", "openrouter")
    slow: ClassVar[str] = "sandbox/slow-0.1"

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run each check in every flavour, and on every route."""
        if "flavour" in metafunc.fixturenames:
            metafunc.parametrize("flavour", self.flavours, indirect=True)
        if "route" in metafunc.fixturenames:
            metafunc.parametrize("route", self.routes)

    @pytest.fixture
    def flavour(self, request: pytest.FixtureRequest) -> Iterator[Flavour]:
        """One of `flavours`."""
        library, door, asynchronous = request.param
        flavour = Flavour(library, door, asynchronous=asynchronous)
        yield flavour
        flavour.end()

    @pytest.fixture
    def calls(self) -> Calls:
        """What our clients hand over for the record."""
        return Calls()

    @pytest.fixture
    def make(self, flavour: Flavour, vendors: Sandbox, calls: Calls) -> Iterator[Make]:
        """Makes the client for a route, over a ready client of ours or over its own."""
        vendors.reset()
        ends: list[Callable[[], None]] = []

        def make(route: str, *, ours: bool = True, **options: Any) -> Any:
            base_url = self.kind.base_url(vendors, route)
            if not ours:
                plain = self.kind(flavour, self.kind.own_http_client(flavour), base_url, **options)
                ends.append(plain.close)
                return plain
            http_client = flavour.client(settings=vendors.settings(), deliver=calls.deliver)
            ends.append(lambda: flavour.close(http_client))
            return self.kind(flavour, http_client, base_url, **options)

        yield make
        for end in ends:
            end()

    @pytest.mark.parametrize("streamed", [False, True], ids=["unary", "streamed"])
    def test_an_answer(
        self, make: Make, flavour: Flavour, vendors: Sandbox, calls: Calls, route: str, streamed: bool
    ) -> None:
        """It arrives whole; the caller pays and is named; the record has all of it."""
        client = make(route)
        with bind_caller(caller()):
            answer = flavour.run(client.stream() if streamed else client.ask())
        assert WORDS == answer
        [call] = vendors.calls(wait=1)
        record = calls.next()
        self.check_call(call, "acme", route)
        self.check_record(record, "acme", route)
        assert (streamed, streamed) == (call["stream"], record.stream)
        assert calls.none_left()

    def test_sixteen_customers_at_once(
        self, make: Make, flavour: Flavour, vendors: Sandbox, calls: Calls, route: str
    ) -> None:
        """Over one shared client, in threads or tasks: each has its own answer, payer and record."""
        client = make(route)

        def asked(customer: str) -> Any:
            how = client.stream if CUSTOMERS.index(customer) % 2 else client.ask
            return how(self.slow, f"{customer} asks")

        together(flavour, asked)
        arrived = {re.findall(r"customer-\d+ asks", str(call["body"]))[-1]: call for call in vendors.calls(wait=16)}
        assert {f"{customer} asks" for customer in CUSTOMERS} == set(arrived)
        for customer in CUSTOMERS:
            self.check_call(arrived[f"{customer} asks"], customer, route)
        records = [calls.next() for _ in CUSTOMERS]
        assert sorted(CUSTOMERS) == sorted(str(record.caller and record.caller.identifier) for record in records)
        for record in records:
            assert record.caller is not None
            self.check_record(record, str(record.caller.identifier), route, f"{record.caller.identifier} asks")
        assert calls.none_left()

    def test_errors_are_its_own(self, make: Make, flavour: Flavour, vendors: Sandbox) -> None:
        """Their types, words, attributes and causes are those that the client has over its own HTTP client."""
        seen: list[dict[str, Any]] = []
        for ours in (False, True):
            client = make(self.routes[-1], ours=ours)
            seen.append({})
            for failure, model in FAILURES.items():
                ask = client.stream if failure.startswith("stream") else client.ask
                with bind_caller(caller()):
                    seen[-1][failure] = outcome(lambda: flavour.run(ask(model)))  # noqa: B023 - called at once
        for failure in FAILURES:
            assert seen[0][failure] == seen[1][failure], failure
        # Without an SDK, or in one that stops at the text, an error after a 200 is part of the answer.
        assert {"error"} == {kind for failure, (kind, _) in seen[1].items() if failure != "stream-error"}
        assert 2 * len(FAILURES) == len(vendors.calls(wait=2 * len(FAILURES)))

    def test_a_time_out_is_its_own(self, make: Make, flavour: Flavour) -> None:
        """So is the error when the vendor does not answer in the client's own time."""
        seen = []
        for ours in (False, True):
            client = make(self.routes[-1], ours=ours, timeout=0.2)
            with bind_caller(caller()):
                seen.append(outcome(lambda: flavour.run(client.ask("sandbox/hang"))))  # noqa: B023 - called at once
        assert "error" == seen[0][0]
        assert seen[0] == seen[1]

    def test_retries_are_its_own(self, make: Make, flavour: Flavour, vendors: Sandbox, calls: Calls) -> None:
        """It tries as often as over its own HTTP client; each attempt is paid by the caller, and is one record."""
        attempts = []
        for ours in (False, True):
            vendors.reset()
            client = make(self.routes[-1], ours=ours, retries=1)
            with bind_caller(caller()):
                outcome(lambda: flavour.run(client.ask("sandbox/error-500")))  # noqa: B023 - called at once
            attempts.append(len(vendors.calls()))
        assert attempts[0] == attempts[1]
        assert [500] * attempts[1] == [calls.next().status_code for _ in range(attempts[1])]
        for call in vendors.calls():
            self.check_call(call, "acme", self.routes[-1])
        assert calls.none_left()

    def check_call(self, call: dict[str, Any], customer: str, route: str) -> None:
        """What a vendor saw is this customer's call, and no other's."""
        assert route == call["route"]
        assert (customer if route != "openrouter" else None) == call["customer"]
        assert (route in self.pays) == (Secret(key_of(customer)).fingerprint == call["paid_by"]["fingerprint"])
        assert ([], []) == (call["doors_disagree"], call["forwarded"])

    def check_record(self, record: Any, customer: str, route: str, text: str = WORDS) -> None:
        """What we record is this customer's call, whole."""
        assert ("complete", 200) == (record.outcome, record.status_code)
        assert (customer, ()) == (record.caller.identifier, record.caller.credentials)
        if route in self.pays:
            assert Secret(key_of(customer)).fingerprint == record.key_fingerprint
        if self.kind.records_content:
            assert text == record.completions[0]["content"]


def together(flavour: Flavour, ask: Callable[[str], Any]) -> None:
    """Have every customer ask at the same time, in a thread or task of its own; each must get its own answer."""
    if flavour.asynchronous:
        flavour.run(_all_tasks(ask))
        return
    ready = threading.Barrier(len(CUSTOMERS), timeout=30)

    def one(customer: str) -> None:
        ready.wait()
        with bind_caller(caller(customer)):
            assert f"{customer} asks" == ask(customer)

    with ThreadPoolExecutor(len(CUSTOMERS)) as executor:
        list(executor.map(one, CUSTOMERS))


async def _all_tasks(ask: Callable[[str], Any]) -> None:
    async def one(customer: str) -> None:
        with bind_caller(caller(customer)):
            assert f"{customer} asks" == await ask(customer)

    await asyncio.gather(*(one(customer) for customer in CUSTOMERS))
