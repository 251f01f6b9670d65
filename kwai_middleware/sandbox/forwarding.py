"""Which members of a request go on to a model's provider though they mean nothing to the endpoint that took it."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Final

__all__ = [
    "ANTHROPIC_MEMBERS",
    "OPENAI_RESPONSES_MEMBERS",
    "OPENROUTER_CHAT_MEMBERS",
    "OPENROUTER_COMPLETIONS_MEMBERS",
    "OPENROUTER_EMBEDDINGS_MEMBERS",
    "OPENROUTER_IMAGES_MEMBERS",
    "OPENROUTER_MESSAGES_MEMBERS",
    "OPENROUTER_RERANK_MEMBERS",
    "OPENROUTER_RESPONSES_MEMBERS",
    "OPENROUTER_SPEECH_MEMBERS",
    "OPENROUTER_TRANSCRIPTION_MEMBERS",
    "OPENROUTER_VIDEOS_MEMBERS",
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

OPENROUTER_EMBEDDINGS_MEMBERS: Final = frozenset({
    "dimensions", "encoding_format", "input", "input_type", "model", "provider", "session_id", "trace", "user",
})  # fmt: skip
"""What OpenRouter's embeddings request knows."""

OPENROUTER_SPEECH_MEMBERS: Final = frozenset({
    "input", "input_references", "instructions", "model", "provider", "response_format", "session_id", "speed",
    "stream_format", "trace", "user", "voice",
})  # fmt: skip
"""What OpenRouter's speech request knows."""

OPENROUTER_TRANSCRIPTION_MEMBERS: Final = frozenset({
    "diarize", "file", "input_audio", "keyterms", "language", "model", "prompt", "provider", "response_format",
    "session_id", "source_url", "stream", "temperature", "timestamp_granularities", "trace", "user",
})  # fmt: skip
"""What OpenRouter's transcription request, in JSON or as a form knows."""

OPENROUTER_IMAGES_MEMBERS: Final = frozenset({
    "aspect_ratio", "background", "input_references", "model", "n", "output_compression", "output_format",
    "partial_images", "prompt", "provider", "quality", "resolution", "response_format", "seed", "session_id",
    "size", "stream", "trace", "user",
})  # fmt: skip
"""What OpenRouter's images request knows."""

OPENROUTER_RERANK_MEMBERS: Final = frozenset({
    "documents", "model", "provider", "query", "session_id", "top_n", "trace", "user",
})  # fmt: skip
"""What OpenRouter's rerank request knows."""

OPENROUTER_VIDEOS_MEMBERS: Final = frozenset({
    "aspect_ratio", "callback_url", "creativity", "duration", "frame_images", "generate_audio", "input_references",
    "model", "previous_job_id", "prompt", "provider", "resolution", "seed", "session_id", "size", "trace",
    "upscale_factor", "user",
})  # fmt: skip
"""What OpenRouter's videos request knows."""

OPENROUTER_COMPLETIONS_MEMBERS: Final = frozenset({
    "best_of", "echo", "frequency_penalty", "include_reasoning", "logit_bias", "logprobs", "max_tokens", "metadata",
    "min_p", "model", "models", "n", "plugins", "presence_penalty", "prompt", "provider", "reasoning",
    "repetition_penalty", "response_format", "seed", "service_tier", "session_id", "stop", "stream",
    "stream_options", "suffix", "temperature", "top_a", "top_k", "top_logprobs", "top_p", "trace", "transforms",
    "usage", "user",
})  # fmt: skip
"""What OpenRouter's legacy completions request knows."""


def forwarded(body: Mapping[str, object], known: Container[str]) -> tuple[str, ...]:
    """Return the members of `body` that are not `known`.

    OpenRouter's documentation says of such members that they are forwarded to the underlying model API.
    """
    return tuple(name for name in body if name not in known)
