"""The events of the Responses API that build up the items of an answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from kwai_middleware.sandbox.answers import Answer
from kwai_middleware.sandbox.completions import filler_of
from kwai_middleware.sandbox.json_types import is_array, object_or_empty
from kwai_middleware.sandbox.response_items import Item, text_part

__all__ = ["Events", "events_of"]

Events = Iterator[tuple[str, Item]]


def events_of(items: list[Item], answer: Answer) -> Events:
    """Yield the kind and the members of each event: one item after the other, or tool calls in turn.

    Args:
        items: What the events build up.
        answer: How the text is cut, and whether it is told to its end.
    """
    each = [_numbered(index, item, answer) for index, item in enumerate(items)]
    yield from chain.from_iterable(zip(*each, strict=True) if answer.is_parallel else each)


def _numbered(index: int, item: Item, answer: Answer) -> Events:
    in_item = {"item_id": item["id"], "output_index": index}
    bare: Item = {**item, "status": "in_progress"}
    for name in ("content", "summary"):
        if name in item:
            bare[name] = []
    if item["type"] == "function_call":
        bare["arguments"] = ""
    if item["type"] == "image_generation_call":
        bare["result"] = None
    yield "response.output_item.added", {"output_index": index, "item": bare}
    for kind, members in _building(item, answer):
        yield f"response.{kind}", {**in_item, **members}
    if item["type"] != "message" or answer.is_told_whole:
        yield "response.output_item.done", {"output_index": index, "item": item}


def _building(item: Item, answer: Answer) -> Events:
    if item["type"] == "function_call":
        for half in _halves(str(item["arguments"])):
            yield "function_call_arguments.delta", {"delta": half}
        yield "function_call_arguments.done", {"name": item["name"], "arguments": item["arguments"]}
    elif item["type"] == "image_generation_call":
        for stage in ("in_progress", "generating", "completed"):
            yield f"image_generation_call.{stage}", {}
    elif item["type"] == "reasoning":
        yield from _reasoning(item)
    else:
        for index, part in enumerate(_parts(item, "content")):
            for kind, members in _text(part, answer) if part["type"] == "output_text" else _refusal(part):
                yield kind, {"content_index": index, **members}


def _text(part: Item, answer: Answer) -> Events:
    yield "content_part.added", {"part": text_part("", [])}
    for piece in chain(answer.streamed, (filler.decode() for filler in filler_of(answer.filler))):
        yield "output_text.delta", {"delta": piece, "logprobs": []}
    if answer.is_told_whole:
        for index, annotation in enumerate(_parts(part, "annotations")):
            yield "output_text.annotation.added", {"annotation_index": index, "annotation": annotation}
        yield "output_text.done", {"text": part["text"], "logprobs": []}
        yield "content_part.done", {"part": part}


def _refusal(part: Item) -> Events:
    yield "content_part.added", {"part": part | {"refusal": ""}}
    for half in _halves(str(part["refusal"])):
        yield "refusal.delta", {"delta": half}
    yield "refusal.done", {"refusal": part["refusal"]}
    yield "content_part.done", {"part": part}


def _reasoning(item: Item) -> Events:
    for index, summary in enumerate(_parts(item, "summary")):
        place: Item = {"summary_index": index}
        yield "reasoning_summary_part.added", {**place, "part": summary | {"text": ""}}
        for half in _halves(str(summary["text"])):
            yield "reasoning_summary_text.delta", {**place, "delta": half}
        yield "reasoning_summary_text.done", {**place, "text": summary["text"]}
        yield "reasoning_summary_part.done", {**place, "part": summary}
    for index, part in enumerate(_parts(item, "content")):
        place = {"content_index": index}
        yield "content_part.added", {**place, "part": part | {"text": ""}}
        for half in _halves(str(part["text"])):
            yield "reasoning_text.delta", {**place, "delta": half}
        yield "reasoning_text.done", {**place, "text": part["text"]}
        yield "content_part.done", {**place, "part": part}


def _parts(item: Item, name: str) -> list[Item]:
    parts = item.get(name)
    return [object_or_empty(part) for part in parts] if is_array(parts) else []


def _halves(text: str) -> Iterable[str]:
    half = len(text) // 2
    return text[:half], text[half:]
