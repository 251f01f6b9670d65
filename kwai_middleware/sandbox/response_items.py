"""The items of the Responses API: what was asked in them, and what is answered."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Final

from kwai_middleware.sandbox.answers import Answer
from kwai_middleware.sandbox.completions import FILLER_MARK
from kwai_middleware.sandbox.json_types import is_array, is_object, object_or_empty

__all__ = ["Item", "chat_request", "output_items", "text_part"]

Item = dict[str, object]

_SEALED: Final = base64.b64encode(b"sealed").decode()
_BASE64_IMAGE: Final = "base64,"


def chat_request(body: Mapping[str, object]) -> dict[str, object]:
    """Return a request of the Responses API as a chat request, as far as answers depend on it."""
    instructions, asked = body.get("instructions"), body.get("input")
    messages: list[object] = [{"role": "system", "content": instructions}] if isinstance(instructions, str) else []
    if isinstance(asked, str):
        messages.append({"role": "user", "content": asked})
    messages += [_chat_message(item) for item in (asked if is_array(asked) else ()) if is_object(item)]
    return {**body, "messages": messages, "n": 1}


def _chat_message(item: Mapping[str, object]) -> Item:
    """A result of a function is said by the tool, a call and a thought of before by the model."""
    kind = item.get("type", "message")
    if kind == "function_call_output":
        return {"role": "tool", "content": item.get("output")}
    if kind == "function_call":
        return {"role": "assistant", "content": f"{item.get('name')}{item.get('arguments')}"}
    if kind == "reasoning":
        return {"role": "assistant", "content": item.get("summary")}
    return {"role": item.get("role"), "content": item.get("content")}


def output_items(answer: Answer, token: str) -> list[Item]:
    """Return what is answered, as items; a text that is filled up has a mark where it is.

    Args:
        answer: What is answered.
        token: What makes the items' ids this answer's own.
    """
    items: list[Item] = []
    if answer.reasoning:
        items.append(_reasoning(answer, token))
    parts = _parts(answer)
    if parts:
        items.append(
            {
                "id": f"msg_{token}",
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": parts,
            }
        )
    calls: list[Item] = [
        {
            "id": f"fc_{token}_{index}",
            "type": "function_call",
            "status": "completed",
            "call_id": call.id,
            "name": call.name,
            "arguments": call.arguments,
        }
        for index, call in enumerate(answer.tool_calls)
    ]
    images: list[Item] = [
        {"id": f"ig_{token}_{index}", "type": "image_generation_call", "status": "completed", "result": image}
        for index, image in enumerate(url.partition(_BASE64_IMAGE)[2] for url in answer.images if _BASE64_IMAGE in url)
    ]
    return [*items, *calls, *images]


def text_part(text: str, annotations: list[Item]) -> Item:
    """Return a part of a message that is text."""
    return {"type": "output_text", "annotations": annotations, "logprobs": [], "text": text}


def _parts(answer: Answer) -> list[object]:
    text = answer.text + (FILLER_MARK if answer.filler else "")
    citations = [{"type": "url_citation", **object_or_empty(each.get("url_citation"))} for each in answer.annotations]
    parts: list[object] = [text_part(text, citations)] if text else []
    if answer.refusal:
        parts.append({"type": "refusal", "refusal": answer.refusal})
    return parts


def _reasoning(answer: Answer, token: str) -> Item:
    """What was thought: summed up, and where it is told in detail also in full and sealed."""
    item: Item = {
        "id": f"rs_{token}",
        "type": "reasoning",
        "status": "completed",
        "summary": [{"type": "summary_text", "text": answer.reasoning}],
    }
    if answer.is_detailed:
        item |= {
            "content": [{"type": "reasoning_text", "text": answer.reasoning}],
            "encrypted_content": _SEALED,
        }
    return item
