"""The bases of both vendors' endpoints: who is admitted, who pays, and how each vendor says no."""

from __future__ import annotations

from collections.abc import Mapping

from kwai_middleware.sandbox import gateway, openrouter
from kwai_middleware.sandbox.answers import Refusal
from kwai_middleware.sandbox.completions import Completion
from kwai_middleware.sandbox.connection import Connection
from kwai_middleware.sandbox.entries import CallEntry
from kwai_middleware.sandbox.forwarding import forwarded
from kwai_middleware.sandbox.inference import Headers, Inference
from kwai_middleware.sandbox.keys import bearer_key
from kwai_middleware.sandbox.parameters import customer_of, parameter_header, parameters
from kwai_middleware.sandbox.payers import paying_credential

__all__ = ["Gateway", "OpenRouter"]


class Gateway(Inference):
    """An endpoint of the Keywords AI (Respan) gateway, which logs its own calls."""

    route = "gateway"

    def own(self, body: Mapping[str, object]) -> Mapping[str, object]:
        """Return the members among which the gateway looks for its parameters."""
        return body

    def admit(self, connection: Connection, entry: CallEntry, body: Mapping[str, object]) -> Refusal | None:
        """Insist on the app's key, then look whose key pays."""
        merged = parameters(self.own(body), parameter_header(connection), self.state.precedence)
        entry.customer_params = merged.get("customer_params")
        entry.customer = customer_of(merged)
        entry.disable_fallback = merged.get("disable_fallback")
        # No reference says whether the header or the parameter wins; the one that can do harm does.
        override = merged.get("route_provider_override")
        entry.route_provider = override if isinstance(override, str) else entry.route_provider
        app_key = bearer_key(connection.header(b"authorization"))
        if app_key is None:
            return Refusal(401, gateway.INVALID_KEY)
        entry.paying_key, entry.paid_from = app_key, "authorization"
        credential = paying_credential(merged, entry.model, entry.route_provider)
        if credential is not None:
            entry.paid_from, entry.paying_key = credential
            if (refusal := self.state.accounts.refusal(entry.paying_key)) is not None:
                entry.log_id = self.state.new_log_id()
                return refusal
        elif app_key.endswith("-dead"):
            return Refusal(401, gateway.INVALID_KEY)
        entry.log_id = self.state.new_log_id()
        return None

    async def refuse(self, connection: Connection, entry: CallEntry, refusal: Refusal) -> None:
        """Answer with an error: the gateway's own, or the provider's that it hands on."""
        headers = self.headers(entry, None) + gateway.error_headers(refusal)
        body = gateway.error_body(refusal.message) if entry.log_id is None else gateway.provider_error(refusal)
        await connection.answer(refusal.status, body, headers)

    def headers(self, entry: CallEntry, completion: Completion | None) -> Headers:
        """Return `X-Respan-Log-Id`: the sign that the gateway logged the call."""
        return [] if entry.log_id is None else [("x-respan-log-id", entry.log_id)]


class OpenRouter(Inference):
    """An endpoint of OpenRouter: whoever is authorised pays.

    Attributes:
        members: What the endpoint's request knows.
        user_members: Those that say who the user is, the first first.
    """

    route = "openrouter"
    key_headers = ("authorization",)
    members: frozenset[str]
    user_members: tuple[str, ...] = ("user",)

    def admit(self, connection: Connection, entry: CallEntry, body: Mapping[str, object]) -> Refusal | None:
        """Insist on a key; it pays."""
        users = (body.get(name) for name in self.user_members)
        entry.customer = next((user for user in users if isinstance(user, str)), None)
        entry.forwarded = forwarded(body, self.members)
        key = bearer_key(connection.header(b"authorization"))
        if key is None:
            return Refusal(401, "No auth credentials found")
        entry.paying_key, entry.paid_from = key, "authorization"
        return self.state.accounts.refusal(key)

    async def refuse(self, connection: Connection, entry: CallEntry, refusal: Refusal) -> None:
        """Answer with an error."""
        body = self.error_body(refusal, entry.paying_key)
        await connection.answer(refusal.status, body, openrouter.error_headers(refusal))

    def headers(self, entry: CallEntry, completion: Completion | None) -> Headers:
        """Return `X-Generation-Id`."""
        return [] if completion is None else [("x-generation-id", completion.id)]

    def error_body(self, refusal: Refusal, key: str | None) -> bytes:
        """Return the body of an error answer."""
        return openrouter.error_body(refusal, key)
