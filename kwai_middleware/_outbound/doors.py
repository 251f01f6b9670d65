"""Every way by which a request can bring a key or an identity of its own: found, and closed where asked. Pure.

The vendor reads its parameters from several places, and has changed which of them wins. So none of
them may say anything else than another: what is to go is taken out of all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Final, Literal, NamedTuple, cast

from kwai_middleware._outbound.json_members import Changed, Members, has_each_once, joined, read_object, string_in

__all__ = ["CREDENTIALS", "PARAMS", "THREAD", "Door", "DoorKind", "Inspection", "names_no_door"]

CREDENTIALS: Final = "customer_credentials"
PARAMS: Final = "customer_params"
THREAD: Final = "thread_identifier"

DoorKind = Literal["key", "identity", "payer", "thread", "log"]
"""What a member brings: a key · who the customer is · a way to end on yet another bill · the conversation · what the
gateway logs."""

_OWN: Final[dict[str, DoorKind]] = {
    CREDENTIALS: "key",
    "credential_override": "key",
    "customer_api_keys": "key",
    PARAMS: "identity",
    "customer_identifier": "identity",
    "customer_name": "identity",
    "customer_email": "identity",
    "group_identifier": "identity",
    "fallback_models": "payer",
    "models": "payer",
    "disable_fallback": "payer",
    "route_provider_override": "payer",
    "disable_log": "log",
    THREAD: "thread",
}
"""Members that are a door themselves."""

_BALANCED: Final = ("load_balance_group", "load_balance_models", "loadbalance_models")
_PARAMETERS: Final = ("respan_params", "keywordsai_params", "extra_body")
"""Objects of further members, which the vendor merges into the body's."""
_MAY_BE_TEXT: Final = "respan_params"
"""The only one of them that may be a JSON string."""
_HEADERS: Final = "extra_headers"
_METADATA: Final = "metadata"
"""On the Anthropic endpoint the vendor's parameters and headers stand in here."""
_PROMPT: Final = "prompt"
_OVERRIDES: Final = "override_params"
"""Beside a stored prompt: parameters of the model, headers among them."""

_INTERESTING: Final = frozenset((*_OWN, *_BALANCED, *_PARAMETERS, _HEADERS, _METADATA, _PROMPT))
_INTERESTING_IN: Final = {
    _METADATA: frozenset((*_PARAMETERS, _HEADERS)),
    _PROMPT: frozenset((_OVERRIDES,)),
}
_KEY_MEMBERS: Final = re.compile("credential|api_?key|access_key|_key$|^key$|secret|token$|passw|auth", re.IGNORECASE)
_KEY_HEADERS: Final = re.compile("auth|key|token|secret|cookie|credential|x-data-", re.IGNORECASE)

_DEEPEST: Final = 4


class Door(NamedTuple):
    """One way by which the request brings something of its own.

    Attributes:
        kind: What it brings.
        name: For people: `respan_params.customer_credentials`.
        value: The JSON of its value.
    """

    kind: DoorKind
    name: str
    value: bytes


