"""The Keywords AI (Respan) gateway: the shapes of its answers and errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from kwai_middleware.sandbox.answers import Refusal, ToolCall
from kwai_middleware.sandbox.completions import Completion, event
from kwai_middleware.sandbox.json_types import object_or_empty

__all__ = ["INVALID_KEY", "GatewayCompletion", "error_body", "provider_error"]

INVALID_KEY: Final = (
    "Your API key is invalid or expired, please check your API key at"
    " https://platform.keywordsai.co/platform/api/api-keys"
)

_ERROR_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def error_body(detail: str, **members: object) -> bytes:
    """Return the body of an error of the gateway itself."""
    return msgspec.json.encode({"detail": detail, **members})


def provider_error(refusal: Refusal) -> bytes:
    """Return the body of a provider's error, which the gateway hands on in OpenAI's shape."""
    return msgspec.json.encode({"error": _error(refusal.status, refusal.message)})


def _error(status: int, message: str) -> dict[str, object]:
    return {"message": message, "type": _ERROR_TYPES.get(status, "server_error"), "param": None, "code": str(status)}


class GatewayCompletion(Completion):
    """An answer in OpenAI's shape: usage only when `stream_options` ask for it, and then without a choice."""

    id_prefix = "chatcmpl-"

    def whole(self) -> bytes:
        """Return the answer in one piece."""
        answer = self.answer
        if answer.failure is not None and answer.failure_at_top:
            return msgspec.json.encode({"error": self._failure()})
        message: dict[str, object] = {
            "role": "assistant",
            "content": (answer.text if answer.failure is None else self.half) or None,
            "refusal": None,
        }
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        if answer.tool_calls:
            message["tool_calls"] = [call.told() for call in answer.tool_calls]
        choice: dict[str, object] = {
            "index": 0,
            "message": message,
            "logprobs": None,
            "finish_reason": self.finish_reason,
        }
        if answer.failure is not None:
            choice |= {"finish_reason": "error", "error": self._failure()}
        return msgspec.json.encode({**self._envelope("chat.completion"), "choices": [choice], "usage": self._usage()})

    def opening(self) -> Iterator[bytes]:
        """Yield what comes before the first token: nothing."""
        return iter(())

    def piece(self, text: str) -> bytes:
        """Return the event of a piece of text."""
        return self._chunk({"content": text} if text else {"role": "assistant", "content": ""})

    def reasoning(self, text: str) -> bytes:
        """Return the event of a piece of reasoning."""
        return self._chunk({"content": None, "reasoning_content": text})

    def tool_call(self, index: int, call: ToolCall) -> Iterator[bytes]:
        """Yield the events of a tool call: its name first, its arguments in two halves."""
        for part in call.told_in_parts():
            yield self._chunk({"content": None, "tool_calls": [{"index": index, **part}]})

    def finish(self) -> Iterator[bytes]:
        """Yield what comes after the last token, up to `[DONE]`."""
        yield self._chunk({}, finish_reason=self.finish_reason)
        if object_or_empty(self.question.body.get("stream_options")).get("include_usage") is True:
            yield event({**self._envelope("chat.completion.chunk"), "choices": [], "usage": self._usage()})

    def failure(self) -> bytes:
        """Return the event of the error in mid-stream."""
        return event({"error": self._failure()})

    def _failure(self) -> dict[str, object]:
        return _error(self.answer.failure or 502, "Provider returned error")

    def _envelope(self, kind: str) -> dict[str, object]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.question.model,
            "system_fingerprint": None,
        }

    def _chunk(self, delta: Mapping[str, object], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return event({**self._envelope("chat.completion.chunk"), "choices": [choice]})

    def _usage(self) -> dict[str, object]:
        bill = self.bill
        return {
            "prompt_tokens": bill.prompt_tokens,
            "completion_tokens": bill.completion_tokens,
            "total_tokens": bill.total_tokens,
            "prompt_tokens_details": {"cached_tokens": bill.cached_tokens, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": bill.reasoning_tokens, "audio_tokens": 0},
        }
