"""What one sandbox remembers and how it is told to misbehave."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from kwai_middleware.sandbox.accounts import Accounts
from kwai_middleware.sandbox.connection import Pauses
from kwai_middleware.sandbox.entries import CallEntry, LogEntry, LogRequestEntry
from kwai_middleware.sandbox.journal import Journal
from kwai_middleware.sandbox.keys import KeyRing
from kwai_middleware.sandbox.parameters import PRECEDENCES, Precedence

__all__ = ["BULK_PER_MINUTE", "LogsMode", "SandboxState"]

BULK_PER_MINUTE = 30
"""Bulk requests that the vendor takes from an organisation in a minute."""


@dataclass(frozen=True, slots=True)
class LogsMode:
    """How the request-logs API behaves.

    Attributes:
        mode: `ok`, `slow`, `hang`, `reset`, `garbage`, `cut`, `huge`, or a status from 300 to 599.
        times: Requests for which this holds; then it is `ok` again. None means from now on.
        seconds: How long `slow` waits.
        retry_after: Seconds, sent with 429 and 503; None sends none.
        bulk_per_minute: Bulk requests taken from one key in a minute.
        poison: Text of a record over which the vendor trips: a request that holds it answers 500.
        unwanted: Text of a record that is refused by itself, as one with a wrong field is.
    """

    mode: str = "ok"
    times: int | None = None
    seconds: float = 1.0
    retry_after: int | None = 1
    bulk_per_minute: int = BULK_PER_MINUTE
    poison: str | None = None
    unwanted: str | None = None

    def afterwards(self) -> LogsMode:
        """How it behaves when `mode` no longer holds: what depends on requests and records stays as it is."""
        return LogsMode(bulk_per_minute=self.bulk_per_minute, poison=self.poison, unwanted=self.unwanted)


@dataclass(slots=True)
class SandboxState:
    """Everything a sandbox remembers; belongs to one event loop.

    Attributes:
        precedence: Which of a request's parameters win.
        reset_connection: Cuts the TCP connection of the client with that address; a server that can
            puts it here.
        clock: Seconds that only go forward; the bulk limit counts with it.
    """

    calls: Journal[CallEntry] = field(default_factory=Journal[CallEntry])
    logs: Journal[LogEntry] = field(default_factory=Journal[LogEntry])
    log_requests: Journal[LogRequestEntry] = field(default_factory=Journal[LogRequestEntry])
    keys: KeyRing = field(default_factory=KeyRing)
    accounts: Accounts = field(default_factory=Accounts)
    pauses: Pauses = field(default_factory=Pauses)
    logs_mode: LogsMode = field(default_factory=LogsMode)
    precedence: Precedence = PRECEDENCES[0]
    bulk_requests: dict[str, deque[float]] = field(default_factory=dict[str, "deque[float]"])
    reset_connection: Callable[[tuple[str, int]], object] | None = None
    clock: Callable[[], float] = time.monotonic

    def reset(self) -> None:
        """Forget what arrived and was registered, behave again, and let go of every request that is kept waiting."""
        for journal in (self.calls, self.logs, self.log_requests):
            journal.clear()
        self.accounts.clear()
        self.logs_mode = LogsMode()
        self.precedence = PRECEDENCES[0]
        self.bulk_requests.clear()
        self.pauses.release()

    def new_log_id(self) -> str:
        """Return the id of a new row of the vendor's logs."""
        return secrets.token_hex(16)
