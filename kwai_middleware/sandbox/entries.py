"""What the journals hold: a call, a record, a request that brought records; and what is shown of each."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import ClassVar

from kwai_middleware.sandbox.doors import Door, disagreeing
from kwai_middleware.sandbox.forms import Form
from kwai_middleware.sandbox.json_types import json_or_none
from kwai_middleware.sandbox.keys import KeyRing, fingerprint

__all__ = ["CallEntry", "LogEntry", "LogRequestEntry"]

RawHeaders = Sequence[tuple[bytes, bytes]]


def _now() -> float:
    return time.time()


def _readable(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat()


def _masked(value: object, keys: KeyRing, found: set[str]) -> object:
    try:
        return keys.mask(value, found)
    except RecursionError:
        return "(nested too deeply to show)"


@dataclass(slots=True, kw_only=True, eq=False)
class CallEntry:
    """A model call, or a request to no endpoint of ours.

    Attributes:
        form: What the body holds, if it is a form.
        paid_from: Where the key that pays was found.
        doors: Every place of the request that names a customer or brings a key, whether it won or not.
        forwarded: Top-level members that go on to the model's provider though they are none of the vendor's.
        route_provider: What `X-Respan-Route-Provider` or the parameter `route_provider_override` pins.
        disable_fallback: The parameter of that name.
    """

    filters: ClassVar[tuple[str, ...]] = ("route", "customer", "model", "status", "paid_by", "outcome")

    number: int = 0
    route: str
    method: str
    path: str
    headers: RawHeaders
    raw_body: bytes
    form: Form | None = None
    customer: str | None = None
    customer_params: object = None
    model: str | None = None
    stream: bool = False
    paying_key: str | None = None
    paid_from: str | None = None
    doors: tuple[Door, ...] = ()
    forwarded: tuple[str, ...] = ()
    route_provider: str | None = None
    disable_fallback: object = None
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
            "model": _masked(self.model, keys, found),
            "stream": self.stream,
            "customer": _masked(self.customer, keys, found),
            "customer_params": _masked(self.customer_params, keys, found),
            "paid_by": paid_by,
            "doors": [self._door(door, keys, found) for door in self.doors],
            "doors_disagree": disagreeing(self.doors),
            "forwarded": [keys.mask_text(name, found) for name in self.forwarded],
            "route_provider": _masked(self.route_provider, keys, found),
            "disable_fallback": _masked(self.disable_fallback, keys, found),
            "status": self.status,
            "outcome": self.outcome,
            "logged_by": None if self.log_id is None else "gateway",
            "log_id": self.log_id,
            "headers": keys.mask_headers(self.headers, found),
            "body": _masked(json_or_none(self.raw_body) if self.form is None else self.form.described(), keys, found),
            "body_length": len(self.raw_body),
            "body_sha256": hashlib.sha256(self.raw_body).hexdigest(),
        }

    def _door(self, door: Door, keys: KeyRing, found: set[str]) -> dict[str, object]:
        value = door.value
        if value is not None:
            value = fingerprint(value) if door.kind == "key" else keys.mask_text(value, found)
        return {"door": keys.mask_text(door.name, found), "kind": door.kind, "value": value}


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
