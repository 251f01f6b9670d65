"""OpenRouter: the shapes of its answers and errors, and who pays for a call."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from kwai_middleware.sandbox.answers import Answer, Question, Refusal
from kwai_middleware.sandbox.chat_completions import ChatCompletion, Deltas
from kwai_middleware.sandbox.completions import Bill, event

__all__ = [
    "PROVIDER",
    "OpenRouterCompletion",
    "costs",
    "error",
    "error_body",
    "error_headers",
    "error_type",
    "refused_key",
    "responses_error_body",
    "user_id",
]

PROVIDER: Final = "Sandbox"

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


def costs(bill: Bill, *, is_byok: bool) -> dict[str, object]:
    """Return what a usage tells of money: the cost is the fee alone where the account pays the provider."""
    return {
        "cost": bill.fee if is_byok else bill.upstream_cost,
        "is_byok": is_byok,
        "cost_details": {
            "upstream_inference_cost": bill.upstream_cost,
            "upstream_inference_prompt_cost": bill.prompt_cost,
            "upstream_inference_completions_cost": bill.completion_cost,
        },
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


def error_type(status: int) -> str:
    """Return OpenRouter's own word for a status."""
    return _ERROR_TYPES.get(status, "unmapped")


def error(status: int, message: str, metadata: Mapping[str, object] | None = None) -> dict[str, object]:
    """Return the `error` member of an answer, a choice or a chunk."""
    return {
        "code": status,
        "message": message,
        "metadata": {"error_type": error_type(status), **(metadata or {})},
    }


def error_body(refusal: Refusal, key: str | None) -> bytes:
    """Return the body of an error answer: `user_id` stands beside `error` when the account is known."""
    body = {"error": error(refusal.status, refusal.message, refusal.metadata), **_account(refusal, key)}
    return msgspec.json.encode(body)


def responses_error_body(refusal: Refusal, key: str | None) -> bytes:
    """Return the body of an error answer of the Responses API: the error's type stands beside `error`."""
    error: dict[str, object] = {"code": refusal.status, "message": refusal.message}
    if refusal.metadata:
        error["metadata"] = refusal.metadata
    body = {"error": error, "error_type": error_type(refusal.status), **_account(refusal, key)}
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


def _account(refusal: Refusal, key: str | None) -> dict[str, object]:
    return {} if key is None or refusal.status == 401 else {"user_id": user_id(key)}


def user_id(key: str) -> str:
    """Return the id of the account that a key belongs to."""
    return "user_" + hashlib.sha256(b"account of " + key.encode()).hexdigest()[:27]


