"""The local answer to a call that is refused, in the shape that every SDK understands at once."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from kwai_middleware.errors import OutboundRefused

__all__ = ["refusal_answer"]

_STATUS: Final = 401


def refusal_answer(refusal: OutboundRefused) -> dict[str, Any]:
    """Return the arguments of a library's response class.

    SDKs retry a foreign exception and then hide it behind "Connection error"; an answer with
    `x-should-retry: false` gives one attempt and their own typed error, with this message.
    """
    error = {
        "code": _STATUS,
        "message": f"{refusal} (refused by kwai_middleware; nothing was sent)",
        "type": "kwai_refused",
        "param": None,
        "metadata": {"error_type": "authentication", "refused": refusal.code},
    }
    return {
        "status_code": _STATUS,
        "headers": {
            "content-type": "application/json",
            "x-should-retry": "false",
            "x-kwai-refused": refusal.code,
        },
        "content": msgspec.json.encode({"error": error}),
    }
