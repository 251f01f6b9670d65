"""The doors of a request: every place in it that says who it is for or whose key shall pay, read or not."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from kwai_middleware.sandbox.json_types import is_array
from kwai_middleware.sandbox.keys import KEY_HEADER, KEY_MEMBER, NO_KEY_MEMBER, bearer_key
from kwai_middleware.sandbox.parameters import NESTED, PARAMETER_HEADERS, identifier_text

__all__ = ["Door", "DoorKind", "disagreeing", "doors_of"]

DoorKind = Literal["identifier", "name", "email", "group", "thread", "key"]

_PLAIN: Final[dict[str, DoorKind]] = {
    "customer_identifier": "identifier",
    "customer_name": "name",
    "customer_email": "email",
    "group_identifier": "group",
    "thread_identifier": "thread",
}
_CUSTOMER: Final[dict[str, DoorKind]] = {
    "customer_identifier": "identifier",
    "name": "name",
    "email": "email",
    "group_identifier": "group",
}
_BY_NAME: Final = ("customer_credentials", "customer_api_keys", "credential_override", "credentials")
"""A text right below these is a key whatever its name, which is a provider or a model."""

_CREDENTIALS: Final = (*_BY_NAME[:3], "load_balance_models", "loadbalance_models", "load_balance_group")
_CONTAINERS: Final = (*NESTED, "extra_body")
"""Members that hold parameters; one of the vendor's relays merges `extra_body` in."""

_DEEPEST: Final = 12
"""No form of a credential that the vendor shows is nested deeper than half of this."""

_SPELLING: Final = {
    "x-data-respan-params": "X-Data-Respan-Params",
    "x-data-keywordsai-params": "X-Data-Keywordsai-Params",
}


@dataclass(frozen=True, slots=True)
class Door:
    """One place of a request.

    Attributes:
        name: Where it is, such as `respan_params.customer_params.customer_identifier`.
        kind: What it brings; None when it is there and brings nothing that the vendor could use.
        value: The same. A key in clear.
    """

    name: str
    kind: DoorKind | None = None
    value: str | None = None


@dataclass(frozen=True, slots=True)
class _Object:
    """A JSON object with all its members, doubled ones too: some readers take the first, others the last."""

    members: list[tuple[str, object]]


def doors_of(
    body: bytes,
    headers: Iterable[tuple[bytes, bytes]],
    *,
    key_headers: Container[str] = (),
    in_metadata: bool = False,
) -> tuple[Door, ...]:
    """Return every door of a request, doubled members and headers as often as they are there.

    Args:
        body: Of the request; what is no JSON object has no doors.
        headers: Of the request, names in lower case.
        key_headers: Names of the headers whose key may pay at this endpoint.
        in_metadata: Whether `metadata` may hold parameters at this endpoint.
    """
    doors: list[Door] = []
    top = _read(body)
    if isinstance(top, _Object):
        doors += _parameters(top, "")
        doors += _nested(top, "")
        for name, value in top.members:
            if in_metadata and name == "metadata" and isinstance(value, _Object):
                doors += _nested(value, "metadata.")
                doors += _extra_headers(value, "metadata.")
    for raw_name, raw_value in headers:
        header, text = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if header in PARAMETER_HEADERS:
            doors += _header(header, text, f"header {_SPELLING[header]}", ": ")
        elif header in key_headers:
            doors += _header(header, text, f"header {header}", "")
    return tuple(map(_showable, doors))


def disagreeing(doors: Iterable[Door]) -> list[DoorKind]:
    """Return the kinds of which doors bring different values; keys of several providers count as different too."""
    values: dict[DoorKind, set[str | None]] = {}
    for door in doors:
        if door.kind is not None:
            values.setdefault(door.kind, set()).add(door.value)
    return [kind for kind, different in values.items() if len(different) > 1]


def _read(text: bytes | str) -> object:
    """Decode JSON as Python does, `Infinity` included, but keep doubled members; None when it is none."""
    try:
        return json.loads(text.decode() if isinstance(text, bytes) else text, object_pairs_hook=_Object)
    except (ValueError, RecursionError):
        return None


def _header(name: str, text: str, path: str, separator: str) -> Iterator[Door]:
    """The doors in a header: parameters in one that is there for them, else a key."""
    if name not in PARAMETER_HEADERS:
        yield Door(path, "key", bearer_key(text) or text)
        return
    try:
        value = _read(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        # The guides of some endpoints write plain JSON here.
        value = _read(text)
    yield from _container(value, path, separator)


def _nested(holder: _Object, prefix: str) -> Iterator[Door]:
    for name, value in holder.members:
        if name in _CONTAINERS:
            yield from _container(_read(value) if isinstance(value, str) else value, prefix + name, ".")


def _container(value: object, name: str, separator: str) -> Iterator[Door]:
    """The doors in a container of parameters; one that is no object is a door itself, since it shuts the others."""
    if isinstance(value, _Object):
        yield from _parameters(value, name + separator)
    else:
        yield Door(name)


def _parameters(parameters: _Object, prefix: str) -> Iterator[Door]:
    for name, value in parameters.members:
        path = prefix + name
        if name in _PLAIN:
            yield _saying(path, _PLAIN[name], value)
        elif name == "customer_params":
            yield from _customer(value, path)
        elif name in _CREDENTIALS:
            keys = list(_keys(value, path, is_key=False, by_name=name in _BY_NAME, left=_DEEPEST))
            yield from keys or [Door(path)]
    yield from _extra_headers(parameters, prefix)


def _extra_headers(holder: _Object, prefix: str) -> Iterator[Door]:
    """The headers that the gateway is asked to send on to the provider: a key among them would pay."""
    for name, headers in holder.members:
        if name == "extra_headers" and isinstance(headers, _Object):
            for header, text in headers.members:
                if isinstance(text, str) and text and KEY_HEADER.search(header):
                    yield from _header(header.lower(), text, f"{prefix}{name}.{header}", ".")


def _customer(value: object, path: str) -> list[Door]:
    members = value.members if isinstance(value, _Object) else []
    said = [_saying(f"{path}.{name}", _CUSTOMER[name], each) for name, each in members if name in _CUSTOMER]
    return said or [Door(path)]


def _saying(path: str, kind: DoorKind, value: object) -> Door:
    text = identifier_text(value)
    return Door(path) if text is None else Door(path, kind, text)


def _showable(door: Door) -> Door:
    """Half of a surrogate pair, which the vendor's Python reads, can be neither hashed nor shown."""
    name, value = (text and text.encode("utf-8", "replace").decode() for text in (door.name, door.value))
    return Door(name or "", door.kind, value)


def _keys(value: object, path: str, *, is_key: bool, by_name: bool, left: int) -> Iterator[Door]:
    if isinstance(value, str):
        if is_key and value:
            yield Door(path, "key", value)
    elif not left:
        return
    elif isinstance(value, _Object):
        for name, each in value.members:
            named = (by_name or KEY_MEMBER.search(name)) and not NO_KEY_MEMBER.search(name)
            yield from _keys(each, f"{path}.{name}", is_key=bool(named), by_name=name in _BY_NAME, left=left - 1)
    elif is_array(value):
        for index, each in enumerate(value):
            yield from _keys(each, f"{path}[{index}]", is_key=is_key, by_name=False, left=left - 1)
