"""Which members of a request may enter a record: those that cannot carry a key."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from kwai_middleware._pace import breathe

__all__ = ["without_keys"]

_NEVER: Final = frozenset(
    (
        "customer_credentials", "customer_params", "respan_params", "keywordsai_params", "credential_override",
        "customer_api_keys", "api_key", "extra_headers", "extra_body", "headers",
    )
)  # fmt: skip

# Documented members with a meaning that leaves no room for a key, though their names or texts may mention one.
_PLAIN: Final = frozenset(
    (
        "frequency_penalty", "functions", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens", "n",
        "parallel_tool_calls", "presence_penalty", "prompt_cache_key", "reasoning_effort", "response_format", "seed",
        "stop", "stream_options", "temperature", "text", "tool_choice", "top_logprobs", "top_p",
    )
)  # fmt: skip

_MARKS: Final = re.compile(
    r"api.?key|access.?key|private.?key|\bkey\b|secret|credential|passw|auth|header|bearer|(?<!max_)token(?!s)",
    re.IGNORECASE,
)
_MOST_BYTES: Final = 16 * 1024
_TOOLS: Final = msgspec.json.Decoder(list[msgspec.Raw])


class _Kind(msgspec.Struct):
    type: str = "function"


_KIND: Final = msgspec.json.Decoder(_Kind)


def without_keys(members: dict[str, msgspec.Raw]) -> dict[str, bytes]:
    """Return the members of a request, valid UTF-8 JSON each, that cannot carry a key.

    Members that the vendor or OpenAI document for keys never pass. Of all others that are not known
    to be plain, none passes that is large, or whose name or text mentions a key, a token, a header.
    """
    kept: dict[str, bytes] = {}
    for name, raw in members.items():
        value = bytes(raw)
        if name == "tools":
            value = _tools_without_keys(raw)
        elif name not in _PLAIN and (name in _NEVER or _may_carry_key(name, value)):
            continue
        if value:
            kept[name] = value
    return kept


def _may_carry_key(name: str, value: bytes) -> bool:
    breathe()
    return len(value) > _MOST_BYTES or bool(_MARKS.search(name) or _MARKS.search(value.decode()))


def _tools_without_keys(raw: msgspec.Raw) -> bytes:
    """Leave only the type of a tool that is no function and may carry a key, as an MCP server's does."""
    try:
        tools = _TOOLS.decode(raw)
        kinds = [_KIND.decode(tool).type for tool in tools]
    except (msgspec.DecodeError, RecursionError):
        return b""
    kept = [
        {"type": kind} if kind != "function" and _may_carry_key("", bytes(tool)) else tool
        for tool, kind in zip(tools, kinds, strict=True)
    ]
    return msgspec.json.encode(kept)
