"""Anthropic's format: its requests as questions, its answers, streams and errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from kwai_middleware.sandbox import openrouter
from kwai_middleware.sandbox.answers import Answer, Question, Refusal, ToolCall
from kwai_middleware.sandbox.completions import Completion
from kwai_middleware.sandbox.json_types import is_array, is_object, json_or_none, object_or_empty

__all__ = [
    "AnthropicCompletion",
    "OpenRouterAnthropicCompletion",
    "chat_request",
    "error_body",
    "openrouter_error_body",
]

_ERROR_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_STOP_REASONS: Final = {"length": "max_tokens", "content_filter": "refusal"}
_FAILED: Final = "Provider returned error"
_SIGNATURE: Final = "c2lnbmVk"
_COMMENT: Final = b": OPENROUTER PROCESSING\n\n"
_DONE: Final = b"event: data\ndata: [DONE]\n\n"


def chat_request(body: Mapping[str, object]) -> dict[str, object]:
    """Return a request in Anthropic's format as a chat request, as far as answers depend on it."""
    messages, tools = (value if is_array(value) else [] for value in (body.get("messages"), body.get("tools")))
    functions = [
        {"function": {"name": tool.get("name"), "parameters": tool.get("input_schema")}}
        for tool in tools
        if is_object(tool)
    ]
    return {**body, "messages": list(map(_chat_message, messages)), "tools": functions}


def _chat_message(message: object) -> object:
    """A message that holds a tool's result is said by the tool; its text is the result."""
    parts = message.get("content") if is_object(message) else None
    results = (
        [part for part in parts if is_object(part) and part.get("type") == "tool_result"] if is_array(parts) else []
    )
    return {"role": "tool", "content": results[-1].get("content")} if results else message


def error_body(refusal: Refusal) -> bytes:
    """Return the body of an error of Anthropic's."""
    return msgspec.json.encode({"type": "error", "error": _error(refusal.status, refusal.message)})


def openrouter_error_body(refusal: Refusal) -> bytes:
    """Return the body of an error of OpenRouter's in Anthropic's format: its own type stands beside."""
    own = object_or_empty(openrouter.error(refusal.status, refusal.message)["metadata"])
    return msgspec.json.encode({"type": "error", "error": {**_error(refusal.status, refusal.message), **own}})


def _error(status: int, message: str) -> dict[str, object]:
    return {"type": _ERROR_TYPES.get(status, "api_error"), "message": message}


def _event(kind: str, **members: object) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (kind.encode(), msgspec.json.encode({"type": kind, **members}))


