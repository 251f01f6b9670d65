"""The gateway's relay to OpenRouter: the user's key in a header, OpenRouter's answer as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kwai_middleware.sandbox import gateway, openrouter
from kwai_middleware.sandbox.answers import Refusal
from kwai_middleware.sandbox.completions import Completion
from kwai_middleware.sandbox.connection import Connection
from kwai_middleware.sandbox.entries import CallEntry
from kwai_middleware.sandbox.forwarding import OPENROUTER_CHAT_MEMBERS, forwarded
from kwai_middleware.sandbox.inference import Headers, Inference
from kwai_middleware.sandbox.json_types import object_or_empty
from kwai_middleware.sandbox.keys import bearer_key
from kwai_middleware.sandbox.parameters import customer_of

__all__ = ["OpenRouterRelay"]

_KEY_HEADER: Final = "x-openrouter-api-key"
_STRIPPED: Final = "respan_params"


class OpenRouterRelay(Inference):
    """`POST /api/openrouter/v1/chat/completions` of the gateway, which logs the call and pays nothing for it.

    Only `respan_params` is the gateway's here, and only as an object; it never goes upstream. Every
    other member does, such as parameters at the top level.
    """

    route = "relay"
    completion = openrouter.OpenRouterCompletion
    key_headers = (_KEY_HEADER,)

    def admit(self, connection: Connection, entry: CallEntry, body: Mapping[str, object]) -> Refusal | None:
        """Insist on the app's key and the user's; the user's pays."""
        params = object_or_empty(body.get(_STRIPPED))
        entry.customer_params = params.get("customer_params")
        entry.customer = customer_of(params)
        entry.disable_fallback = params.get("disable_fallback")
        entry.forwarded = forwarded(body, OPENROUTER_CHAT_MEMBERS | {_STRIPPED})
        app_key = bearer_key(connection.header(b"authorization"))
        if app_key is None or app_key.endswith("-dead"):
            return Refusal(401, gateway.INVALID_KEY)
        key = connection.header(_KEY_HEADER.encode())
        if not key:
            return Refusal(400, f"The header {_KEY_HEADER} is required.")
        entry.paying_key, entry.paid_from = key, _KEY_HEADER
        entry.log_id = self.state.new_log_id()
        return self.state.accounts.refusal(key)

    def asked(self, body: Mapping[str, object]) -> Mapping[str, object]:
        """Return the request as OpenRouter gets it."""
        upstream = {name: value for name, value in body.items() if name != _STRIPPED}
        return upstream | {"model": str(body["model"]).removeprefix("openrouter/")}

    async def refuse(self, connection: Connection, entry: CallEntry, refusal: Refusal) -> None:
        """Answer with an error: the gateway's own, or OpenRouter's as it is."""
        if entry.log_id is None:
            await connection.answer(refusal.status, gateway.error_body(refusal.message))
        else:
            headers = [*self.headers(entry, None), *openrouter.error_headers(refusal)]
            await connection.answer(refusal.status, openrouter.error_body(refusal, entry.paying_key), headers)

    def headers(self, entry: CallEntry, completion: Completion | None) -> Headers:
        """Return OpenRouter's `X-Generation-Id`, and the sign that the gateway logged the call."""
        headers = [] if entry.log_id is None else [("x-respan-log-id", entry.log_id)]
        return headers if completion is None else [*headers, ("x-generation-id", completion.id)]
