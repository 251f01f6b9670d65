"""OpenRouter: the shapes of its answers and errors, and who pays for a call."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from kwai_middleware.sandbox.answers import Answer, Question, Refusal, ToolCall
from kwai_middleware.sandbox.completions import Completion, event

__all__ = ["OpenRouterCompletion", "error_body", "error_headers", "refused_key"]

_PROVIDER: Final = "Sandbox"
_COMMENT: Final = b": OPENROUTER PROCESSING\n\n"

_ERROR_TYPES: Final = {
    400: "invalid_request",
    401: "authentication",
    402: "payment_required",
    403: "permission_denied",
    404: "not_found",
    408: "timeout",
    413: "payload_too_large",
    422: "unprocessable",
    429: "rate_limit_exceeded",
    500: "server",
    502: "provider_unavailable",
    503: "provider_unavailable",
    524: "timeout",
    529: "provider_overloaded",
}


def refused_key(key: str) -> Refusal | None:
    """Return why OpenRouter refuses a key, by its ending; None when it is good."""
    if key.endswith("-dead"):
        return Refusal(401, "User not found.")
    if key.endswith("-broke"):
        return Refusal(402, "Insufficient credits. Add more using https://openrouter.ai/settings/credits")
    if key.endswith("-slow"):
        return Refusal(429, "Rate limit exceeded: free-models-per-min.", retry_after=1)
    return None


def error(status: int, message: str) -> dict[str, object]:
    """Return the `error` member of an answer, a choice or a chunk."""
    return {
        "code": status,
        "message": message,
        "metadata": {"error_type": _ERROR_TYPES.get(status, "unmapped")},
    }


def error_body(refusal: Refusal, key: str | None) -> bytes:
    """Return the body of an error answer: `user_id` stands beside `error` when the account is known."""
    body: dict[str, object] = {"error": error(refusal.status, refusal.message)}
    if key is not None and refusal.status != 401:
        body["user_id"] = _user_id(key)
    return msgspec.json.encode(body)


def error_headers(refusal: Refusal) -> list[tuple[str, str]]:
    """Return the headers of an error answer."""
    if refusal.retry_after is None:
        return []
    headers = [("retry-after", str(refusal.retry_after))]
    if refusal.status == 429:
        reset_at = int((time.time() + refusal.retry_after) * 1000)
        headers += [("x-ratelimit-limit", "20"), ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", str(reset_at))]
    return headers


def _user_id(key: str) -> str:
    return "user_" + hashlib.sha256(b"account of " + key.encode()).hexdigest()[:27]


class OpenRouterCompletion(Completion):
    """An answer as OpenRouter gives it, after recorded traffic where that differs from its documentation.

    The usage comes in a chunk with a choice, after the one with the finish reason; the finish reason
    in it is null again.
    """

    id_prefix = ""

    def __init__(self, question: Question, answer: Answer) -> None:
        super().__init__(question, answer)
        self.id = f"gen-{self.created}-{self.id}"

    def whole(self) -> bytes:
        """Return the answer in one piece."""
        answer = self.answer
        envelope = self._envelope("chat.completion")
        if answer.failure is not None and answer.failure_at_top:
            return msgspec.json.encode({"error": self._error(), "user_id": _user_id(self.id)})
        message: dict[str, object] = {
            "role": "assistant",
            "content": answer.text if answer.failure is None else self.half,
            "refusal": None,
            "reasoning": answer.reasoning or None,
        }
        if answer.reasoning:
            message["reasoning_details"] = [_reasoning_detail(answer.reasoning)]
        if answer.tool_calls:
            message["tool_calls"] = [{"index": index, **call.told()} for index, call in enumerate(answer.tool_calls)]
        choice: dict[str, object] = {
            "logprobs": None,
            "finish_reason": self.finish_reason,
            "native_finish_reason": self.finish_reason,
            "index": 0,
            "message": message,
        }
        if answer.failure is not None:
            choice |= {"finish_reason": "error", "native_finish_reason": "error", "error": self._error()}
        return msgspec.json.encode(
            {**envelope, "choices": [choice], "system_fingerprint": None, "usage": self._usage()}
        )

    def opening(self) -> Iterator[bytes]:
        """Yield what comes before the first token: comments, which are no tokens."""
        yield _COMMENT
        yield _COMMENT

    def piece(self, text: str) -> bytes:
        """Return the event of a piece of text."""
        return self._chunk({"role": "assistant", "content": text})

    def reasoning(self, text: str) -> bytes:
        """Return the event of a piece of reasoning."""
        return self._chunk(
            {"role": "assistant", "content": "", "reasoning": text, "reasoning_details": [_reasoning_detail(text)]}
        )

    def tool_call(self, index: int, call: ToolCall) -> Iterator[bytes]:
        """Yield the events of a tool call: its name first, its arguments in two halves."""
        for part in call.told_in_parts():
            yield self._chunk({"role": "assistant", "content": None, "tool_calls": [{"index": index, **part}]})

    def finish(self) -> Iterator[bytes]:
        """Yield what comes after the last token, up to `[DONE]`."""
        yield self._chunk({"role": "assistant", "content": ""}, finish_reason=self.finish_reason)
        yield self._chunk({"role": "assistant", "content": ""}, usage=self._usage())

    def failure(self) -> bytes:
        """Return the event of the error in mid-stream: recorded ones carry no finish reason, documented ones do."""
        return self._chunk(
            {"role": "assistant", "content": ""},
            finish_reason="error" if self.answer.failure_is_last else None,
            error=self._error(),
            usage=self._usage(),
        )

    def _error(self) -> dict[str, object]:
        return error(self.answer.failure or 502, "Provider returned error")

    def _envelope(self, kind: str) -> dict[str, object]:
        return {
            "id": self.id,
            "provider": _PROVIDER,
            "model": self.question.model,
            "object": kind,
            "created": self.created,
        }

    def _chunk(self, delta: Mapping[str, object], finish_reason: str | None = None, **members: object) -> bytes:
        choice = {
            "index": 0,
            "delta": delta,
            "finish_reason": finish_reason,
            "native_finish_reason": finish_reason,
            "logprobs": None,
        }
        return event({**self._envelope("chat.completion.chunk"), "choices": [choice], **members})

    def _usage(self) -> dict[str, object]:
        bill, is_byok = self.bill, self.answer.is_byok
        return {
            "prompt_tokens": bill.prompt_tokens,
            "completion_tokens": bill.completion_tokens,
            "total_tokens": bill.total_tokens,
            "cost": bill.fee if is_byok else bill.upstream_cost,
            "is_byok": is_byok,
            "prompt_tokens_details": {"cached_tokens": bill.cached_tokens, "audio_tokens": 0},
            "cost_details": {
                "upstream_inference_cost": bill.upstream_cost,
                "upstream_inference_prompt_cost": bill.prompt_cost,
                "upstream_inference_completions_cost": bill.completion_cost,
            },
            "completion_tokens_details": {"reasoning_tokens": bill.reasoning_tokens, "image_tokens": 0},
        }


def _reasoning_detail(text: str) -> dict[str, object]:
    return {"type": "reasoning.text", "text": text, "index": 0, "format": None}
