"""The messages endpoints of both vendors, in Anthropic's format."""

from __future__ import annotations

from collections.abc import Mapping

from kwai_middleware.sandbox import anthropic, gateway, openrouter
from kwai_middleware.sandbox.answers import Refusal
from kwai_middleware.sandbox.completions import Completion
from kwai_middleware.sandbox.connection import Connection
from kwai_middleware.sandbox.entries import CallEntry
from kwai_middleware.sandbox.forwarding import ANTHROPIC_MEMBERS, OPENROUTER_MESSAGES_MEMBERS, forwarded
from kwai_middleware.sandbox.inference import Headers, Inference
from kwai_middleware.sandbox.json_types import object_or_empty
from kwai_middleware.sandbox.keys import bearer_key
from kwai_middleware.sandbox.parameters import NESTED, customer_of, parameter_header, pass_through_parameters

__all__ = ["GatewayMessages", "OpenRouterMessages"]


class Messages(Inference):
    """Messages, as far as the vendors agree."""

    def asked(self, body: Mapping[str, object]) -> Mapping[str, object]:
        """Return the request as a chat request."""
        return anthropic.chat_request(body)


class GatewayMessages(Messages):
    """`POST /api/anthropic/v1/messages` of the gateway: passed through to Anthropic, and logged.

    The app pays, with the provider's key that it left with the gateway: no credentials of a
    customer are documented here. Where a request brings some, `doors` shows them.
    """

    route = "gateway"
    completion = anthropic.AnthropicCompletion
    in_metadata = True

    def admit(self, connection: Connection, entry: CallEntry, body: Mapping[str, object]) -> Refusal | None:
        """Insist on the app's key; it pays."""
        merged = pass_through_parameters(body, parameter_header(connection), self.state.precedence)
        entry.customer_params = merged.get("customer_params")
        entry.customer = customer_of(merged)
        entry.disable_fallback = merged.get("disable_fallback")
        entry.forwarded = forwarded(body, ANTHROPIC_MEMBERS.union(NESTED))
        keys = {
            "x-api-key": connection.header(b"x-api-key"),
            "authorization": bearer_key(connection.header(b"authorization")),
        }
        entry.paid_from, entry.paying_key = _first(keys)
        if entry.paying_key is None or entry.paying_key.endswith("-dead"):
            return Refusal(401, gateway.INVALID_KEY)
        entry.log_id = self.state.new_log_id()
        return None

    async def refuse(self, connection: Connection, entry: CallEntry, refusal: Refusal) -> None:
        """Answer with an error: the gateway's own, or Anthropic's as it is."""
        headers = self.headers(entry, None) + gateway.error_headers(refusal)
        body = gateway.error_body(refusal.message) if entry.log_id is None else anthropic.error_body(refusal)
        await connection.answer(refusal.status, body, headers)

    def headers(self, entry: CallEntry, completion: Completion | None) -> Headers:
        """Return Anthropic's `request-id`, and the sign that the gateway logged the call."""
        if entry.log_id is None:
            return []
        return [("x-respan-log-id", entry.log_id), ("request-id", f"req_{entry.log_id[:24]}")]


class OpenRouterMessages(Messages):
    """`POST /api/v1/messages` of OpenRouter: whoever is authorised pays."""

    route = "openrouter"
    completion = anthropic.OpenRouterAnthropicCompletion
    key_headers = ("authorization", "x-api-key")

    def admit(self, connection: Connection, entry: CallEntry, body: Mapping[str, object]) -> Refusal | None:
        """Insist on a key; it pays."""
        user = body.get("user") or object_or_empty(body.get("metadata")).get("user_id")
        entry.customer = user if isinstance(user, str) else None
        entry.forwarded = forwarded(body, OPENROUTER_MESSAGES_MEMBERS)
        keys = {
            "authorization": bearer_key(connection.header(b"authorization")),
            "x-api-key": connection.header(b"x-api-key"),
        }
        entry.paid_from, entry.paying_key = _first(keys)
        if entry.paying_key is None:
            return Refusal(401, "No auth credentials found")
        return self.state.accounts.refusal(entry.paying_key)

    async def refuse(self, connection: Connection, entry: CallEntry, refusal: Refusal) -> None:
        """Answer with an error."""
        body = anthropic.openrouter_error_body(refusal)
        await connection.answer(refusal.status, body, openrouter.error_headers(refusal))

    def headers(self, entry: CallEntry, completion: Completion | None) -> Headers:
        """Return `X-Generation-Id`."""
        return [] if completion is None else [("x-generation-id", completion.id)]


def _first(keys: Mapping[str, str | None]) -> tuple[str | None, str | None]:
    """The header that holds a key, and the key; a request with several is not documented."""
    return next(((name, key) for name, key in keys.items() if key), (None, None))