class AnthropicCompletion(Completion):
    """An answer of Anthropic's: blocks of content, each opened and closed in a stream, and usage at both ends of it."""

    id_prefix = "msg_"

    def __init__(self, question: Question, answer: Answer) -> None:
        super().__init__(question, answer)
        self._block = 0

    def whole(self) -> bytes:
        """Return the answer in one piece."""
        answer = self.answer
        if answer.failure is not None:
            return msgspec.json.encode({"type": "error", "error": _error(answer.failure, _FAILED)})
        blocks: list[dict[str, object]] = []
        if answer.reasoning:
            blocks.append({"type": "thinking", "thinking": answer.reasoning, "signature": _SIGNATURE})
        if answer.text:
            blocks.append({"type": "text", "text": answer.text, "citations": None})
        blocks += [
            {"type": "tool_use", "id": call.id, "name": call.name, "input": json_or_none(call.arguments.encode())}
            for call in answer.tool_calls
        ]
        return msgspec.json.encode(self._message(blocks, self._stop_reason(), self._usage()))

    def opening(self) -> Iterator[bytes]:
        """Yield what comes before the first event: nothing."""
        return iter(())

    def telling(self) -> Iterator[bytes]:
        """Yield the events from the first to the last that is sent before the answer's ending."""
        answer = self.answer
        yield _event("message_start", message=self._message([], None, self._usage() | {"output_tokens": 1}))
        yield _event("ping")
        if answer.reasoning:
            yield self.reasoning(answer.reasoning)
        pieces = answer.streamed
        if pieces:
            yield self._opened({"type": "text", "text": ""})
            yield from map(self.piece, pieces)
        if pieces and answer.is_told_whole:
            yield self._closed()
        for index, call in enumerate(answer.tool_calls):
            yield from self.tool_call(index, call)
        if answer.failure is not None:
            yield self.failure()
        elif answer.ending in ("done", "late"):
            yield from self.finish()

    def piece(self, text: str) -> bytes:
        """Return the event of a piece of text."""
        return self._delta({"type": "text_delta", "text": text})

    def reasoning(self, text: str) -> bytes:
        """Return the events of the block of reasoning."""
        return b"".join(
            (
                self._opened({"type": "thinking", "thinking": "", "signature": ""}),
                self._delta({"type": "thinking_delta", "thinking": text}),
                self._delta({"type": "signature_delta", "signature": _SIGNATURE}),
                self._closed(),
            )
        )

    def tool_call(self, index: int, call: ToolCall) -> Iterator[bytes]:
        """Yield the events of a tool call: its name first, its arguments in two halves."""
        half = len(call.arguments) // 2
        yield self._opened({"type": "tool_use", "id": call.id, "name": call.name, "input": {}})
        for arguments in (call.arguments[:half], call.arguments[half:]):
            yield self._delta({"type": "input_json_delta", "partial_json": arguments})
        yield self._closed()

    def finish(self) -> Iterator[bytes]:
        """Yield what comes after the last block."""
        yield _event(
            "message_delta", delta={"stop_reason": self._stop_reason(), "stop_sequence": None}, usage=self._usage()
        )
        yield _event("message_stop")

    def failure(self) -> bytes:
        """Return the event of the error in mid-stream; nothing follows it."""
        return _event("error", error=_error(self.answer.failure or 502, _FAILED))

    def _message(self, blocks: list[dict[str, object]], reason: str | None, usage: object) -> dict[str, object]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.question.model,
            "content": blocks,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": usage,
        }

    def _stop_reason(self) -> str:
        reason = "tool_use" if self.answer.tool_calls else "end_turn"
        return _STOP_REASONS.get(self.answer.finish_reason or "", reason)

    def _usage(self) -> dict[str, object]:
        """Anthropic counts apart what was read from the cache and what was written to it."""
        bill = self.bill
        return {
            "input_tokens": bill.prompt_tokens - bill.cached_tokens - bill.cache_write_tokens,
            "cache_creation_input_tokens": bill.cache_write_tokens,
            "cache_read_input_tokens": bill.cached_tokens,
            "output_tokens": bill.completion_tokens,
        }

    def _opened(self, block: Mapping[str, object]) -> bytes:
        return _event("content_block_start", index=self._block, content_block=block)

    def _delta(self, delta: Mapping[str, object]) -> bytes:
        return _event("content_block_delta", index=self._block, delta=delta)

    def _closed(self) -> bytes:
        self._block += 1
        return _event("content_block_stop", index=self._block - 1)


class OpenRouterAnthropicCompletion(AnthropicCompletion):
    """The same as OpenRouter gives it: comments first, and what it cost beside the usage.

    `[DONE]` comes last where it was observed, on requests with `?beta=true`: documented it is nowhere, and
    Anthropic's SDK (2.12) stumbles over it.
    """

    id_prefix = ""

    def __init__(self, question: Question, answer: Answer) -> None:
        super().__init__(question, answer)
        self.id = f"gen-{self.created}-{self.id}"

    def opening(self) -> Iterator[bytes]:
        """Yield OpenRouter's comments."""
        yield from (_COMMENT, _COMMENT)

    def finish(self) -> Iterator[bytes]:
        """Yield what comes after the last block."""
        yield from super().finish()
        if self.question.query.get("beta") == "true":
            yield _DONE

    def _message(self, blocks: list[dict[str, object]], reason: str | None, usage: object) -> dict[str, object]:
        return {**super()._message(blocks, reason, usage), "provider": "Sandbox"}

    def _usage(self) -> dict[str, object]:
        bill, is_byok = self.bill, self.answer.is_byok
        return {
            **super()._usage(),
            "cost": bill.fee if is_byok else bill.upstream_cost,
            "is_byok": is_byok,
            "cost_details": {"upstream_inference_cost": bill.upstream_cost},
        }
