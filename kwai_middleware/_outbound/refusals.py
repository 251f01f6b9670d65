"""The local answer to a call that is refused, in the shape that every SDK understands at once."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from kwai_middleware._outbound.routes import Endpoint
from kwai_middleware.errors import OutboundRefused

__all__ = ["refusal_answer"]

_STATUS: Final = 401


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
        "status_code": _STATUS,
        "headers": {
            "content-type": "application/json",
            "x-should-retry": "false",
            "x-kwai-refused": refusal.code,
        },
        "content": msgspec.json.encode(_body(message, refusal.code, endpoint.format)),
    }


def _body(message: str, code: str, format_: str) -> dict[str, Any]:
    if format_ == "messages":
        return {"type": "error", "error": {"type": "authentication_error", "message": message}}
    error = {
        "code": _STATUS,
        "message": message,
        "type": "kwai_refused",
        "param": None,
        "metadata": {"error_type": "authentication", "refused": code},
    }
    return {"error": error}
