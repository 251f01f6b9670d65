"""What is asked, by whom, and with which key."""

from __future__ import annotations

import json
from typing import Final

from benchmarks.loopback.model import TEXT

__all__ = ["ANSWERED", "customer", "key_of", "question_of", "requests"]

_CUSTOMERS: Final = 100
_FILLER: Final = "Where does the quick brown fox go when the lazy dog wakes up? " * 8

ANSWERED: Final = TEXT[:40].encode()
"""Stands in each answer that is one."""


def customer(number: int) -> str:
    """Return a customer's name."""
    return f"customer-{number:03d}"


def key_of(name: str) -> str:
    """Return a customer's own key."""
    return f"sk-or-v1-{name}-0123456789abcdef0123456789abcdef"


def question_of(name: str) -> str:
    """Return what a customer asks; the name stands in it."""
    return f"I am {name}. {_FILLER}"


def requests() -> list[bytes]:
    """Return a request of each customer, as it goes over the wire."""
    return [_request(customer(number)) for number in range(_CUSTOMERS)]


def _request(name: str) -> bytes:
    body = json.dumps({"question": question_of(name)}).encode()
    head = (
        "POST /ask HTTP/1.1\r\nHost: app.example\r\nUser-Agent: benchmark\r\nAccept: */*\r\n"
        f"X-Customer-Id: {name}\r\nX-OpenRouter-Key: {key_of(name)}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
