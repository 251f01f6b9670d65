"""The record of a finished call, and the form it has before it is one.

`PendingCall` is the seam between the observing and the delivering half: the transport hands one to
`Delivery.submit`, and the recording thread turns it into a `CompletedCall`.
"""

from __future__ import annotations

import uuid
from typing import Any, Literal, Protocol

import msgspec

from kwai_middleware._caller import Caller, Capture
from kwai_middleware._route import RouteKind
from kwai_middleware._secret import Secret

__all__ = ["BilledTo", "CompletedCall", "Outcome", "PendingCall"]

Outcome = Literal["complete", "incomplete", "redirected", "error", "timeout", "cancelled", "abandoned"]
"""How a call ended. `complete`: the whole answer came. `error`: it failed, by HTTP status, by an
error object inside a 200, or on the network. `timeout`: a time limit on our side. `cancelled`: the
app closed or cancelled it before the end. `abandoned`: never closed, found by the garbage collector.
`incomplete`: the answer stopped without saying that it was whole. `redirected`: the destination
named another one, and no model answered."""

BilledTo = Literal["caller", "app", "unknown"]
"""Whose key paid, as far as this side can know."""


def _new_record_id() -> str:
    return uuid.uuid4().hex


class CompletedCall(msgspec.Struct, frozen=True, kw_only=True):
    """One finished attempt at a model call; failed and cancelled ones too. Holds no key.

    Times are seconds, money US dollars.

    Attributes:
        record_id: Ours, stable over retries of delivery; the vendor has no idempotency key.
        trace_id: The same for all calls of one inbound request, or of one `bind_caller` block.
        call_id: The same for all attempts at one call, as SDKs make them.
        attempt: Which of them this is, from 1 on.
        route: What the destination was: `gateway`, `relay` or `direct`.
        host: Host it went to.
        endpoint: Path of the request.
        format: The shape of request and answer: `chat` (chat completions), `messages`, `responses`, `embeddings`, ...
        caller: Who it was for when it started, without keys; None for nobody.
        billed_to: Whose key paid.
        key_fingerprint: Which key of the caller's, or of `Settings.credentials`, was sent (`Secret.fingerprint`); None
            for the client's own, and for a list of keys of which the gateway takes one.
        identity_from: Where the caller's identity came from, in a few words: `jwt`, `header via proxy secret`.
        key_from: Where that key came from: `header x-openrouter-key`, `key resolver app.vault.keys_of`, or `settings`.
        outcome: How it ended.
        capture: How much of it may be logged.
        started_at: Seconds since 1970.
        duration: Until the answer's terminal event, or its end where it has none.
        time_to_first_token: Until the first content; None when none came.
        status_code: Of the HTTP answer; None when none came.
        error_code: The vendor's code inside the answer, as text; else the HTTP status that was an error,
            or the exception's name. `invalid_answer` for a 200 that is no JSON object.
        error_type: The vendor's word for the kind of error, such as `context_length_exceeded`.
        error_message: One sentence of what went wrong.
        model: The model that answered; the requested one when no answer said.
        requested_model: The model that was asked for.
        stream: Whether the answer was streamed.
        messages: The prompt as chat messages, JSON; of chat completions as the app wrote them. None where
            it is nothing of the kind.
        input: The prompt as the app wrote it, JSON, where `messages` are none or do not hold all of it; in
            place of a file its name, type and size.
        parameters: The request's other members (temperature, tools, ...), as JSON each.
        completions: The answer's chat messages, one for each choice, in order.
        output: The answer, JSON, where `completions` are none or do not hold all of it; in place of sound,
            pictures and vectors what they are.
        finish_reason: Of the first choice.
        usage: The answer's `usage`, whole.
        prompt_tokens: Of `usage`.
        completion_tokens: Of `usage`.
        total_tokens: Of `usage`.
        cached_tokens: Of `usage`: prompt tokens read from a cache.
        cache_write_tokens: Of `usage`: prompt tokens written to a cache.
        reasoning_tokens: Of `usage`: completion tokens spent on reasoning.
        cost: What the call cost its payer.
        reported_cost: OpenRouter's `usage.cost`, as sent.
        upstream_cost: OpenRouter's `usage.cost_details.upstream_inference_cost`, as sent.
        is_byok: OpenRouter's `usage.is_byok`: a provider key stored at OpenRouter paid the provider.
        generation_id: The vendor's id of the answer.
        provider: Who ran the model behind the gateway, as the answer says.
        provider_id: On direct routes, whose API it was: the `provider` of the keys that are sent there.
        gateway_log_id: The gateway's own record of this call (`X-Respan-Log-Id`).
        truncated: Something of the answer or the prompt was not kept, for its size.
    """

    record_id: str = msgspec.field(default_factory=_new_record_id)
    trace_id: str | None = None
    call_id: str | None = None
    attempt: int = 1
    route: RouteKind = "direct"
    host: str = ""
    endpoint: str = ""
    format: str = "chat"
    caller: Caller | None = None
    billed_to: BilledTo = "unknown"
    key_fingerprint: str | None = None
    identity_from: str | None = None
    key_from: str | None = None
    outcome: Outcome = "complete"
    capture: Capture = "full"
    started_at: float = 0.0
    duration: float | None = None
    time_to_first_token: float | None = None
    status_code: int | None = None
    error_code: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    model: str | None = None
    requested_model: str | None = None
    stream: bool = False
    messages: bytes | None = None
    input: bytes | None = None
    parameters: dict[str, bytes] = {}
    completions: tuple[dict[str, Any], ...] = ()
    output: bytes | None = None
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    cost: float | None = None
    reported_cost: float | None = None
    upstream_cost: float | None = None
    is_byok: bool | None = None
    generation_id: str | None = None
    provider: str | None = None
    provider_id: str | None = None
    gateway_log_id: str | None = None
    truncated: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """Whom the call was for, and which it is: texts that are no keys, whatever they look like."""
        caller = self.caller
        if caller is None:
            return (self.record_id,)
        texts = (caller.identifier, caller.name, caller.email, caller.group, caller.thread)
        return (self.record_id, *(text for text in texts if text is not None))


class PendingCall(Protocol):
    """A finished exchange as it was seen, before anybody has looked into it. Immutable."""

    @property
    def logged_by_vendor(self) -> bool:
        """The gateway logs its own calls: this one is an event for us, and not posted again."""
        ...

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """The caller's keys, to be masked in everything that is made of this call."""
        ...

    @property
    def size(self) -> int:
        """About how many bytes there are to look into: what is small need not wait for what is not."""
        ...

    def build(self) -> CompletedCall:
        """Look into it. Runs on the recording thread."""
        ...

    def release(self) -> None:
        """Give the memory it reserved back to the budget of open calls; may be called twice."""
        ...
