"""Finished calls, as a transport hands them over."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from kwai_middleware._record import CompletedCall
from kwai_middleware._secret import Secret

_numbers = itertools.count()


def completed(**more: Any) -> CompletedCall:
    """A small record, complete unless said otherwise."""
    fields: dict[str, Any] = {
        "model": "sandbox/echo",
        "messages": b'[{"role":"user","content":"hi"}]',
        "started_at": 1.0,
    }
    return CompletedCall(**(fields | more))


class Pending:
    """A call that nobody has looked into yet.

    Args:
        look: What looking into it does.
        secrets: Keys of its caller.
        logged_by_vendor: It went through a gateway.
        size: Of what there is to look into.
    """

    def __init__(
        self,
        look: Callable[[], CompletedCall] = completed,
        secrets: tuple[Secret, ...] = (),
        *,
        logged_by_vendor: bool = False,
        size: int = 0,
    ) -> None:
        self._look = look
        self.secrets = secrets
        self.logged_by_vendor = logged_by_vendor
        self.size = size
        self.released = 0

    def build(self) -> CompletedCall:
        return self._look()

    def release(self) -> None:
        self.released += 1
