"""What every outbound door asks before a request leaves: is it ours, whose is it, and what becomes of it?"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from kwai_middleware import _notices
from kwai_middleware._caller import Caller, Credential
from kwai_middleware._context import Slot, current_slot
from kwai_middleware._outbound.attempts import RETRY_COUNT, attempt_at
from kwai_middleware._outbound.attribution import Attribution, attribute, paid_by, sends_keys, with_one_key_each
from kwai_middleware._outbound.changes import Changes, changes_to, looks_into_body, plain_changes
from kwai_middleware._outbound.draws import draw_for
from kwai_middleware._outbound.exchange import Deliver, Exchange, Unwatched, begun, unwatched
from kwai_middleware._outbound.failover import Failover
from kwai_middleware._outbound.headers import LENGTH, key_headers
from kwai_middleware._outbound.hpack_log import hide_header_values
from kwai_middleware._outbound.mentions import mentions_door_async
from kwai_middleware._outbound.notes import (
    is_told_of_origins,
    note_anonymous,
    note_origins,
    note_unconfirmed_payer,
    note_unrouted,
)
from kwai_middleware._outbound.refusals import refusal_answer
from kwai_middleware._outbound.routes import Endpoint, RouteTable
from kwai_middleware._pace import WINDOW
from kwai_middleware._settings import Settings
from kwai_middleware._slot import NOBODY
from kwai_middleware._unsettled import Origins
from kwai_middleware.errors import ConfigurationError, OutboundRefused

__all__ = ["Decider", "Decision", "Plan", "Refuse"]

_REPEATED: Final = b"1"
"""As an SDK counts: what is repeated below a door belongs to the latest call, whatever is known of its body."""

Refuse = Literal["raise", "response"]
"""How a refused call looks to the app: our exception, or a local answer with status 401."""


class Plan(msgspec.Struct, frozen=True):
    """Whose a call is and who pays for it, as far as that does not hang on the request.

    Attributes:
        endpoint: Where it goes.
        caller: Who it is for, with the keys that may pay.
        origins: Where identity and keys came from.
        attribution: What was decided from these.
        plain: What becomes of a request that brings nothing of its own; None where each has to be looked at.
    """

    endpoint: Endpoint
    caller: Caller | None
    origins: Origins
    attribution: Attribution
    plain: Changes | None

    def __repr__(self) -> str:
        return object.__repr__(self)  # whom it is about is more than an error report should hold


class Decision(msgspec.Struct, frozen=True):
    """What becomes of one request.

    Attributes:
        body: The app's bytes; None when the body is a stream that was not read.
        changes_body: Another body has to go out than the app's: changed, or because these bytes are all
            that is left of it.
        changes: What is written into the copy that goes out.
        key_headers: Headers in which the key that pays takes the place of what is there.
        exchange: Is told what happens.
        has_true_length: The request declares its body's length, and the length is right.
        failover: Tries one key after the other; None where there is but one, or where it is not ours to try.
    """

    body: bytes | None
    changes_body: bool
    changes: Changes
    key_headers: tuple[str, ...]
    exchange: Exchange | Unwatched
    has_true_length: bool
    failover: Failover | None = None


class Decider:
    """Decides for one door; knows no HTTP library.

    Args:
        door: The name of what the user made, for messages.
        settings: With what is decided.
        deliver: Takes each finished call.
        refuse: How a refused call looks to the app.

    Raises:
        ConfigurationError: `refuse` is neither of the two.
    """

    def __init__(self, door: str, settings: Settings, deliver: Deliver, refuse: Refuse) -> None:
        if refuse not in ("raise", "response"):
            raise ConfigurationError(f"{door}: refuse is 'raise' or 'response'")
        self.settings = settings
        self._deliver = deliver
        self._refuse = refuse
        self._routes = RouteTable(settings)
        hide_header_values()

    def endpoint(
        self, method: str | None, scheme: bytes, host: bytes, port: int | None, target: bytes, *, has_userinfo: bool
    ) -> Endpoint | None:
        """Return where a request goes, or None when it is not to be touched.

        Args:
            method: In upper case.
            scheme: Of the URL, lower case.
            host: Of the URL, as it goes to the wire.
            port: Of the URL; None for the scheme's default.
            target: Path and query, as they go to the wire.
            has_userinfo: A name or password stands in the URL.
        """
        if method == "POST" and not has_userinfo:
            endpoint = self._routes.find(scheme, host, port, target)
            if endpoint is not None:
                return endpoint
        if self._routes.resembles(scheme, host, port, target):
            note_unrouted(host, current_slot().settled_caller)
        return None

    def caller(self, slot: Slot) -> Caller | None:
        """Return who a call is for, with the keys that may pay; asks for what is not known yet, and blocks for it.

        Raises:
            OutboundRefused: Nobody can say who it is, or where the keys are; or it was known, and holds no more.
        """
        unsettled = slot.unsettled
        if unsettled is None:
            return slot.known
        return unsettled.paying_caller(slot.known, with_keys=sends_keys(slot.known, self.settings))

    async def caller_async(self, slot: Slot) -> Caller | None:
        """Do the same without blocking an event loop."""
        unsettled = slot.unsettled
        if unsettled is None:
            return slot.known
        return await unsettled.paying_caller_async(slot.known, with_keys=sends_keys(slot.known, self.settings))

    def plan(self, endpoint: Endpoint, slot: Slot, caller: Caller | None) -> Plan:
        """Return who a call is for and who pays, as far as that does not hang on the request.

        Raises:
            OutboundRefused: Nobody may pay for it.
        """
        origins = slot.brought if slot.unsettled is None else slot.origins
        plan: Plan | None = slot.plan
        # An endpoint is of one door's own table, and so of one door's settings.
        if plan is not None and plan.endpoint is endpoint and plan.caller is caller and plan.origins == origins:
            return plan
        attribution = attribute(endpoint, caller, self.settings, origins)
        plan = Plan(endpoint, caller, origins, attribution, plain_changes(endpoint, attribution))
        if slot is not NOBODY:
            slot.plan = plan
        return plan

    def must_gather(self, plan: Plan) -> bool:
        """Say whether a body that comes in pieces has to be read before the gateway may get it."""
        return looks_into_body(plan.endpoint, plan.attribution, self.settings)

    async def mentions_door_async(self, plan: Plan, body: bytes) -> bool | None:
        """Look into a body that was gathered, without blocking an event loop; None for one that is soon looked into."""
        if len(body) <= WINDOW or body.startswith(b"{"):
            return None
        return await mentions_door_async(body, payers=plan.attribution.pinned)

    def decide(
        self,
        plan: Plan,
        slot: Slot,
        body: bytes | None,
        headers: Mapping[str, bytes],
        sent_with: object,
        is_gathered: bool = False,
        mentions: bool | None = None,
    ) -> Decision:
        """Decide what goes to the wire, and begin to watch.

        Args:
            plan: Who it is for and who pays, as far as that does not hang on the request.
            slot: The unit of work that it is part of.
            body: The app's bytes; None when the body is a stream that was not read.
            headers: Those that have a say, as `headers_of` returns them.
            sent_with: An object that is the same one when the request is sent again.
            is_gathered: The bytes were read from a stream.
            mentions: What `mentions_door_async` says of them, where it was asked.

        Raises:
            OutboundRefused: The call must not go out.
        """
        endpoint, attribution = plan.endpoint, plan.attribution
        size = None if body is None else len(body)
        attempt = attempt_at(endpoint, sent_with, size, headers.get(RETRY_COUNT, b""), slot)
        failover: Failover | None = None
        if len(attribution.credentials) > 1:
            draw = draw_for(attempt.call_id)
            if endpoint.kind == "gateway":
                attribution = with_one_key_each(attribution, draw)
            else:
                is_relay, is_held = endpoint.kind == "relay", body is not None
                failover = Failover(attribution.credentials, draw, relayed=is_relay, can_resend=is_held)
                attribution = paid_by(attribution, failover.credential)
        changes = changes_to(endpoint, attribution, self.settings, body, headers, plan.plain, mentions)
        if is_told_of_origins(logging.DEBUG):
            note_origins(endpoint, changes.attribution)
        if changes.is_anonymous:
            note_anonymous(endpoint)
        if changes.sends_key and endpoint.place == "metadata" and not attribution.of_app:
            note_unconfirmed_payer(endpoint)
        exchange: Exchange | Unwatched
        try:
            attribution = changes.attribution
            exchange = begun(endpoint, attribution, body, self.settings, self._deliver, attempt, slot.trace_id)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is ours, and the guard tells of it
            exchange = unwatched(error)
        return Decision(
            body,
            is_gathered or changes.tail is not None or changes.touches_body,
            changes,
            () if endpoint.kind == "gateway" else key_headers(endpoint, changes.attribution, headers),
            exchange,
            body is not None and headers.get(LENGTH) == b"%d" % len(body),
            failover,
        )

    def watch_again(
        self, endpoint: Endpoint, slot: Slot, decision: Decision, sent_with: object
    ) -> Exchange | Unwatched:
        """Begin to watch the next attempt, of a call that is repeated below the door.

        Args:
            endpoint: Where the request goes.
            slot: The unit of work that it is part of.
            decision: What became of it at first.
            sent_with: What it was decided with.
        """
        body = decision.body
        attempt = attempt_at(endpoint, sent_with, None if body is None else len(body), _REPEATED, slot)
        attribution = decision.changes.attribution
        try:
            return begun(endpoint, attribution, body, self.settings, self._deliver, attempt, slot.trace_id)
        except Exception as error:  # noqa: BLE001 - as in `decide`
            return unwatched(error)

    def decide_again(
        self, endpoint: Endpoint, slot: Slot, decision: Decision, sent_with: object, credential: Credential
    ) -> Decision:
        """Decide what goes to the wire when another key is to pay, and begin to watch that.

        Args:
            endpoint: Where the request goes.
            slot: The unit of work that it is part of.
            decision: What became of it at first.
            sent_with: What it was decided with.
            credential: The other key.
        """
        changes = decision.changes
        attribution = paid_by(changes.attribution, credential)
        again = msgspec.structs.replace(decision, changes=msgspec.structs.replace(changes, attribution=attribution))
        return msgspec.structs.replace(again, exchange=self.watch_again(endpoint, slot, again, sent_with))

    def refused(self, refusal: OutboundRefused, endpoint: Endpoint) -> dict[str, Any]:
        """Return what a local answer says: `status_code`, `headers` and `content`.

        Raises:
            OutboundRefused: The app asked for the exception.
        """
        _notices.count(f"refused_{refusal.code}")
        if self._refuse == "raise":
            raise refusal
        return refusal_answer(refusal, endpoint)
