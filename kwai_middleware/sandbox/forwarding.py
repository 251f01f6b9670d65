"""Which members of a request go on to a model's provider though they mean nothing to the endpoint that took it."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Final

__all__ = [
    "ANTHROPIC_MEMBERS",
    "OPENAI_RESPONSES_MEMBERS",
    "OPENROUTER_CHAT_MEMBERS",
    "OPENROUTER_MESSAGES_MEMBERS",
    "OPENROUTER_RESPONSES_MEMBERS",
    "forwarded",
]

OPENROUTER_CHAT_MEMBERS: Final = frozenset({
    "cache_control", "debug", "deferred_tools", "frequency_penalty", "image_config", "include_reasoning",
    "logit_bias", "logprobs", "max_completion_tokens", "max_tokens", "messages", "metadata", "min_p", "modalities",
    "model", "models", "parallel_tool_calls", "plugins", "prediction", "presence_penalty", "prompt_cache_key",
    "prompt_cache_options", "provider", "reasoning", "reasoning_effort", "repetition_penalty", "response_format",
    "route", "seed", "service_tier", "session_id", "stop", "stop_server_tools_when", "stream", "stream_options",
    "temperature", "tool_choice", "tools", "top_a", "top_k", "top_logprobs", "top_p", "trace", "transforms", "usage",
    "user", "verbosity",
})  # fmt: skip
"""What OpenRouter's chat request knows, and what it knew once and still takes."""

OPENROUTER_MESSAGES_MEMBERS: Final = frozenset({
    "cache_control", "context_management", "deferred_tools", "fallbacks", "max_tokens", "messages", "metadata",
    "model", "models", "output_config", "plugins", "provider", "safeguards", "service_tier", "session_id", "speed",
    "stop_sequences", "stop_server_tools_when", "stream", "system", "temperature", "thinking", "tool_choice", "tools",
    "top_k", "top_p", "trace", "user",
})  # fmt: skip
"""What OpenRouter's request in Anthropic's format knows."""

ANTHROPIC_MEMBERS: Final = frozenset({
    "cache_control", "container", "context_management", "diagnostics", "inference_geo", "max_tokens", "mcp_servers",
    "messages", "metadata", "model", "output_config", "service_tier", "speed", "stop_sequences", "stream", "system",
    "temperature", "thinking", "tool_choice", "tools", "top_k", "top_p", "user_profile_id", "workspace_id",
})  # fmt: skip
"""What Anthropic's own request knows."""

OPENROUTER_RESPONSES_MEMBERS: Final = frozenset({
    "background", "cache_control", "debug", "deferred_tools", "frequency_penalty", "image_config", "include",
    "input", "instructions", "max_output_tokens", "max_tool_calls", "metadata", "modalities", "model", "models",
    "parallel_tool_calls", "plugins", "presence_penalty", "previous_response_id", "prompt", "prompt_cache_key",
    "prompt_cache_options", "provider", "reasoning", "safety_identifier", "service_tier", "session_id", "stop",
    "stop_server_tools_when", "store", "stream", "temperature", "text", "tool_choice", "tools", "top_k",
    "top_logprobs", "top_p", "trace", "truncation", "user",
})  # fmt: skip
"""What OpenRouter's request of the Responses API knows."""

OPENAI_RESPONSES_MEMBERS: Final = frozenset({
    "access_programs", "background", "background_options", "context_management", "conversation", "image", "include",
    "input", "instructions", "max_output_tokens", "max_tool_calls", "metadata", "model", "moderation",
    "parallel_tool_calls", "previous_response_id", "prompt", "prompt_cache_key", "prompt_cache_options",
    "prompt_cache_retention", "reasoning", "safety_identifier", "service_tier", "store", "stream", "stream_options",
    "temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p", "truncation", "user",
})  # fmt: skip
"""What OpenAI's own request of the Responses API knows."""


def forwarded(body: Mapping[str, object], known: Container[str]) -> tuple[str, ...]:
    """Return the members of `body` that are not `known`.

    OpenRouter's documentation says of such members that they are forwarded to the underlying model API.
    """
    return tuple(name for name in body if name not in known)
