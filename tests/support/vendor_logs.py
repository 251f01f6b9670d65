"""The vendor's own types of logs as referees: do they take a log, and what do they drop of it?"""

from __future__ import annotations

import json
import warnings
from datetime import datetime
from typing import Any

from kwai_middleware._delivery.log_entry import encode
from kwai_middleware._record import CompletedCall
from tests.support.observations import CALLER

# The vendor marks its own types as deprecated, and its backend as their user.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from keywordsai_sdk.keywordsai_types.log_types import KeywordsAILogParams
    from keywordsai_sdk.keywordsai_types.param_types import KeywordsAITextLogParams
    from respan_sdk.respan_types.log_types import RespanLogParams
    from respan_sdk.respan_types.param_types import RespanTextLogParams

VENDOR_TYPES: dict[Any, set[str]] = {
    RespanTextLogParams: set(),
    KeywordsAITextLogParams: {"reasoning_tokens"},
    RespanLogParams: {"log_type", "status"},
    KeywordsAILogParams: {"log_type", "status", "reasoning_tokens"},
}
"""Each type, with the members it does not have though the vendor's API reference does. The tokens are in
`usage` as well, and the vendor derives the status from `status_code`, the type from the endpoint."""

ALIASES = {"generation_time": "latency", "thread_identifier": "session_identifier"}
"""Members that the vendor documents under one name and keeps under another."""


def lost(sent: Any, kept: Any, path: str = "") -> set[str]:
    """Return the paths of all that was sent and is not there any more, or is another value; null is nothing."""
    if isinstance(sent, dict) and isinstance(kept, dict):
        return {
            place
            for name, value in sent.items()
            if value is not None
            for place in lost(
                value, kept.get(ALIASES.get(name, name) if not path else name), f"{path}.{name}".lstrip(".")
            )
        }
    if isinstance(sent, list) and isinstance(kept, list) and len(sent) == len(kept):
        return {
            place
            for number, pair in enumerate(zip(sent, kept, strict=True))
            for place in lost(*pair, f"{path}.{number}")
        }
    if isinstance(kept, datetime):
        kept = kept.isoformat(timespec="microseconds")
    return set() if sent == kept else {path}


def logged(call: CompletedCall) -> dict[str, Any]:
    """Encode a record; see that every type of the vendor takes it and drops nothing."""
    return taken_whole(encode(call))


def taken_whole(body: bytes) -> dict[str, Any]:
    """Return a log's members; see that every type of the vendor takes it and drops nothing."""
    entry: dict[str, Any] = json.loads(body)
    for vendor_type, unknown in VENDOR_TYPES.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Decoded anew each time: the vendor's types write into what they are given.
            kept = vendor_type.model_validate(json.loads(body)).model_dump()
        assert unknown & entry.keys() == lost(entry, kept), vendor_type.__name__
    return entry


def call_with(**members: Any) -> CompletedCall:
    defaults: dict[str, Any] = {
        "record_id": "r1",
        "host": "openrouter.ai",
        "provider_id": "openrouter",
        "caller": CALLER.with_credentials(()),
        "billed_to": "caller",
        "key_fingerprint": "0123abcd",
        "started_at": 1_763_875_740.5,
        "duration": 1.25,
        "status_code": 200,
        "model": "openai/gpt-5-2025",
        "requested_model": "openai/gpt-5",
        "messages": b'[{"role": "user", "content": "Hi"}]',
        "completions": ({"role": "assistant", "content": "Hello"},),
    }
    return CompletedCall(**(defaults | members))