class Inspection:
    """The doors of a JSON object, and what has to be changed to close some of them.

    Args:
        body: The object.
        members: Its members.
        closed: Kinds of doors to close; when there are none, nothing is changed.
        path: What comes before the names of its doors.
        within: The member that the object is the value of.
        depth: How many objects it is in.

    Attributes:
        doors: All that were found, open or closed.
        changes: What becomes of the object's members.
    """

    __slots__ = ("_closed", "_depth", "_path", "_within", "changes", "doors")

    def __init__(
        self,
        body: bytes,
        members: Members,
        closed: Collection[DoorKind],
        *,
        path: str = "",
        within: str = "",
        depth: int = 0,
    ) -> None:
        self.doors: list[Door] = []
        self.changes: dict[str, bytes | None] = {}
        self._closed = closed
        self._path = path
        self._depth = depth
        self._within = within
        interesting = _INTERESTING_IN.get(within, _INTERESTING)
        if members.keys().isdisjoint(interesting):
            return
        names = members.keys() & interesting
        for name in names:
            self._look_at(name, bytes(members[name]))
        if closed and not has_each_once(body, members):
            # Each name is to stand once: of two, one could have been hidden from us.
            for name in names:
                self.changes.setdefault(name, bytes(members[name]))

    def found(self, kind: DoorKind) -> Door | None:
        """Return a door of that kind, the first by name."""
        return min((door for door in self.doors if door.kind == kind), default=None, key=lambda door: door.name)

    def _look_at(self, name: str, value: bytes) -> None:
        if name in _OWN:
            self._note(_OWN[name], name, value)
        elif name in _PARAMETERS or name == _METADATA:
            self._enter(name, value)
        elif name in (_PROMPT, _OVERRIDES):
            if value.startswith(b"{"):  # else it is what the model is asked
                self._enter(name, value)
        elif name == _HEADERS:
            self._take_keys_out(name, value, *_without_key_headers(value))
        else:
            self.doors.append(Door("payer", self._path + name, value))
            self._take_keys_out(name, value, *_without_balanced_keys(value))

    def _note(self, kind: DoorKind, name: str, value: bytes) -> None:
        self.doors.append(Door(kind, self._path + name, value))
        if kind in self._closed:
            self.changes[name] = None

    def _enter(self, name: str, value: bytes) -> None:
        """Look into an object of further members, which may also be written as a JSON string."""
        is_text = value.startswith(b'"')
        read = read_object(string_in(value) if is_text else value)
        if read is not None and self._depth >= _DEEPEST:
            self._note("key", name, value)
            self._note("identity", name, value)
        elif read is not None:
            inner = Inspection(*read, self._closed, path=f"{self._path}{name}.", within=name, depth=self._depth + 1)
            self.doors += inner.doors
            kept = joined(read[1], inner.changes)
            # As an object it is read by everyone in the same way; but OpenAI's own metadata is texts only.
            stays_text = is_text and self._within == _METADATA
            if inner.changes or (self._closed and is_text and not stays_text):
                self.changes[name] = None if kept == b"{}" else _quoted(kept) if stays_text else kept
        if self._closed and name in _PARAMETERS and (read is None or (is_text and name != _MAY_BE_TEXT)):
            # The vendor ignores what is no object, and with it the parameters that stand elsewhere: ours.
            self.changes[name] = None

    def _take_keys_out(self, name: str, value: bytes, kept: bytes | None, has_key: bool) -> None:
        """Close a member that is more than a door: what is no key of it stays."""
        if has_key:
            self.doors.append(Door("key", self._path + name, value))
        if kept != value and "key" in self._closed:
            self.changes[name] = kept


def _without_key_headers(value: bytes) -> tuple[bytes | None, bool]:
    """Take keys out of the headers for the provider; what should be no text goes as a whole."""
    if value.startswith(b'"'):
        return None, True
    read = read_object(value)
    changes: Changed = {} if read is None else {name: None for name in read[1] if _KEY_HEADERS.search(name)}
    return (joined(read[1], changes), True) if read and changes else (value, False)


def _without_balanced_keys(value: bytes) -> tuple[bytes | None, bool]:
    """Take credentials out of a choice of models, at any depth; what cannot be read goes as a whole."""
    try:
        read: object = json.loads(value.decode("utf-8", "surrogatepass"), strict=False)
        if isinstance(read, str):
            return None, True
        kept = _without_credentials(read)
        return json.dumps(kept, separators=(",", ":"), allow_nan=False).encode(), kept != read
    except (ValueError, RecursionError):
        return None, True


def _without_credentials(value: object) -> object:
    if isinstance(value, list):
        return [_without_credentials(item) for item in cast("list[object]", value)]
    if isinstance(value, dict):
        members = cast("dict[str, object]", value)
        return {name: _without_credentials(member) for name, member in members.items() if not _KEY_MEMBERS.search(name)}
    return value


def names_no_door(members: Members) -> bool:
    """Say whether a JSON object has no member that is a door, or that could have one in it."""
    return members.keys().isdisjoint(_INTERESTING)


def _quoted(document: bytes) -> bytes:
    return json.dumps(document.decode("utf-8", "surrogatepass")).encode()
