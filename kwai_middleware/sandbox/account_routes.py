"""OpenRouter's endpoints about keys: what a key may do, the consent page, and the code that becomes a key."""

from __future__ import annotations

import html
from typing import Final
from urllib.parse import SplitResult, urlsplit

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from kwai_middleware.sandbox import openrouter
from kwai_middleware.sandbox.answers import Refusal
from kwai_middleware.sandbox.json_types import json_or_none, object_or_empty
from kwai_middleware.sandbox.keys import bearer_key
from kwai_middleware.sandbox.state import SandboxState

__all__ = ["account_routes"]

_METHODS: Final = ("S256", "plain")
_LOOPBACK: Final = ("localhost", "127.0.0.1")
_PAGE: Final = """\
<!doctype html>
<title>The sandbox's OpenRouter</title>
<h1>Let {host} make calls with your credits?</h1>
<p>This page plays the one on which users of OpenRouter log in and agree. Nobody is asked to log in here.</p>
<form method="post"><button>Authorize</button></form>
"""


def account_routes(state: SandboxState) -> list[Route]:
    """Return the routes of OpenRouter that have to do with keys. What they answer is in no journal."""

    async def key(request: Request) -> Response:
        asked = bearer_key(request.headers.get("authorization"))
        if asked is None:
            return _refused(Refusal(401, "No auth credentials found"))
        state.keys.remember(asked)
        if (refusal := state.accounts.unknown(asked)) is not None:
            return _refused(refusal, asked)
        return _json({"data": state.accounts.facts(asked).told(asked)})

    async def auth(request: Request) -> Response:
        challenge = request.query_params.get("code_challenge")
        method = request.query_params.get("code_challenge_method") or (None if challenge is None else "plain")
        parts = _target(request.query_params.get("callback_url", ""))
        if parts is None:
            return HTMLResponse("callback_url: an https URL, or one of localhost", 400)
        if method is not None and method not in _METHODS:
            return HTMLResponse("code_challenge_method: S256 or plain", 400)
        if request.method == "GET" and "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(_PAGE.format(host=html.escape(parts.netloc)))
        # Whatever is no browser, such as curl, agrees at once.
        code = state.accounts.grant(challenge, method)
        query = f"{parts.query}&code={code}" if parts.query else f"code={code}"
        return RedirectResponse(parts._replace(query=query).geturl(), 302)

    async def auth_keys(request: Request) -> Response:
        asked = object_or_empty(json_or_none(await request.body()))
        code, verifier, method = (asked.get(name) for name in ("code", "code_verifier", "code_challenge_method"))
        if not isinstance(code, str):
            return _refused(Refusal(400, "code: a string is required"))
        granted = state.accounts.exchange(code, verifier, method)
        if isinstance(granted, Refusal):
            return _refused(granted)
        state.keys.remember(granted)
        return _json({"key": granted, "user_id": openrouter.user_id(granted)})

    return [
        Route("/api/v1/key", key, methods=["GET"]),
        Route("/api/v1/auth/key", key, methods=["GET"]),
        Route("/auth", auth, methods=["GET", "POST"]),
        Route("/api/v1/auth/keys", auth_keys, methods=["POST"]),
    ]


def _target(callback_url: str) -> SplitResult | None:
    """Where a user may be sent back to; None for what the vendor does not take."""
    try:
        parts = urlsplit(callback_url)
    except ValueError:
        return None
    is_allowed = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)
    return parts if parts.hostname and is_allowed else None


def _refused(refusal: Refusal, key: str | None = None) -> Response:
    headers = dict(openrouter.error_headers(refusal))
    return Response(openrouter.error_body(refusal, key), refusal.status, headers, media_type="application/json")


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")