class OpenRouterCompletion(ChatCompletion):
    """An answer as OpenRouter gives it, after recorded traffic where that differs from its documentation.

    The usage comes in a chunk with a choice, after the one with the finish reason; the finish reason
    in it is null again.
    """

    id_prefix = ""
    comment = b": OPENROUTER PROCESSING\n\n"

    def __init__(self, question: Question, answer: Answer) -> None:
        super().__init__(question, answer)
        self.id = f"gen-{self.created}-{self.id}"

    def failed_whole(self) -> bytes:
        """Return an answer with an error in place of the choices."""
        return msgspec.json.encode({"error": self.error(), "user_id": user_id(self.id)})

    def answer_of(self, choices: list[dict[str, object]]) -> dict[str, object]:
        """Return the whole answer around its choices."""
        envelope = self._envelope("chat.completion")
        return {**envelope, "choices": choices, "system_fingerprint": None, "usage": self._usage()}

    def choice(self, index: int, finish_reason: str | None, **members: object) -> dict[str, object]:
        """Return one choice; its message stands last, and its delta before the reason."""
        reasons = {"finish_reason": finish_reason, "native_finish_reason": finish_reason}
        if "message" in members:
            return {"logprobs": None, **reasons, "index": index, **members}
        return {"index": index, **members, **reasons, "logprobs": None}

    def message(self, answer: Answer) -> dict[str, object]:
        """Return the message of one choice: tool calls are numbered in it."""
        message: dict[str, object] = {
            "role": "assistant",
            "content": answer.text,
            "refusal": answer.refusal or None,
            "reasoning": answer.reasoning or None,
        }
        if answer.reasoning:
            message["reasoning_details"] = _reasoning_details(answer)
        if answer.tool_calls:
            message["tool_calls"] = [{"index": index, **call.told()} for index, call in enumerate(answer.tool_calls)]
        return message

    def opening(self) -> Iterator[bytes]:
        """Yield what comes before the first token: comments, which are no tokens."""
        yield self.comment
        yield self.comment

    def delta(self, **members: object) -> dict[str, object]:
        """Return what a chunk brings: each has a role and a content."""
        return {"role": "assistant", "content": "", **members}

    def last_delta(self) -> dict[str, object]:
        """Return the delta beside a finish reason."""
        return self.delta()

    def reasoning(self, answer: Answer) -> Deltas:
        """Yield the deltas of what was thought: the text, then its signature, a summary, and what is sealed."""
        if not answer.reasoning:
            return
        if not answer.is_detailed:
            yield self.delta(reasoning=answer.reasoning, reasoning_details=_reasoning_details(answer))
            return
        [text, *others] = _reasoning_details(answer)
        half = len(answer.reasoning) // 2
        for part in (answer.reasoning[:half], answer.reasoning[half:]):
            yield self.delta(reasoning=part, reasoning_details=[{**text, "text": part, "signature": None}])
        yield self.delta(reasoning_details=[{**text, "text": ""}])
        for detail in others:
            yield self.delta(reasoning_details=[detail])

    def chunk(self, choice: dict[str, object], **members: object) -> bytes:
        """Return the event of one choice's delta."""
        return event({**self._envelope("chat.completion.chunk"), "choices": [choice], **members})

    def counts(self) -> Iterator[bytes]:
        """Yield the event of the usage."""
        yield self.chunk(self.choice(0, None, delta=self.delta()), usage=self._usage())

    def failure(self) -> bytes:
        """Return the event of the error in mid-stream: recorded ones carry no finish reason, documented ones do."""
        reason = "error" if self.answer.failure_is_last else None
        choice = self.choice(0, reason, delta=self.delta())
        return self.chunk(choice, error=self.error(), usage=self._usage())

    def error(self) -> dict[str, object]:
        """Return the `error` member of an answer that fails after the 200."""
        return error(self.answer.failure or 502, "Provider returned error")

    def _envelope(self, kind: str) -> dict[str, object]:
        return {
            "id": self.id,
            "provider": PROVIDER,
            "model": self.question.model,
            "object": kind,
            "created": self.created,
        }

    def _usage(self) -> dict[str, object]:
        bill = self.bill
        money = costs(bill, is_byok=self.answer.is_byok)
        written = {"cache_write_tokens": bill.cache_write_tokens} if bill.cache_write_tokens else {}
        return {
            **bill.counts(),
            "cost": money["cost"],
            "is_byok": money["is_byok"],
            "prompt_tokens_details": {"cached_tokens": bill.cached_tokens, **written, "audio_tokens": 0},
            "cost_details": money["cost_details"],
            "completion_tokens_details": {"reasoning_tokens": bill.reasoning_tokens, "image_tokens": 0},
        }


def _reasoning_details(answer: Answer) -> list[dict[str, object]]:
    """What OpenRouter tells of the reasoning beside its text."""
    text: dict[str, object] = {"type": "reasoning.text", "text": answer.reasoning, "index": 0, "format": None}
    if not answer.is_detailed:
        return [text]
    claude, openai = {"format": "anthropic-claude-v1"}, {"format": "openai-responses-v1"}
    return [
        {**text, **claude, "signature": base64.b64encode(b"signed").decode()},
        {"type": "reasoning.summary", "summary": "I repeat what was said.", "index": 1, **openai},
        {
            "type": "reasoning.encrypted",
            "data": base64.b64encode(b"sealed").decode(),
            "id": "rs_0",
            "index": 2,
            **openai,
        },
    ]
