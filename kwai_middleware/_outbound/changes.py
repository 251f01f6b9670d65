"""What must become of a request, so that whatever the vendor reads in it names the bound caller. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final, NamedTuple

import msgspec

from kwai_middleware._outbound.attempts import RETRY_COUNT
from kwai_middleware._outbound.attribution import Attribution
from kwai_middleware._outbound.doors import CREDENTIALS, PARAMS, THREAD, Door, DoorKind, Inspection, names_no_door
from kwai_middleware._outbound.hidden_bodies import JSON, is_form, refuse_what_is_hidden
from kwai_middleware._outbound.json_members import Changed, Members, joined, read_object, read_text
from kwai_middleware._outbound.parameter_header import PARAMETER_HEADERS, parameters_from, parameters_to
from kwai_middleware._outbound.routes import Endpoint, Place
from kwai_middleware._settings import Settings
from kwai_middleware.errors import CannotAttribute

__all__ = ["READ_HEADERS", "ROUTE_PROVIDER", "Changes", "changes_to", "looks_into_body", "plain_changes"]

READ_HEADERS: Final = ("content-type", "content-encoding", *PARAMETER_HEADERS)
"""Headers of a request whose values have a say here."""

ROUTE_PROVIDER: Final = "x-respan-route-provider"
"""The header that pins a call to one provider."""

_LIMITS: Final = (
    "period_start", "period_end", "budget_duration", "period_budget", "total_budget", "markup_percentage", "rate_limit"
)  # fmt: skip
"""Members of `customer_params` that stay; the others say, or may one day say, who the customer is."""


_SAY_NOTHING: Final = frozenset(
    ("authorization", "content-encoding", "content-length", "content-type", "x-api-key", RETRY_COUNT)
)
"""Headers without parameters: the fast answer for nearly all requests."""

_PLAIN: Final = _SAY_NOTHING - {"content-encoding"}

_AROUND: Final[Mapping[Place, tuple[bytes, bytes]]] = {
    "body": (b",", b""),
    "respan_params": (b',"respan_params":{', b"}"),
    "metadata": (b',"metadata":{"respan_params":{', b"}}"),
}
"""What stands around the gateway's parameters, behind the members of a body that has none of them."""


class Changes(msgspec.Struct, frozen=True):
    """What must become of a request. Holds no key of the caller: those are put in where the wire copy is made.

    Attributes:
        attribution: Who the call is for and who pays, now that the request has had its say.
        body: The app's bytes, or the same text as UTF-8; None where they are no JSON object.
        members: The body's own members.
        changed: What becomes of them.
        headers: For each header its new value, or None to take it out.
        added: Parameters for the gateway.
        nest: The objects in the body that they travel in, from the outermost, each with what else is in it.
        in_header: They travel in a header instead, beside these.
        sends_key: The caller's keys travel with them.
        is_anonymous: The caller has a name, and this request cannot carry it.
        tail: What comes behind the members of a body that brings nothing: before the keys, and behind them.
    """

    attribution: Attribution
    body: bytes | None = None
    members: Members = {}
    changed: Changed = {}
    headers: Mapping[str, str | None] = {}
    added: Mapping[str, bytes] = {}
    nest: tuple[tuple[str, Members], ...] = ()
    in_header: Members | None = None
    sends_key: bool = False
    is_anonymous: bool = False
    tail: tuple[bytes, bytes] | None = None

    @property
    def touches_body(self) -> bool:
        """Whether other bytes go out than the app's."""
        if self.body is None:
            return self.tail is not None
        return (self.in_header is None and (self.sends_key or bool(self.added))) or bool(self.changed)


def plain_changes(endpoint: Endpoint, attribution: Attribution) -> Changes | None:
    """Decide what becomes of any request to `endpoint` that brings nothing of its own, whatever else is in it.

    So it is with nearly all of them. None where that has to be decided for each.
    """
    if attribution.pinned or len(attribution.credentials) > 1:
        return None
    sends_key = endpoint.kind == "gateway" and bool(attribution.credentials)
    if not sends_key and not attribution.parameters:
        return Changes(attribution)
    opened, closed = _AROUND[endpoint.place]
    parameters = joined({}, attribution.parameters)[1:-1]
    if sends_key:
        tail = b'%b"%b":' % (opened, CREDENTIALS.encode()), (b"," + parameters if parameters else b"") + closed
    else:
        tail = opened + parameters, closed
    return Changes(attribution, sends_key=sends_key, tail=tail)


