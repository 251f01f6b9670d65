"""The chat completions endpoints of both vendors."""

from __future__ import annotations

from kwai_middleware.sandbox import gateway, openrouter
from kwai_middleware.sandbox.forwarding import OPENROUTER_CHAT_MEMBERS
from kwai_middleware.sandbox.vendors import Gateway, OpenRouter

__all__ = ["GatewayChat", "OpenRouterChat"]


class GatewayChat(Gateway):
    """`POST /api/chat/completions` of the gateway."""

    completion = gateway.GatewayCompletion


class OpenRouterChat(OpenRouter):
    """`POST /api/v1/chat/completions` of OpenRouter."""

    completion = openrouter.OpenRouterCompletion
    members = OPENROUTER_CHAT_MEMBERS
