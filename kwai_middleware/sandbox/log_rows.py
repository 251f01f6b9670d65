"""One row of the request-logs API: what the API checks before it takes it, and what the vendor makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from kwai_middleware.sandbox.json_types import is_object

__all__ = ["errors_in", "kept_of"]

_LONGEST_IDENTIFIER: Final = 254
_ALIASES: Final = {"ttft": "time_to_first_token", "generation_time": "latency", "messages": "prompt_messages"}
_NUMBER: Final = (int, float)
_KINDS: Final[Mapping[str, tuple[str, tuple[type, ...]]]] = {
    **dict.fromkeys(("prompt_tokens", "completion_tokens", "reasoning_tokens"), ("integer", (int,))),
    **dict.fromkeys(("prompt_cache_hit_tokens", "prompt_cache_creation_tokens"), ("integer", (int,))),
    "status_code": ("integer", (int,)),
    **dict.fromkeys(("cost", "latency", "generation_time"), ("number", _NUMBER)),
    **dict.fromkeys(("time_to_first_token", "ttft", "tokens_per_second"), ("number", _NUMBER)),
    "stream": ("boolean", (bool,)),
    **dict.fromkeys(("prompt_messages", "messages", "tools", "tool_calls"), ("list", (list,))),
    **dict.fromkeys(("completion_message", "customer_params", "metadata", "properties", "usage"), ("object", (dict,))),
    **dict.fromkeys(("error_message", "log_type", "start_time", "timestamp", "thread_identifier"), ("string", (str,))),
}


def errors_in(row: Mapping[str, object]) -> dict[str, list[str]]:
    """What is wrong with a row, by field."""
    errors: dict[str, list[str]] = {}
    model = row.get("model")
    if model is None:
        errors["model"] = ["This field is required."]
    elif not isinstance(model, str) or not model:
        errors["model"] = ["Not a valid string."]
    for name, value in row.items():
        kind, types = _KINDS.get(name, ("", (object,)))
        # To Python a bool is an int; to the vendor it is not.
        is_misplaced_bool = isinstance(value, bool) and types in ((int,), _NUMBER)
        if value is not None and (is_misplaced_bool or not isinstance(value, types)):
            errors.setdefault(name, [f"Not a valid {kind}."])
    return errors


def kept_of(row: Mapping[str, object]) -> tuple[dict[str, object], tuple[str, ...]]:
    """What the vendor keeps of a row, and the names of the members that it drops without a word."""
    stored = {_ALIASES.get(name, name): value for name, value in row.items() if value is not None}
    dropped: list[str] = []
    params = stored.get("customer_params")
    if is_object(params) and params.get("customer_identifier") is None:
        # The vendor's own type sets the whole object to null when it names nobody.
        dropped.append("customer_params")
        del stored["customer_params"]
    elif is_object(params):
        stored["customer_identifier"] = params["customer_identifier"]
        stored |= {f"customer_{name}": params[name] for name in ("name", "email") if params.get(name) is not None}
    if "customer_identifier" in stored:
        stored["customer_identifier"] = str(stored["customer_identifier"])[:_LONGEST_IDENTIFIER]
    if is_object(metadata := stored.get("metadata")):
        stored["metadata"] = {
            name: value if isinstance(value, str) else _text(value) for name, value in metadata.items()
        }
    status_code = stored.setdefault("status_code", 200)
    stored.setdefault("log_type", "chat")
    failed = stored.get("status") == "error" or (isinstance(status_code, int) and status_code >= 400)
    stored["status"] = "failed" if failed else "success"
    return stored, tuple(dropped)


def _text(value: object) -> str:
    return msgspec.json.encode(value).decode()
