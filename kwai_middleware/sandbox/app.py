"""The sandbox as one Starlette app."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import Route

from kwai_middleware.sandbox.chat import GatewayChat, OpenRouterChat
from kwai_middleware.sandbox.control import control_routes
from kwai_middleware.sandbox.endpoint import Unknown
from kwai_middleware.sandbox.messages import GatewayMessages, OpenRouterMessages
from kwai_middleware.sandbox.relay import OpenRouterRelay
from kwai_middleware.sandbox.request_logs import RequestLogs
from kwai_middleware.sandbox.state import SandboxState

__all__ = ["create_app"]


def create_app() -> Starlette:
    """Return a new sandbox: the vendors' APIs, and `/sandbox/` to look at what arrived.

    It behaves as the vendors' documentation and recorded traffic say, answers by model name, and
    keeps everything in memory. What it remembers is `app.state.sandbox`.

    Example:
        >>> app = create_app()  # uvicorn.run(app, port=8700)
    """
    state = SandboxState()
    gateway, relay, gateway_messages = GatewayChat(state), OpenRouterRelay(state), GatewayMessages(state)
    openrouter, openrouter_messages = OpenRouterChat(state), OpenRouterMessages(state)
    single, newer, bulk = (
        RequestLogs(state, "create"),
        RequestLogs(state, "create", answers_span=True),
        RequestLogs(state, "bulk"),
    )
    routes: list[Route] = []
    for prefix in ("/api", ""):
        for slash in ("", "/"):
            routes += [
                Route(f"{prefix}/chat/completions{slash}", gateway, methods=["POST"]),
                Route(f"{prefix}/openrouter/v1/chat/completions{slash}", relay, methods=["POST"]),
                Route(f"{prefix}/anthropic/v1/messages{slash}", gateway_messages, methods=["POST"]),
                Route(f"{prefix}/request-logs/create{slash}", single, methods=["POST"]),
                Route(f"{prefix}/request-logs/bulk{slash}", bulk, methods=["POST"]),
                Route(f"{prefix}/request-logs{slash}", newer, methods=["POST"]),
            ]
    for slash in ("", "/"):
        routes += [
            Route(f"/api/v1/chat/completions{slash}", openrouter, methods=["POST"]),
            Route(f"/api/v1/messages{slash}", openrouter_messages, methods=["POST"]),
        ]
    unknown = Unknown(state, {route.path for route in routes})
    app = Starlette(routes=[*routes, *control_routes(state), Route("/{path:path}", unknown)])
    app.state.sandbox = state
    return app
