"""Embeddings: texts in, vectors out, which a record tells of and never holds."""

from __future__ import annotations

from typing import Final

import msgspec

from kwai_middleware._outbound.formats import tolerant, usage
from kwai_middleware._outbound.formats.asking import request_members, words, written
from kwai_middleware._outbound.formats.facts import Facts
from kwai_middleware._outbound.formats.interface import Answer, Received, Request
from kwai_middleware._outbound.formats.long_values import ReadingWithout
from kwai_middleware._outbound.formats.parameters import without_keys
from kwai_middleware._pace import breathe, windows

__all__ = ["answer", "request"]

_BYTES_OF_A_NUMBER: Final = 4


def request(body: bytes) -> Request:
    """Read a request's body; see `Format`."""
    members = request_members(body)
    given = written(members.pop("input", None))
    return Request(
        model=words(members.pop("model", None)),
        input=given,
        parameters=without_keys(members),
    )


def answer(received: Received, request: Request) -> Answer:
    """Read an answer's body; see `Format`. No vendor streams embeddings: of events only errors and usage are read."""
    reading = ReadingWithout(received, "embedding")
    facts = Facts()
    output = finished = None
    if received.streamed:
        for told in reading.events(_nothing):
            facts.add(told.members)
            if told.is_done or facts.failure:
                finished = told.end
                break
    else:
        members, finished = reading.at_once()
        facts.add(members)
        facts.add_usage(usage.last_in(reading.end))
        if isinstance(members.get("data"), list):
            output = _told_of(tolerant.items_of(members["data"]), reading.values, is_whole=finished is not None)
    return reading.mended(facts.answer(output=output, finished=finished, ends_with_body=received.streamed))


def _nothing() -> None:
    """Events that are missing leave no mark in what is not kept."""


def _told_of(items: object, vectors: list[memoryview], *, is_whole: bool) -> bytes:
    """Return how many vectors of how many numbers there are, as a JSON text."""
    sizes: set[int] = set()
    count = 0
    for item in tolerant.items_of(items):
        size = _size(tolerant.members_of(item).get("embedding"), vectors)
        if size is not None:
            sizes.add(size)
            count += 1
        breathe()
    told = f"{count if is_whole else f'at least {count}'} {'embedding' if count == 1 else 'embeddings'}"
    if sizes:
        smallest, largest = min(sizes), max(sizes)
        told += f" of {smallest} dimensions" if smallest == largest else f" of {smallest} to {largest} dimensions"
    return msgspec.json.encode(f"[{told}]")


def _size(vector: object, vectors: list[memoryview]) -> int | None:
    """Return how many numbers there are in a vector, given by its place, or as it came; None when it is none."""
    if type(vector) is int and 0 <= vector < len(vectors):
        return _size_as_written(vectors[vector])
    return len(tolerant.items_of(vector)) or None


def _size_as_written(vector: memoryview) -> int:
    if bytes(vector[:1]) == b'"':
        # Base64 of numbers of four bytes each; some servers write a slash with a backslash.
        text = bytes(vector[1:-1]).replace(b"\\/", b"/")
        return len(text) * 3 // 4 // _BYTES_OF_A_NUMBER
    commas = sum(bytes(vector[start:end]).count(b",") for start, end in windows(len(vector)))
    return commas + 1 if commas or bytes(vector[1:-1]).strip() else 0
