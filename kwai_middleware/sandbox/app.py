"""The sandbox as one Starlette app."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp

from kwai_middleware.sandbox.account_routes import account_routes
from kwai_middleware.sandbox.chat import GatewayChat, OpenRouterChat
from kwai_middleware.sandbox.control import control_routes
from kwai_middleware.sandbox.embeddings import GatewayEmbeddings, OpenRouterEmbeddings
from kwai_middleware.sandbox.endpoint import Endpoint, Unknown
from kwai_middleware.sandbox.images import OpenRouterImageGenerations, OpenRouterImages
from kwai_middleware.sandbox.messages import GatewayMessages, OpenRouterMessages
from kwai_middleware.sandbox.relay import OpenRouterRelay
from kwai_middleware.sandbox.request_logs import RequestLogs
from kwai_middleware.sandbox.rerank_and_videos import OpenRouterRerank, OpenRouterVideos
from kwai_middleware.sandbox.responses import GatewayResponses, OpenRouterResponses
from kwai_middleware.sandbox.speech import GatewaySpeech, OpenRouterSpeech
from kwai_middleware.sandbox.state import SandboxState
from kwai_middleware.sandbox.text_completions import OpenRouterTextCompletions
from kwai_middleware.sandbox.transcriptions import GatewayTranscriptions, OpenRouterTranscriptions

__all__ = ["GATEWAY", "OPENROUTER", "create_app"]

GATEWAY: Final[Mapping[str, type[Endpoint]]] = {
    "/chat/completions": GatewayChat,
    "/openrouter/v1/chat/completions": OpenRouterRelay,
    "/anthropic/v1/messages": GatewayMessages,
    "/responses": GatewayResponses,
    "/embeddings": GatewayEmbeddings,
    "/audio/speech": GatewaySpeech,
    "/audio/transcription": GatewayTranscriptions,
    "/audio/transcriptions": GatewayTranscriptions,
}
"""What answers below the gateway's base URL, which is with and without `/api`."""

OPENROUTER: Final[Mapping[str, type[Endpoint]]] = {
    "/chat/completions": OpenRouterChat,
    "/messages": OpenRouterMessages,
    "/responses": OpenRouterResponses,
    "/completions": OpenRouterTextCompletions,
    "/embeddings": OpenRouterEmbeddings,
    "/rerank": OpenRouterRerank,
    "/images": OpenRouterImages,
    "/images/generations": OpenRouterImageGenerations,
    "/videos": OpenRouterVideos,
    "/audio/speech": OpenRouterSpeech,
    "/audio/transcriptions": OpenRouterTranscriptions,
}
"""What answers below OpenRouter's base URL, which is `/api/v1`."""


def create_app() -> Starlette:
    """Return a new sandbox: the vendors' APIs, and `/sandbox/` to look at what arrived.

    It behaves as the vendors' documentation and recorded traffic say, answers by model name, and
    keeps everything in memory. What it remembers is `app.state.sandbox`.

    Example:
        >>> app = create_app()  # uvicorn.run(app, port=8700)
    """
    state = SandboxState()
    gateway_endpoints = {path: endpoint(state) for path, endpoint in GATEWAY.items()}
    openrouter_endpoints = {path: endpoint(state) for path, endpoint in OPENROUTER.items()}
    single, newer, bulk = (
        RequestLogs(state, "create"),
        RequestLogs(state, "create", answers_span=True),
        RequestLogs(state, "bulk"),
    )
    routes: list[Route] = []
    for prefix in ("/api", ""):
        for slash in ("", "/"):
            routes += [_post(prefix + path + slash, endpoint) for path, endpoint in gateway_endpoints.items()]
            routes += [
                _post(f"{prefix}/request-logs/create{slash}", single),
                _post(f"{prefix}/request-logs/bulk{slash}", bulk),
                _post(f"{prefix}/request-logs{slash}", newer),
            ]
    for slash in ("", "/"):
        routes += [_post("/api/v1" + path + slash, endpoint) for path, endpoint in openrouter_endpoints.items()]
    routes += account_routes(state)
    unknown = Unknown(state, {route.path for route in routes})
    endpoints = {
        "gateway": [f"/api{path}" for path in GATEWAY],
        "openrouter": [f"/api/v1{path}" for path in OPENROUTER],
    }
    app = Starlette(routes=[*routes, *control_routes(state, endpoints), Route("/{path:path}", unknown)])
    app.state.sandbox = state
    return app


def _post(path: str, endpoint: ASGIApp) -> Route:
    return Route(path, endpoint, methods=["POST"])
