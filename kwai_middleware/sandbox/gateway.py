"""The Keywords AI (Respan) gateway: the shapes of its answers and errors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from kwai_middleware.sandbox.answers import Answer, Refusal
from kwai_middleware.sandbox.chat_completions import ChatCompletion, Deltas
from kwai_middleware.sandbox.completions import event
from kwai_middleware.sandbox.json_types import object_or_empty

__all__ = ["INVALID_KEY", "GatewayCompletion", "error", "error_body", "error_headers", "provider_error"]

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


def error_headers(refusal: Refusal) -> list[tuple[str, str]]:
    """Return the headers of an error answer, but for those that every answer has."""
    return [] if refusal.retry_after is None else [("retry-after", str(refusal.retry_after))]


def provider_error(refusal: Refusal) -> bytes:
    """Return the body of a provider's error, which the gateway hands on in OpenAI's shape."""
    return msgspec.json.encode({"error": error(refusal.status, refusal.message)})


def error(status: int, message: str) -> dict[str, object]:
    """Return the `error` member of an answer or an event."""
    return {"message": message, "type": _ERROR_TYPES.get(status, "server_error"), "param": None, "code": str(status)}


class GatewayCompletion(ChatCompletion):
    """An answer in OpenAI's shape: usage only when `stream_options` ask for it, and then without a choice."""

    id_prefix = "chatcmpl-"
    comment = b": ping\n\n"

    def answer_of(self, choices: list[dict[str, object]]) -> dict[str, object]:
        """Return the whole answer around its choices."""
        return {**self._envelope("chat.completion"), "choices": choices, "usage": self._usage()}

    def choice(self, index: int, finish_reason: str | None, **members: object) -> dict[str, object]:
        """Return one choice with a message or a delta in it."""
        return {"index": index, **members, "logprobs": None, "finish_reason": finish_reason}

    def message(self, answer: Answer) -> dict[str, object]:
        """Return the message of one choice."""
        message: dict[str, object] = {
            "role": "assistant",
            "content": answer.text or None,
            "refusal": answer.refusal or None,
        }
        if answer.reasoning:
            message["reasoning_content"] = answer.reasoning
        if answer.tool_calls:
            message["tool_calls"] = [call.told() for call in answer.tool_calls]
        return message

    def opening(self) -> Iterator[bytes]:
        """Yield what comes before the first token: nothing."""
        return iter(())

    def delta(self, **members: object) -> dict[str, object]:
        """Return what a chunk brings."""
        return members

    def reasoning(self, answer: Answer) -> Deltas:
        """Yield the delta of what was thought."""
        if answer.reasoning:
            yield {"content": None, "reasoning_content": answer.reasoning}

    def chunk(self, choice: dict[str, object], **members: object) -> bytes:
        """Return the event of one choice's delta."""
        return event({**self._envelope("chat.completion.chunk"), "choices": [choice], **members})

    def counts(self) -> Iterator[bytes]:
        """Yield the event of the usage, if there is one."""
        if object_or_empty(self.question.body.get("stream_options")).get("include_usage") is True:
            yield event({**self._envelope("chat.completion.chunk"), "choices": [], "usage": self._usage()})

    def failure(self) -> bytes:
        """Return the event of the error in mid-stream."""
        return event({"error": self.error()})

    def error(self) -> dict[str, object]:
        """Return the `error` member of an answer that fails after the 200."""
        return error(self.answer.failure or 502, "Provider returned error")

    def _envelope(self, kind: str) -> dict[str, object]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.question.model,
            "system_fingerprint": None,
        }

    def _usage(self) -> dict[str, object]:
        bill = self.bill
        return {
            **bill.counts(),
            "prompt_tokens_details": {"cached_tokens": bill.cached_tokens, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": bill.reasoning_tokens, "audio_tokens": 0},
        }
