"""The local answer to a call that is refused, in the shape that every SDK understands at once."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec

from kwai_middleware._outbound.routes import Endpoint
from kwai_middleware.errors import OutboundRefused

__all__ = ["refusal_answer"]


def refusal_answer(refusal: OutboundRefused, endpoint: Endpoint) -> dict[str, Any]:
    """Return the arguments of a library's response class.

    SDKs retry a foreign exception and then hide it behind "Connection error"; an answer with
    `x-should-retry: false` gives one attempt and their own typed error, with this message.

    Args:
        refusal: Why the call must not go out.
        endpoint: Where it would have gone.
    """
    message = f"{refusal} (refused by kwai_middleware; nothing was sent)"
    return {
        "status_code": refusal.status,
        "headers": {
            "content-type": "application/json",
            "x-should-retry": "false",
            "x-kwai-refused": refusal.code,
        },
        "content": msgspec.json.encode(_body(message, refusal, endpoint.format)),
    }


def _body(message: str, refusal: OutboundRefused, format_: str) -> dict[str, Any]:
    is_for_now = refusal.status != HTTPStatus.UNAUTHORIZED
    if format_ == "messages":
        kind = "api_error" if is_for_now else "authentication_error"
        return {"type": "error", "error": {"type": kind, "message": message}}
    error = {
        "code": refusal.status,
        "message": message,
        "type": "kwai_refused",
        "param": None,
        "metadata": {"error_type": "provider_unavailable" if is_for_now else "authentication", "refused": refusal.code},
    }
    return {"error": error}
