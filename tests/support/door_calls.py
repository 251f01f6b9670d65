"""Calls through a client's door to the sandbox: where they go, and what the vendor and the record say of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kwai_middleware import Secret
from kwai_middleware.sandbox import Sandbox
from tests.support.callers import key_of

__all__ = ["APP", "BODY", "KEY", "OK", "QUESTION", "assert_all_are_their_own", "assert_is_the_callers", "chat_url"]

KEY = key_of("acme")
BODY = b'{"model":"m"}'
APP = {"authorization": "Bearer app"}
QUESTION = [{"role": "user", "content": "one two three"}]
OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


def chat_url(vendors: Sandbox, route: str) -> str:
    """Where chat completions are on a kind of route."""
    urls = {"gateway": vendors.gateway_url, "relay": vendors.relay_url, "direct": vendors.openrouter_url}
    return urls[route].rstrip("/") + "/chat/completions"


def assert_is_the_callers(vendors: Sandbox, delivered: Sequence[Any], route: str, *, streamed: bool) -> None:
    """One call came, acme paid for it and is named where the route has a name, and the record has all of it."""
    [call] = vendors.calls(wait=1)
    assert Secret(KEY).fingerprint == call["paid_by"]["fingerprint"]
    assert ("acme" if route != "direct" else None) == call["customer"]
    assert ([], []) == (call["doors_disagree"], call["forwarded"])
    [record] = [each.build() for each in delivered]
    assert ("complete", 200, streamed, route) == (record.outcome, record.status_code, record.stream, record.route)
    assert "one two three" == record.completions[0]["content"]
    assert (record.time_to_first_token is not None) == streamed


def assert_all_are_their_own(vendors: Sandbox, delivered: Sequence[Any], customers: Sequence[str]) -> None:
    """Each customer made one call, which it paid for, and there is a record of each."""
    expected = {(customer, Secret(key_of(customer)).fingerprint) for customer in customers}
    came = vendors.calls(wait=len(customers))
    assert expected == {(call["customer"], call["paid_by"]["fingerprint"]) for call in came}
    records = [each.build() for each in delivered]
    assert expected == {(record.caller.identifier, record.key_fingerprint) for record in records}
    assert len(customers) == len(records)
