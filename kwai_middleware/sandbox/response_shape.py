"""Answers of the Responses API, whole and streamed: the object around the items, and the stream around their events."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import msgspec

from kwai_middleware.sandbox import gateway, openrouter
from kwai_middleware.sandbox.answers import Answer, Question
from kwai_middleware.sandbox.completions import DONE, SILENCE, Completion, filled, named_event
from kwai_middleware.sandbox.json_types import object_or_empty
from kwai_middleware.sandbox.response_events import Events, events_of
from kwai_middleware.sandbox.response_items import Item, output_items

__all__ = ["GatewayResponse", "OpenRouterResponse"]

_INCOMPLETE: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
_FAILED: Final = "Provider returned error"
_BROKEN: Final = b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","delta":"bro\n\n'
_ECHOED: Final[dict[str, object]] = {
    "background": False, "instructions": None, "max_output_tokens": None, "max_tool_calls": None,
    "parallel_tool_calls": True, "previous_response_id": None, "prompt_cache_key": None, "safety_identifier": None,
    "service_tier": "default", "store": True, "temperature": 1.0, "text": {"format": {"type": "text"}},
    "tool_choice": "auto", "tools": [], "top_logprobs": 0, "top_p": 1.0, "truncation": "disabled", "user": None,
}  # fmt: skip
"""Members of a request that stand in the answer too, and what stands there when they were not sent."""


class ResponseCompletion(Completion):
    """An answer of the Responses API, as far as the vendors agree."""

    comment: bytes

    def __init__(self, question: Question, answer: Answer) -> None:
        super().__init__(question, answer)
        self._token = self.id.removeprefix(self.id_prefix)
        if answer.audio:
            # This format has no sound: what would be said aloud is written down.
            self.answer = replace(answer, pieces=(answer.words,), audio=None)

    @abstractmethod
    def usage(self) -> Item:
        """Return what it used."""

    @abstractmethod
    def failure(self) -> Item:
        """Return the members of an answer that failed."""

    @abstractmethod
    def last_error(self) -> Item:
        """Return the members of the event that ends a stream in place of an answer."""

    def whole(self) -> bytes:
        """Return the answer in one piece."""
        failed_at_top = self.answer.failure is not None and self.answer.failure_at_top
        body = msgspec.json.encode(self.failure() if failed_at_top else self._final())
        return body[: len(body) * 2 // 3] + b"..." if self.answer.is_malformed else body

    def parts(self) -> Iterator[bytes]:
        """Yield the answer in pieces, however long it is."""
        yield from filled(self.whole(), self.answer.filler)

    def opening(self) -> Iterator[bytes]:
        """Yield what comes before the first event: nothing."""
        return iter(())

    def last(self) -> Iterator[bytes]:
        """Yield what comes after the last event: nothing."""
        return iter(())

    def telling(self) -> Iterator[bytes]:
        """Yield the events from the first to the last that is sent before the answer's ending."""
        answer = self.answer
        if answer.ending == "silent":
            yield from [self.comment] * SILENCE
            return
        for number, (kind, members) in enumerate(self._events()):
            if answer.is_malformed and kind == "response.output_text.done":
                yield _BROKEN
            # What closes a text repeats it whole, however long it is.
            yield from filled(named_event(kind, {**members, "sequence_number": number}), answer.filler)
        if answer.is_finished or (answer.failure is not None and not answer.failure_is_last):
            yield from self.last()

    def _events(self) -> Events:
        answer = self.answer
        for kind in ("response.created", "response.in_progress"):
            yield kind, {"response": self._envelope("in_progress", [])}
        yield from events_of(self._items(), answer)
        if answer.failure is not None and answer.failure_is_last:
            yield "error", self.last_error()
        elif answer.failure is not None or answer.is_finished:
            final = self._final()
            yield f"response.{final['status']}", {"response": final}

    def _items(self) -> list[Item]:
        items = output_items(self.answer, self._token)
        if items and self._status() != "completed":
            items[-1]["status"] = "incomplete"
        return items

    def _status(self) -> str:
        if self.answer.failure is not None:
            return "failed"
        return "incomplete" if self.answer.finish_reason in _INCOMPLETE else "completed"

    def _final(self) -> Item:
        """The whole answer; one that failed has the text that was told before."""
        answer, status = self.answer, self._status()
        if answer.failure is not None:
            half = type(self)(self.question, replace(answer, pieces=answer.half))
            half.id, half._token = self.id, self._token
            return {**self._envelope(status, half._items()), "usage": self.usage(), **self.failure()}
        final = self._envelope(status, self._items()) | {"usage": self.usage()}
        if answer.finish_reason in _INCOMPLETE:
            return final | {"incomplete_details": {"reason": _INCOMPLETE[answer.finish_reason]}}
        return final | {"completed_at": int(time.time())}

    def _envelope(self, status: str, items: list[Item]) -> Item:
        asked = self.question.body
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "completed_at": None,
            "status": status,
            "error": None,
            "frequency_penalty": 0.0,
            "incomplete_details": None,
            "model": self.question.model,
            "output": items,
            "presence_penalty": 0.0,
            "reasoning": object_or_empty(asked.get("reasoning")) or {"effort": None, "summary": None},
            **{name: default if asked.get(name) is None else asked[name] for name, default in _ECHOED.items()},
            "metadata": object_or_empty(asked.get("metadata")),
            "usage": None,
        }

    def _counts(self) -> Item:
        bill = self.bill
        return {
            "input_tokens": bill.prompt_tokens,
            "input_tokens_details": {
                "cached_tokens": bill.cached_tokens,
                "cache_write_tokens": bill.cache_write_tokens,
            },
            "output_tokens": bill.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": bill.reasoning_tokens},
            "total_tokens": bill.total_tokens,
        }


