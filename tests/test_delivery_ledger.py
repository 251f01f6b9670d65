"""The account of calls: it balances at any time, in whatever order the calls find their ends."""

from __future__ import annotations

from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from kwai_middleware._delivery import ledger
from kwai_middleware._delivery.ledger import Call, Ledger


def call() -> Call:
    """Something to count; the ledger does not look into it."""
    return cast("Call", object())


def balanced(calls: Ledger) -> bool:
    """Say whether every call is accounted for."""
    account = calls.account()
    ends = account.spooled + account.observed + account.in_memory + sum(account.dropped_by_reason.values())
    return account.accepted == ends


def test_calls_come_out_in_the_order_they_were_put() -> None:
    """First in, first out, each with a number of its own."""
    calls = Ledger()
    first, second = call(), call()
    calls.put(first)
    calls.put(second)
    assert (1, first) == calls.take()
    assert (2, second) == calls.take()
    assert None is calls.take()


def test_the_first_calls_are_finished_when_each_of_them_is() -> None:
    """A later call that is finished earlier, as a small record beside a huge one, says nothing of those before it."""
    calls = Ledger()
    for _ in range(4):
        calls.put(call())
    numbers = [taken[0] for _ in range(3) if (taken := calls.take())]
    calls.finish([numbers[2]], ledger.SPOOLED)
    assert calls.is_finished(0)
    assert not calls.is_finished(1)
    calls.finish([numbers[0]], ledger.OBSERVED)
    assert calls.is_finished(1)
    assert not calls.is_finished(2)
    calls.finish([numbers[1]], ledger.SPOOL_FULL)
    assert calls.is_finished(3)
    assert not calls.is_finished(calls.position())
    account = calls.account()
    assert (4, 1, 1, 1, {ledger.SPOOL_FULL: 1}) == (
        account.accepted,
        account.spooled,
        account.observed,
        account.in_memory,
        account.dropped_by_reason,
    )


def test_what_is_refused_or_withdrawn_is_not_waited_for() -> None:
    """A refused call is counted and never waits; a withdrawn one is as if it had not been put."""
    calls = Ledger()
    calls.put(call())
    calls.refuse(ledger.QUEUE_FULL)
    calls.refuse(ledger.CLOSED)
    assert (3, 1) == (calls.account().accepted, calls.waiting)
    assert None is not calls.withdraw()
    assert None is calls.withdraw()
    assert calls.is_finished(calls.position())
    assert {ledger.QUEUE_FULL: 1, ledger.CLOSED: 1} == calls.account().dropped_by_reason


@given(st.permutations(range(1, 9)), st.integers(1, 4))
def test_in_whatever_order_they_end(order: list[int], together: int) -> None:
    """`is_finished` is true of exactly the calls before the first that is still in hand."""
    calls = Ledger()
    for _ in order:
        calls.put(call())
    while calls.take() is not None:
        pass
    left = set(order)
    while order:
        some, order = order[:together], order[together:]
        calls.finish(some, ledger.SPOOLED)
        left -= set(some)
        assert balanced(calls)
        first = min(left, default=9)
        assert [position < first for position in range(9)] == [calls.is_finished(position) for position in range(9)]
    assert 8 == calls.account().spooled


def test_a_call_finds_its_end_once() -> None:
    """Two who give up the same calls count them once, and the sum stays right."""
    calls = Ledger()
    calls.put(call())
    taken = calls.take()
    assert taken is not None
    calls.finish((taken[0],), ledger.NOT_RECORDED)
    calls.finish((taken[0],), ledger.NOT_RECORDED)
    account = calls.account()
    assert (1, 0, {ledger.NOT_RECORDED: 1}) == (account.accepted, account.in_memory, account.dropped_by_reason)
