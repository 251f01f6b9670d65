"""Token counts of a `usage` object, and the search for one in the end of a shortened answer."""

from __future__ import annotations

import json
from typing import Any, Final

from kwai_middleware._outbound.formats import tolerant
from kwai_middleware._outbound.formats.interface import Tokens

__all__ = ["count_in", "last_in", "merged", "tokens_in"]

_NAME: Final = b'"usage":'
_MOST: Final = 2**53
_LONGEST: Final = 16 * 1024
_MOST_PLACES: Final = 16
_decoder: Final = json.JSONDecoder()


def tokens_in(usage: dict[str, Any]) -> Tokens:
    """Return the counts, under either of OpenAI's names for them; what is not a whole number is None."""
    prompt_details = tolerant.members_of(usage.get("prompt_tokens_details", usage.get("input_tokens_details")))
    completion_details = tolerant.members_of(usage.get("completion_tokens_details", usage.get("output_tokens_details")))
    return Tokens(
        prompt=count_in(usage, "prompt_tokens", "input_tokens"),
        completion=count_in(usage, "completion_tokens", "output_tokens"),
        total=count_in(usage, "total_tokens"),
        cached=count_in(prompt_details, "cached_tokens"),
        cache_write=count_in(prompt_details, "cache_write_tokens"),
        reasoning=count_in(completion_details, "reasoning_tokens"),
    )


def merged(earlier: dict[str, Any] | None, later: dict[str, Any]) -> dict[str, Any]:
    """Return one usage of two: some servers send tokens in one chunk and the cost in another.

    The earlier one, if there is one, is changed: copied for each of many chunks it would take quadratic time.
    """
    usage = {} if earlier is None else earlier
    usage.update((name, value) for name, value in later.items() if value is not None)
    return usage


def last_in(end: bytes) -> dict[str, Any] | None:
    """Find the last `usage` object in the end of a JSON answer whose middle was not kept."""
    place = end.rfind(_NAME)
    for _ in range(_MOST_PLACES):
        if place < 0:
            break
        start = place + len(_NAME)
        text = end[start : start + _LONGEST].decode(errors="replace").lstrip()
        try:
            usage = tolerant.members_of(_decoder.raw_decode(text)[0])
        except (ValueError, RecursionError):
            usage = {}
        if usage:
            return usage
        place = end.rfind(_NAME, 0, place)
    return None


def count_in(members: dict[str, Any], *names: str) -> int | None:
    """Return the first of several members that is a count; None without one."""
    for name in names:
        count = members.get(name)
        if type(count) is int and 0 <= count < _MOST:
            return count
    return None
