"""The Responses API of both vendors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kwai_middleware.sandbox import openrouter
from kwai_middleware.sandbox.answers import Refusal
from kwai_middleware.sandbox.connection import Connection
from kwai_middleware.sandbox.entries import CallEntry
from kwai_middleware.sandbox.forwarding import OPENAI_RESPONSES_MEMBERS, OPENROUTER_RESPONSES_MEMBERS, forwarded
from kwai_middleware.sandbox.inference import Inference
from kwai_middleware.sandbox.json_types import is_array
from kwai_middleware.sandbox.parameters import NESTED
from kwai_middleware.sandbox.response_items import chat_request
from kwai_middleware.sandbox.response_shape import GatewayResponse, OpenRouterResponse
from kwai_middleware.sandbox.vendors import Gateway, OpenRouter

__all__ = ["GatewayResponses", "OpenRouterResponses"]

_AT_THE_TOP: Final = frozenset({"cache_enabled", "cache_options", "cache_ttl", "customer_identifier", *NESTED})


class Responses(Inference):
    """The Responses API, as far as the vendors agree."""

    def lacks(self, body: Mapping[str, object]) -> str | None:
        """Return what is wrong with a request that names a model: there is nothing in it to respond to."""
        asked = body.get("input")
        return None if (isinstance(asked, str) or is_array(asked)) and asked else "input: a text or items are required"

    def asked(self, body: Mapping[str, object]) -> Mapping[str, object]:
        """Return the request as a chat request."""
        return chat_request(body)


class GatewayResponses(Responses, Gateway):
    """`POST /api/responses` of the gateway.

    Of its parameters it takes a few at the top level; all others stand in `respan_params` or in the header.
    """

    completion = GatewayResponse

    def own(self, body: Mapping[str, object]) -> Mapping[str, object]:
        """Return the members that are the gateway's here."""
        return {name: value for name, value in body.items() if name in _AT_THE_TOP}

    def admit(self, connection: Connection, entry: CallEntry, body: Mapping[str, object]) -> Refusal | None:
        """Insist on the app's key, then look whose key pays; what is nobody's goes on to the model's provider."""
        entry.forwarded = forwarded(body, OPENAI_RESPONSES_MEMBERS | _AT_THE_TOP)
        return super().admit(connection, entry, body)


class OpenRouterResponses(Responses, OpenRouter):
    """`POST /api/v1/responses` of OpenRouter, which keeps nothing."""

    completion = OpenRouterResponse
    members = OPENROUTER_RESPONSES_MEMBERS
    user_members = ("safety_identifier", "user")

    def lacks(self, body: Mapping[str, object]) -> str | None:
        """Return what is wrong with a request that names a model: nothing is kept here, and nothing was."""
        if body.get("store") is True:
            return "store: only false is supported"
        if body.get("previous_response_id") is not None:
            return "previous_response_id: not supported, send the whole conversation as input"
        return super().lacks(body)

    def error_body(self, refusal: Refusal, key: str | None) -> bytes:
        """Return the body of an error answer: its type stands beside `error`."""
        return openrouter.responses_error_body(refusal, key)