def changes_to(
    endpoint: Endpoint,
    attribution: Attribution,
    settings: Settings,
    body: bytes | None,
    headers: Mapping[str, bytes],
    plain: Changes | None = None,
    mentions: bool | None = None,
) -> Changes:
    """Decide what becomes of a request to `endpoint`.

    Args:
        endpoint: Where it goes.
        attribution: Who it is for and who pays.
        settings: Who wins when the request has a mind of its own.
        body: The app's bytes; None when the body is a stream that was not read.
        headers: Those of `READ_HEADERS` that it has.
        plain: The `plain_changes`, where they hold for such requests.
        mentions: Whether the body, if it is no object, names a door, where somebody has looked already.

    Raises:
        CannotAttribute: The request cannot carry the caller's key, or it brings a key, a customer or
            another payer where that is an error.
    """
    content_type = headers.get("content-type", b"")
    # The vendor reads by the declared type, so an object may be a form to it.
    is_hidden = body is None or (content_type != JSON and endpoint.kind != "direct" and is_form(content_type))
    read = None if body is None or is_hidden else read_object(body)
    if plain is not None and content_type == JSON and read is not None and _PLAIN.issuperset(headers):
        document, members = read
        if document is body and members and names_no_door(members):
            return plain
    closed = attribution.closed
    in_headers = _NOTHING if _SAY_NOTHING.issuperset(headers) else _inspected_headers(headers, closed)
    has_key = endpoint.kind == "gateway" and bool(attribution.credentials)
    in_body = Inspection(*(read or (b"{}", {})), closed)
    doors = in_body.doors
    if in_headers.inspections:
        doors = [door for inspection in in_headers.inspections for door in inspection.doors] + doors
    if settings.on_conflict == "error":
        _refuse_contradiction([*in_headers.inspections, in_body], in_headers.unreadable, closed)
    if attribution.pinned:
        _refuse_other_payers(doors)
    if body is not None and looks_into_body(endpoint, attribution, settings):
        is_object, pinned = read is not None, attribution.pinned
        refuse_what_is_hidden(body, headers, is_object=is_object, pinned=pinned, mentions=mentions)

    brought: Collection[DoorKind] = {door.kind for door in doors} if doors else ()
    sends_key = has_key and ("key" in closed or "key" not in brought)
    if has_key and not sends_key:
        attribution = msgspec.structs.replace(attribution, credential=None, credentials=())
    added = _parameters_beside(attribution, brought, doors) if doors else attribution.parameters
    in_new_headers = in_headers.changes
    if attribution.pinned:
        in_new_headers = {**in_new_headers, ROUTE_PROVIDER: attribution.credentials[0].provider}
    if read is None:
        changes = Changes(attribution, None, {}, in_body.changes, in_new_headers, added, sends_key=sends_key)
        return _beside_any_body(changes, endpoint, in_headers.kept)
    is_nested = endpoint.place != "body" and (added or sends_key)
    nest = _nest(endpoint.place, {**read[1], **in_body.changes}) if is_nested else ()
    return Changes(attribution, *read, in_body.changes, in_new_headers, added, nest, sends_key=sends_key)


def looks_into_body(endpoint: Endpoint, attribution: Attribution, settings: Settings) -> bool:
    """Say whether a body must not reach `endpoint` before it has been looked into."""
    return endpoint.kind != "direct" and (settings.on_conflict != "body" or attribution.pinned)


class _InspectedHeaders(NamedTuple):
    """The parameter headers of a request.

    Attributes:
        inspections: Of those that could be read.
        changes: What becomes of the headers.
        kept: What they still say.
        unreadable: The name of one that nobody can read.
    """

    inspections: list[Inspection]
    changes: dict[str, str | None]
    kept: Members
    unreadable: str | None


_NOTHING: Final = _InspectedHeaders([], {}, {}, None)