class GatewayResponse(ResponseCompletion):
    """An answer as OpenAI gives it, which the gateway hands on."""

    id_prefix = "resp_"
    comment = b": ping\n\n"

    def usage(self) -> Item:
        """Return what it used."""
        return self._counts()

    def failure(self) -> Item:
        """Return the members of an answer that failed."""
        return {"error": {"code": "server_error", "message": _FAILED}}

    def last_error(self) -> Item:
        """Return the members of the event that ends a stream: the reference has them at the top, recordings below."""
        return {"error": gateway.error(self.answer.failure or 502, _FAILED)}


class OpenRouterResponse(ResponseCompletion):
    """The same as OpenRouter gives it: comments first, what it cost beside the usage, and `[DONE]` last."""

    id_prefix = ""
    comment = openrouter.OpenRouterCompletion.comment

    def __init__(self, question: Question, answer: Answer) -> None:
        super().__init__(question, answer)
        self.id = f"gen-{self.created}-{self.id}"

    def opening(self) -> Iterator[bytes]:
        """Yield OpenRouter's comments."""
        yield from (self.comment, self.comment)

    def last(self) -> Iterator[bytes]:
        """Yield `[DONE]`."""
        yield DONE

    def usage(self) -> Item:
        """Return what it used and cost."""
        bill, is_byok = self.bill, self.answer.is_byok
        return {
            **self._counts(),
            "cost": bill.fee if is_byok else bill.upstream_cost,
            "is_byok": is_byok,
            "cost_details": {
                "upstream_inference_cost": bill.upstream_cost,
                "upstream_inference_input_cost": bill.prompt_cost,
                "upstream_inference_output_cost": bill.completion_cost,
            },
        }

    def failure(self) -> Item:
        """Return the members of an answer that failed: OpenRouter's own type of the error stands at the top."""
        error_type = openrouter.error_type(self.answer.failure or 502)
        return {"error": {"code": "server_error", "message": _FAILED}, "error_type": error_type}

    def last_error(self) -> Item:
        """Return the members of the event that ends a stream, as the reference has them."""
        return {"code": "server_error", "message": _FAILED, "param": None}

    def _envelope(self, status: str, items: list[Item]) -> Item:
        return super()._envelope(status, items) | {"store": False}
