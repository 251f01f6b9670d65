"""What arrived: bounded, numbered, filtered, and waited for without polling."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar, Final, Generic, Protocol, TypeVar

from kwai_middleware.sandbox.json_types import json_or_none
from kwai_middleware.sandbox.keys import KeyRing, fingerprint

__all__ = ["CallEntry", "Entry", "Journal", "LogEntry", "LogRequestEntry"]

RawHeaders = Sequence[tuple[bytes, bytes]]

_MOST_ENTRIES: Final = 20_000
_MOST_BYTES: Final = 128 * 1024 * 1024
_MANY: Final = 250
_BREATH: Final = 0.005
"""Seconds between two looks at many entries, so that waiting for thousands costs little."""


def _now() -> float:
    return time.time()


def _readable(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()


class Entry(Protocol):
    """One thing that arrived."""

    filters: ClassVar[tuple[str, ...]]
    number: int

    @property
    def size(self) -> int:
        """Bytes it holds."""
        ...

    def shown(self, keys: KeyRing) -> dict[str, object]:
        """What the journal shows of it: everything but keys."""
        ...


EntryT = TypeVar("EntryT", bound=Entry)


@dataclass(slots=True, kw_only=True, eq=False)
class CallEntry:
    """A model call, or a request to no endpoint of ours."""

    filters: ClassVar[tuple[str, ...]] = ("route", "customer", "model", "status", "paid_by", "outcome")

    number: int = 0
    route: str
    method: str
    path: str
    headers: RawHeaders
    raw_body: bytes
    customer: str | None = None
    customer_params: object = None
    model: str | None = None
    stream: bool = False
    paying_key: str | None = None
    paid_from: str | None = None
    status: int | None = None
    outcome: str | None = None
    log_id: str | None = None
    arrived_at: float = field(default_factory=_now)

    @property
    def size(self) -> int:
        """Bytes it holds."""
        return len(self.raw_body)

    @property
    def paid_by(self) -> str | None:
        """Fingerprint of the key that pays."""
        return None if self.paying_key is None else fingerprint(self.paying_key)

    def shown(self, keys: KeyRing) -> dict[str, object]:
        """What the journal shows of it: everything but keys."""
        found: set[str] = set()
        paid_by = None if self.paid_by is None else {"source": self.paid_from, "fingerprint": self.paid_by}
        return {
            "number": self.number,
            "arrived_at": _readable(self.arrived_at),
            "route": self.route,
            "method": self.method,
            "path": keys.mask_text(self.path, found),
            "model": self.model,
            "stream": self.stream,
            "customer": self.customer,
            "customer_params": keys.mask(self.customer_params, found),
            "paid_by": paid_by,
            "status": self.status,
            "outcome": self.outcome,
            "logged_by": None if self.log_id is None else "gateway",
            "log_id": self.log_id,
            "headers": keys.mask_headers(self.headers, found),
            "body": keys.mask(json_or_none(self.raw_body), found),
            "body_length": len(self.raw_body),
            "body_sha256": hashlib.sha256(self.raw_body).hexdigest(),
        }


@dataclass(slots=True, kw_only=True, eq=False)
class LogEntry:
    """One record that the request-logs API took.

    Attributes:
        row: As it was posted.
        stored: What the vendor keeps of it; None when it loses it.
        dropped: Names of the members that it drops of one that it keeps.
        lost: Why the vendor loses it, though it answered with success: what its own type has against it, and where.
    """

    filters: ClassVar[tuple[str, ...]] = ("customer", "model", "endpoint", "status_code", "posted_by")

    number: int = 0
    endpoint: str
    posted_by: str
    log_id: str
    row: Mapping[str, object]
    stored: Mapping[str, object] | None
    dropped: tuple[str, ...]
    lost: str | None
    size: int
    arrived_at: float = field(default_factory=_now)

    @property
    def customer(self) -> object:
        """Whom the vendor attributes the record to: nobody, when it loses it."""
        return None if self.stored is None else self.stored.get("customer_identifier")

    @property
    def model(self) -> object:
        """The model that the record names."""
        return self.row.get("model")

    @property
    def status_code(self) -> object:
        """The status that the record names."""
        return self.row.get("status_code", 200) if self.stored is None else self.stored.get("status_code")

    def shown(self, keys: KeyRing) -> dict[str, object]:
        """What the journal shows of it: everything but keys, and the fingerprint of each key that was in it."""
        found: set[str] = set()
        return {
            "number": self.number,
            "arrived_at": _readable(self.arrived_at),
            "endpoint": self.endpoint,
            "posted_by": self.posted_by,
            "log_id": self.log_id,
            "customer": keys.mask(self.customer, found),
            "model": self.model,
            "log": keys.mask(self.row, found),
            "stored": keys.mask(self.stored, found),
            "dropped": self.dropped,
            "lost": None if self.lost is None else keys.mask_text(self.lost, found),
            "size": self.size,
            "keys_seen": sorted(found),
        }


@dataclass(slots=True, kw_only=True, eq=False)
class LogRequestEntry:
    """One request to the request-logs API, taken or not."""

    filters: ClassVar[tuple[str, ...]] = ("endpoint", "status", "mode", "posted_by")

    number: int = 0
    endpoint: str
    path: str
    headers: RawHeaders
    posted_by: str | None
    mode: str
    body_length: int
    rows: int = 0
    accepted: int = 0
    status: int | None = None
    arrived_at: float = field(default_factory=_now)

    @property
    def size(self) -> int:
        """Bytes it holds, about."""
        return 1024

    def shown(self, keys: KeyRing) -> dict[str, object]:
        """What the journal shows of it: everything but keys."""
        found: set[str] = set()
        return {
            "number": self.number,
            "arrived_at": _readable(self.arrived_at),
            "endpoint": self.endpoint,
            "path": keys.mask_text(self.path, found),
            "posted_by": self.posted_by,
            "mode": self.mode,
            "status": self.status,
            "rows": self.rows,
            "accepted": self.accepted,
            "body_length": self.body_length,
            "headers": keys.mask_headers(self.headers, found),
        }


class Journal(Generic[EntryT]):
    """The latest entries of one kind, at most 20,000 and 128 MiB of them; belongs to one event loop."""

    def __init__(self) -> None:
        self._entries: deque[EntryT] = deque()
        self._bytes = 0
        self._last_number = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self.evicted = 0

    def append(self, entry: EntryT) -> None:
        """Keep `entry`, number it, and let go of the oldest when there are too many."""
        self._last_number += 1
        entry.number = self._last_number
        self._entries.append(entry)
        self._bytes += entry.size
        while len(self._entries) > 1 and (len(self._entries) > _MOST_ENTRIES or self._bytes > _MOST_BYTES):
            self._bytes -= self._entries.popleft().size
            self.evicted += 1
        self.wake()

    def clear(self) -> None:
        """Forget everything; numbers begin at 1 again."""
        self._entries.clear()
        self._bytes = self._last_number = self.evicted = 0
        self.wake()

    def matching(self, filters: Mapping[str, str]) -> list[EntryT]:
        """Return the entries whose attributes, as text, equal all `filters`."""
        return [
            entry for entry in self._entries if all(str(getattr(entry, name)) == text for name, text in filters.items())
        ]

    async def wait(self, filters: Mapping[str, str], at_least: int, seconds: float) -> None:
        """Wait until `at_least` entries match, or until `seconds` have passed."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while len(self.matching(filters)) < at_least and (left := until - loop.time()) > 0:
            waiting = loop.create_future()
            self._waiting.add(waiting)
            try:
                await asyncio.wait((waiting,), timeout=left)
            finally:
                self._waiting.discard(waiting)
            if len(self._entries) > _MANY:
                await asyncio.sleep(_BREATH)

    def wake(self) -> None:
        """Have everyone who waits look again: an entry has come or changed."""
        everyone, self._waiting = self._waiting, set()
        for waiting in everyone:
            waiting.set_result(None)