def _inspected_headers(headers: Mapping[str, bytes], closed: Collection[DoorKind]) -> _InspectedHeaders:
    found = _InspectedHeaders([], {}, {}, None)
    for name in headers:
        if "_" in name:
            found = found._replace(unreadable=name)
            if closed:
                found.changes[name] = None
    for name in PARAMETER_HEADERS:
        if name not in headers:
            continue
        read = parameters_from(headers[name])
        if read is None:
            found = found._replace(unreadable=name)
            if closed:
                found.changes[name] = None
            continue
        inspection = Inspection(*read, closed, path=f"{name}: ")
        found.inspections.append(inspection)
        document = joined(read[1], inspection.changes)
        found.kept.update(read_text(document))
        if inspection.changes:
            found.changes[name] = None if document == b"{}" else parameters_to(document)
    return found


_CONTRADICTING: Final[tuple[DoorKind, ...]] = ("key", "identity")


def _refuse_contradiction(inspections: list[Inspection], unreadable: str | None, closed: Collection[DoorKind]) -> None:
    found = [inspection.found(kind) for inspection in inspections for kind in _CONTRADICTING if kind in closed]
    names = [door.name for door in found if door is not None] + ([unreadable] if unreadable else [])
    if names:
        raise CannotAttribute(
            f"the request brings {names[0]} of its own, and on_conflict='error' refuses that; leave it out: the bound"
            " caller decides"
        )


def _refuse_other_payers(doors: list[Door]) -> None:
    for door in doors:
        last = door.name.rpartition(".")[2].rpartition(" ")[2]
        if door.kind in ("identity", "thread", "log") or last in (CREDENTIALS, "disable_fallback"):
            continue  # replaced by the caller's
        raise CannotAttribute(
            f"the request has {door.name}, so that another key than the caller's could pay, and byok='only'"
            " refuses that; leave it out"
        )


def _parameters_beside(attribution: Attribution, brought: Collection[DoorKind], doors: list[Door]) -> dict[str, bytes]:
    """Return the vendor's parameters, the keys aside, as far as the request may not bring them or does not."""
    closed = attribution.closed
    added = dict(attribution.parameters)
    if "identity" in brought and "identity" not in closed:
        added.pop(PARAMS, None)
    elif PARAMS in added:
        added[PARAMS] = _with_limits(added[PARAMS], doors)
    if "thread" in brought and "thread" not in closed:
        added.pop(THREAD, None)
    return added


def _with_limits(params: bytes, doors: list[Door]) -> bytes:
    """Return `customer_params` with the limits that the request brings for the caller."""
    limits: Members = {}
    for door in sorted(doors):
        if door.name.endswith(PARAMS):
            limits.update((name, value) for name, value in read_text(door.value).items() if name in _LIMITS)
    return joined(read_text(params), limits) if limits else params


def _nest(place: Place, members: Mapping[str, bytes | msgspec.Raw | None]) -> tuple[tuple[str, Members], ...]:
    """Return the objects that the gateway's parameters travel in, as they stand in the body."""
    nest: list[tuple[str, Members]] = []
    for name in ("respan_params",) if place == "respan_params" else ("metadata", "respan_params"):
        inner = read_text(bytes(members.get(name) or b""))
        nest.append((name, inner))
        members = {**inner}
    return tuple(nest)


def _beside_any_body(changes: Changes, endpoint: Endpoint, kept: Members) -> Changes:
    """The body cannot take new members: the parameters travel in a header, where the vendor documents that."""
    if not changes.added and not changes.sends_key:
        return changes
    if endpoint.takes_header:
        others: Mapping[str, str | None] = dict.fromkeys(PARAMETER_HEADERS, None)
        return msgspec.structs.replace(changes, headers={**changes.headers, **others}, in_header=kept)
    is_named = PARAMS in changes.added
    if changes.attribution.of_app:
        # On another bill of the app's it goes all the same: the gateway has a key of its own.
        attribution = msgspec.structs.replace(changes.attribution, credential=None, credentials=())
        changes = msgspec.structs.replace(changes, attribution=attribution, sends_key=False)
    elif changes.attribution.credential is not None and (is_named or changes.sends_key):
        raise CannotAttribute(
            "the request's body is not one JSON object, so the call cannot carry whose it is, and the vendor takes it"
            " from nowhere else at this endpoint; send it as json= or as bytes"
        )
    return msgspec.structs.replace(changes, added={}, is_anonymous=is_named)
